//! The data side: one queue, one engine, one thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use orlop_disk::{Completion, Guard, Memory, Operation};
use orlop_virtio::{Backend, Buffers, Fault, QueueIo, Request};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::counters::Kind;
use crate::limits::Alarm;
use crate::request::{Command, NoStatus, Parsed, Refusal, Segment, parse};
use crate::{SERIAL_MAX_BYTES, Shared};

/// The set's only queue.
const QUEUE: usize = 0;
/// Completions wait.
const ENGINE: u32 = 0;
/// More requests wait than were taken in one go.
const MORE: u32 = 1;
/// The rate limit lets the queue go on.
const ALARM: u32 = 2;
/// The disk has another size.
const RESIZED: u32 = 3;

/// What a request has beside its data: 16 bytes of header and a status byte.
const FRAME_BYTES: usize = 17;

/// The guest's buffers of one request, kept alive until the kernel is done with them.
pub(crate) struct GuestData(Buffers);

#[expect(unsafe_code, reason = "implements Memory")]
// SAFETY: `Buffers` keeps guest memory mapped while it lives, and its pieces lie within it.
unsafe impl Memory for GuestData {
    fn iovecs(&self) -> io::Result<Vec<libc::iovec>> {
        self.0.iovecs().map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// A request that was handed to the engine.
struct Pending {
    status: Buffers,
    payload_bytes: usize,
    kind: Kind,
    bytes: u64,
    /// Segments that are still to be done, one after the other.
    rest: VecDeque<Segment>,
    /// A flush follows before the driver is told.
    write_through: bool,
}

pub(crate) struct BlockQueue {
    shared: Arc<Shared>,
    engine: Guard<GuestData>,
    /// By head: a head is in flight once only, which [`QueueIo::pop`] sees to.
    pending: Vec<Option<Pending>>,
    more: EventFd,
    alarm: Alarm,
    features: u64,
    /// It is the one that tells the driver of a new size.
    tells: bool,
    /// Resets of the device that this queue knows of.
    resets: u64,
}

impl BlockQueue {
    pub(crate) fn new(shared: Arc<Shared>, engine: Guard<GuestData>, tells: bool) -> io::Result<Self> {
        Ok(Self {
            engine,
            pending: (0..shared.geometry.queue_size).map(|_| None).collect(),
            shared,
            more: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            alarm: Alarm::new()?,
            features: 0,
            tells,
            resets: 0,
        })
    }

    /// Whether a write is to be durable before the driver hears of it (virtio 1.3 §5.2.6.2).
    fn is_write_through(&self) -> bool {
        let has = |bit: u32| self.features & 1 << bit != 0;
        if has(VIRTIO_BLK_F_CONFIG_WCE) {
            return !self.shared.writeback.load(Ordering::Relaxed);
        }
        !has(VIRTIO_BLK_F_FLUSH)
    }

    /// Takes what the driver made available, at most one queue full: the thread has messages to hear as well.
    fn take(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        if self.alarm.is_set() {
            return self.reap(io);
        }
        io.disable_notification(QUEUE)?;
        let geometry = self.shared.geometry();
        for _ in 0..geometry.queue_size {
            let Some(request) = io.pop(QUEUE)? else { break };
            if !self.admit(&request) {
                io.undo_pop(QUEUE, &request);
                break;
            }
            match parse(request, &geometry) {
                Ok(parsed) => self.begin(io, parsed)?,
                Err(NoStatus(head)) => {
                    self.shared.counters.invalid();
                    io.push(QUEUE, head, 0)?;
                }
            }
        }
        self.commit();
        self.reap(io)?;
        if !self.alarm.is_set() && io.enable_notification(QUEUE)? {
            let _ = self.more.write(1);
        }
        Ok(())
    }

    /// Whether the limits let `request` through now; if not, the alarm is set.
    fn admit(&mut self, request: &Request) -> bool {
        let Some(limiter) = &self.shared.limiter else { return true };
        let length = request.readable.len().saturating_add(request.writable.len());
        let data = length.saturating_sub(FRAME_BYTES);
        let now = Instant::now();
        let Err(wait) = limiter.admit(u64::try_from(data).unwrap_or(u64::MAX), now) else { return true };
        self.shared.counters.throttled();
        // Without an alarm the limit is not kept, but the guest goes on.
        self.alarm.set(wait).is_err()
    }

    fn begin(&mut self, io: &mut QueueIo, parsed: Parsed) -> Result<(), Fault> {
        let Parsed { head, status, payload_bytes, command } = parsed;
        let command = match command {
            Ok(command) => command,
            Err(refusal) => {
                let code = match refusal {
                    Refusal::Invalid => {
                        self.shared.counters.invalid();
                        VIRTIO_BLK_S_IOERR
                    }
                    Refusal::Unsupported => {
                        self.shared.counters.unsupported();
                        VIRTIO_BLK_S_UNSUPP
                    }
                };
                return answer(io, head, &status, payload_bytes, code);
            }
        };
        let (kind, bytes) = command.measure();
        let write_through = matches!(kind, Kind::Write | Kind::WriteZeroes) && self.is_write_through();
        let mut pending =
            Pending { status, payload_bytes, kind, bytes, rest: VecDeque::new(), write_through };
        let operation = match command {
            Command::Read { offset, to } => Operation::Read { offset, to: GuestData(to) },
            Command::Write { offset, from } => Operation::Write { offset, from: GuestData(from) },
            Command::Flush => Operation::Flush,
            Command::Id { to } => {
                let result = to.copy_from(&self.serial_field()).map_err(io::Error::other);
                return self.end(io, head, pending, result);
            }
            Command::Discard { segments } | Command::WriteZeroes { segments } => {
                pending.rest = segments.into();
                match pending.next() {
                    Some(operation) => operation,
                    None => return self.end(io, head, pending, Ok(())),
                }
            }
        };
        self.submit(io, head, pending, operation)
    }

    fn submit(
        &mut self,
        io: &mut QueueIo,
        head: u16,
        pending: Pending,
        operation: Operation<GuestData>,
    ) -> Result<(), Fault> {
        // The engine holds as many operations as the queue has heads, so there is room.
        if self.engine.submit(u64::from(head), operation).is_err() {
            return self.end(io, head, pending, Err(io::Error::from_raw_os_error(libc::EBUSY)));
        }
        if let Some(place) = self.pending.get_mut(usize::from(head)) {
            *place = Some(pending);
        }
        Ok(())
    }

    /// Finishes what the engine has finished, and tells the driver.
    fn reap(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let mut result = Ok(());
        while let Some(Completion { token, result: done, memory }) = self.engine.complete() {
            drop(memory);
            let Ok(head) = u16::try_from(token) else { continue };
            let place = self.pending.get_mut(usize::from(head));
            let Some(mut pending) = place.and_then(Option::take) else { continue };
            let step = match (done, pending.next()) {
                (Ok(()), Some(operation)) => self.submit(io, head, pending, operation),
                (done, _) => self.end(io, head, pending, done),
            };
            // A ring that cannot be written must not keep the rest from being let go.
            result = result.and(step);
        }
        self.commit();
        result.and_then(|()| io.notify(QUEUE))
    }

    /// Hands to the kernel what is there; where it has no memory for that now, soon again.
    fn commit(&mut self) {
        if self.engine.commit().is_err() {
            let _ = self.more.write(1);
        }
    }

    fn end(
        &self,
        io: &mut QueueIo,
        head: u16,
        pending: Pending,
        result: io::Result<()>,
    ) -> Result<(), Fault> {
        let code = match result {
            Ok(()) => {
                self.shared.counters.done(pending.kind, pending.bytes);
                VIRTIO_BLK_S_OK
            }
            Err(_) => {
                self.shared.counters.failed(pending.kind);
                VIRTIO_BLK_S_IOERR
            }
        };
        answer(io, head, &pending.status, pending.payload_bytes, code)
    }

    /// The serial number as `VIRTIO_BLK_T_GET_ID` returns it: filled up with zeroes.
    fn serial_field(&self) -> [u8; SERIAL_MAX_BYTES] {
        let mut field = [0; SERIAL_MAX_BYTES];
        for (to, from) in field.iter_mut().zip(self.shared.serial.bytes()) {
            *to = from;
        }
        field
    }
}

impl Pending {
    /// What is to be done next for this request, if there is more.
    fn next(&mut self) -> Option<Operation<GuestData>> {
        if let Some(Segment { offset, len, unmap }) = self.rest.pop_front() {
            return Some(match self.kind {
                Kind::Discard => Operation::Discard { offset, len },
                _ => Operation::WriteZeroes { offset, len, unmap },
            });
        }
        std::mem::take(&mut self.write_through).then_some(Operation::Flush)
    }
}

/// Writes the status byte and returns the request. The used length counts what was surely written from the start of
/// the writable part on (virtio 1.3 §2.7.8): all of it, or nothing when the payload may be incomplete.
fn answer(
    io: &mut QueueIo,
    head: u16,
    status: &Buffers,
    payload_bytes: usize,
    code: u32,
) -> Result<(), Fault> {
    let code = u8::try_from(code).unwrap_or(u8::MAX);
    status.copy_from(&[code]).map_err(|_| Fault("a status byte cannot be written"))?;
    let complete = payload_bytes == 0 || u32::from(code) == VIRTIO_BLK_S_OK;
    io.push(QUEUE, head, if complete { payload_bytes.saturating_add(1) } else { 0 })
}

impl Backend for BlockQueue {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        let own = [(self.more.as_raw_fd(), MORE), (self.alarm.as_raw_fd(), ALARM)];
        let resized = self.tells.then(|| (self.shared.resized.as_raw_fd(), RESIZED));
        self.engine.event().map(|fd| (fd, ENGINE)).into_iter().chain(own).chain(resized).collect()
    }

    fn start(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        self.features = io.features();
        let resets = self.shared.resets.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.resets, resets) != resets {
            self.engine.forget();
            self.pending.fill_with(|| None);
        }
        // What was held when the machine stopped is still the device's, and is tried again.
        for (head, _) in (0..).zip(&self.pending).filter(|(_, pending)| pending.is_some()) {
            io.keep(QUEUE, head)?;
        }
        self.shared.held.fetch_sub(self.engine.held(), Ordering::Relaxed);
        self.engine.go_on();
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, _queue: usize) -> Result<(), Fault> {
        self.take(io)
    }

    fn ready(&mut self, io: &mut QueueIo, token: u32) -> Result<(), Fault> {
        match token {
            ENGINE => self.reap(io),
            RESIZED => {
                let _ = self.shared.resized.read();
                io.config_changed();
                Ok(())
            }
            ALARM => {
                if self.alarm.has_gone_off() {
                    self.take(io)?;
                }
                Ok(())
            }
            _ => {
                let _ = self.more.read();
                self.take(io)
            }
        }
    }

    fn drain(&mut self, io: &mut QueueIo) {
        while self.engine.in_flight() > 0 {
            self.engine.wait();
            // A ring that cannot be written is the guest's loss; what matters is that nothing is in flight.
            let _ = self.reap(io);
        }
        self.engine.stand_still();
        self.shared.held.fetch_add(self.engine.held(), Ordering::Relaxed);
        self.alarm.clear();
        let _ = self.more.read();
    }
}
