//! The program on the other end of a port's socket.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// A connected host peer.
pub(crate) struct Peer {
    stream: UnixStream,
    /// It will send no more.
    read_closed: bool,
    /// It will read no more.
    write_closed: bool,
    /// It hung up; what it sent before can still be read.
    hung_up: bool,
    /// What epoll waits for; `None` while it does not.
    watched: Option<EventSet>,
}

/// How a transfer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// So many bytes, at least one.
    Bytes(usize),
    /// None now; the socket says when.
    Later,
    /// None ever again.
    Closed,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, read_closed: false, write_closed: false, hung_up: false, watched: None })
    }

    /// Reads into `to`, which is not empty.
    pub(crate) fn read(&mut self, to: &mut [u8]) -> Transfer {
        if self.read_closed {
            return Transfer::Closed;
        }
        let transfer = transfer(|| self.stream.read(to));
        self.read_closed = transfer == Transfer::Closed;
        transfer
    }

    /// Writes from `from`, which is not empty.
    pub(crate) fn write(&mut self, from: &[u8]) -> Transfer {
        if self.write_closed {
            return Transfer::Closed;
        }
        let transfer = transfer(|| self.stream.write(from));
        self.write_closed = transfer == Transfer::Closed;
        transfer
    }

    /// Epoll told of a hang-up.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
        self.write_closed = true;
    }

    /// Whether nothing can come or go any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.read_closed && (self.write_closed || self.hung_up)
    }

    /// Whether it hung up, though some of what it sent may not have been read.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether it takes nothing from the guest any more.
    pub(crate) fn is_deaf(&self) -> bool {
        self.write_closed
    }

    /// Lets epoll wait for what is wanted, under `data`. A hang-up is always told, and told again and again: once known,
    /// the socket is not watched any more.
    pub(crate) fn watch(&mut self, epoll: &Epoll, data: u64, read: bool, write: bool) -> io::Result<()> {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, read && !self.read_closed);
        wanted.set(EventSet::OUT, write && !self.write_closed);
        let wanted = (!self.hung_up).then_some(wanted);
        let operation = match (self.watched, wanted) {
            (before, after) if before == after => return Ok(()),
            (None, _) => ControlOperation::Add,
            (Some(_), Some(_)) => ControlOperation::Modify,
            (Some(_), None) => ControlOperation::Delete,
        };
        let event = EpollEvent::new(wanted.unwrap_or(EventSet::empty()), data);
        epoll.ctl(operation, self.stream.as_raw_fd(), event)?;
        self.watched = wanted;
        Ok(())
    }
}

fn transfer(mut call: impl FnMut() -> io::Result<usize>) -> Transfer {
    loop {
        match call() {
            Ok(0) => return Transfer::Closed,
            Ok(count) => return Transfer::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Transfer::Later,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Transfer::Closed,
        }
    }
}
