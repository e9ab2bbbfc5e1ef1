//! The thread of a console: all its ports and the control queues.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use orlop_virtio::{Backend, Fault, QueueIo};
use vmm_sys_util::epoll::{Epoll, EpollEvent};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::control::{FromGuest, ToGuest};
use crate::device::MULTIPORT;
use crate::listen::Listener;
use crate::port::{CHUNK_BYTES, Port, Turn};
use crate::shared::{Shared, count};

/// Queue from port 0 to the host (virtio 1.3 §5.3.2).
const PORT0_TRANSMIT: usize = 1;
/// Control messages to the guest.
const CONTROL_RECEIVE: usize = 2;
/// Control messages from the guest.
const CONTROL_TRANSMIT: usize = 3;
/// The first queue of the first named port.
const FIRST_NAMED: usize = 4;

/// A socket has news.
const SOCKETS: u32 = 0;
/// Ports that gave others their turn go on.
const MORE: u32 = 1;

/// The most requests of a control queue, or of port 0, before others get their turn.
const REQUESTS_PER_TURN: usize = 256;
/// Events taken from epoll at once.
const EVENTS_PER_TURN: usize = 64;

pub(crate) struct Ports {
    ports: Vec<Port>,
    shared: Arc<Shared>,
    epoll: Epoll,
    more: EventFd,
    multiport: bool,
    chunk: Vec<u8>,
}

impl Ports {
    pub(crate) fn new(listeners: Vec<Listener>, shared: Arc<Shared>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let make = |(index, listener)| Port::new(index, listener, Arc::clone(&shared));
        let mut ports: Vec<Port> = listeners.into_iter().enumerate().map(make).collect();
        for port in &mut ports {
            port.listen(&epoll)?;
        }
        let more = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self { ports, shared, epoll, more, multiport: false, chunk: vec![0; CHUNK_BYTES] })
    }

    fn again(&self) {
        // Fails only when it has been written very often already.
        let _ = self.more.write(1);
    }

    fn pump(&mut self, io: &mut QueueIo, index: usize) -> Result<(), Fault> {
        let Some(port) = self.ports.get_mut(index) else { return Ok(()) };
        if port.pump(io, &self.epoll, &mut self.chunk)? == Turn::Again {
            self.again();
        }
        Ok(())
    }

    fn pump_all(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        (0..self.ports.len()).try_for_each(|index| self.pump(io, index))?;
        self.tell(io)
    }

    fn sockets(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let mut events = [EpollEvent::default(); EVENTS_PER_TURN];
        // What is not taken now is told again.
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            let index = usize::try_from(event.data() / 2).unwrap_or(usize::MAX);
            let Some(port) = self.ports.get_mut(index) else { continue };
            if event.data().is_multiple_of(2) {
                port.accept(&self.epoll);
            } else {
                port.peer_event(event.event_set());
            }
            self.pump(io, index)?;
        }
        self.tell(io)
    }

    /// Takes the driver's control messages.
    fn hear(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(request) = io.pop(CONTROL_TRANSMIT)? else {
                if io.enable_notification(CONTROL_TRANSMIT)? {
                    continue;
                }
                io.notify(CONTROL_TRANSMIT)?;
                return self.pump_all(io);
            };
            if !self.obey(FromGuest::decode(&request.readable)) {
                count(&self.shared.counters.invalid_requests, 1);
            }
            io.push(CONTROL_TRANSMIT, request.head, 0)?;
        }
        io.notify(CONTROL_TRANSMIT)?;
        self.again();
        self.pump_all(io)
    }

    /// False if the message makes no sense.
    fn obey(&mut self, message: Option<FromGuest>) -> bool {
        match message {
            Some(FromGuest::DeviceReady(true)) => self.ports.iter_mut().for_each(Port::announce),
            Some(FromGuest::DeviceReady(false)) => {}
            Some(FromGuest::PortReady(id, ready)) => match self.port(id) {
                Some(port) => port.set_ready(ready),
                None => return false,
            },
            Some(FromGuest::PortOpen(id, open)) => match self.port(id) {
                Some(port) => port.set_guest_open(open),
                None => return false,
            },
            None => return false,
        }
        true
    }

    /// The named port that the driver calls `id`.
    fn port(&mut self, id: u32) -> Option<&mut Port> {
        self.ports.iter_mut().find(|port| port.id() == id)
    }

    /// Tells the driver what is due, as far as it has room.
    fn tell(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let mut left = REQUESTS_PER_TURN;
        while let Some((index, message)) = self.next_message() {
            left = left.saturating_sub(1);
            if left == 0 {
                self.again();
                break;
            }
            let Some(request) = io.pop(CONTROL_RECEIVE)? else {
                if io.enable_notification(CONTROL_RECEIVE)? {
                    continue;
                }
                break;
            };
            let (Some(port), Some(name)) = (self.ports.get_mut(index), self.shared.names.get(index)) else {
                break;
            };
            let bytes = message.encode(port.id(), name);
            // A message that does not fit is lost: the driver chose the size.
            let written = request.writable.copy_from(&bytes).map_or(0, |()| bytes.len());
            if written == 0 {
                count(&self.shared.counters.invalid_requests, 1);
            }
            port.told(message);
            io.push(CONTROL_RECEIVE, request.head, written)?;
        }
        io.notify(CONTROL_RECEIVE)
    }

    fn next_message(&self) -> Option<(usize, ToGuest)> {
        if !self.multiport {
            return None;
        }
        self.ports.iter().enumerate().find_map(|(index, port)| Some((index, port.message_due()?)))
    }

    /// Drops what the guest writes to port 0, so that a driver without named ports does not wait for ever.
    fn drop_port0(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(request) = io.pop(PORT0_TRANSMIT)? else {
                if io.enable_notification(PORT0_TRANSMIT)? {
                    continue;
                }
                return io.notify(PORT0_TRANSMIT);
            };
            count(&self.shared.counters.tx_dropped_bytes, request.readable.len());
            io.push(PORT0_TRANSMIT, request.head, 0)?;
        }
        self.again();
        io.notify(PORT0_TRANSMIT)
    }
}

impl Backend for Ports {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.epoll.as_raw_fd(), SOCKETS), (self.more.as_raw_fd(), MORE)]
    }

    fn start(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        self.multiport = io.features() & 1 << MULTIPORT != 0;
        let state = self.shared.state().clone();
        for (port, state) in self.ports.iter_mut().zip(state.ports) {
            port.start(state);
        }
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        match queue {
            PORT0_TRANSMIT => self.drop_port0(io),
            CONTROL_RECEIVE => self.tell(io),
            CONTROL_TRANSMIT => self.hear(io),
            _ => match queue.checked_sub(FIRST_NAMED) {
                Some(offset) => {
                    if let Some(port) = self.ports.get_mut(offset / 2) {
                        // Where the host was out of descriptors, it may have some now.
                        let _ = port.listen(&self.epoll);
                    }
                    self.pump(io, offset / 2)?;
                    self.tell(io)
                }
                None => Ok(()),
            },
        }
    }

    fn ready(&mut self, io: &mut QueueIo, token: u32) -> Result<(), Fault> {
        match token {
            SOCKETS => self.sockets(io),
            _ => {
                let _ = self.more.read();
                self.drop_port0(io)?;
                self.hear(io)
            }
        }
    }

    fn drain(&mut self, io: &mut QueueIo) {
        let ports = self.ports.iter_mut().map(|port| port.stop(io)).collect();
        self.shared.state().ports = ports;
        let _ = self.more.read();
    }
}
