//! One queue of a tap.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use crate::interface::{self, Interface};

bitflags::bitflags! {
    /// What the guest takes off the host's hands: the kernel may hand over frames that are unfinished in these ways
    /// (`TUN_F_*` in <linux/if_tun.h>).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Offloads: u32 {
        /// Checksums that are not filled in; the others need it.
        const CSUM = libc::TUN_F_CSUM;
        /// TCP over IPv4 that is not segmented.
        const TSO4 = libc::TUN_F_TSO4;
        /// TCP over IPv6 that is not segmented.
        const TSO6 = libc::TUN_F_TSO6;
        /// Unsegmented TCP with explicit congestion notification.
        const ECN = libc::TUN_F_TSO_ECN;
        /// UDP that is not segmented, over IPv4 and IPv6; since Linux 6.2.
        const USO = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    }
}

/// One queue of a tap: an open file that reads and writes one frame at a time, with its header, and never waits.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
    /// Whether the kernel delivers frames here.
    attached: Mutex<bool>,
}

impl TapQueue {
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self { file: File::from(file), attached: Mutex::new(true) }
    }

    /// Reads the next frame into `buffers`, its header first, and says how long both are together, at most what fits.
    /// What does not fit is lost: give it room for [`crate::HEADER_BYTES`] + [`crate::FRAME_MAX_BYTES`].
    ///
    /// # Errors
    /// `WouldBlock` when there is none, `EBADFD` when the interface is gone.
    ///
    /// # Safety
    /// Every element of `buffers` names memory that may be written to for the length of the call. Others may change
    /// it at the same time: it is only ever copied to.
    #[expect(unsafe_code, reason = "frames go straight to guest memory")]
    pub unsafe fn read_vectored(&self, buffers: &[libc::iovec]) -> io::Result<usize> {
        let count = i32::try_from(buffers.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the pointer and the count describe `buffers`; what they name is the caller's promise.
        let n = unsafe { libc::readv(self.file.as_raw_fd(), buffers.as_ptr(), count) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the frame in `buffers`, which start with its header.
    ///
    /// # Errors
    /// `WouldBlock` when the tap is full, `EBADFD` when the interface is gone, `EIO` while it is down, and what the kernel says about a frame that it does not like.
    ///
    /// # Safety
    /// Every element of `buffers` names memory that may be read from for the length of the call. Others may change it
    /// at the same time: it is only ever copied from.
    #[expect(unsafe_code, reason = "frames come straight from guest memory")]
    pub unsafe fn write_vectored(&self, buffers: &[libc::iovec]) -> io::Result<usize> {
        let count = i32::try_from(buffers.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the pointer and the count describe `buffers`; what they name is the caller's promise.
        let n = unsafe { libc::writev(self.file.as_raw_fd(), buffers.as_ptr(), count) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Says which unfinished frames may be handed over from now on, by every queue of the tap.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.value_request(libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads.bits()))
    }

    /// Attaches the queue to its interface or detaches it. A detached queue gets no frames. Nothing happens if it is so
    /// already; the only queue of a single-queue tap cannot be detached.
    pub fn set_attached(&self, attach: bool) -> io::Result<()> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if *attached != attach {
            self.request_attached(attach)?;
            *attached = attach;
        }
        Ok(())
    }

    /// Attaches a queue that an earlier owner of the descriptor may have detached; one that is attached says `EINVAL`.
    pub(crate) fn attach_again(&self) {
        let _ = self.request_attached(true);
    }

    fn request_attached(&self, attach: bool) -> io::Result<()> {
        let flags = if attach { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let with = Interface { name: String::new(), flags };
        interface::request(self.file.as_fd(), libc::TUNSETQUEUE, &with).map(|_| ())
    }

    pub(crate) fn set_header_bytes(&self, len: i32) -> io::Result<()> {
        #[expect(unsafe_code, reason = "an ioctl")]
        // SAFETY: the request reads one int, which lives across the call.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn value_request(&self, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
        #[expect(unsafe_code, reason = "an ioctl")]
        // SAFETY: callers pass only requests whose argument is a number.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), request, value) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for TapQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
