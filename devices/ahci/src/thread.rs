//! The thread of the controller: it serves all ports, and is told to stand still by messages.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::serve::Lane;
use crate::{Shared, ThreadHook};

/// Event data of the wake file; engines count from 0 by port.
const WAKE: u64 = u64::MAX;
/// Events that are looked at in one go.
const EVENTS: usize = 32;
/// The kind of thread, for the host's hook.
const KIND: &str = "ahci";

enum Message {
    /// Waits for everything in flight, then answers; `forget` says that what the host could not carry out is of no
    /// interest any more.
    Drain {
        answer: SyncSender<()>,
        forget: bool,
    },
    Exit,
}

/// The handle of the thread; dropping it stops the thread and waits for it.
pub(crate) struct Thread {
    messages: Sender<Message>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts the thread, and waits until `hook` has returned on it.
    pub(crate) fn spawn(shared: Arc<Shared>, name: &str, hook: ThreadHook) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let watch =
            |fd: RawFd, data: u64| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data));
        watch(shared.wake.as_raw_fd(), WAKE)?;
        for (drive, port) in shared.drives.iter().zip(0..) {
            if let Some(fd) = drive.bay().engine.as_ref().and_then(|engine| engine.event()) {
                watch(fd, port)?;
            }
        }
        let (messages, inbox) = channel();
        let (ready, is_ready) = sync_channel(1);
        let served = Arc::clone(&shared);
        let run = move || {
            hook(KIND);
            let _ = ready.send(());
            serve(&served, &epoll, &inbox);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        let ended = |_| io::Error::other("the thread ended before it was ready");
        is_ready.recv().map_err(ended)?;
        Ok(Self { messages, shared, thread: Some(thread) })
    }

    /// Waits until nothing is in flight, and forgets what waits for the machine to go on, if `forget`. Nothing is begun meanwhile if the registers say so.
    pub(crate) fn drain(&self, forget: bool) {
        let (answer, done) = sync_channel(1);
        self.send(Message::Drain { answer, forget });
        // A thread that is gone has nothing in flight.
        let _ = done.recv();
    }

    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
        let _ = self.shared.wake.write(1);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.send(Message::Exit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Arc<Shared>, epoll: &Epoll, inbox: &Receiver<Message>) {
    let ports = 0..shared.drives.len();
    let mut lanes: Vec<Lane> = ports.map(|port| Lane::new(Arc::clone(shared), port)).collect();
    let mut events = [EpollEvent::default(); EVENTS];
    loop {
        match epoll.wait(-1, &mut events) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let _ = shared.wake.read();
        while let Ok(message) = inbox.try_recv() {
            match message {
                Message::Drain { answer, forget } => {
                    lanes.iter_mut().for_each(Lane::drain);
                    if forget {
                        lanes.iter_mut().for_each(Lane::forget);
                    }
                    let _ = answer.send(());
                }
                Message::Exit => {
                    lanes.iter_mut().for_each(Lane::drain);
                    return;
                }
            }
        }
        lanes.iter_mut().for_each(Lane::serve);
    }
}
