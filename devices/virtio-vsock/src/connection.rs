//! One connection between a port of the guest and a unix socket.
//!
//! ```text
//!   host asks ──▶ Requested ── RESPONSE ──▶ Open ── both sides shut, or RST ──▶ gone
//!   guest asks ─────────────────────────────▶ ▲
//! ```

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::credit::{BUFFER_BYTES, Credit};
use crate::packet::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// How long the guest may take to answer a request, or to confirm that a connection is over.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// The two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ports {
    pub(crate) host: u32,
    pub(crate) guest: u32,
}

/// What becomes of a connection after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Lives,
    /// It is over; the guest knows.
    Ends,
    /// It is over, and the guest must be told.
    Resets,
}

/// A packet for the guest without its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) op: Op,
    pub(crate) flags: u32,
    /// Data behind it, in bytes.
    pub(crate) len: u32,
    pub(crate) buf_alloc: u32,
    pub(crate) fwd_cnt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Requested,
    Open,
}

/// Its state.
#[derive(Debug)]
pub(crate) struct Connection {
    ports: Ports,
    stream: UnixStream,
    phase: Phase,
    credit: Credit,
    /// `REQUEST` or `RESPONSE`, until it is sent.
    opening: Option<Op>,
    owes_credit_update: bool,
    /// A `CREDIT_REQUEST` was sent since the guest last had room.
    asked_for_credit: bool,
    /// What the guest sent and the host's peer did not take yet; at most [`BUFFER_BYTES`].
    to_host: VecDeque<u8>,
    /// What the guest said in `SHUTDOWN`, what the host's peer did, and what the guest was told about that.
    guest_shut: u32,
    host_shut: u32,
    told_shut: u32,
    /// The peer's write end may have data or its end: until a read says that it would block.
    readable: bool,
    /// The peer has closed both directions.
    hung_up: bool,
    deadline: Option<Instant>,
}

impl Connection {
    /// The guest asks for the host's port, and `stream` is connected to what is there.
    pub(crate) fn from_guest(ports: Ports, stream: UnixStream, request: &Header) -> Self {
        let mut connection = Self::new(ports, stream, Phase::Open, Op::Response);
        connection.credit.heard(request.buf_alloc, request.fwd_cnt);
        connection
    }

    /// The host's peer behind `stream` asks for the guest's port.
    pub(crate) fn from_host(ports: Ports, stream: UnixStream, now: Instant) -> Self {
        let mut connection = Self::new(ports, stream, Phase::Requested, Op::Request);
        connection.deadline = now.checked_add(ANSWER_TIMEOUT);
        connection
    }

    fn new(ports: Ports, stream: UnixStream, phase: Phase, opening: Op) -> Self {
        Self {
            ports,
            stream,
            phase,
            credit: Credit::default(),
            opening: Some(opening),
            owes_credit_update: false,
            asked_for_credit: false,
            to_host: VecDeque::new(),
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            // The first event may have come before this connection.
            readable: true,
            hung_up: false,
            deadline: None,
        }
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the guest has heard of it or asked for it.
    pub(crate) fn is_known_to_guest(&self) -> bool {
        self.opening != Some(Op::Request)
    }

    /// When the guest must have answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The guest sent a packet on this connection; `data` is as long as its header says.
    pub(crate) fn receive(&mut self, op: Op, header: &Header, data: &[u8]) -> Fate {
        self.credit.heard(header.buf_alloc, header.fwd_cnt);
        if self.credit.room_in_guest() > 0 {
            self.asked_for_credit = false;
        }
        match (self.phase, op) {
            (_, Op::Reset) => Fate::Ends,
            (Phase::Requested, Op::Response) => self.opened(),
            (Phase::Requested, _) | (Phase::Open, Op::Request | Op::Response) => Fate::Resets,
            (Phase::Open, Op::Data) => self.data(data),
            (Phase::Open, Op::Shutdown) => {
                self.guest_shut |= header.flags & SHUTDOWN_BOTH;
                if self.guest_shut & SHUTDOWN_RECEIVE != 0 {
                    // The peer learns it from its next write. It fails only if the peer is gone already.
                    let _ = self.stream.shutdown(Shutdown::Read);
                }
                self.after_flush()
            }
            (Phase::Open, Op::CreditRequest) => {
                self.owes_credit_update = true;
                Fate::Lives
            }
            (Phase::Open, Op::CreditUpdate) => Fate::Lives,
        }
    }

    fn opened(&mut self) -> Fate {
        self.phase = Phase::Open;
        self.deadline = None;
        let line = format!("OK {}\n", self.ports.host);
        // Nothing was written before: a socket that cannot take these few bytes is gone.
        match self.stream.write(line.as_bytes()) {
            Ok(n) if n == line.len() => Fate::Lives,
            _ => Fate::Resets,
        }
    }

    fn data(&mut self, data: &[u8]) -> Fate {
        let limit = usize::try_from(BUFFER_BYTES).unwrap_or(usize::MAX);
        let beyond_credit = self.to_host.len().saturating_add(data.len()) > limit;
        if beyond_credit || self.guest_shut & SHUTDOWN_SEND != 0 {
            return Fate::Resets;
        }
        let mut rest = data;
        if self.to_host.is_empty() {
            let (fate, written) = self.write(data);
            if fate != Fate::Lives {
                return fate;
            }
            rest = data.get(written..).unwrap_or_default();
        }
        self.to_host.extend(rest);
        Fate::Lives
    }

    /// The peer can be read from or written to, or is gone.
    pub(crate) fn ready(&mut self, hung_up: bool) -> Fate {
        self.readable = true;
        self.hung_up |= hung_up;
        if self.phase == Phase::Requested {
            return if self.hung_up { Fate::Resets } else { Fate::Lives };
        }
        let nothing_to_read = (self.guest_shut & SHUTDOWN_RECEIVE) | (self.host_shut & SHUTDOWN_SEND) != 0;
        if self.hung_up && nothing_to_read {
            self.host_shut = SHUTDOWN_BOTH;
        }
        self.flush()
    }

    /// Writes what waits for the peer, as far as it takes it.
    fn flush(&mut self) -> Fate {
        while !self.to_host.is_empty() {
            let mut waiting = std::mem::take(&mut self.to_host);
            let (front, _) = waiting.as_slices();
            let len = front.len();
            let (fate, written) = self.write(front);
            waiting.drain(..written);
            self.to_host = waiting;
            if fate != Fate::Lives {
                return fate;
            }
            if written < len {
                break;
            }
        }
        self.after_flush()
    }

    /// Writes to the peer. What a peer that stopped reading does not want counts as written.
    fn write(&mut self, data: &[u8]) -> (Fate, usize) {
        let written = if self.host_shut & SHUTDOWN_RECEIVE != 0 {
            data.len()
        } else {
            match self.stream.write(data) {
                Ok(written) => written,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                    self.host_shut |= SHUTDOWN_RECEIVE;
                    data.len()
                }
                Err(_) => return (Fate::Resets, 0),
            }
        };
        self.credit.forwarded(written);
        self.owes_credit_update |= self.credit.is_news();
        (Fate::Lives, written)
    }

