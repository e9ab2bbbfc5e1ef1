//! An engine on a qcow2 image: a guest's operation becomes operations on the file and on the backing image.
//!
//! ```text
//!   Read  ─ extents ──────────────────────────▶ parts ─▶ done
//!   Write ─ owned clusters ───────────────────▶ part  ─▶ done
//!         └ others: allocate ─ copy edges ────▶ part  ─▶ settle in L2 ─▶ done
//!   Flush ─ write tables back, in order ──────▶ sync  ─▶ done
//! ```
//!
//! Tables are read and written under the image's lock and at once; a guest's bytes are not.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::parts::{Part, slice, zeroes};
use super::plan::{Write, Zero};
use super::work::{Filling, Request, Slots, Underway, Waiter, Wish};
use super::{Inner, Qcow2};
use crate::engine::{Completion, Engine, EngineKind, Operation, open_engine, open_host_engine};
use crate::memory::Memory;

/// How long to wait when the kernel was short of memory, in milliseconds.
const RETRY_MS: i32 = 10;

/// Which engine an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    File,
    Backing,
}

/// One queue's way to an image.
pub(crate) struct Qcow2Engine<M: Memory> {
    pub(super) image: Arc<Qcow2>,
    depth: usize,
    file: Box<dyn Engine<Part>>,
    backing: Option<Box<dyn Engine<Part>>>,
    /// Readable when one of the engines, `wake` or `ready` is.
    event: Epoll,
    /// A cluster that was busy no longer is.
    wake: Arc<EventFd>,
    /// Something was finished by [`Engine::commit`], when nobody was looking.
    ready: EventFd,
    /// `ready` says so.
    announced: bool,
    pub(super) requests: Slots<Request<M>>,
    pub(super) fillings: Slots<Filling>,
    pub(super) underway: Slots<Underway>,
    /// Operations for which their engine has no room yet.
    pub(super) queued: VecDeque<(Layer, usize, Operation<Part>)>,
    /// Requests that wait for a busy cluster.
    parked: Vec<usize>,
    /// Decompressed clusters, by the place of their bytes in the file.
    pub(super) kept: VecDeque<(u64, Vec<u8>)>,
    finished: VecDeque<Completion<M>>,
}

/// What became of a step of a request.
pub(super) enum Step {
    /// There may be another one.
    Taken,
    /// It waits for a cluster.
    Parked,
}

