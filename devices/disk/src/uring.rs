//! io_uring: many operations in the kernel at once. The ring itself is readable while completions wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::squeue::Entry;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};

use crate::engine::{Completion, Engine, Operation};
use crate::flight::{Flight, Progress, Step};
use crate::host::HostFile;
use crate::memory::Memory;

/// The disk's place in the ring's table of registered files.
const DISK: Fixed = Fixed(0);

/// One ring. A flight stays in its slot from submission until its last completion was seen, and with it its memory.
pub(crate) struct Uring<M: Memory> {
    ring: IoUring,
    disk: Arc<HostFile>,
    flights: Vec<Option<Flight<M>>>,
    free: Vec<usize>,
    /// Flights that need another step; room kept to avoid allocation.
    again: Vec<usize>,
    finished: VecDeque<Completion<M>>,
    /// Entries that the kernel was not told of yet.
    queued: bool,
}

impl<M: Memory> Uring<M> {
    pub(crate) fn new(disk: Arc<HostFile>, depth: u16) -> io::Result<Self> {
        let entries = u32::from(depth).next_power_of_two();
        // Completions need no interrupt of the submitting thread: it enters the kernel soon enough (Linux 5.19).
        let ring = IoUring::builder()
            .setup_coop_taskrun()
            .build(entries)
            .or_else(|_| IoUring::builder().build(entries))?;
        ring.submitter().register_files(&[disk.as_raw_fd()])?;
        let depth = usize::from(depth);
        Ok(Self {
            ring,
            disk,
            flights: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            again: Vec::with_capacity(depth),
            finished: VecDeque::with_capacity(depth),
            queued: false,
        })
    }

    /// Queues the next step of the flight in `slot`. There is one entry at most per flight, and as many entries as
    /// flights: the queue has room.
    fn queue(&mut self, slot: usize) {
        let Some(flight) = self.flights.get_mut(slot).and_then(Option::as_mut) else { return };
        let entry = entry_of(flight.step()).user_data(u64::try_from(slot).unwrap_or(u64::MAX));
        #[expect(unsafe_code, reason = "the kernel will use the entry's addresses")]
        // SAFETY: what the entry points to belongs to the flight, which stays in its slot until the completion of this
        // very entry was seen; `drop` waits for that as well.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() {
            self.queued = true;
        } else {
            self.end(slot, Err(io::Error::from_raw_os_error(libc::EBUSY)));
        }
    }

    fn end(&mut self, slot: usize, result: io::Result<()>) {
        if let Some(flight) = self.flights.get_mut(slot).and_then(Option::take) {
            self.free.push(slot);
            self.finished.push_back(flight.finish(result));
        }
    }

    /// Takes all completions that the kernel has posted.
    fn reap(&mut self) {
        for entry in self.ring.completion() {
            let Ok(slot) = usize::try_from(entry.user_data()) else { continue };
            let Some(place) = self.flights.get_mut(slot) else { continue };
            let Some(flight) = place.as_mut() else { continue };
            match flight.advance(&self.disk, entry.result()) {
                Progress::Again => self.again.push(slot),
                Progress::Done(result) => {
                    if let Some(flight) = place.take() {
                        self.free.push(slot);
                        self.finished.push_back(flight.finish(result));
                    }
                }
            }
        }
        while let Some(slot) = self.again.pop() {
            self.queue(slot);
        }
    }

    fn in_kernel(&self) -> usize {
        self.flights.len().saturating_sub(self.free.len())
    }
}

impl<M: Memory> Engine<M> for Uring<M> {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.ring.as_raw_fd())
    }

    fn submit(&mut self, token: u64, operation: Operation<M>) -> Result<(), Operation<M>> {
        if self.in_flight() >= self.flights.len() {
            return Err(operation);
        }
        let Some(slot) = self.free.pop() else { return Err(operation) };
        match Flight::new(&self.disk, token, operation) {
            Ok(flight) => {
                if let Some(place) = self.flights.get_mut(slot) {
                    *place = Some(flight);
                }
                self.queue(slot);
            }
            Err(completion) => {
                self.free.push(slot);
                self.finished.push_back(completion);
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        while self.queued {
            match self.ring.submit() {
                Ok(_) => self.queued = !self.ring.submission().is_empty(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Short of memory, or completions must be taken first: the entries stay queued.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Option<Completion<M>> {
        if self.finished.is_empty() {
            self.reap();
        }
        self.finished.pop_front()
    }

    fn wait(&mut self) {
        while self.finished.is_empty() && self.in_kernel() > 0 {
            // An interruption or a passing lack of memory: reap what is there and try again, for the memory of what is
            // in flight cannot be let go before.
            let _ = self.ring.submit_and_wait(1);
            self.queued = !self.ring.submission().is_empty();
            self.reap();
        }
    }

    fn in_flight(&self) -> usize {
        self.in_kernel().saturating_add(self.finished.len())
    }
}

impl<M: Memory> Drop for Uring<M> {
    /// Waits for what is in flight: the kernel still uses its memory.
    fn drop(&mut self) {
        while self.in_kernel() > 0 {
            self.finished.clear();
            Engine::wait(self);
        }
    }
}

fn entry_of(step: Step) -> Entry {
    match step {
        Step::Vectored { write: false, pieces, count, at } => {
            opcode::Readv::new(DISK, pieces, count).offset(at).build()
        }
        Step::Vectored { write: true, pieces, count, at } => {
            opcode::Writev::new(DISK, pieces, count).offset(at).build()
        }
        Step::Plain { write: false, memory, len, at } => {
            opcode::Read::new(DISK, memory, len).offset(at).build()
        }
        Step::Plain { write: true, memory, len, at } => {
            opcode::Write::new(DISK, memory, len).offset(at).build()
        }
        Step::Sync => opcode::Fsync::new(DISK).flags(FsyncFlags::DATASYNC).build(),
        Step::Allocate { mode, at, len } => opcode::Fallocate::new(DISK, len).offset(at).mode(mode).build(),
    }
}
