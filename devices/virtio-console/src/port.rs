//! One named port: its data in both directions, and what the driver is to be told about it.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use orlop_virtio::{Buffers, Fault, QueueIo, Request};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::control::ToGuest;
use crate::listen::Listener;
use crate::peer::{Peer, Transfer};
use crate::shared::{Shared, count};
use crate::state::PortState;

/// The most bytes that one system call moves.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// The most chunks in one direction before others get their turn.
const CHUNKS_PER_TURN: usize = 16;
/// The most peers that are let in or sent away in one go.
const ACCEPTS_PER_TURN: usize = 16;

/// A request of the guest's that is being sent.
struct Sending {
    request: Request,
    /// What of it is left.
    rest: Buffers,
}

/// Whether a port is done for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Until an event.
    Over,
    /// Others first, then again.
    Again,
}

pub(crate) struct Port {
    /// Position among the named ports, from 0.
    index: usize,
    listener: Listener,
    listening: bool,
    peer: Option<Peer>,
    /// A peer left since the driver was told of one.
    left: bool,
    sending: Option<Sending>,
    /// The guest has room for more from the peer.
    receiving: bool,
    state: PortState,
    shared: Arc<Shared>,
}

impl Port {
    pub(crate) fn new(index: usize, listener: Listener, shared: Arc<Shared>) -> Self {
        Self {
            index,
            listener,
            listening: false,
            peer: None,
            left: false,
            sending: None,
            receiving: false,
            state: PortState::default(),
            shared,
        }
    }

