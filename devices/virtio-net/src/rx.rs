//! From the tap into the guest's receive buffers.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use orlop_net::{FRAME_MAX_BYTES, HEADER_BYTES};
use orlop_virtio::{Fault, QueueIo, Request};

use crate::features;
use crate::header;
use crate::iovecs::{IoVecs, PIECES_MAX};
use crate::shared::{Port, Shared};

/// How long frames may be, without header: at least an Ethernet header.
pub(crate) const FRAME_BYTES: RangeInclusive<usize> = 14..=FRAME_MAX_BYTES;

/// Why a round of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// Nothing is left to do: the next frame, buffer or room wakes the thread.
    Done,
    /// The budget is used up, and more may be there.
    Budget,
    /// The tap takes nothing now.
    TapFull,
    /// The tap went away.
    TapGone,
    /// The limit is reached: to be asked again after this.
    Limited(Duration),
}

/// A receive buffer of the guest's that waits for a frame.
struct Posted {
    request: Request,
    /// How many of the pieces are its own.
    pieces: usize,
}

/// One receive queue.
pub(crate) struct Receiver {
    queue: usize,
    /// The longest frame without offloads.
    frame_bytes: usize,
    mergeable: bool,
    /// Buffers that were taken off the ring, in its order.
    posted: VecDeque<Posted>,
    /// The same as host addresses.
    pieces: IoVecs,
    /// How many bytes they hold together.
    room: usize,
    /// Where what does not fit into them goes.
    overflow: Box<[u8]>,
    /// A frame that is longer than the buffers were: its length. Its tail is in `overflow` until buffers come.
    spilt: Option<Spilt>,
    used: Vec<(u16, usize)>,
}

#[derive(Clone, Copy)]
struct Spilt {
    /// Length with header, in bytes.
    len: usize,
    /// How much of it went straight into the guest's buffers, and into how many of them.
    placed: usize,
    buffers: usize,
}

