//! An engine for an image that no engine can be made for: every operation is an error, and the guest goes on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use crate::engine::{Completion, Engine, Operation};
use crate::memory::Memory;

/// Answers everything with the same error.
pub(crate) struct Refusing<M> {
    errno: i32,
    depth: usize,
    finished: VecDeque<Completion<M>>,
}

impl<M: Memory> Refusing<M> {
    pub(crate) fn new(error: &io::Error, depth: u16) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { errno, depth: usize::from(depth), finished: VecDeque::new() }
    }
}

impl<M: Memory> Engine<M> for Refusing<M> {
    fn name(&self) -> &'static str {
        "refusing"
    }

    fn event(&self) -> Option<RawFd> {
        None
    }

    fn submit(&mut self, token: u64, operation: Operation<M>) -> Result<(), Operation<M>> {
        if self.finished.len() >= self.depth {
            return Err(operation);
        }
        let memory = match operation {
            Operation::Read { to, .. } => Some(to),
            Operation::Write { from, .. } => Some(from),
            Operation::Flush | Operation::Discard { .. } | Operation::WriteZeroes { .. } => None,
        };
        let result = Err(io::Error::from_raw_os_error(self.errno));
        self.finished.push_back(Completion { token, result, memory });
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
