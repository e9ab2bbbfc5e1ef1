//! A network of a test's own: a namespace with taps in it, and sockets that see what a tap's other end sees. Needs root
//! and `/dev/net/tun`; where that is not to be had, it says so.

use std::fs::OpenOptions;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::interface::{self, Interface};

/// The network namespace of the calling thread: new, empty, and gone with its last thread and descriptor. Threads that
/// are started from here on live in it too.
#[derive(Debug)]
pub struct Namespace {
    socket: OwnedFd,
}

impl Namespace {
    /// Moves the calling thread into a new network namespace.
    pub fn enter() -> io::Result<Self> {
        #[expect(unsafe_code, reason = "unshare(2)")]
        // SAFETY: no pointers; only the calling thread is affected.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        if result < 0 {
            let e = io::Error::last_os_error();
            return Err(io::Error::other(format!(
                "tests with a real tap need a network namespace (root): {e}"
            )));
        }
        // No router solicitations between a test's frames; a kernel without IPv6 sends none.
        match std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(Self { socket: socket(libc::AF_INET, libc::SOCK_DGRAM, 0)? }),
        }
    }

    /// Makes a lasting tap, as `ip tuntap add` does. `flags` are added to `IFF_TAP | IFF_NO_PI`: `IFF_MULTI_QUEUE`, say.
    pub fn add_tap(&self, name: &str, flags: i32) -> io::Result<()> {
        let tun = self.attach(name, flags)?;
        number(tun.as_raw_fd(), libc::TUNSETPERSIST, 1)
    }

    /// Attaches to a tap, which is made where there is none, and hands out the descriptor.
    pub fn attach(&self, name: &str, flags: i32) -> io::Result<OwnedFd> {
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(|e| {
            io::Error::other(format!(
                "tests with a real tap need /dev/net/tun to be readable and writable: {e}"
            ))
        })?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | flags;
        interface::request(tun.as_fd(), libc::TUNSETIFF, &Interface { name: name.to_owned(), flags })?;
        Ok(tun.into())
    }

    /// Takes a tap away, used or not, as `ip link delete` does.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        // RTM_DELLINK (rtnetlink(7)): struct nlmsghdr, struct ifinfomsg with the index.
        let index = interface::index(name).ok_or(io::ErrorKind::NotFound)?;
        let netlink = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        let mut message = Vec::new();
        message.extend(32u32.to_ne_bytes());
        message.extend(libc::RTM_DELLINK.to_ne_bytes());
        message.extend(5u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_ACK
        message.extend([0; 8 + 4]);
        message.extend(index.to_ne_bytes());
        message.extend([0; 8]);
        write(&netlink, &message)?;
        let mut answer = [0; 64];
        read(&netlink, &mut answer).map(|_| ())
    }

    /// Brings an interface up or down.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let flags = if up { libc::IFF_UP | libc::IFF_NOARP } else { 0 };
        let with = Interface { name: name.to_owned(), flags };
        interface::request(self.socket.as_fd(), libc::SIOCSIFFLAGS, &with).map(|_| ())
    }

    /// Gives an interface an IPv4 address in a network of 256.
    pub fn set_address(&self, name: &str, address: Ipv4Addr) -> io::Result<()> {
        for (request, value) in
            [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0))]
        {
            let mut ifr = interface::blank(name);
            ifr.ifr_ifru.ifru_addr = sockaddr(value);
            pass(self.socket.as_raw_fd(), request, &mut ifr)?;
        }
        Ok(())
    }

    /// Sets the longest packet of an interface, in bytes without its Ethernet header.
    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut ifr = interface::blank(name);
        ifr.ifr_ifru.ifru_mtu = i32::from(mtu);
        pass(self.socket.as_raw_fd(), libc::SIOCSIFMTU, &mut ifr)
    }

    /// A packet socket on an interface: it sends frames out of it and sees all that comes in, each behind a virtio
    /// header of 10 bytes (packet(7), `PACKET_VNET_HDR`).
    pub fn wire(&self, name: &str) -> io::Result<Wire> {
        const ETH_P_ALL: u16 = 3;
        const PACKET_VNET_HDR: i32 = 15;
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(ETH_P_ALL.to_be()))?;
        option(&fd, libc::SOL_PACKET, PACKET_VNET_HDR, &1i32)?;
        option(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        let deadline = libc::timeval { tv_sec: 10, tv_usec: 0 };
        option(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &deadline)?;
        let index = interface::index(name).ok_or(io::ErrorKind::NotFound)?;
        #[expect(unsafe_code, reason = "bind(2) with a sockaddr_ll")]
        // SAFETY: the address is plain data that lives across the call, and its length is its own.
        let result = unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
            address.sll_protocol = ETH_P_ALL.to_be();
            address.sll_ifindex = i32::try_from(index).unwrap_or_default();
            let len = u32::try_from(size_of_val(&address)).unwrap_or_default();
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Wire(fd)) }
    }
}

/// The host's end of a tap.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Sends a frame, behind its header, towards the reader of the tap.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        write(&self.0, frame).map(|_| ())
    }

    /// The next frame, behind its header, that was written to the tap; waits for it for ten seconds.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; 10 + crate::FRAME_MAX_BYTES];
        let len = read(&self.0, &mut frame)?;
        frame.truncate(len);
        Ok(frame)
    }

    /// Waits until nothing has been written to the tap for `quiet`; says how many frames were.
    pub fn count_until_quiet(&self, quiet: Duration) -> io::Result<usize> {
        let usec = quiet.subsec_micros().max(1);
        let timeout = libc::timeval { tv_sec: 0, tv_usec: libc::suseconds_t::from(usec) };
        option(&self.0, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
        let mut seen = 0usize;
        loop {
            match self.receive() {
                Ok(_) => seen = seen.saturating_add(1),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
                Err(e) => return Err(e),
            }
        }
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "socket(2)")]
    // SAFETY: no pointers; the result is a new descriptor of ours unless negative.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn option<T>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = u32::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    #[expect(unsafe_code, reason = "setsockopt(2)")]
    // SAFETY: the value lives across the call and its length is its own.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn write(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    #[expect(unsafe_code, reason = "write(2) on a socket")]
    // SAFETY: pointer and length are the slice's.
    let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn read(fd: &OwnedFd, bytes: &mut [u8]) -> io::Result<usize> {
    #[expect(unsafe_code, reason = "read(2) on a socket")]
    // SAFETY: pointer and length are the slice's.
    let n = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn number(fd: RawFd, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: callers pass only requests whose argument is a number.
    let result = unsafe { libc::ioctl(fd, request, value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pass(fd: RawFd, request: libc::c_ulong, ifr: &mut libc::ifreq) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: callers pass only requests that take one `struct ifreq`, which lives across the call.
    let result = unsafe { libc::ioctl(fd, request, std::ptr::from_mut(ifr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct sockaddr_in` in the shape of `struct sockaddr` (ip(7)): a port of two bytes, then the address.
fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr { sa_family: u16::try_from(libc::AF_INET).unwrap_or_default(), sa_data: data }
}