impl Receiver {
    pub(crate) fn new(queue: usize, mtu: u16) -> Self {
        Self {
            queue,
            // An Ethernet header with a VLAN tag is 18 bytes long.
            frame_bytes: usize::from(mtu).max(1500).saturating_add(18),
            mergeable: false,
            posted: VecDeque::new(),
            pieces: IoVecs::default(),
            room: 0,
            overflow: vec![0; HEADER_BYTES + FRAME_MAX_BYTES + 1].into_boxed_slice(),
            spilt: None,
            used: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, features: u64) {
        self.mergeable = features & features::MRG_RXBUF != 0;
    }

    /// Puts back what it holds. A frame that waits for buffers is lost.
    pub(crate) fn drain(&mut self, io: &mut QueueIo, port: &Port) {
        if self.spilt.take().is_some() {
            port.rx.dropped();
        }
        while let Some(posted) = self.posted.pop_back() {
            io.undo_pop(self.queue, &posted.request);
        }
        self.pieces.0.clear();
        self.room = 0;
    }

    /// Moves up to `budget` frames.
    pub(crate) fn serve(
        &mut self,
        io: &mut QueueIo,
        shared: &Shared,
        port: &Port,
        budget: usize,
    ) -> Result<Round, Fault> {
        let mut round = Round::Budget;
        io.disable_notification(self.queue)?;
        for _ in 0..budget {
            if let Some(end) = self.step(io, shared, port)? {
                round = end;
                break;
            }
        }
        io.notify(self.queue)?;
        Ok(round)
    }

    /// Moves one frame; the result says why none can be moved.
    fn step(&mut self, io: &mut QueueIo, shared: &Shared, port: &Port) -> Result<Option<Round>, Fault> {
        let offloads = shared.offloads();
        if let Some(spilt) = self.spilt {
            return self.place_spilt(io, port, spilt, offloads);
        }
        if !shared.is_link_up() {
            return Ok(self.discard(port));
        }
        let frame = if features::receives_large(offloads) { FRAME_MAX_BYTES } else { self.frame_bytes };
        let wanted = if self.mergeable { HEADER_BYTES.saturating_add(frame) } else { 1 };
        self.take_buffers(io, port, wanted)?;
        if self.posted.is_empty() {
            return Ok(Some(Round::Done));
        }
        if let Err(wait) = shared.rx_limit.take(frame) {
            return Ok(Some(Round::Limited(wait)));
        }
        let len = match self.read(port) {
            Ok(len) => len,
            Err(error) => {
                shared.rx_limit.give_back(frame);
                return Ok(Some(why_nothing_was_read(&error, port)));
            }
        };
        shared.rx_limit.give_back(frame.saturating_sub(len.saturating_sub(HEADER_BYTES)));
        if !FRAME_BYTES.contains(&len.saturating_sub(HEADER_BYTES)) {
            port.rx.failed();
        } else if len <= self.room {
            self.deliver(io, port, len, offloads)?;
        } else if self.mergeable {
            self.spilt = Some(Spilt { len, placed: self.room, buffers: self.posted.len() });
        } else {
            port.rx.failed();
        }
        Ok(None)
    }

    /// Reads a frame and drops it: while the link is down nothing may wait for it to come up.
    fn discard(&mut self, port: &Port) -> Option<Round> {
        let pieces = std::mem::take(&mut self.pieces);
        let result = self.read(port);
        self.pieces = pieces;
        match result {
            Ok(_) => {
                port.rx.dropped();
                None
            }
            Err(error) => Some(why_nothing_was_read(&error, port)),
        }
    }

    /// Reads a frame into the guest's buffers, and what they cannot take into `overflow`.
    fn read(&mut self, port: &Port) -> io::Result<usize> {
        let tail = libc::iovec { iov_base: self.overflow.as_mut_ptr().cast(), iov_len: self.overflow.len() };
        self.pieces.0.push(tail);
        #[expect(unsafe_code, reason = "the kernel writes into guest memory")]
        // SAFETY: each piece is either part of a buffer in `posted`, which keeps guest memory mapped, or `overflow`,
        // which lives as long as `self` and is borrowed mutably here.
        let result = unsafe { port.tap.read_vectored(&self.pieces.0) };
        self.pieces.0.pop();
        result
    }

    /// Takes buffers off the ring until they hold `wanted` bytes, or one buffer where a frame may not span several.
    /// False when no more can be taken: they are in too many pieces.
    fn take_buffers(&mut self, io: &mut QueueIo, port: &Port, wanted: usize) -> Result<bool, Fault> {
        // A driver that hands in bad buffers forever must not hold the thread.
        for _ in 0..PIECES_MAX {
            if self.room >= wanted || !self.mergeable && !self.posted.is_empty() {
                break;
            }
            let Some(request) = io.pop(self.queue)? else {
                if io.enable_notification(self.queue)? {
                    continue;
                }
                break;
            };
            let pieces = request.writable.iovecs().map_err(|_| Fault("a receive buffer is gone"))?;
            let too_many = self.pieces.0.len().saturating_add(pieces.len()) > PIECES_MAX;
            if request.writable.len() < HEADER_BYTES || too_many && self.posted.is_empty() {
                port.rx.failed();
                io.push(self.queue, request.head, 0)?;
                continue;
            }
            if too_many {
                io.undo_pop(self.queue, &request);
                return Ok(false);
            }
            self.room = self.room.saturating_add(request.writable.len());
            self.posted.push_back(Posted { request, pieces: pieces.len() });
            self.pieces.0.extend(pieces);
        }
        Ok(true)
    }

    /// Copies the rest of a frame into buffers that came after it.
    fn place_spilt(
        &mut self,
        io: &mut QueueIo,
        port: &Port,
        spilt: Spilt,
        offloads: u64,
    ) -> Result<Option<Round>, Fault> {
        let may_take_more = self.take_buffers(io, port, spilt.len)?;
        if self.room < spilt.len {
            // A driver whose whole ring is too small for the frame would wait for it forever.
            let taken = self.pieces.0.len().max(io.in_flight(self.queue));
            if !may_take_more || taken >= io.queue_size(self.queue) {
                self.spilt = None;
                port.rx.failed();
                return Ok(None);
            }
            return Ok(Some(Round::Done));
        }
        let tail = spilt.len.saturating_sub(spilt.placed);
        let mut rest = self.overflow.get(..tail).unwrap_or_default();
        for posted in self.posted.iter().skip(spilt.buffers) {
            let (now, later) = rest.split_at(posted.request.writable.len().min(rest.len()));
            posted.request.writable.copy_from(now).map_err(|_| Fault("a receive buffer is gone"))?;
            rest = later;
        }
        self.spilt = None;
        self.deliver(io, port, spilt.len, offloads)?;
        Ok(None)
    }

    /// Hands the frame of `len` bytes that fills the first buffers to the driver, or drops it if the driver can not finish
    /// it.
    fn deliver(&mut self, io: &mut QueueIo, port: &Port, len: usize, offloads: u64) -> Result<(), Fault> {
        self.used.clear();
        let (mut left, mut pieces, mut room) = (len, 0usize, 0usize);
        for posted in &self.posted {
            if left == 0 {
                break;
            }
            let written = left.min(posted.request.writable.len());
            left = left.saturating_sub(written);
            pieces = pieces.saturating_add(posted.pieces);
            room = room.saturating_add(posted.request.writable.len());
            self.used.push((posted.request.head, written));
        }
        let buffers = u16::try_from(self.used.len()).map_err(|_| Fault("a frame in too many buffers"))?;
        let Some(first) = self.posted.front().map(|posted| &posted.request.writable) else { return Ok(()) };
        let mut bytes = [0; HEADER_BYTES];
        first.copy_to(&mut bytes).map_err(|_| Fault("a receive buffer is gone"))?;
        let Some(header) = header::to_guest(bytes, buffers, offloads) else {
            port.rx.dropped();
            return Ok(());
        };
        first.copy_from(&header).map_err(|_| Fault("a receive buffer is gone"))?;
        self.posted.drain(..self.used.len());
        self.pieces.0.drain(..pieces);
        self.room = self.room.saturating_sub(room);
        io.push_all(self.queue, &self.used)?;
        port.rx.passed(len.saturating_sub(HEADER_BYTES));
        Ok(())
    }
}

fn why_nothing_was_read(error: &io::Error, port: &Port) -> Round {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Round::Done,
        Some(libc::EINTR) => Round::Budget,
        Some(libc::EBADFD) => Round::TapGone,
        _ => {
            port.rx.failed();
            Round::Done
        }
    }
}
