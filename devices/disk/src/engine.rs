//! What every engine does, and choosing one.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::disk::{Disk, Reach};
use crate::host::HostFile;
use crate::memory::Memory;
use crate::qcow2::Qcow2Engine;
use crate::refusing::Refusing;
use crate::sync::Synchronous;
use crate::uring::Uring;

/// One thing to do with a disk. Offsets and lengths are in bytes and must be multiples of [`Disk::block_bytes`].
#[derive(Debug)]
pub enum Operation<M> {
    /// Fills `to` from `offset` on.
    Read {
        /// First byte on the disk.
        offset: u64,
        /// Where the bytes go.
        to: M,
    },
    /// Stores `from` from `offset` on.
    Write {
        /// First byte on the disk.
        offset: u64,
        /// Where the bytes are.
        from: M,
    },
    /// Makes everything that was completed before durable (`fdatasync(2)`).
    Flush,
    /// The content is no longer needed. A hint: storage that cannot forget keeps the bytes.
    Discard {
        /// First byte on the disk.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The content becomes zeroes.
    WriteZeroes {
        /// First byte on the disk.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// The space may be given back to the file system.
        unmap: bool,
    },
}

/// An operation that is finished.
#[derive(Debug)]
pub struct Completion<M> {
    /// What [`Engine::submit`] was given.
    pub token: u64,
    /// Everything was done, or the first thing that went wrong.
    pub result: io::Result<()>,
    /// The operation's memory, if it had any.
    pub memory: Option<M>,
}

/// Carries out operations on one disk for one queue. Not shared between threads.
pub trait Engine<M: Memory>: Send {
    /// What it is called: `io_uring` or `synchronous`.
    fn name(&self) -> &'static str;
    /// A descriptor that is readable while completions wait in the kernel, with nothing to clear but by
    /// [`Self::complete`]; `None` when all are there after [`Self::commit`].
    fn event(&self) -> Option<RawFd>;
    /// Takes an operation, which may start at once or with [`Self::commit`]. An operation that cannot be (beyond the
    /// end, misaligned, a write to a read-only disk) becomes a completion with an error. Given back when `depth`
    /// operations are in flight.
    fn submit(&mut self, token: u64, operation: Operation<M>) -> Result<(), Operation<M>>;
    /// Hands to the kernel what was submitted, and what goes on after a step. Call it after [`Self::submit`] and after
    /// the last [`Self::complete`]. An error means that the host is short of memory for the moment: nothing is lost,
    /// and another call tries again.
    fn commit(&mut self) -> io::Result<()>;
    /// The next finished operation; never waits.
    fn complete(&mut self) -> Option<Completion<M>>;
    /// Waits until [`Self::complete`] has something, if anything is in flight.
    fn wait(&mut self);
    /// How many operations were submitted and not yet handed out by [`Self::complete`].
    fn in_flight(&self) -> usize;
}

/// Which engine to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// io_uring where it is permitted, else synchronous.
    #[default]
    Auto,
    /// One system call per operation, on the caller's thread.
    Synchronous,
}

/// An engine, and why it is not io_uring although that was asked for (a container's seccomp profile often forbids it).
pub type OpenedEngine<M> = (Box<dyn Engine<M>>, Option<io::Error>);

/// Makes an engine that holds up to `depth` operations (1 to 4096) in flight on `disk`. All descriptors that it ever
/// needs are opened here.
pub fn open_engine<M: Memory>(disk: &Disk, depth: u16, kind: EngineKind) -> OpenedEngine<M> {
    let depth = depth.clamp(1, 4096);
    match disk.reach() {
        Reach::Raw(host) => open_host_engine(host, depth, kind),
        Reach::Qcow2(image) => match Qcow2Engine::new(image, depth, kind) {
            Ok((engine, refused)) => (Box::new(engine), refused),
            // The host has no more descriptors.
            Err(error) => (Box::new(Refusing::new(&error, depth)), None),
        },
    }
}

/// An engine on a file of the host.
pub(crate) fn open_host_engine<M: Memory>(
    host: &Arc<HostFile>,
    depth: u16,
    kind: EngineKind,
) -> OpenedEngine<M> {
    let refused = match kind {
        EngineKind::Synchronous => None,
        EngineKind::Auto => match Uring::new(Arc::clone(host), depth) {
            Ok(engine) => return (Box::new(engine), None),
            Err(refused) => Some(refused),
        },
    };
    (Box::new(Synchronous::new(Arc::clone(host), depth)), refused)
}
