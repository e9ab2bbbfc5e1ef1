//! The data side: all queues, the engines of all units, one thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use orlop_disk::{Completion, Memory, Operation};
use orlop_scsi::{Bay, CHECK_CONDITION, GOOD, Kind, Range, Sense, Step, TASK_SET_FULL, Work};
use orlop_virtio::{Backend, Buffers, Fault, QueueIo};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::counters::count;
use crate::request::{Address, Code, Command, Control, Malformed, Response, command, control};
use crate::space::FIRST_REQUEST_QUEUE;
use crate::tasks::{BAD_TARGET, COMPLETE, INCORRECT_LUN, InFlight, Outcome, REJECTED, outcome};
use crate::{Shared, lock};

const CONTROL_QUEUE: usize = 0;
/// More requests wait than were taken in one go.
const MORE: u32 = 0;
/// The engine of target N has completions at this plus N.
const ENGINES: u32 = 1;

/// The guest's buffers of one request, kept alive until the kernel is done with them.
pub(crate) struct GuestData(Buffers);

#[expect(unsafe_code, reason = "implements Memory")]
// SAFETY: `Buffers` keeps guest memory mapped while it lives, and its pieces lie within it.
unsafe impl Memory for GuestData {
    fn iovecs(&self) -> io::Result<Vec<libc::iovec>> {
        self.0.iovecs().map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// A request by queue and head, which is in flight once only: [`QueueIo::pop`] sees to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Token(u32);

impl Token {
    fn new(queue: usize, head: u16) -> Self {
        Self(u32::try_from(queue).unwrap_or(u32::MAX) << 16 | u32::from(head))
    }

    fn queue(self) -> usize {
        usize::try_from(self.0 >> 16).unwrap_or(0)
    }

    fn head(self) -> u16 {
        u16::try_from(self.0 & 0xffff).unwrap_or(0)
    }
}

/// A request that was handed to an engine.
struct Pending {
    response: Response,
    target: usize,
    id: u64,
    work: Work,
    bytes: u64,
    /// How many bytes of data the guest gets when all goes well.
    payload: usize,
    residual: usize,
    /// Ranges that are still to be discarded, one after the other.
    rest: VecDeque<Range>,
    /// A flush follows before the driver is told.
    durable: bool,
}

impl Pending {
    /// What is to be done next for this request, if there is more.
    fn next(&mut self) -> Option<Operation<GuestData>> {
        if let Some(Range { offset, len }) = self.rest.pop_front() {
            return Some(Operation::Discard { offset, len });
        }
        std::mem::take(&mut self.durable).then_some(Operation::Flush)
    }
}

/// A task management function that waits until its target has nothing in flight.
struct Waiting {
    head: u16,
    target: usize,
    reset: bool,
    answer: Buffers,
}

pub(crate) struct Host {
    shared: Arc<Shared>,
    pending: HashMap<Token, Pending>,
    /// Requests in flight, by target.
    in_flight: Vec<usize>,
    waiting: Vec<Waiting>,
    more: EventFd,
    engines: Vec<(RawFd, u32)>,
    /// Resets of the device that the thread knows of.
    resets: u64,
}

impl Host {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let mut engines = Vec::new();
        for (target, token) in shared.targets.iter().zip(ENGINES..) {
            let bay = lock(&target.bay);
            engines.extend(bay.engine.as_ref().and_then(|engine| engine.event()).map(|fd| (fd, token)));
        }
        let in_flight = vec![0; shared.targets.len()];
        let more = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self { shared, pending: HashMap::new(), in_flight, waiting: Vec::new(), more, engines, resets: 0 })
    }

    /// Takes what the driver made available on a request queue, at most one queue full: the thread has messages to
    /// hear as well.
    fn take(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        io.disable_notification(queue)?;
        for _ in 0..self.shared.queue_size {
            let Some(request) = io.pop(queue)? else { break };
            let token = Token::new(queue, request.head);
            match command(request, &self.shared.sizes) {
                Ok(command) => self.begin(io, token, command)?,
                Err(Malformed) => {
                    count(&self.shared.counters.invalid);
                    io.push(queue, token.head(), 0)?;
                }
            }
        }
        self.reap_all(io)?;
        if io.enable_notification(queue)? {
            let _ = self.more.write(1);
        }
        Ok(())
    }

