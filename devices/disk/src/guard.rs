//! What becomes of an operation that the host cannot carry out: told to the guest, passed over, or held until the
//! machine goes on after a stop.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::engine::{Completion, Engine, Operation};
use crate::memory::Memory;

/// What becomes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The guest gets the error.
    #[default]
    Report,
    /// The guest is told that all went well.
    Ignore,
    /// The machine is stopped; the operation is tried again when it goes on.
    Stop,
    /// The same where the host has no room left, otherwise the guest gets the error.
    StopWhenFull,
}

/// An operation that waits for the machine to be stopped.
#[derive(Debug)]
pub struct Stopped<'a> {
    /// `read`, `write`, `flush`, `discard` or `write zeroes`.
    pub operation: &'static str,
    /// First byte on the disk.
    pub offset: u64,
    /// Why it cannot be carried out.
    pub error: &'a io::Error,
}

/// Is told that the machine is to be stopped, on the disk's thread; it must not wait for the disk.
pub type TellStop = Arc<dyn Fn(&Stopped<'_>) + Send + Sync>;

/// A policy, and who stops the machine.
#[derive(Clone)]
pub struct ErrorHandling {
    policy: ErrorPolicy,
    tell: Option<TellStop>,
}

impl ErrorHandling {
    /// Errors go to the guest.
    pub const REPORT: Self = Self { policy: ErrorPolicy::Report, tell: None };

    /// Handles errors by `policy`; `tell` hears of those that stop the machine.
    pub fn new(policy: ErrorPolicy, tell: TellStop) -> Self {
        Self { policy, tell: Some(tell) }
    }

    fn may_hold(&self) -> bool {
        matches!(self.policy, ErrorPolicy::Stop | ErrorPolicy::StopWhenFull)
    }

    fn verdict(&self, error: &io::Error) -> ErrorPolicy {
        let errno = error.raw_os_error();
        match self.policy {
            // What the guest asked for cannot be, whatever the host does.
            _ if matches!(errno, Some(libc::EINVAL | libc::EFAULT | libc::EROFS)) => ErrorPolicy::Report,
            ErrorPolicy::StopWhenFull if matches!(errno, Some(libc::ENOSPC | libc::EDQUOT)) => {
                ErrorPolicy::Stop
            }
            ErrorPolicy::StopWhenFull => ErrorPolicy::Report,
            policy => policy,
        }
    }
}

impl fmt::Debug for ErrorHandling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(f)
    }
}

/// What an operation was, without its memory.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Read { offset: u64 },
    Write { offset: u64 },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, unmap: bool },
}

impl Shape {
    fn of<M>(operation: &Operation<M>) -> Self {
        match *operation {
            Operation::Read { offset, .. } => Self::Read { offset },
            Operation::Write { offset, .. } => Self::Write { offset },
            Operation::Flush => Self::Flush,
            Operation::Discard { offset, len } => Self::Discard { offset, len },
            Operation::WriteZeroes { offset, len, unmap } => Self::WriteZeroes { offset, len, unmap },
        }
    }

    /// The operation again, if it gets its memory back where it had some.
    fn with<M>(self, memory: Option<M>) -> Option<Operation<M>> {
        Some(match self {
            Self::Read { offset } => Operation::Read { offset, to: memory? },
            Self::Write { offset } => Operation::Write { offset, from: memory? },
            Self::Flush => Operation::Flush,
            Self::Discard { offset, len } => Operation::Discard { offset, len },
            Self::WriteZeroes { offset, len, unmap } => Operation::WriteZeroes { offset, len, unmap },
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush => "flush",
            Self::Discard { .. } => "discard",
            Self::WriteZeroes { .. } => "write zeroes",
        }
    }

    fn offset(self) -> u64 {
        match self {
            Self::Flush => 0,
            Self::Read { offset }
            | Self::Write { offset }
            | Self::Discard { offset, .. }
            | Self::WriteZeroes { offset, .. } => offset,
        }
    }
}

/// An engine whose errors are handled by a policy. The methods that [`Engine`] has do what they do there.
///
/// An operation that is held is not in flight: nobody touches its memory. Its owner says when the machine stands still
/// ([`Guard::stand_still`]) and when it goes on ([`Guard::go_on`]); only what was held before a standstill is tried again.
pub struct Guard<M> {
    engine: Box<dyn Engine<M>>,
    errors: ErrorHandling,
    /// The operations in flight, where they may be held.
    known: HashMap<u64, Shape>,
    held: Vec<(u64, Operation<M>)>,
    stood: bool,
}

impl<M: Memory> Guard<M> {
    /// `engine`, with `errors` handled so.
    pub fn new(engine: Box<dyn Engine<M>>, errors: ErrorHandling) -> Self {
        Self { engine, errors, known: HashMap::new(), held: Vec::new(), stood: false }
    }

    /// [`Engine::name`].
    pub fn name(&self) -> &'static str {
        self.engine.name()
    }

    /// [`Engine::event`].
    pub fn event(&self) -> Option<RawFd> {
        self.engine.event()
    }

    /// [`Engine::submit`].
    pub fn submit(&mut self, token: u64, operation: Operation<M>) -> Result<(), Operation<M>> {
        let shape = self.errors.may_hold().then(|| Shape::of(&operation));
        self.engine.submit(token, operation)?;
        if let Some(shape) = shape {
            self.known.insert(token, shape);
        }
        Ok(())
    }

    /// [`Engine::commit`].
    pub fn commit(&mut self) -> io::Result<()> {
        self.engine.commit()
    }

    /// [`Engine::complete`], without what is held.
    pub fn complete(&mut self) -> Option<Completion<M>> {
        loop {
            let done = self.engine.complete()?;
            let shape = self.known.remove(&done.token);
            let Err(error) = &done.result else { return Some(done) };
            match self.errors.verdict(error) {
                ErrorPolicy::Ignore => return Some(Completion { result: Ok(()), ..done }),
                ErrorPolicy::Stop => {}
                ErrorPolicy::Report | ErrorPolicy::StopWhenFull => return Some(done),
            }
            let Some(shape) = shape else { return Some(done) };
            let Completion { token, result, memory } = done;
            let (Some(operation), Err(error)) = (shape.with(memory), result) else { continue };
            self.hold(token, operation, shape, &error);
        }
    }

    fn hold(&mut self, token: u64, operation: Operation<M>, shape: Shape, error: &io::Error) {
        let first = self.held.is_empty();
        self.held.push((token, operation));
        self.stood = false;
        // The first one stops the machine; the others wait for the same.
        if let (true, Some(tell)) = (first, &self.errors.tell) {
            tell(&Stopped { operation: shape.name(), offset: shape.offset(), error });
        }
    }

    /// [`Engine::wait`].
    pub fn wait(&mut self) {
        self.engine.wait();
    }

    /// [`Engine::in_flight`], without what is held.
    pub fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }

    /// How many operations are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The machine stands still, and nothing is in flight.
    pub fn stand_still(&mut self) {
        self.stood = true;
    }

    /// The machine goes on: what was held before it stood still is tried again.
    pub fn go_on(&mut self) {
        if !std::mem::take(&mut self.stood) {
            return;
        }
        for (token, operation) in std::mem::take(&mut self.held) {
            if let Err(operation) = self.submit(token, operation) {
                // The engine had room for it before; it has again when others are finished.
                self.held.push((token, operation));
                self.stood = true;
            }
        }
    }

    /// What is held is of no interest any more: the guest was reset.
    pub fn forget(&mut self) {
        self.held.clear();
    }
}
