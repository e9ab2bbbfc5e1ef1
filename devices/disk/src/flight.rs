//! One operation on its way: what the kernel is to do next, and what its answer means. No system calls here.

use std::io;

use crate::Completion;
use crate::engine::Operation;
use crate::host::HostFile;
use crate::memory::{BOUNCE_BYTES, Bounce, Memory, Pieces, ZEROES};

/// How often in a row `EAGAIN` is believed.
const RETRIES_MAX: u32 = 64;

/// What the kernel is to do next. Pointers stay valid until the flight's next [`Flight::advance`] or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `preadv(2)`, or `pwritev(2)`.
    Vectored { write: bool, pieces: *const libc::iovec, count: u32, at: u64 },
    /// `pread(2)`, or `pwrite(2)`.
    Plain { write: bool, memory: *mut u8, len: u32, at: u64 },
    /// `fdatasync(2)`.
    Sync,
    /// `fallocate(2)`.
    Allocate { mode: i32, at: u64, len: u64 },
}

/// What the kernel's answer means.
pub(crate) enum Progress {
    /// There is another [`Step`] to take.
    Again,
    /// The operation is finished.
    Done(io::Result<()>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Write,
    Flush,
    Discard,
    Zero(Zeroing),
}

/// The ways to make a range zero, the next one when the kernel says that this one is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zeroing {
    Punch,
    ZeroRange,
    Write,
}

/// An operation in flight, with its memory.
pub(crate) struct Flight<M> {
    token: u64,
    work: Work,
    at: u64,
    left: u64,
    pieces: Pieces,
    bounce: Option<Bounce>,
    retries: u32,
    memory: Option<M>,
}

impl<M: Memory> Flight<M> {
    /// Checks `operation` against `disk`; one that cannot be, or that has nothing to do, is finished already.
    pub(crate) fn new(disk: &HostFile, token: u64, operation: Operation<M>) -> Result<Self, Completion<M>> {
        let (work, at, len, memory) = match operation {
            Operation::Read { offset, to } => (Work::Read, offset, 0, Some(to)),
            Operation::Write { offset, from } => (Work::Write, offset, 0, Some(from)),
            Operation::Flush => (Work::Flush, 0, 0, None),
            Operation::Discard { offset, len } => (Work::Discard, offset, len, None),
            Operation::WriteZeroes { offset, len, unmap: true } => {
                (Work::Zero(Zeroing::Punch), offset, len, None)
            }
            Operation::WriteZeroes { offset, len, unmap: false } => {
                (Work::Zero(Zeroing::ZeroRange), offset, len, None)
            }
        };
        let mut flight = Self {
            token,
            work,
            at,
            left: len,
            pieces: Pieces::new(Vec::new()),
            bounce: None,
            retries: 0,
            memory,
        };
        match flight.prepare(disk) {
            Ok(()) if flight.left > 0 || work == Work::Flush => Ok(flight),
            result => Err(flight.finish(result)),
        }
    }