    /// Its number for the driver.
    pub(crate) fn id(&self) -> u32 {
        u32::try_from(self.index).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Queue from the peer to the guest (virtio 1.3 §5.3.2).
    fn receive_queue(&self) -> usize {
        self.index.saturating_mul(2).saturating_add(4)
    }

    /// Queue from the guest to the peer.
    fn transmit_queue(&self) -> usize {
        self.receive_queue().saturating_add(1)
    }

    /// Epoll's data of the listener; that of the peer is the next.
    fn event(&self) -> u64 {
        u64::try_from(self.index).unwrap_or(u64::MAX).saturating_mul(2)
    }

    /// Lets epoll wait for peers, if it does not.
    pub(crate) fn listen(&mut self, epoll: &Epoll) -> io::Result<()> {
        if !self.listening {
            let event = EpollEvent::new(EventSet::IN, self.event());
            epoll.ctl(ControlOperation::Add, self.listener.socket.as_raw_fd(), event)?;
            self.listening = true;
        }
        Ok(())
    }

    /// The queues started.
    pub(crate) fn start(&mut self, state: PortState) {
        self.state = state;
        self.show();
    }

    /// The queues stop: what is half sent goes back to the guest's queue.
    pub(crate) fn stop(&mut self, io: &mut QueueIo) -> PortState {
        if let Some(Sending { request, rest }) = self.sending.take() {
            let sent = request.readable.len().saturating_sub(rest.len());
            io.undo_pop(self.transmit_queue(), &request);
            self.state.sent_bytes = u32::try_from(sent).unwrap_or(u32::MAX);
        }
        self.receiving = false;
        std::mem::take(&mut self.state)
    }

    fn show(&self) {
        if let Some(view) = self.shared.views.get(self.index) {
            view.guest_open.store(self.state.guest_open, Ordering::Relaxed);
            let connected = self.peer.as_ref().is_some_and(|peer| !peer.has_hung_up());
            view.connected.store(connected, Ordering::Relaxed);
        }
    }

    /// The driver wants to hear of its ports, from the beginning.
    pub(crate) fn announce(&mut self) {
        let PortState { name, sent_bytes, .. } = std::mem::take(&mut self.state);
        self.state = PortState { name, sent_bytes, add_due: true, ..PortState::default() };
        self.show();
    }

    /// The driver has set the port up, or could not.
    pub(crate) fn set_ready(&mut self, ready: bool) {
        self.state.ready = ready;
        self.state.name_due = ready;
        self.state.host_open = false;
        self.left = false;
    }

    /// A program in the guest opened or closed the port.
    pub(crate) fn set_guest_open(&mut self, open: bool) {
        self.state.guest_open = open;
        self.show();
    }

    /// What the driver is to be told next. However often things change, it is three messages at most.
    pub(crate) fn message_due(&self) -> Option<ToGuest> {
        let PortState { add_due, name_due, ready, host_open, .. } = self.state;
        let connected = self.peer.is_some();
        match (host_open, connected) {
            _ if add_due => Some(ToGuest::Add),
            _ if name_due => Some(ToGuest::Name),
            _ if !ready => None,
            (true, true) if self.left => Some(ToGuest::Open(false)),
            (true, false) => Some(ToGuest::Open(false)),
            (false, true) => Some(ToGuest::Open(true)),
            _ => None,
        }
    }

    /// The driver was told.
    pub(crate) fn told(&mut self, message: ToGuest) {
        match message {
            ToGuest::Add => self.state.add_due = false,
            ToGuest::Name => self.state.name_due = false,
            ToGuest::Open(open) => {
                self.state.host_open = open;
                self.left = false;
            }
        }
    }

    /// Lets peers in: one; the others are told and sent away. A peer that hung up makes room even if the guest has not
    /// read all that it sent.
    pub(crate) fn accept(&mut self, epoll: &Epoll) {
        for _ in 0..ACCEPTS_PER_TURN {
            let stream = match self.listener.socket.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) if self.listening => {
                    // Out of descriptors, most likely: try again when a peer has left or the guest stirs.
                    let fd = self.listener.socket.as_raw_fd();
                    self.listening = epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default()).is_err();
                    return;
                }
                Err(_) => return,
            };
            if self.peer.as_ref().is_some_and(|peer| !peer.has_hung_up()) {
                count(&self.shared.counters.peers_refused, 1);
                refuse(stream, &self.state.name);
                continue;
            }
            self.disconnect();
            if let Ok(peer) = Peer::new(stream) {
                count(&self.shared.counters.peers, 1);
                self.peer = Some(peer);
                self.show();
            }
        }
    }

    fn disconnect(&mut self) {
        // Closing the socket takes it out of epoll.
        if self.peer.take().is_some() {
            self.left = true;
            self.show();
        }
    }

    /// Epoll told of the peer.
    pub(crate) fn peer_event(&mut self, events: EventSet) {
        if let Some(peer) = &mut self.peer
            && events.intersects(EventSet::HANG_UP | EventSet::ERROR)
        {
            peer.hang_up();
            self.show();
        }
    }

    /// Moves what can be moved in both directions, then waits for the rest.
    pub(crate) fn pump(&mut self, io: &mut QueueIo, epoll: &Epoll, chunk: &mut [u8]) -> Result<Turn, Fault> {
        let receive = self.receive(io, chunk)?;
        let transmit = self.transmit(io, chunk)?;
        io.notify(self.receive_queue())?;
        io.notify(self.transmit_queue())?;
        let data = self.event().saturating_add(1);
        let (read, write) = (self.receiving, self.sending.is_some());
        let lost = match &mut self.peer {
            Some(peer) => peer.is_gone() || peer.watch(epoll, data, read, write).is_err(),
            None => false,
        };
        if lost {
            self.disconnect();
            // Its descriptor may be the one that was missing.
            let _ = self.listen(epoll);
        }
        Ok(if receive == Turn::Again || transmit == Turn::Again { Turn::Again } else { Turn::Over })
    }

    /// From the peer to the guest, as far as the guest has room.
    fn receive(&mut self, io: &mut QueueIo, chunk: &mut [u8]) -> Result<Turn, Fault> {
        let queue = self.receive_queue();
        self.receiving = false;
        let Some(peer) = &mut self.peer else { return Ok(Turn::Over) };
        if !self.state.guest_open {
            return Ok(Turn::Over);
        }
        for _ in 0..CHUNKS_PER_TURN {
            let Some(request) = io.pop(queue)? else {
                if io.enable_notification(queue)? {
                    continue;
                }
                return Ok(Turn::Over);
            };
            let room = request.writable.len().min(chunk.len());
            let to = chunk.get_mut(..room).unwrap_or_default();
            if to.is_empty() {
                io.push(queue, request.head, 0)?;
                continue;
            }
            match peer.read(to) {
                Transfer::Bytes(bytes) => {
                    let read = to.get(..bytes).unwrap_or_default();
                    let fault = |_| Fault("a receive buffer cannot be written");
                    request.writable.copy_from(read).map_err(fault)?;
                    io.push(queue, request.head, bytes)?;
                    count(&self.shared.counters.rx_bytes, bytes);
                }
                Transfer::Later => {
                    io.undo_pop(queue, &request);
                    self.receiving = true;
                    return Ok(Turn::Over);
                }
                Transfer::Closed => {
                    io.undo_pop(queue, &request);
                    return Ok(Turn::Over);
                }
            }
        }
        Ok(Turn::Again)
    }

    /// From the guest to the peer, as far as the peer takes it.
    fn transmit(&mut self, io: &mut QueueIo, chunk: &mut [u8]) -> Result<Turn, Fault> {
        let queue = self.transmit_queue();
        for _ in 0..CHUNKS_PER_TURN {
            let Some(Sending { request, mut rest }) = self.next_to_send(io)? else {
                if io.enable_notification(queue)? {
                    continue;
                }
                return Ok(Turn::Over);
            };
            let later = self.send(&mut rest, chunk)?;
            if rest.is_empty() {
                io.push(queue, request.head, 0)?;
                continue;
            }
            self.sending = Some(Sending { request, rest });
            if later {
                return Ok(Turn::Over);
            }
        }
        Ok(Turn::Again)
    }

    fn next_to_send(&mut self, io: &mut QueueIo) -> Result<Option<Sending>, Fault> {
        if let Some(sending) = self.sending.take() {
            return Ok(Some(sending));
        }
        let Some(request) = io.pop(self.transmit_queue())? else { return Ok(None) };
        let mut rest = request.readable.clone();
        let sent = usize::try_from(std::mem::take(&mut self.state.sent_bytes)).unwrap_or(usize::MAX);
        drop(rest.split_to(sent.min(rest.len())));
        Ok(Some(Sending { request, rest }))
    }

    /// Sends the beginning of `rest`; true when the peer takes no more now. What nobody reads is dropped.
    fn send(&mut self, rest: &mut Buffers, chunk: &mut [u8]) -> Result<bool, Fault> {
        let fault = |_| Fault("a transmit buffer cannot be read");
        let Some(peer) = self.peer.as_mut().filter(|peer| !peer.is_deaf()) else {
            count(&self.shared.counters.tx_dropped_bytes, rest.len());
            rest.split_to(rest.len()).map_err(fault)?;
            return Ok(false);
        };
        let length = rest.len().min(chunk.len());
        let from = chunk.get_mut(..length).unwrap_or_default();
        if from.is_empty() {
            return Ok(false);
        }
        rest.copy_to(from).map_err(fault)?;
        match peer.write(from) {
            Transfer::Bytes(bytes) => {
                count(&self.shared.counters.tx_bytes, bytes);
                rest.split_to(bytes).map_err(fault)?;
                Ok(false)
            }
            Transfer::Later => Ok(true),
            // The next round drops the rest.
            Transfer::Closed => Ok(false),
        }
    }
}

/// Says why, and closes. What cannot be said at once is not said.
fn refuse(mut stream: UnixStream, name: &str) {
    if stream.set_nonblocking(true).is_ok() {
        let _ = writeln!(stream, "port {name} has another peer");
    }
}
