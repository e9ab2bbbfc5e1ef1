//! `struct ifreq` and the few requests that take one (netdevice(7), tuntap.rst).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The name and flags of an interface as `struct ifreq` carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) flags: i32,
}

/// Whether the kernel would take `name` for an interface (`dev_valid_name` in net/core/dev.c). A `%` is refused too: it
/// would be a pattern for new names.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/:%".contains(&b))
}

/// The number of the interface called `name` in this network namespace.
pub(crate) fn index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    #[expect(unsafe_code, reason = "a libc function without a safe wrapper")]
    // SAFETY: the pointer is to a C string that lives across the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Carries out `request`, which passes a `struct ifreq` with a name and flags both ways.
pub(crate) fn request(fd: BorrowedFd<'_>, request: libc::Ioctl, with: &Interface) -> io::Result<Interface> {
    let mut ifr = blank(&with.name);
    ifr.ifr_ifru.ifru_flags = i16::try_from(with.flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: callers pass only requests that read and write one `struct ifreq`, which lives across the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut ifr) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "a union of C")]
    // SAFETY: the field was initialised above, and every pattern of bits is a valid integer.
    let flags = i32::from(unsafe { ifr.ifr_ifru.ifru_flags });
    let name = ifr.ifr_name.iter().take_while(|c| **c != 0).map(|c| char::from(c.to_ne_bytes()[0])).collect();
    Ok(Interface { name, flags })
}

/// An `ifreq` for the interface `name`, of which the first 15 bytes count; everything else is zero.
pub(crate) fn blank(name: &str) -> libc::ifreq {
    #[expect(unsafe_code, reason = "a struct of C with a union in it")]
    // SAFETY: `ifreq` is plain data; all zeroes is a valid value of each of its variants.
    let mut ifr: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in ifr.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    ifr
}
