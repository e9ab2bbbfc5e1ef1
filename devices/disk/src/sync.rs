//! Plain system calls on the caller's thread: the engine for hosts that forbid io_uring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use crate::engine::{Completion, Engine, Operation};
use crate::flight::{Flight, Progress, Step};
use crate::host::HostFile;
use crate::memory::Memory;
use crate::sys;

/// Carries each operation out when it is submitted.
pub(crate) struct Synchronous<M> {
    disk: Arc<HostFile>,
    depth: usize,
    finished: VecDeque<Completion<M>>,
}

impl<M: Memory> Synchronous<M> {
    pub(crate) fn new(disk: Arc<HostFile>, depth: u16) -> Self {
        Self { disk, depth: usize::from(depth), finished: VecDeque::new() }
    }
}

impl<M: Memory> Engine<M> for Synchronous<M> {
    fn name(&self) -> &'static str {
        "synchronous"
    }

    fn event(&self) -> Option<RawFd> {
        None
    }

    fn submit(&mut self, token: u64, operation: Operation<M>) -> Result<(), Operation<M>> {
        if self.finished.len() >= self.depth {
            return Err(operation);
        }
        let completion = match Flight::new(&self.disk, token, operation) {
            Ok(flight) => fly(&self.disk, flight),
            Err(completion) => completion,
        };
        self.finished.push_back(completion);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn complete(&mut self) -> Option<Completion<M>> {
        self.finished.pop_front()
    }

    fn wait(&mut self) {}

    fn in_flight(&self) -> usize {
        self.finished.len()
    }
}

fn fly<M: Memory>(disk: &HostFile, mut flight: Flight<M>) -> Completion<M> {
    loop {
        let answer = carry_out(disk.as_raw_fd(), flight.step());
        if let Progress::Done(result) = flight.advance(disk, answer) {
            return flight.finish(result);
        }
    }
}

fn carry_out(fd: RawFd, step: Step) -> i32 {
    let offset = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    match step {
        Step::Vectored { write, pieces, count, at } => {
            let (count, at) = (i32::try_from(count).unwrap_or(i32::MAX), offset(at));
            #[expect(unsafe_code, reason = "reads or writes memory that is known by address")]
            // SAFETY: the flight that made the step is alive, so its pieces and their memory are (see `Memory`).
            let result = unsafe {
                if write { libc::pwritev(fd, pieces, count, at) } else { libc::preadv(fd, pieces, count, at) }
            };
            answer(result)
        }
        Step::Plain { write, memory, len, at } => {
            let (len, at) = (usize::try_from(len).unwrap_or_default(), offset(at));
            #[expect(unsafe_code, reason = "reads or writes memory that is known by address")]
            // SAFETY: the flight that made the step is alive, so its memory is (see `Memory`); zeroes are only read.
            let result = unsafe {
                if write {
                    libc::pwrite(fd, memory.cast(), len, at)
                } else {
                    libc::pread(fd, memory.cast(), len, at)
                }
            };
            answer(result)
        }
        Step::Sync => errno_of(sys::sync_data(fd)),
        Step::Allocate { mode, at, len } => errno_of(sys::allocate(fd, mode, offset(at), offset(len))),
    }
}

fn answer(result: isize) -> i32 {
    if result < 0 {
        return errno_of(Err(io::Error::last_os_error()));
    }
    i32::try_from(result).unwrap_or(i32::MAX)
}

fn errno_of(result: io::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO).saturating_neg(),
    }
}
