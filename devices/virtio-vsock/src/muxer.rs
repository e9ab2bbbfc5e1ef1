//! All connections of one device, and the way of packets between them and the guest.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::connection::{Connection, Fate, Ports};
use crate::counters::{Counters, add, one};
use crate::handshake::{Handshake, Progress};
use crate::host::Listener;
use crate::packet::{HOST_CID, Header, Op, STREAM};
use crate::waker::Waker;

/// The most connections; with their buffers they hold 64 MiB at worst.
const CONNECTIONS_MAX: usize = 1024;
/// The most peers that have not said yet what they want.
const HANDSHAKES_MAX: usize = 64;
/// How many refusals may wait for the guest before it is listened to no longer (virtio 1.3 §5.10.6.1).
const REPLIES_MAX: usize = 256;
/// How many peers are accepted before other events get their turn.
const ACCEPT_BUDGET: usize = 16;
/// When to try again to accept a peer after the host had no descriptor for it.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Event data; peers count from [`FIRST_PEER`].
const LISTENER: u64 = 0;
const AGAIN: u64 = 1;
const TIMER: u64 = 2;
const FIRST_PEER: u64 = 3;

/// Ports on the host's side that stand for peers which connected from there start here.
const FIRST_PORT: u32 = 1 << 30;

enum Peer {
    Handshake(Handshake),
    Connection(Connection),
}

struct Entry {
    peer: Peer,
    /// Whether it is in the queue of those with packets for the guest.
    queued: bool,
}

/// The connections of one device.
pub(crate) struct Muxer {
    guest_cid: u64,
    listener: Listener,
    /// Whether peers may wait to be accepted.
    accepting: bool,
    /// Holds all the sources, peers by edges: what is not read for want of credit must not keep the thread awake.
    epoll: Epoll,
    waker: Waker,
    peers: HashMap<u64, Entry>,
    connections: HashMap<Ports, u64>,
    handshakes: usize,
    next_peer: u64,
    next_port: u32,
    /// Connections with packets for the guest, each once, in turn.
    queue: VecDeque<u64>,
    /// Resets for the guest; they go first.
    replies: VecDeque<Header>,
    /// The guest must hear that all its connections are gone.
    pub(crate) owes_transport_reset: bool,
    pub(crate) counters: Arc<Counters>,
}