    fn prepare(&mut self, disk: &HostFile) -> io::Result<()> {
        if disk.is_read_only() && !matches!(self.work, Work::Read | Work::Flush) {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        if let Some(memory) = &self.memory {
            self.pieces = Pieces::new(memory.iovecs()?);
            self.left = u64::try_from(self.pieces.len()).unwrap_or(u64::MAX);
        }
        let within = self.at.checked_add(self.left).is_some_and(|end| end <= disk.size_bytes());
        if !within || (self.at | self.left) & u64::from(disk.block_bytes()).wrapping_sub(1) != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if let Some(alignment) = disk.direct()
            && !self.pieces.are_aligned(alignment)
        {
            self.bounce = Some(Bounce::new()?);
        }
        Ok(())
    }

    /// The next thing for the kernel. The flight must not move in memory that a pointer refers to; what pointers refer
    /// to is on the heap, so moving the flight itself is fine.
    pub(crate) fn step(&mut self) -> Step {
        let (at, len) = (self.at, self.left);
        match self.work {
            Work::Flush => Step::Sync,
            Work::Discard => {
                Step::Allocate { mode: libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, len }
            }
            Work::Zero(Zeroing::Punch) => {
                Step::Allocate { mode: libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, len }
            }
            Work::Zero(Zeroing::ZeroRange) => {
                Step::Allocate { mode: libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, at, len }
            }
            Work::Zero(Zeroing::Write) => {
                let memory = ZEROES.0.as_ptr().cast_mut();
                Step::Plain { write: true, memory, len: bounced(len), at }
            }
            Work::Read => self.transfer(false),
            Work::Write => self.transfer(true),
        }
    }

    fn transfer(&mut self, write: bool) -> Step {
        let at = self.at;
        if let Some(bounce) = &mut self.bounce {
            let len = bounced(self.left);
            if write {
                bounce.fill(&self.pieces, usize::try_from(len).unwrap_or_default());
            }
            return Step::Plain { write, memory: bounce.as_ptr(), len, at };
        }
        let pieces = self.pieces.left();
        if let [piece] = pieces
            && let Ok(len) = u32::try_from(piece.iov_len)
        {
            return Step::Plain { write, memory: piece.iov_base.cast(), len, at };
        }
        let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        Step::Vectored { write, pieces: pieces.as_ptr(), count, at }
    }

    /// Takes the kernel's answer: bytes done, or a negative error number.
    pub(crate) fn advance(&mut self, disk: &HostFile, answer: i32) -> Progress {
        match u32::try_from(answer) {
            Ok(count) => self.moved(disk, count),
            Err(_) => self.failed(answer.saturating_neg()),
        }
    }

    fn moved(&mut self, disk: &HostFile, count: u32) -> Progress {
        self.retries = 0;
        let count = u64::from(count).min(self.left);
        let bytes = usize::try_from(count).unwrap_or_default();
        match self.work {
            Work::Flush | Work::Discard | Work::Zero(Zeroing::Punch | Zeroing::ZeroRange) => {
                return Progress::Done(Ok(()));
            }
            Work::Read => {
                if let Some(bounce) = &self.bounce {
                    bounce.spill(&self.pieces, bytes);
                }
                self.pieces.advance(bytes);
            }
            Work::Write => self.pieces.advance(bytes),
            Work::Zero(Zeroing::Write) => {}
        }
        self.at = self.at.saturating_add(count);
        self.left = self.left.saturating_sub(count);
        if self.left == 0 {
            return Progress::Done(Ok(()));
        }
        // The part of the last block that the file does not have reads as zeroes.
        if self.work == Work::Read && self.at >= disk.stored_bytes() {
            self.pieces.zero(usize::try_from(self.left).unwrap_or(usize::MAX));
            return Progress::Done(Ok(()));
        }
        match (count, self.work) {
            (0, Work::Read) => Progress::Done(Err(io::ErrorKind::UnexpectedEof.into())),
            (0, _) => Progress::Done(Err(io::ErrorKind::WriteZero.into())),
            _ => Progress::Again,
        }
    }

    fn failed(&mut self, errno: i32) -> Progress {
        // A block device says EINVAL to a range that is smaller than its blocks.
        let unsupported = matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV);
        match (errno, self.work) {
            (libc::EINTR, _) => Progress::Again,
            (libc::EAGAIN, _) if self.retries < RETRIES_MAX => {
                self.retries = self.retries.saturating_add(1);
                Progress::Again
            }
            (_, Work::Discard) if unsupported => Progress::Done(Ok(())),
            (_, Work::Zero(Zeroing::Punch)) if unsupported => {
                self.work = Work::Zero(Zeroing::ZeroRange);
                Progress::Again
            }
            (_, Work::Zero(Zeroing::ZeroRange)) if unsupported => {
                self.work = Work::Zero(Zeroing::Write);
                Progress::Again
            }
            _ => Progress::Done(Err(io::Error::from_raw_os_error(errno))),
        }
    }

    /// The end: gives the memory back.
    pub(crate) fn finish(self, result: io::Result<()>) -> Completion<M> {
        Completion { token: self.token, result, memory: self.memory }
    }
}

/// As much of `left` as fits a bounce buffer.
fn bounced(left: u64) -> u32 {
    u32::try_from(BOUNCE_BYTES).unwrap_or_default().min(u32::try_from(left).unwrap_or(u32::MAX))
}