    /// Passes the guest's shutdown on once everything before it was.
    fn after_flush(&mut self) -> Fate {
        if !self.to_host.is_empty() {
            return Fate::Lives;
        }
        if self.guest_shut == SHUTDOWN_BOTH {
            // The answer that confirms it (virtio 1.3 §5.10.6.5).
            return Fate::Resets;
        }
        if self.guest_shut & SHUTDOWN_SEND != 0 {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Fate::Lives
    }

    /// Whether the guest is to be sent something, as far as that is known without asking the peer.
    pub(crate) fn has_packet(&self) -> bool {
        self.opening.is_some()
            || self.owes_credit_update
            || self.host_shut & !self.told_shut != 0
            || self.may_read() && (self.credit.room_in_guest() > 0 || !self.asked_for_credit)
    }

    fn may_read(&self) -> bool {
        self.phase == Phase::Open
            && self.readable
            && self.guest_shut & SHUTDOWN_RECEIVE == 0
            && self.host_shut & SHUTDOWN_SEND == 0
    }

    /// The next packet for the guest, its data put into `data`.
    pub(crate) fn next(&mut self, data: &mut [u8], now: Instant) -> Result<Option<Outgoing>, Fate> {
        if let Some(op) = self.opening.take() {
            return Ok(Some(self.packet(op, 0, 0)));
        }
        if self.may_read() {
            let room = usize::try_from(self.credit.room_in_guest()).unwrap_or(usize::MAX);
            if room > 0 {
                if let Some(len) = self.read(data, room)? {
                    self.credit.sent(len);
                    return Ok(Some(self.packet(Op::Data, 0, len)));
                }
            } else if !std::mem::replace(&mut self.asked_for_credit, true) {
                return Ok(Some(self.packet(Op::CreditRequest, 0, 0)));
            }
        }
        if self.host_shut & !self.told_shut != 0 {
            self.told_shut = self.host_shut;
            if self.told_shut == SHUTDOWN_BOTH {
                self.deadline = now.checked_add(ANSWER_TIMEOUT);
            }
            return Ok(Some(self.packet(Op::Shutdown, self.told_shut, 0)));
        }
        if self.owes_credit_update {
            return Ok(Some(self.packet(Op::CreditUpdate, 0, 0)));
        }
        Ok(None)
    }

    /// Reads up to `room` bytes from the peer; `None` when there are none.
    fn read(&mut self, data: &mut [u8], room: usize) -> Result<Option<u32>, Fate> {
        let len = room.min(data.len());
        let Some(data) = data.get_mut(..len).filter(|data| !data.is_empty()) else { return Ok(None) };
        match self.stream.read(data) {
            Ok(0) => {
                self.readable = false;
                self.host_shut |= SHUTDOWN_SEND;
                if self.hung_up {
                    self.host_shut = SHUTDOWN_BOTH;
                }
                Ok(None)
            }
            Ok(n) => Ok(u32::try_from(n).ok()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(None),
            Err(_) => Err(Fate::Resets),
        }
    }

    fn packet(&mut self, op: Op, flags: u32, len: u32) -> Outgoing {
        let (buf_alloc, fwd_cnt) = self.credit.tell();
        self.owes_credit_update = false;
        Outgoing { op, flags, len, buf_alloc, fwd_cnt }
    }
}
