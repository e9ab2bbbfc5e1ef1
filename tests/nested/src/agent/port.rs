//! One job port: frames in, at most one running process, frames out.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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
        self.lock().send(session, message)
    }

    /// Sends the last frame of `session`. Whoever reads it may start the next job at once, so the line is given up
    /// before the next frame is looked at.
    pub(crate) fn finish(&self, session: u32, message: &Message) {
        let mut line = self.lock();
        if line.send(session, message) {
            line.session = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attend(&self, session: Option<u32>) {
        self.lock().session = session;
    }
}

impl Line {
    fn send(&mut self, session: u32, message: &Message) -> bool {
        self.session == Some(session) && message.write(session, &mut self.device).is_ok()
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
            Err(e)
                if e.kind() == io::ErrorKind::UnexpectedEof && running.is_some() && port.reconnects()? => {}
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

    /// Whether a hang-up is the late news of a connection before the present one. The kernel learns of data and of
    /// hang-ups over different queues: the first frame of a new connection may be read before the port is known to be
    /// connected again, and an end-of-file follows it.
    fn reconnects(&self) -> io::Result<bool> {
        const LATE_BY: Duration = Duration::from_millis(200);
        let began = Instant::now();
        while !self.is_connected()? {
            if began.elapsed() >= LATE_BY {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    fn wait_for_connection(&self) -> io::Result<()> {
        while !self.is_connected()? {
            self.wait_for_change()?;
        }
        Ok(())
    }
}
