//! A tap: opened by name, or passed in as descriptors.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{DescriptorProblem, TapError};
use crate::interface::{self, Interface};
use crate::queue::{Offloads, TapQueue};

/// The kernel's limit: `MAX_TAP_QUEUES` in drivers/net/tun.c.
const QUEUES_MAX: usize = 256;

/// What every queue must be: Ethernet frames, no protocol header, a virtio header.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A tap interface, ready for use: its header is [`crate::HEADER_BYTES`] long, nothing is offloaded to the reader, every
/// queue is attached and never waits.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<TapQueue>,
    supported: Offloads,
}

impl Tap {
    /// Opens `queues` queues of the tap called `name`, which must exist: this never makes an interface.
    pub fn open_named(name: &str, queues: usize) -> Result<Self, TapError> {
        if !interface::is_valid_name(name) {
            return Err(TapError::BadName(name.to_owned()));
        }
        if queues == 0 || queues > QUEUES_MAX {
            return Err(TapError::BadQueueCount(queues));
        }
        let index = interface::index(name).ok_or_else(|| TapError::Gone(name.to_owned()))?;
        let mut open = Vec::with_capacity(queues);
        for _ in 0..queues {
            open.push(TapQueue::new(open_queue(name, queues)?));
        }
        // If it went away meanwhile, the kernel has made a new one, which goes away again with its only descriptors.
        if interface::index(name) != Some(index) {
            return Err(TapError::Gone(name.to_owned()));
        }
        // The flags are those of whoever attached first and is still there.
        if open.iter().any(|queue| examine(queue.as_fd()).is_err()) {
            return Err(TapError::Busy(name.to_owned()));
        }
        Self::prepare(name.to_owned(), open)
    }

    /// Takes the descriptors of a tap's queues over, each opened elsewhere with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Result<Self, TapError> {
        if fds.is_empty() || fds.len() > QUEUES_MAX {
            return Err(TapError::BadQueueCount(fds.len()));
        }
        let mut first: Option<Interface> = None;
        for (position, fd) in fds.iter().enumerate() {
            let refuse = |problem| TapError::Descriptor { position, fd: fd.as_raw_fd(), problem };
            let found = examine(fd.as_fd()).map_err(refuse)?;
            match &first {
                None => first = Some(found),
                Some(first) if first.name != found.name => {
                    let (first, found) = (first.name.clone(), found.name);
                    return Err(refuse(DescriptorProblem::OtherInterface { first, found }));
                }
                Some(first) if first.flags & libc::IFF_MULTI_QUEUE == 0 => {
                    return Err(refuse(DescriptorProblem::SingleQueue));
                }
                Some(_) => {}
            }
        }
        let name = first.map(|found| found.name).unwrap_or_default();
        for fd in &fds {
            set_nonblocking(fd.as_fd()).map_err(|e| kernel("use a descriptor of", &name, e))?;
        }
        Self::prepare(name, fds.into_iter().map(TapQueue::new).collect())
    }

    fn prepare(name: String, queues: Vec<TapQueue>) -> Result<Self, TapError> {
        let header_bytes = i32::try_from(crate::HEADER_BYTES).unwrap_or(i32::MAX);
        let mut supported = Offloads::empty();
        queues.iter().for_each(TapQueue::attach_again);
        if let Some(queue) = queues.first() {
            queue
                .set_header_bytes(header_bytes)
                .map_err(|e| kernel("set the length of the header of", &name, e))?;
            supported = [Offloads::all(), Offloads::all() - Offloads::USO, Offloads::CSUM]
                .into_iter()
                .find(|set| queue.set_offloads(*set).is_ok())
                .unwrap_or_default();
            queue.set_offloads(Offloads::empty()).map_err(|e| kernel("set the offloads of", &name, e))?;
        }
        Ok(Self { name, queues, supported })
    }

    /// The interface's name; for passed descriptors, its name in the network namespace where it lives.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many queues it has, at least one.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The same tap, for a card that takes and gives finished frames only.
    pub fn without_offloads(self) -> Self {
        Self { supported: Offloads::empty(), ..self }
    }

    /// Which unfinished frames this kernel can hand over.
    pub fn supported_offloads(&self) -> Offloads {
        self.supported
    }

    /// The queues, for their threads.
    pub fn into_queues(self) -> Vec<TapQueue> {
        self.queues
    }
}

/// One more queue of the existing tap `name`; `wanted` is how many there will be.
fn open_queue(name: &str, wanted: usize) -> Result<OwnedFd, TapError> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        options.open("/dev/net/tun").map(OwnedFd::from).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver,
            Some(libc::EACCES | libc::EPERM) => TapError::DriverPermission,
            _ => kernel("open /dev/net/tun for", name, e),
        })
    };
    let attach = |fd: &OwnedFd, flags| {
        interface::request(fd.as_fd(), libc::TUNSETIFF, &Interface { name: name.to_owned(), flags })
    };
    let fd = open()?;
    let Err(error) = attach(&fd, FLAGS | libc::IFF_MULTI_QUEUE) else { return Ok(fd) };
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Err(refused(name, error));
    }
    // Either no tap at all, or one that was made for a single queue.
    match attach(&fd, FLAGS) {
        Ok(_) if wanted == 1 => Ok(fd),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(TapError::NotTap(name.to_owned())),
        Err(error) if wanted == 1 => Err(refused(name, error)),
        _ => Err(TapError::SingleQueue { name: name.to_owned(), queues: wanted }),
    }
}

fn refused(name: &str, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::E2BIG) => TapError::Busy(name.to_owned()),
        Some(libc::EPERM | libc::EACCES) => TapError::Permission(name.to_owned()),
        _ => kernel("attach to", name, error),
    }
}

/// What a passed descriptor is, if it will do.
fn examine(fd: BorrowedFd<'_>) -> Result<Interface, DescriptorProblem> {
    let nothing = Interface { name: String::new(), flags: 0 };
    let found = interface::request(fd, libc::TUNGETIFF, &nothing).map_err(|e| match e.raw_os_error() {
        Some(libc::EBADFD) => DescriptorProblem::Detached,
        _ => DescriptorProblem::NotTap,
    })?;
    if found.flags & libc::IFF_TAP == 0 {
        return Err(DescriptorProblem::Tun);
    }
    if found.flags & libc::IFF_VNET_HDR == 0 {
        return Err(DescriptorProblem::NoVnetHeader);
    }
    if found.flags & libc::IFF_NO_PI == 0 {
        return Err(DescriptorProblem::PacketInformation);
    }
    Ok(found)
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "fcntl")]
    // SAFETY: neither command takes a pointer.
    let result = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags < 0 { flags } else { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn kernel(what: &'static str, name: &str, source: io::Error) -> TapError {
    TapError::Kernel { what, name: name.to_owned(), source }
}
