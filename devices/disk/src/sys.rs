//! The system calls that the standard library does not bring, each as one safe function.

use std::ffi::{c_int, c_ulong};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

/// What `O_DIRECT` demands of one image, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Of buffer addresses and of the length of each piece.
    pub(crate) memory: usize,
    /// Of offsets and lengths in the image.
    pub(crate) offset: u32,
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A lock that belongs to the open file description (`fcntl(2)`, "Open file description locks").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Nobody else has any.
    Exclusive,
    /// Others may read as well.
    Shared,
    /// Let go.
    None,
}

/// A range of a file for locks; a length of 0 goes to the end of all offsets.
fn range_lock(lock: Lock, start: u64, len: u64) -> libc::flock {
    let kind = match lock {
        Lock::Exclusive => libc::F_WRLCK,
        Lock::Shared => libc::F_RDLCK,
        Lock::None => libc::F_UNLCK,
    };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: i64::try_from(start).unwrap_or(i64::MAX),
        l_len: i64::try_from(len).unwrap_or_default(),
        l_pid: 0,
    }
}

/// Sets the lock of `len` bytes from `start` on, or to the end if `len` is 0.
pub(crate) fn lock(file: &File, lock: Lock, start: u64, len: u64) -> io::Result<()> {
    let lock = range_lock(lock, start, len);
    #[expect(unsafe_code, reason = "fcntl(2) is variadic")]
    // SAFETY: the descriptor is open while `file` is borrowed, and `lock` is the argument that F_OFD_SETLK reads.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    check(result).map(drop)
}

/// Where the first lock of somebody else begins in `len` bytes from `start` on, not before `start`.
pub(crate) fn locked_at(file: &File, start: u64, len: u64) -> io::Result<Option<u64>> {
    let mut lock = range_lock(Lock::Exclusive, start, len);
    #[expect(unsafe_code, reason = "fcntl(2) is variadic")]
    // SAFETY: the descriptor is open while `file` is borrowed, and `lock` is what F_OFD_GETLK reads and writes.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    check(result)?;
    let free = i32::from(lock.l_type) == libc::F_UNLCK;
    Ok((!free).then(|| u64::try_from(lock.l_start).unwrap_or_default().max(start)))
}

/// The file status flags (`F_GETFL`).
pub(crate) fn flags(file: &File) -> io::Result<c_int> {
    #[expect(unsafe_code, reason = "fcntl(2) is variadic")]
    // SAFETY: the descriptor is open while `file` is borrowed; F_GETFL takes no argument.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    check(result)
}

/// Changes the file status flags (`F_SETFL`).
pub(crate) fn set_flags(file: &File, flags: c_int) -> io::Result<()> {
    #[expect(unsafe_code, reason = "fcntl(2) is variadic")]
    // SAFETY: the descriptor is open while `file` is borrowed; F_SETFL takes an int.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    check(result).map(drop)
}

/// A block device's logical and physical block size in bytes.
pub(crate) fn block_sizes(file: &File) -> io::Result<(u32, u32)> {
    let read = |request: c_ulong| -> io::Result<u32> {
        let mut value: u32 = 0;
        #[expect(unsafe_code, reason = "ioctl(2) is variadic")]
        // SAFETY: the descriptor is open while `file` is borrowed; both requests write one 32-bit integer.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut value) };
        check(result).map(|_| value)
    };
    Ok((read(BLKSSZGET)?, read(BLKPBSZGET)?))
}

// linux/fs.h: _IO(0x12, 104) and _IO(0x12, 123).
const BLKSSZGET: c_ulong = 0x1268;
const BLKPBSZGET: c_ulong = 0x127b;

/// What the kernel says about `O_DIRECT` on this file (`statx(2)`, `STATX_DIOALIGN`, Linux 6.1); `None` where it does
/// not say.
pub(crate) fn direct_alignment(file: &File) -> Option<Alignment> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    #[expect(unsafe_code, reason = "statx(2) with an empty path")]
    // SAFETY: the descriptor is open while `file` is borrowed, the path is a C string, `stat` has the right size.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    check(result).ok()?;
    #[expect(unsafe_code, reason = "the structure was zeroed, then filled")]
    // SAFETY: all zeroes is a valid `statx`, and so is what the kernel wrote.
    let stat = unsafe { stat.assume_init() };
    let memory = usize::try_from(stat.stx_dio_mem_align).ok()?;
    let known = stat.stx_mask & libc::STATX_DIOALIGN != 0 && memory > 0 && stat.stx_dio_offset_align > 0;
    known.then_some(Alignment { memory, offset: stat.stx_dio_offset_align })
}

/// `fallocate(2)`.
pub(crate) fn allocate(fd: RawFd, mode: c_int, at: i64, len: i64) -> io::Result<()> {
    #[expect(unsafe_code, reason = "a system call without a wrapper")]
    // SAFETY: takes numbers only; a descriptor that is not open is an error.
    let result = unsafe { libc::fallocate(fd, mode, at, len) };
    check(result).map(drop)
}

/// `fdatasync(2)`.
pub(crate) fn sync_data(fd: RawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "a system call without a wrapper for raw descriptors")]
    // SAFETY: takes a number only; a descriptor that is not open is an error.
    let result = unsafe { libc::fdatasync(fd) };
    check(result).map(drop)
}

/// A file that is nowhere but in memory (`memfd_create(2)`).
#[cfg(feature = "kit")]
pub(crate) fn memory_file(name: &std::ffi::CStr) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    #[expect(unsafe_code, reason = "a system call without a wrapper")]
    // SAFETY: `name` is a C string; the descriptor that comes back is new and owned by nobody else.
    unsafe {
        let fd = check(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC))?;
        Ok(File::from_raw_fd(fd))
    }
}
