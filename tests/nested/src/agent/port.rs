//! One job port: frames in, at most one running process, frames out.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use orlop_nested::wire::Message;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::Process;

/// The side of a port that the process's threads write to. Frames of any session but the current one are dropped:
/// a grandchild may hold its output open long after its job.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Mutex<Line>>);

struct Line {
    device: File,
    session: Option<u32>,
}

impl Outbox {
    /// Sends a frame of `session` and tells whether anybody may still be listening.
    pub(crate) fn send(&self, session: u32, message: &Message) -> bool {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.session == Some(session) && message.write(session, &mut line.device).is_ok()
    }

    /// Sends the last frame of `session`.
    pub(crate) fn finish(&self, session: u32, message: &Message) {
        if self.send(session, message) {
            self.attend(None);
        }
    }

    fn attend(&self, session: Option<u32>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).session = session;
    }
}

/// Serves the port for as long as the node lives.
pub(crate) fn serve(device: &Path) -> io::Result<()> {
    let port = Port::open(device)?;
    let outbox = Outbox(Arc::new(Mutex::new(Line { device: port.device.try_clone()?, session: None })));
    let mut running: Option<Process> = None;
    loop {
        match Message::read(&mut &port.device) {
            Ok((session, Message::Start(spec))) => {
                drop(running.take());
                outbox.attend(Some(session));
                match Process::start(&spec, session, outbox.clone()) {
                    Ok(process) => running = Some(process),
                    Err(e) => outbox.finish(session, &Message::Refused(e.to_string())),
                }
            }
            Ok((session, message)) => {
                if let Some(process) = running.as_mut().filter(|process| process.session() == session) {
                    process.tell(message);
                }
            }
            // Whoever asked for the job is gone, or does not speak our language.
            Err(_) => {
                outbox.attend(None);
                drop(running.take());
                port.wait_for_connection()?;
            }
        }
    }
}

/// Returns when the other end, having been there, is gone.
pub(crate) fn wait_for_hangup(device: &Path) -> io::Result<()> {
    let port = Port::open(device)?;
    while port.is_connected()? {
        port.wait_for_change()?;
    }
    Ok(())
}

/// A virtio-serial port. Reading it while nobody is connected gives end-of-file at once, so who wants to wait for a
/// connection waits for the edge.
struct Port {
    device: File,
    edges: rustix::fd::OwnedFd,
}

impl Port {
    fn open(device: &Path) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open(device)?;
        let edges = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&edges, &device, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { device, edges })
    }

    fn is_connected(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default()))?;
        Ok(!fds[0].revents().contains(PollFlags::HUP))
    }

    fn wait_for_change(&self) -> io::Result<()> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        epoll::wait(&self.edges, &mut events, None)?;
        Ok(())
    }

    fn wait_for_connection(&self) -> io::Result<()> {
        while !self.is_connected()? {
            self.wait_for_change()?;
        }
        Ok(())
    }
}