    fn begin(&mut self, io: &mut QueueIo, token: Token, command: Command) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let Command { address, id, cdb, out, mut data, response } = command;
        let found = address.and_then(|at| Some((at, shared.targets.get(at.target)?)));
        let Some((Address { target, unit }, place)) = found else {
            count(&shared.counters.no_target);
            return answer(io, token, &response, Code::BadTarget, GOOD, None, (0, 0));
        };
        let mut bay = lock(&place.bay);
        let parameters = |len: usize| {
            let mut bytes = vec![0; len.min(out.len())];
            match out.copy_to(&mut bytes) {
                Ok(()) => bytes,
                Err(_) => Vec::new(),
            }
        };
        let step = match unit {
            0 => bay.unit.start(&cdb, &parameters),
            _ => no_unit(&cdb),
        };
        let step = match step {
            Ok(step) => step,
            Err(sense) => {
                place.counters.refused();
                let room = data.len().max(out.len());
                return answer(io, token, &response, Code::Ok, CHECK_CONDITION, Some(sense), (0, room));
            }
        };
        let (work, bytes) = step.measure();
        let mut pending = Pending {
            response,
            target,
            id,
            work,
            bytes,
            payload: 0,
            residual: 0,
            rest: VecDeque::new(),
            durable: false,
        };
        match step {
            Step::Data(bytes) => {
                pending.payload = bytes.len().min(data.len());
                pending.residual = data.len().saturating_sub(pending.payload);
                let sent = bytes.get(..pending.payload).unwrap_or_default();
                if data.copy_from(sent).is_err() {
                    return answer(io, token, &pending.response, Code::Failure, GOOD, None, (0, 0));
                }
                self.end(io, token, pending, Ok(()))
            }
            Step::Read(Range { offset, len }) => match cut(&mut data, len) {
                Some(to) => {
                    (pending.payload, pending.residual) = (to.len(), data.len());
                    self.submit(io, &mut bay, token, pending, Operation::Read { offset, to: GuestData(to) })
                }
                None => self.overrun(io, token, &pending.response),
            },
            Step::Write { range: Range { offset, len }, durable } => {
                let mut out = out;
                match cut(&mut out, len) {
                    Some(from) => {
                        (pending.durable, pending.residual) = (durable, out.len());
                        let operation = Operation::Write { offset, from: GuestData(from) };
                        self.submit(io, &mut bay, token, pending, operation)
                    }
                    None => self.overrun(io, token, &pending.response),
                }
            }
            Step::Flush => self.submit(io, &mut bay, token, pending, Operation::Flush),
            Step::Discard(ranges) => {
                pending.rest = ranges.into();
                match pending.next() {
                    Some(operation) => self.submit(io, &mut bay, token, pending, operation),
                    None => self.end(io, token, pending, Ok(())),
                }
            }
            Step::WriteZeroes { range: Range { offset, len }, unmap } => {
                pending.durable = !bay.unit.write_cache();
                let operation = Operation::WriteZeroes { offset, len, unmap };
                self.submit(io, &mut bay, token, pending, operation)
            }
        }
    }

    fn overrun(&self, io: &mut QueueIo, token: Token, response: &Response) -> Result<(), Fault> {
        count(&self.shared.counters.overrun);
        answer(io, token, response, Code::Overrun, GOOD, None, (0, 0))
    }

    fn submit(
        &mut self,
        io: &mut QueueIo,
        bay: &mut Bay<GuestData>,
        token: Token,
        pending: Pending,
        operation: Operation<GuestData>,
    ) -> Result<(), Fault> {
        let target = pending.target;
        let submitted = match &mut bay.engine {
            Some(engine) => engine.submit(u64::from(token.0), operation).is_ok(),
            None => false,
        };
        if !submitted {
            // The engine is full: the driver tries again (SAM-5 §5.3.1).
            return answer(io, token, &pending.response, Code::Ok, TASK_SET_FULL, None, (0, 0));
        }
        self.pending.insert(token, pending);
        self.add_in_flight(target);
        // A drive carries its command out at once: its medium must not go away before that is done.
        if bay.unit.kind() == Kind::Cdrom { self.reap(io, target, bay) } else { Ok(()) }
    }

    fn add_in_flight(&mut self, target: usize) {
        if let Some(count) = self.in_flight.get_mut(target) {
            *count = count.saturating_add(1);
        }
    }

    /// Finishes what the engine of `target` has finished, and hands to it what goes on.
    fn reap(&mut self, io: &mut QueueIo, target: usize, bay: &mut Bay<GuestData>) -> Result<(), Fault> {
        let mut result = Ok(());
        while let Some(engine) = &mut bay.engine {
            let Some(Completion { token, result: done, memory }) = engine.complete() else {
                // After the last one, which may have led to more (`Engine::commit`).
                if engine.commit().is_err() {
                    // The host is short of memory for the moment; soon again.
                    let _ = self.more.write(1);
                }
                break;
            };
            drop(memory);
            let Ok(token) = u32::try_from(token).map(Token) else { continue };
            let Some(mut pending) = self.pending.remove(&token) else { continue };
            if let Some(count) = self.in_flight.get_mut(target) {
                *count = count.saturating_sub(1);
            }
            let next = if done.is_ok() { pending.next() } else { None };
            let goes_on = next.map(|operation| engine.submit(u64::from(token.0), operation).is_ok());
            let step = match goes_on {
                Some(true) => {
                    self.pending.insert(token, pending);
                    self.add_in_flight(target);
                    Ok(())
                }
                Some(false) => self.end(io, token, pending, Err(io::Error::from_raw_os_error(libc::EBUSY))),
                None => self.end(io, token, pending, done),
            };
            // A ring that cannot be written must not keep the rest from being let go.
            result = result.and(step);
        }
        result
    }

    /// Finishes what any engine has finished, and tells the driver.
    fn reap_all(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut result = Ok(());
        for (target, place) in shared.targets.iter().enumerate() {
            let mut bay = lock(&place.bay);
            result = result.and(self.reap(io, target, &mut bay));
        }
        result = result.and(self.answer_waiting(io));
        for queue in 0..io.queue_count() {
            result = result.and_then(|()| io.notify(queue));
        }
        result
    }

    fn end(
        &self,
        io: &mut QueueIo,
        token: Token,
        pending: Pending,
        result: io::Result<()>,
    ) -> Result<(), Fault> {
        let Pending { response, target, work, bytes, payload, residual, .. } = pending;
        let counters = self.shared.targets.get(target).map(|target| &target.counters);
        match result {
            Ok(()) => {
                if let Some(counters) = counters {
                    counters.done(work, bytes);
                }
                answer(io, token, &response, Code::Ok, GOOD, None, (payload, residual))
            }
            Err(error) => {
                if let Some(counters) = counters {
                    counters.failed(work);
                }
                let sense = Sense::of_error(&error, work != Work::Read);
                answer(io, token, &response, Code::Ok, CHECK_CONDITION, Some(sense), (0, 0))
            }
        }
    }

    /// Takes what the driver made available on the control queue.
    fn take_control(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        io.disable_notification(CONTROL_QUEUE)?;
        for _ in 0..self.shared.queue_size {
            let Some(request) = io.pop(CONTROL_QUEUE)? else { break };
            let head = request.head;
            match control(request) {
                Ok(Control::Task { function, address, id, answer }) => {
                    count(&self.shared.counters.tasks);
                    self.begin_task(io, head, function, address, id, answer)?;
                }
                // event_actual: none of the events; response: OK.
                Ok(Control::Notification { answer }) => respond(io, head, &answer, &[0; 5])?,
                Ok(Control::Unknown { answer }) => respond(io, head, &answer, &[REJECTED])?,
                Err(Malformed) => {
                    count(&self.shared.counters.invalid);
                    io.push(CONTROL_QUEUE, head, 0)?;
                }
            }
        }
        self.reap_all(io)?;
        if io.enable_notification(CONTROL_QUEUE)? {
            let _ = self.more.write(1);
        }
        Ok(())
    }

    fn begin_task(
        &mut self,
        io: &mut QueueIo,
        head: u16,
        function: u32,
        address: Option<Address>,
        id: u64,
        answer: Buffers,
    ) -> Result<(), Fault> {
        let found = address.filter(|at| self.shared.targets.len() > at.target);
        let Some(Address { target, unit }) = found else {
            return respond(io, head, &answer, &[BAD_TARGET]);
        };
        if unit != 0 {
            return respond(io, head, &answer, &[INCORRECT_LUN]);
        }
        let any = self.in_flight.get(target).is_some_and(|count| *count > 0);
        let named = any && self.pending.values().any(|p| p.target == target && p.id == id);
        match outcome(function, InFlight { any, named }) {
            Outcome::Answer(code) => respond(io, head, &answer, &[code]),
            Outcome::WhenIdle { reset } => {
                self.waiting.push(Waiting { head, target, reset, answer });
                Ok(())
            }
        }
    }

    fn answer_waiting(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let mut result = Ok(());
        for waiting in std::mem::take(&mut self.waiting) {
            if self.in_flight.get(waiting.target).is_some_and(|count| *count > 0) {
                self.waiting.push(waiting);
                continue;
            }
            if let Some(place) = self.shared.targets.get(waiting.target).filter(|_| waiting.reset) {
                lock(&place.bay).unit.reset();
            }
            result = result.and(respond(io, waiting.head, &waiting.answer, &[COMPLETE]));
        }
        result
    }
}

