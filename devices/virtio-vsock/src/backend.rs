//! The queues: packets to the guest, packets from it, and events.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use orlop_virtio::{Backend, Fault, QueueIo, Request};

use crate::counters::one;
use crate::muxer::Muxer;
use crate::packet::{DATA_MAX_BYTES, HEADER_BYTES, Header};

/// Queue numbers (virtio 1.3 §5.10.2).
const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3 §5.10.6.7).
const TRANSPORT_RESET: u32 = 0;

/// How many packets one direction moves before the thread looks for other events.
const BUDGET_PACKETS: usize = 64;

/// Serves all three queues on one thread.
pub(crate) struct VsockBackend {
    /// Held by this thread while it serves, and by the configuration side only while the queues have stopped.
    muxer: Arc<Mutex<Muxer>>,
    /// A packet on its way: header and data.
    packet: Box<[u8]>,
}

impl VsockBackend {
    pub(crate) fn new(muxer: Arc<Mutex<Muxer>>) -> Self {
        Self { muxer, packet: vec![0; HEADER_BYTES + DATA_MAX_BYTES].into_boxed_slice() }
    }

    fn serve(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let shared = Arc::clone(&self.muxer);
        let muxer = &mut *lock(&shared);
        self.serve_events(io, muxer)?;
        // What the guest sent may need answers, and answers may make room for more of what it sent.
        let more_from_guest = self.serve_tx(io, muxer)?;
        let more_to_guest = self.serve_rx(io, muxer)?;
        if more_to_guest || more_from_guest && muxer.can_take() {
            muxer.come_back();
        }
        Ok(())
    }

    /// Tells the guest that its connections are gone, once it has given a buffer for that.
    fn serve_events(&mut self, io: &mut QueueIo, muxer: &mut Muxer) -> Result<(), Fault> {
        if muxer.owes_transport_reset
            && let Some(request) = io.pop(EVENT)?
        {
            let event = TRANSPORT_RESET.to_le_bytes();
            let written = request.writable.copy_from(&event).map_or(0, |()| event.len());
            muxer.owes_transport_reset = written == 0;
            io.push(EVENT, request.head, written)?;
            io.notify(EVENT)?;
        }
        Ok(())
    }

    /// Takes packets of the guest's; says whether more may be there.
    fn serve_tx(&mut self, io: &mut QueueIo, muxer: &mut Muxer) -> Result<bool, Fault> {
        let mut more = true;
        io.disable_notification(TX)?;
        for _ in 0..BUDGET_PACKETS {
            if !muxer.can_take() {
                break;
            }
            let Some(request) = io.pop(TX)? else {
                if io.enable_notification(TX)? {
                    continue;
                }
                more = false;
                break;
            };
            let head = request.head;
            self.take(request, muxer);
            io.push(TX, head, 0)?;
        }
        io.notify(TX)?;
        Ok(more)
    }

    /// Takes one packet. Its header is copied once, and only the copy counts.
    fn take(&mut self, request: Request, muxer: &mut Muxer) {
        let mut readable = request.readable;
        let mut bytes = [0; HEADER_BYTES];
        let head = readable.split_to(HEADER_BYTES);
        if head.and_then(|head| head.copy_to(&mut bytes)).is_err() {
            return one(&muxer.counters.malformed_packets);
        }
        let header = Header::from_bytes(&bytes);
        let data = usize::try_from(header.len)
            .ok()
            .filter(|len| *len <= DATA_MAX_BYTES)
            .and_then(|len| self.packet.get_mut(..len))
            .and_then(|data| readable.copy_to(data).ok().map(|()| &*data));
        match data {
            Some(data) => muxer.guest_packet(&header, data),
            None => muxer.malformed(&header),
        }
    }

    /// Fills receive buffers; says whether more packets may be there while buffers are.
    fn serve_rx(&mut self, io: &mut QueueIo, muxer: &mut Muxer) -> Result<bool, Fault> {
        let mut more = true;
        for _ in 0..BUDGET_PACKETS {
            let available = if muxer.has_packet() { io.pop(RX)? } else { None };
            let Some(request) = available else {
                if muxer.has_packet() && io.enable_notification(RX)? {
                    continue;
                }
                more = false;
                break;
            };
            let Some(room) = request.writable.len().checked_sub(HEADER_BYTES) else {
                one(&muxer.counters.malformed_packets);
                io.push(RX, request.head, 0)?;
                continue;
            };
            let Some(written) = self.give(&request, room, muxer)? else {
                io.undo_pop(RX, &request);
                more = false;
                break;
            };
            io.push(RX, request.head, written)?;
        }
        io.notify(RX)?;
        Ok(more)
    }

    /// Puts the next packet, if there is one, into a buffer with `room` for data; says how long it is.
    fn give(&mut self, request: &Request, room: usize, muxer: &mut Muxer) -> Result<Option<usize>, Fault> {
        let (head, data) = self.packet.split_at_mut(HEADER_BYTES);
        let room = room.min(data.len());
        let Some(header) = muxer.next_packet(data.get_mut(..room).unwrap_or_default(), Instant::now()) else {
            return Ok(None);
        };
        head.copy_from_slice(&header.to_bytes());
        let len = HEADER_BYTES.saturating_add(usize::try_from(header.len).unwrap_or(0));
        let packet = self.packet.get(..len).unwrap_or_default();
        request.writable.copy_from(packet).map_err(|_| Fault("a receive buffer is gone"))?;
        Ok(Some(len))
    }
}

impl Backend for VsockBackend {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(lock(&self.muxer).source(), 0)]
    }

    fn start(&mut self, _io: &mut QueueIo) -> Result<(), Fault> {
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, _queue: usize) -> Result<(), Fault> {
        self.serve(io)
    }

    fn ready(&mut self, io: &mut QueueIo, _token: u32) -> Result<(), Fault> {
        lock(&self.muxer).events(Instant::now());
        self.serve(io)
    }

    /// Nothing is in flight between two calls. Connections stay: a pause is no reason to end them.
    fn drain(&mut self, _io: &mut QueueIo) {}
}

pub(crate) fn lock(muxer: &Mutex<Muxer>) -> MutexGuard<'_, Muxer> {
    muxer.lock().unwrap_or_else(PoisonError::into_inner)
}
