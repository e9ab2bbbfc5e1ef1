//! The data side: page numbers in, memory out.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};

use orlop_bus::value;
use orlop_virtio::{Backend, Buffers, Fault, QueueIo, Ram, Request};

use crate::PAGE_BYTES;
use crate::device::{F_PAGE_REPORTING, F_STATS_VQ};
use crate::discard::{self, Outcome};
use crate::handle::Shared;
use crate::statistics::{STATS_MAX_BYTES, Statistics};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// The first of the queues that exist only where their feature was agreed on.
const OPTIONAL: usize = 2;
/// The token of the host's event.
const HOST: u32 = 0;
/// Bytes of a page number (virtio 1.3 §5.5.6).
const PFN_BYTES: usize = 4;
/// The most page numbers of one request that are looked at; Linux sends 256.
const REQUEST_MAX_PFNS: usize = 64 << 10;
/// Page numbers that are copied and given back at a time.
const CHUNK_PFNS: usize = 1024;
/// The most bytes of free pages in one report; Linux sends 32 runs of at most 4 MiB.
const REPORT_MAX_BYTES: usize = 1 << 30;

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    /// Where the statistics and reporting queues are among the set's.
    stats: Option<usize>,
    reporting: Option<usize>,
    /// The statistics buffer, which stays here until the host wants new ones.
    held: Option<Request>,
    updates: u64,
}

impl Keeper {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stats: None, reporting: None, held: None, updates: 0 }
    }

    fn inflate(&self, io: &mut QueueIo) -> Result<(), Fault> {
        while let Some(request) = io.pop(INFLATE)? {
            let outcome = give_back(io.ram(), &request.readable);
            self.count(&self.shared.counters.inflated_pages, outcome, 1);
            io.push(INFLATE, request.head, 0)?;
        }
        Ok(())
    }

    /// The guest takes pages back by touching them; there is nothing to do but count.
    fn deflate(&self, io: &mut QueueIo) -> Result<(), Fault> {
        while let Some(request) = io.pop(DEFLATE)? {
            add(&self.shared.counters.deflated_pages, request.readable.len() / PFN_BYTES);
            io.push(DEFLATE, request.head, 0)?;
        }
        Ok(())
    }

    /// The pages are described by the buffers themselves (virtio 1.3 §5.5.6.7); nothing is written to them.
    fn report(&self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        while let Some(request) = io.pop_up_to(queue, REPORT_MAX_BYTES)? {
            let mut outcome = Outcome::default();
            for (address, len) in request.writable.segments() {
                let len = u64::try_from(len).unwrap_or(u64::MAX);
                outcome.add(discard::range(io.ram(), address.0, len));
            }
            self.count(&self.shared.counters.reported_bytes, outcome, PAGE_BYTES);
            io.push(queue, request.head, 0)?;
        }
        Ok(())
    }

    fn count(&self, given: &AtomicU64, outcome: Outcome, unit: u64) {
        given.fetch_add(outcome.given.saturating_mul(unit), Relaxed);
        self.shared.counters.bad_pages.fetch_add(outcome.outside, Relaxed);
        self.shared.counters.refused_pages.fetch_add(outcome.refused, Relaxed);
    }

    /// Reads what the driver offers and keeps the last buffer, by returning which the host asks for more
    /// (virtio 1.3 §5.5.6.3).
    fn statistics(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        while let Some(request) = io.pop(queue)? {
            let mut bytes = [0; STATS_MAX_BYTES];
            let len = request.readable.len().min(STATS_MAX_BYTES);
            if let Some(bytes) = bytes.get_mut(..len)
                && request.readable.copy_to(bytes).is_ok()
            {
                self.updates = self.updates.wrapping_add(1);
                let stats = Statistics::parse(self.updates, bytes);
                *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
            }
            if let Some(before) = self.held.replace(request) {
                io.push(queue, before.head, 0)?;
            }
        }
        self.ask_for_statistics(io, queue)
    }

    fn ask_for_statistics(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        // Without a buffer the wish stays until the driver brings one.
        if self.held.is_some()
            && self.shared.stats_wanted.swap(false, SeqCst)
            && let Some(request) = self.held.take()
        {
            io.push(queue, request.head, 0)?;
        }
        io.notify(queue)
    }

    fn serve(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        match queue {
            INFLATE => self.inflate(io),
            DEFLATE => self.deflate(io),
            _ if Some(queue) == self.stats => self.statistics(io, queue),
            _ if Some(queue) == self.reporting => self.report(io, queue),
            _ => Ok(()),
        }
    }
}

/// Gives the pages back whose numbers are in `numbers`.
fn give_back(ram: &Ram, numbers: &Buffers) -> Outcome {
    let mut outcome = Outcome::default();
    let mut rest = numbers.clone();
    let mut bytes = [0; CHUNK_PFNS * PFN_BYTES];
    let mut left = REQUEST_MAX_PFNS;
    while left > 0 && rest.len() >= PFN_BYTES {
        let count = (rest.len() / PFN_BYTES).min(CHUNK_PFNS).min(left);
        let len = count.saturating_mul(PFN_BYTES);
        let Some(bytes) = bytes.get_mut(..len) else { break };
        if rest.split_to(len).and_then(|chunk| chunk.copy_to(bytes)).is_err() {
            break;
        }
        let numbers = bytes.chunks_exact(PFN_BYTES).map(value);
        let mut pfns: Vec<u32> = numbers.filter_map(|pfn| u32::try_from(pfn).ok()).collect();
        outcome.add(discard::pages(ram, &mut pfns));
        left = left.saturating_sub(count);
    }
    let ignored = u64::try_from(rest.len() / PFN_BYTES).unwrap_or(u64::MAX);
    outcome.outside = outcome.outside.saturating_add(ignored);
    outcome
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
}

impl Backend for Keeper {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.shared.event.as_raw_fd(), HOST)]
    }

    /// Drivers number the optional queues by those that were agreed on, without gaps.
    fn start(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let mut next = OPTIONAL;
        let mut place = |feature: u64| {
            let here = (io.features() & feature != 0).then_some(next);
            next = next.saturating_add(usize::from(here.is_some()));
            here
        };
        self.stats = place(F_STATS_VQ);
        self.reporting = place(F_PAGE_REPORTING);
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        loop {
            io.disable_notification(queue)?;
            self.serve(io, queue)?;
            io.notify(queue)?;
            if !io.enable_notification(queue)? {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, io: &mut QueueIo, _token: u32) -> Result<(), Fault> {
        let _ = self.shared.event.read();
        if self.shared.target_changed.swap(false, SeqCst) {
            io.config_changed();
        }
        match self.stats {
            Some(queue) => self.ask_for_statistics(io, queue),
            None => Ok(()),
        }
    }

    fn drain(&mut self, io: &mut QueueIo) {
        if let (Some(request), Some(queue)) = (self.held.take(), self.stats) {
            io.undo_pop(queue, &request);
        }
    }
}