impl Muxer {
    pub(crate) fn new(guest_cid: u64, listener: Listener, counters: Arc<Counters>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let waker = Waker::new()?;
        let watch = |fd, events, data| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, data));
        watch(listener.as_raw_fd(), EventSet::IN | EventSet::EDGE_TRIGGERED, LISTENER)?;
        for (fd, data) in waker.fds().into_iter().zip([AGAIN, TIMER]) {
            watch(fd, EventSet::IN, data)?;
        }
        Ok(Self {
            guest_cid,
            listener,
            accepting: true,
            epoll,
            waker,
            peers: HashMap::new(),
            connections: HashMap::new(),
            handshakes: 0,
            next_peer: FIRST_PEER,
            next_port: FIRST_PORT,
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            owes_transport_reset: false,
            counters,
        })
    }

    /// What the device's thread waits for.
    pub(crate) fn source(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Ends every connection; peers see theirs closed.
    pub(crate) fn clear(&mut self) {
        self.peers.clear();
        self.connections.clear();
        self.handshakes = 0;
        self.queue.clear();
        self.replies.clear();
        self.owes_transport_reset = false;
    }

    /// Wakes the thread once more, behind whatever else is waiting.
    pub(crate) fn come_back(&self) {
        self.waker.again();
    }

    /// Whether another packet of the guest may be taken: its answer has room.
    pub(crate) fn can_take(&self) -> bool {
        self.replies.len() < REPLIES_MAX
    }

    /// Whether there may be a packet for the guest.
    pub(crate) fn has_packet(&self) -> bool {
        !self.replies.is_empty() || !self.queue.is_empty()
    }

    /// Looks at all that happened on the host's side.
    pub(crate) fn events(&mut self, now: Instant) {
        let mut events = [EpollEvent::default(); 64];
        // More than these leave the epoll file readable.
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            match event.data() {
                LISTENER => self.accepting = true,
                AGAIN => self.waker.take_again(),
                TIMER => {
                    self.waker.take_timer();
                    self.expire(now);
                }
                id => self.peer_is_ready(id, event.event_set().contains(EventSet::HANG_UP), now),
            }
        }
        self.accept(now);
    }

    /// Takes a packet of the guest's whose `data` is as long as its header says.
    pub(crate) fn guest_packet(&mut self, header: &Header, data: &[u8]) {
        one(&self.counters.tx_packets);
        if header.src_cid != self.guest_cid {
            return one(&self.counters.malformed_packets);
        }
        let op = Op::of(header.op).filter(|_| header.dst_cid == HOST_CID && header.kind == STREAM);
        let Some(op) = op else {
            return self.malformed(header);
        };
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let Some(id) = self.connections.get(&ports).copied() else {
            return match op {
                Op::Request => self.open(ports, header),
                Op::Reset => {}
                _ => self.refuse(header),
            };
        };
        if let Some(Entry { peer: Peer::Connection(connection), .. }) = self.peers.get_mut(&id) {
            add(&self.counters.tx_bytes, data.len());
            let fate = connection.receive(op, header, data);
            self.settle(id, fate);
        }
    }

    /// A packet whose header contradicts what is there, or makes no sense: its connection cannot go on.
    pub(crate) fn malformed(&mut self, header: &Header) {
        one(&self.counters.malformed_packets);
        if header.src_cid != self.guest_cid {
            return;
        }
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        match self.connections.get(&ports) {
            Some(id) => self.settle(*id, Fate::Resets),
            None => self.refuse(header),
        }
    }

    /// The next packet for the guest, its data put into `data`; the length of both is in the header.
    pub(crate) fn next_packet(&mut self, data: &mut [u8], now: Instant) -> Option<Header> {
        for _ in 0..=self.queue.len() {
            if let Some(reply) = self.replies.pop_front() {
                one(&self.counters.rx_packets);
                return Some(reply);
            }
            let id = self.queue.pop_front()?;
            let Some(Entry { peer: Peer::Connection(connection), queued }) = self.peers.get_mut(&id) else {
                continue;
            };
            *queued = false;
            let (next, ports) = (connection.next(data, now), connection.ports());
            if let Some(deadline) = connection.deadline() {
                self.waker.at(deadline, now);
            }
            self.settle(id, next.err().unwrap_or(Fate::Lives));
            if let Ok(Some(packet)) = next {
                one(&self.counters.rx_packets);
                add(&self.counters.rx_bytes, usize::try_from(packet.len).unwrap_or(0));
                return Some(Header {
                    op: packet.op as u16,
                    flags: packet.flags,
                    len: packet.len,
                    buf_alloc: packet.buf_alloc,
                    fwd_cnt: packet.fwd_cnt,
                    ..self.towards_guest(ports)
                });
            }
        }
        None
    }

    fn towards_guest(&self, ports: Ports) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            kind: STREAM,
            ..Header::default()
        }
    }

    /// The guest wants to connect.
    fn open(&mut self, ports: Ports, request: &Header) {
        let stream = match self.listener.connect(ports.host) {
            Ok(stream) if self.connections.len() < CONNECTIONS_MAX => stream,
            _ => return self.refuse(request),
        };
        let connection = Connection::from_guest(ports, stream, request);
        match self.insert(Peer::Connection(connection)) {
            Some(id) => {
                self.connections.insert(ports, id);
                one(&self.counters.guest_connections);
                self.settle(id, Fate::Lives);
            }
            None => self.refuse(request),
        }
    }

    /// Answers with a reset, but never a reset.
    fn refuse(&mut self, header: &Header) {
        if header.op == Op::Request as u16 {
            one(&self.counters.refusals);
        }
        if header.op != Op::Reset as u16 {
            self.replies.push_back(header.refusal());
        }
    }

    /// Takes a peer in and watches it.
    fn insert(&mut self, peer: Peer) -> Option<u64> {
        let fd = match &peer {
            Peer::Handshake(handshake) => handshake.stream().as_raw_fd(),
            Peer::Connection(connection) => connection.stream().as_raw_fd(),
        };
        let id = self.next_peer;
        let events = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, id)).ok()?;
        self.next_peer = id.wrapping_add(1).max(FIRST_PEER);
        self.peers.insert(id, Entry { peer, queued: false });
        Some(id)
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BUDGET {
            if !self.accepting {
                return;
            }
            match self.listener.accept() {
                Ok(stream) => self.greet(stream, now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.accepting = false,
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return self.waker.at(now.checked_add(ACCEPT_RETRY).unwrap_or(now), now),
            }
        }
        self.come_back();
    }

    fn greet(&mut self, stream: UnixStream, now: Instant) {
        if self.handshakes >= HANDSHAKES_MAX {
            // Dropped, and thereby closed.
            return one(&self.counters.refusals);
        }
        let handshake = Handshake::new(stream, now);
        let deadline = handshake.deadline();
        if self.insert(Peer::Handshake(handshake)).is_some() {
            self.handshakes = self.handshakes.saturating_add(1);
            self.waker.at(deadline, now);
        }
    }

    fn peer_is_ready(&mut self, id: u64, hung_up: bool, now: Instant) {
        let Some(entry) = self.peers.get_mut(&id) else { return };
        match &mut entry.peer {
            Peer::Connection(connection) => {
                let fate = connection.ready(hung_up);
                self.settle(id, fate);
            }
            Peer::Handshake(handshake) => match handshake.advance() {
                Progress::Waiting => {}
                Progress::Wants(port) => self.request(id, port, now),
                Progress::Refused => self.drop_handshake(id),
            },
        }
    }

    /// The peer `id` wants the guest's `port`.
    fn request(&mut self, id: u64, port: u32, now: Instant) {
        if self.connections.len() >= CONNECTIONS_MAX {
            return self.drop_handshake(id);
        }
        let Some(Entry { peer: Peer::Handshake(handshake), .. }) = self.peers.remove(&id) else { return };
        self.handshakes = self.handshakes.saturating_sub(1);
        let ports = Ports { host: self.free_port(port), guest: port };
        let connection = Connection::from_host(ports, handshake.into_stream(), now);
        if let Some(deadline) = connection.deadline() {
            self.waker.at(deadline, now);
        }
        // The stream is watched under this id already.
        self.peers.insert(id, Entry { peer: Peer::Connection(connection), queued: false });
        self.connections.insert(ports, id);
        one(&self.counters.host_connections);
        self.settle(id, Fate::Lives);
    }

    /// A port of the host's side that no connection to the guest's port `guest` has. There are far more of them than
    /// connections.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host.wrapping_add(1).max(FIRST_PORT);
            if !self.connections.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    fn drop_handshake(&mut self, id: u64) {
        one(&self.counters.refusals);
        self.handshakes = self.handshakes.saturating_sub(1);
        self.peers.remove(&id);
    }

    /// Does with a connection what its fate demands.
    fn settle(&mut self, id: u64, fate: Fate) {
        let Some(Entry { peer: Peer::Connection(connection), queued }) = self.peers.get_mut(&id) else {
            return;
        };
        if fate == Fate::Lives {
            if connection.has_packet() && !std::mem::replace(queued, true) {
                self.queue.push_back(id);
            }
            return;
        }
        let (ports, known) = (connection.ports(), connection.is_known_to_guest());
        self.peers.remove(&id);
        self.connections.remove(&ports);
        if fate == Fate::Resets && known {
            one(&self.counters.resets);
            let reset = Header { op: Op::Reset as u16, ..self.towards_guest(ports) };
            self.replies.push_back(reset);
        }
    }

    /// Ends what took too long.
    fn expire(&mut self, now: Instant) {
        let deadlines = self.peers.iter().filter_map(|(id, entry)| match &entry.peer {
            Peer::Handshake(handshake) => Some((*id, handshake.deadline())),
            Peer::Connection(connection) => connection.deadline().map(|deadline| (*id, deadline)),
        });
        let (due, later): (Vec<_>, Vec<_>) = deadlines.partition(|(_, deadline)| *deadline <= now);
        for (id, _) in due {
            match self.peers.get(&id).map(|entry| &entry.peer) {
                Some(Peer::Handshake(_)) => self.drop_handshake(id),
                Some(Peer::Connection(_)) => self.settle(id, Fate::Resets),
                None => {}
            }
        }
        if let Some(next) = later.into_iter().map(|(_, deadline)| deadline).min() {
            self.waker.at(next, now);
        }
    }
}