/// Takes the first `len` bytes of `buffers` off, if there are as many.
fn cut(buffers: &mut Buffers, len: u64) -> Option<Buffers> {
    buffers.split_to(usize::try_from(len).ok()?).ok()
}

/// What a unit other than 0 says: INQUIRY shows that there is none (SPC-4 §6.6.2), everything else fails.
fn no_unit(cdb: &[u8]) -> Result<Step, Sense> {
    const NOTHING_HERE: u8 = 0x7f;
    match cdb {
        [0x12, flags, page, high, low, ..] if flags & 1 == 0 && *page == 0 => {
            let mut data = vec![NOTHING_HERE, 0, 5, 2, 31];
            data.resize(36, 0);
            data.truncate(usize::from(u16::from_be_bytes([*high, *low])));
            Ok(Step::Data(data))
        }
        _ => Err(Sense::NO_UNIT),
    }
}

/// Writes a response and returns the request. `payload` bytes of data were surely written behind the response.
fn answer(
    io: &mut QueueIo,
    token: Token,
    response: &Response,
    code: Code,
    status: u8,
    sense: Option<Sense>,
    (payload, residual): (usize, usize),
) -> Result<(), Fault> {
    if !response.write(code, status, sense, residual) {
        return Err(Fault("a response cannot be written"));
    }
    io.push(token.queue(), token.head(), response.len().saturating_add(payload))
}