impl<M: Memory> Qcow2Engine<M> {
    /// An engine that holds up to `depth` operations, and why it is not io_uring where that was asked for.
    pub(crate) fn new(
        image: &Arc<Qcow2>,
        depth: u16,
        kind: EngineKind,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let (file, refused) = open_host_engine(image.host(), depth, kind);
        let backing = image.backing.as_ref().map(|disk| open_engine(disk, depth, kind).0);
        let event = Epoll::new()?;
        let wake = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let ready = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let own = [&wake, &ready].map(|event| Some(event.as_raw_fd()));
        let below = [file.event(), backing.as_ref().and_then(|engine| engine.event())].into_iter().chain(own);
        for fd in below.flatten() {
            event.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        let engine = Self {
            image: Arc::clone(image),
            depth: usize::from(depth),
            file,
            backing,
            event,
            wake: Arc::new(wake),
            ready,
            announced: false,
            requests: Slots::new(),
            fillings: Slots::new(),
            underway: Slots::new(),
            queued: VecDeque::new(),
            parked: Vec::new(),
            kept: VecDeque::new(),
            finished: VecDeque::new(),
        };
        Ok((engine, refused))
    }

    /// Checks an operation, and makes a request of it.
    fn accept(&self, token: u64, operation: Operation<M>) -> Result<Request<M>, Completion<M>> {
        let (wish, start, len, memory) = match operation {
            Operation::Read { offset, to } => (Wish::Read, offset, 0, Some(to)),
            Operation::Write { offset, from } => (Wish::Write, offset, 0, Some(from)),
            Operation::Flush => (Wish::Flush { epoch: 0 }, 0, 0, None),
            Operation::Discard { offset, len } => (Wish::Discard, offset, len, None),
            Operation::WriteZeroes { offset, len, unmap } => (Wish::Zero { unmap }, offset, len, None),
        };
        let mut request = Request {
            token,
            wish,
            memory,
            pieces: Part::new(Vec::new()),
            start,
            cursor: start,
            end: start,
            pending: 0,
            error: None,
            turn: 0,
        };
        match self.check(&mut request, len) {
            Ok(()) => Ok(request),
            Err(error) => Err(Completion { token, result: Err(error), memory: request.memory }),
        }
    }

    fn check(&self, request: &mut Request<M>, len: u64) -> io::Result<()> {
        let changes = !matches!(request.wish, Wish::Read | Wish::Flush { .. });
        if changes && self.image.host().is_read_only() {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let mut len = len;
        if let Some(memory) = &request.memory {
            request.pieces = Part::new(memory.iovecs()?);
            let pieces = request.pieces.pieces().iter();
            let bytes = pieces.fold(0_usize, |sum, piece| sum.saturating_add(piece.iov_len));
            len = u64::try_from(bytes).unwrap_or(u64::MAX);
        }
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let end = request.start.checked_add(len).filter(|end| *end <= self.image.size_bytes());
        request.end = end.ok_or_else(invalid)?;
        if (request.start | len) & (u64::from(self.image.block_bytes()) - 1) != 0 {
            return Err(invalid());
        }
        Ok(())
    }

    /// Takes the steps of a request that can be taken now.
    fn advance(&mut self, slot: usize) {
        loop {
            let Some(request) = self.requests.get(slot) else { return };
            if request.cursor >= request.end {
                break;
            }
            let (wish, at, len) = (request.wish, request.cursor, request.end - request.cursor);
            let step = match wish {
                Wish::Read => self.read(slot, at, len),
                Wish::Write => self.write(slot, at, len),
                Wish::Zero { unmap } => self.zero(slot, at, len, unmap, false),
                Wish::Discard => self.zero(slot, at, len, true, true),
                Wish::Flush { .. } => Ok(Step::Taken),
            };
            match step {
                Ok(Step::Taken) => {}
                Ok(Step::Parked) => {
                    self.parked.push(slot);
                    return;
                }
                Err(error) => {
                    if let Some(request) = self.requests.get(slot) {
                        request.fail(error);
                    }
                }
            }
        }
        self.finish_if_done(slot);
    }

    /// Notes that `len` more bytes of a request are taken care of, by `parts` operations.
    pub(super) fn took(&mut self, slot: usize, len: u64, parts: usize) {
        if let Some(request) = self.requests.get(slot) {
            request.cursor += len;
            request.pending += parts;
        }
    }

    fn write(&mut self, slot: usize, at: u64, len: u64) -> io::Result<Step> {
        let planned = {
            let mut inner = self.image.lock();
            match self.image.plan_write(&mut inner, at, len) {
                Ok(Write::Busy) => {
                    self.wait_for_others(&mut inner);
                    return Ok(Step::Parked);
                }
                Ok(planned) => planned,
                Err(fault) => return Err(self.image.error(&mut inner.tables, fault)),
            }
        };
        match planned {
            Write::Busy => return Ok(Step::Parked),
            Write::InPlace { host, len } => {
                let from = Part::new(self.data(slot, at, len));
                self.queue(Layer::File, Waiter::Request(slot), Operation::Write { offset: host, from });
                self.took(slot, len, 1);
            }
            Write::Allocated(allocation) => {
                let end = (allocation.first + allocation.count) << self.image.cluster_bits;
                let len = len.min(end - at);
                let filling = Filling {
                    request: slot,
                    allocation,
                    at,
                    len,
                    head: None,
                    tail: None,
                    pending: 0,
                    writing: false,
                    error: None,
                };
                self.took(slot, len, 1);
                let number = self.fillings.insert(filling);
                self.copy_edges(number);
            }
        }
        Ok(Step::Taken)
    }

    /// What a request writes to `len` bytes from `at` on.
    pub(super) fn data(&mut self, slot: usize, at: u64, len: u64) -> Vec<libc::iovec> {
        match self.requests.get(slot) {
            Some(request) if request.wish == Wish::Write => {
                slice(request.pieces.pieces(), at - request.start, len)
            }
            _ => zeroes(len),
        }
    }

    fn zero(&mut self, slot: usize, at: u64, len: u64, unmap: bool, discard: bool) -> io::Result<Step> {
        let planned = {
            let mut inner = self.image.lock();
            let planned = self.image.plan_zero(&mut inner, at, len, unmap, discard);
            if let Ok(Zero::Busy) = planned {
                self.wait_for_others(&mut inner);
            }
            planned.map_err(|fault| self.image.error(&mut inner.tables, fault))?
        };
        match planned {
            Zero::Busy => return Ok(Step::Parked),
            Zero::Write { len } => return self.write(slot, at, len),
            Zero::Done { len, punch } => {
                self.took(slot, len, punch.len());
                for (offset, len) in punch {
                    self.queue(Layer::File, Waiter::Request(slot), Operation::Discard { offset, len });
                }
            }
        }
        Ok(Step::Taken)
    }

    fn wait_for_others(&self, inner: &mut Inner) {
        if !inner.waiting.iter().any(|event| Arc::ptr_eq(event, &self.wake)) {
            inner.waiting.push(Arc::clone(&self.wake));
        }
    }

    pub(super) fn queue(&mut self, layer: Layer, waiter: Waiter, operation: Operation<Part>) {
        let number = self.underway.insert(Underway { waiter, packed: None });
        self.queued.push_back((layer, number, operation));
    }

    /// An operation on the file or on the backing image is done.
    fn done(&mut self, completion: Completion<Part>) {
        let Ok(number) = usize::try_from(completion.token) else { return };
        let Some(Underway { waiter, packed }) = self.underway.take(number) else { return };
        let mut result = completion.result;
        if let (Ok(()), Some(packed)) = (&result, packed) {
            result = self.unpack(packed);
        }
        match waiter {
            Waiter::Request(slot) => self.part_of_request(slot, result),
            Waiter::Filling(number) => self.filled(number, result),
        }
    }

    pub(super) fn part_of_request(&mut self, slot: usize, result: io::Result<()>) {
        let Some(request) = self.requests.get(slot) else { return };
        request.pending -= 1;
        match (result, request.wish) {
            (Err(error), _) => request.fail(error),
            (Ok(()), Wish::Flush { epoch }) => self.image.lock().tables.frees.durable(epoch),
            (Ok(()), _) => {}
        }
        self.finish_if_done(slot);
    }

    fn finish_if_done(&mut self, slot: usize) {
        let Some(request) = self.requests.get(slot) else { return };
        if request.pending > 0 || request.cursor < request.end || self.parked.contains(&slot) {
            return;
        }
        let Some(request) = self.requests.take(slot) else { return };
        {
            let mut inner = self.image.lock();
            inner.tables.frees.end(request.turn);
            if let Err(fault) = inner.tables.reclaim() {
                // Nobody's request: the image is marked, and the clusters stay leaked.
                let _ = self.image.error(&mut inner.tables, fault);
            }
        }
        let result = request.error.map_or(Ok(()), Err);
        self.finished.push_back(Completion { token: request.token, result, memory: request.memory });
    }

    /// Writes the tables back, then synchronizes the file.
    fn flush(&mut self, slot: usize) {
        let written = {
            let mut inner = self.image.lock();
            let written = match self.image.host().is_read_only() {
                true => Ok(0),
                false => inner.tables.write_back(),
            };
            written.map_err(|fault| self.image.error(&mut inner.tables, fault))
        };
        let Some(request) = self.requests.get(slot) else { return };
        match written {
            Ok(epoch) => {
                request.wish = Wish::Flush { epoch };
                request.pending = 1;
                self.queue(Layer::File, Waiter::Request(slot), Operation::Flush);
            }
            Err(error) => {
                request.fail(error);
                self.finish_if_done(slot);
            }
        }
    }

    /// Takes what the engines below have done, and goes on with it, until nothing moves any more.
    fn pump(&mut self) {
        loop {
            let mut moved = false;
            while let Some(completion) = self.file.complete() {
                self.done(completion);
                moved = true;
            }
            while let Some(completion) = self.backing.as_mut().and_then(|engine| engine.complete()) {
                self.done(completion);
                moved = true;
            }
            if !self.parked.is_empty() && self.wake.read().is_ok() {
                for slot in std::mem::take(&mut self.parked) {
                    self.advance(slot);
                }
                moved = true;
            }
            moved |= self.hand_down();
            if !moved {
                return;
            }
        }
    }

    /// Gives operations to the engines below as far as they have room. Whether any was given.
    fn hand_down(&mut self) -> bool {
        let mut full = VecDeque::new();
        let mut moved = false;
        while let Some((layer, number, operation)) = self.queued.pop_front() {
            let token = u64::try_from(number).unwrap_or(u64::MAX);
            let refused = match (layer, &mut self.backing) {
                (Layer::Backing, Some(engine)) => engine.submit(token, operation),
                _ => self.file.submit(token, operation),
            };
            match refused {
                Ok(()) => moved = true,
                Err(operation) => {
                    full.push_back((layer, number, operation));
                    // The other layer may have room; there is at most one kind that waits after this.
                    if full.len() > 1 {
                        break;
                    }
                }
            }
        }
        full.append(&mut self.queued);
        self.queued = full;
        moved
    }

    fn commit_below(&mut self) -> io::Result<()> {
        self.file.commit()?;
        self.backing.as_mut().map_or(Ok(()), |engine| engine.commit())
    }
}

impl<M: Memory> Engine<M> for Qcow2Engine<M> {
    fn name(&self) -> &'static str {
        self.file.name()
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }

    fn submit(&mut self, token: u64, operation: Operation<M>) -> Result<(), Operation<M>> {
        if self.in_flight() >= self.depth {
            return Err(operation);
        }
        match self.accept(token, operation) {
            Ok(mut request) => {
                request.turn = self.image.lock().tables.frees.begin();
                let flush = matches!(request.wish, Wish::Flush { .. });
                let slot = self.requests.insert(request);
                if flush { self.flush(slot) } else { self.advance(slot) }
            }
            Err(completion) => self.finished.push_back(completion),
        }
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        self.pump();
        if !self.finished.is_empty() && !self.announced {
            // The events of the engines below are taken: without this nobody would ask again.
            self.announced = self.ready.write(1).is_ok();
        }
        self.commit_below()
    }

    fn complete(&mut self) -> Option<Completion<M>> {
        if self.finished.is_empty() {
            if std::mem::take(&mut self.announced) {
                let _ = self.ready.read();
            }
            self.pump();
        }
        self.finished.pop_front()
    }

    fn wait(&mut self) {
        loop {
            self.pump();
            if !self.finished.is_empty() || self.requests.len() == 0 {
                return;
            }
            let timeout = if self.commit_below().is_ok() { -1 } else { RETRY_MS };
            let mut events = [EpollEvent::default()];
            // An interruption: look again.
            let _ = self.event.wait(timeout, &mut events);
        }
    }

    fn in_flight(&self) -> usize {
        self.requests.len() + self.finished.len()
    }
}

impl<M: Memory> Drop for Qcow2Engine<M> {
    /// Waits for what is in flight: the kernel still uses its memory. What waits for somebody else is given up.
    fn drop(&mut self) {
        for slot in std::mem::take(&mut self.parked) {
            if let Some(request) = self.requests.get(slot) {
                request.fail(io::ErrorKind::Interrupted.into());
            }
            self.finish_if_done(slot);
        }
        while self.requests.len() > 0 {
            self.finished.clear();
            Engine::wait(self);
            for slot in std::mem::take(&mut self.parked) {
                if let Some(request) = self.requests.get(slot) {
                    request.fail(io::ErrorKind::Interrupted.into());
                }
                self.finish_if_done(slot);
            }
        }
    }
}
