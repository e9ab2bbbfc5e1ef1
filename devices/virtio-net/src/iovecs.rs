//! Lists of host addresses that stay with a thread's state between frames.

/// Pieces of memory for `readv(2)` and `writev(2)`. Whoever fills the list keeps what it names alive.
#[derive(Debug, Default)]
pub(crate) struct IoVecs(pub(crate) Vec<libc::iovec>);

#[expect(unsafe_code, reason = "raw pointers do not move between threads by themselves")]
// SAFETY: an address means the same on every thread, and the list is only used by its owner, one thread at a time; that
// the memory behind it lives is the owner's promise, wherever it runs.
unsafe impl Send for IoVecs {}

/// How many pieces one system call takes (`UIO_MAXIOV` in the kernel), less one for what is added to a frame.
pub(crate) const PIECES_MAX: usize = 1023;