/// Answers a request of the control queue.
fn respond(io: &mut QueueIo, head: u16, place: &Buffers, bytes: &[u8]) -> Result<(), Fault> {
    place.copy_from(bytes).map_err(|_| Fault("an answer cannot be written"))?;
    io.push(CONTROL_QUEUE, head, bytes.len())
}

impl Backend for Host {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        [(self.more.as_raw_fd(), MORE)].into_iter().chain(self.engines.iter().copied()).collect()
    }

    fn start(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let resets = shared.resets.load(Ordering::Relaxed);
        let reset = std::mem::replace(&mut self.resets, resets) != resets;
        if reset {
            self.pending.clear();
            self.waiting.clear();
            self.in_flight.fill(0);
        }
        // What was held when the machine stopped is still the device's, and is tried again.
        for token in self.pending.keys() {
            io.keep(token.queue(), token.head())?;
        }
        for waiting in &self.waiting {
            io.keep(CONTROL_QUEUE, waiting.head)?;
        }
        for target in &shared.targets {
            let mut bay = lock(&target.bay);
            let Some(engine) = &mut bay.engine else { continue };
            if reset {
                engine.forget();
            }
            engine.go_on();
        }
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        match queue {
            CONTROL_QUEUE => self.take_control(io),
            // Buffers for events stay where they are: there are none.
            queue if queue < usize::from(FIRST_REQUEST_QUEUE) => Ok(()),
            queue => self.take(io, queue),
        }
    }

    fn ready(&mut self, io: &mut QueueIo, token: u32) -> Result<(), Fault> {
        if token >= ENGINES {
            return self.reap_all(io);
        }
        let _ = self.more.read();
        (0..io.queue_count())
            .filter(|queue| *queue >= usize::from(FIRST_REQUEST_QUEUE) && io.is_ready(*queue))
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|queue| self.take(io, queue))?;
        if io.is_ready(CONTROL_QUEUE) { self.take_control(io) } else { Ok(()) }
    }

    fn drain(&mut self, io: &mut QueueIo) {
        let shared = Arc::clone(&self.shared);
        for (target, place) in shared.targets.iter().enumerate() {
            let mut bay = lock(&place.bay);
            while bay.engine.as_ref().is_some_and(|engine| engine.in_flight() > 0) {
                if let Some(engine) = &mut bay.engine {
                    engine.wait();
                }
                // A ring that cannot be written is the guest's loss; what matters is that nothing is in flight.
                let _ = self.reap(io, target, &mut bay);
            }
            if let Some(engine) = &mut bay.engine {
                engine.stand_still();
            }
        }
        let _ = self.answer_waiting(io);
        let _ = self.more.read();
    }
}
