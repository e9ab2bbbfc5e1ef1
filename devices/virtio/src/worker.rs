//! The thread of one [`QueueSet`]: created before the guest runs, confined by the host's hook, idle until the driver
//! is ready, and told what to do by messages.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::{Backend, Fault, QueueIo, QueueSet};

/// Runs first on every new thread, with the kind of thread (`virtio-blk`), so that the host can confine it.
pub type ThreadHook = Arc<dyn Fn(&str) + Send + Sync>;

/// A worker that cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The host has no more threads or descriptors.
    #[error("cannot start the thread '{name}': {source}")]
    Host {
        /// The thread's name.
        name: String,
        /// What the host says.
        source: std::io::Error,
    },
    /// The hook, or the thread, ended before it was ready.
    #[error("the thread '{0}' ended before it was ready")]
    Died(String),
}

enum Message {
    Start(QueueIo),
    Stop(SyncSender<Vec<(u16, Queue)>>),
    Exit,
}

/// The handle of one thread; dropping it stops the thread and waits for it.
pub(crate) struct Worker {
    messages: Sender<Message>,
    control: EventFd,
    thread: Option<JoinHandle<()>>,
}

/// An event file for messages, kicks and sources: never blocks, closed on exec.
pub(crate) fn event() -> std::io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

impl Worker {
    /// Starts the thread of `set` and waits until `hook` has returned on it. `kicks` are the queues' notifications,
    /// by position in the set.
    pub fn spawn(
        set: QueueSet,
        kicks: Vec<Arc<EventFd>>,
        kind: &'static str,
        hook: crate::ThreadHook,
    ) -> Result<Self, WorkerError> {
        let QueueSet { name, backend, .. } = set;
        let host = |source| WorkerError::Host { name: name.clone(), source };
        let control = event().map_err(host)?;
        let (messages, inbox) = channel();
        let sources = backend.sources();
        let service = Service {
            backend,
            inbox,
            control: control.try_clone().map_err(host)?,
            kicks,
            sources,
            state: State::Idle,
        };
        let mut manager = EventManager::new().map_err(|e| host(std::io::Error::other(e.to_string())))?;
        let id = manager.add_subscriber(service);
        if !manager.subscriber_mut(id).is_ok_and(|service| matches!(service.state, State::Idle)) {
            return Err(host(std::io::Error::other("epoll refuses the control file")));
        }
        let (ready, is_ready) = sync_channel(1);
        let run = move || {
            hook(kind);
            let _ = ready.send(());
            while manager.subscriber_mut(id).is_ok_and(|service| !matches!(service.state, State::Gone)) {
                if manager.run().is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(run).map_err(host)?;
        let worker = Self { messages, control, thread: Some(thread) };
        is_ready.recv().map_err(|_| WorkerError::Died(name))?;
        Ok(worker)
    }

    /// Hands the queues over: the driver is ready.
    pub fn start(&self, io: QueueIo) {
        self.send(Message::Start(io));
    }

    /// Stops and waits for what is in flight. Returns the queues as they stand, with their numbers; none if the worker
    /// had none.
    pub fn stop(&self) -> Vec<(u16, Queue)> {
        let (answer, queues) = sync_channel(1);
        self.send(Message::Stop(answer));
        queues.recv().unwrap_or_default()
    }

    fn send(&self, message: Message) {
        // Both fail only when the thread is gone; whoever waits for an answer then sees that.
        let _ = self.messages.send(message);
        let _ = self.control.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(Message::Exit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum State {
    Idle,
    Serving(QueueIo),
    /// The guest broke the contract; nothing is looked at until the stop.
    Broken(QueueIo),
    Gone,
}

/// What lives on the thread.
struct Service {
    backend: Box<dyn Backend>,
    inbox: Receiver<Message>,
    control: EventFd,
    kicks: Vec<Arc<EventFd>>,
    sources: Vec<(RawFd, u32)>,
    state: State,
}

/// Event data of the control file; kicks count from 0, sources from [`FIRST_SOURCE`].
const CONTROL: u32 = u32::MAX;
const FIRST_SOURCE: u32 = 1 << 16;

impl Service {
    /// Kicks and sources, as they are waited for while the queues are served.
    fn watched(&self) -> impl Iterator<Item = Events> + '_ {
        use std::os::fd::AsRawFd;
        let kicks = self.kicks.iter().zip(0..).map(|(kick, data)| (kick.as_raw_fd(), data));
        let sources = self.sources.iter().zip(FIRST_SOURCE..).map(|((fd, _), data)| (*fd, data));
        kicks.chain(sources).map(|(fd, data)| Events::with_data_raw(fd, data, EventSet::IN))
    }

    fn messages(&mut self, ops: &mut EventOps) {
        let _ = self.control.read();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Start(io) => {
                    self.stop(ops);
                    self.start(io, ops);
                }
                Message::Stop(answer) => {
                    let _ = answer.send(self.stop(ops));
                }
                Message::Exit => {
                    self.stop(ops);
                    self.state = State::Gone;
                }
            }
        }
    }

    fn start(&mut self, io: QueueIo, ops: &mut EventOps) {
        let watched: Vec<Events> = self.watched().collect();
        if watched.into_iter().any(|events| ops.add(events).is_err()) {
            self.state = State::Serving(io);
            self.settle(Err(Fault("the host cannot wait for the device's events")), ops);
            return;
        }
        let queues = 0..io.queue_count();
        self.state = State::Serving(io);
        self.turn(ops, |backend, io| backend.start(io));
        for queue in queues {
            self.turn(ops, |backend, io| kick(backend, io, queue));
        }
    }

    /// Stops, whatever the state: the queues as they stand.
    fn stop(&mut self, ops: &mut EventOps) -> Vec<(u16, Queue)> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle | State::Gone => Vec::new(),
            State::Serving(mut io) => {
                self.unwatch(ops);
                self.backend.drain(&mut io);
                for queue in 0..io.queue_count() {
                    if let Err(fault) = io.notify(queue) {
                        io.needs_reset(fault);
                    }
                }
                io.into_queues()
            }
            State::Broken(mut io) => {
                self.backend.drain(&mut io);
                io.into_queues()
            }
        }
    }

    /// Lets the backend work, if the queues are served. A queue that it could not finish is kicked again, so that
    /// the worker hears everything else in between.
    fn turn(
        &mut self,
        ops: &mut EventOps,
        work: impl FnOnce(&mut dyn Backend, &mut QueueIo) -> Result<(), Fault>,
    ) {
        let State::Serving(io) = &mut self.state else { return };
        io.start_turn();
        let result = work(&mut *self.backend, io);
        for kick in io.unfinished().filter_map(|queue| self.kicks.get(queue)) {
            let _ = kick.write(1);
        }
        self.settle(result, ops);
    }

    /// After the backend worked: a fault breaks the set.
    fn settle(&mut self, result: Result<(), Fault>, ops: &mut EventOps) {
        let Err(fault) = result else { return };
        self.unwatch(ops);
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Serving(io) => {
                io.needs_reset(fault);
                State::Broken(io)
            }
            other => other,
        };
    }

    fn unwatch(&self, ops: &mut EventOps) {
        for events in self.watched() {
            let _ = ops.remove(events);
        }
    }
}

/// Lets the backend look at `queue`, if the driver enabled it.
fn kick(backend: &mut dyn Backend, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
    if io.is_ready(queue) { backend.kick(io, queue) } else { Ok(()) }
}

impl MutEventSubscriber for Service {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.data() == CONTROL {
            return self.messages(ops);
        }
        if let Some(index) = events.data().checked_sub(FIRST_SOURCE) {
            let source = usize::try_from(index).ok().and_then(|index| self.sources.get(index));
            if let Some((_, token)) = source.copied() {
                self.turn(ops, |backend, io| backend.ready(io, token));
            }
            return;
        }
        let queue = usize::try_from(events.data()).unwrap_or(usize::MAX);
        if let Some(event) = self.kicks.get(queue) {
            let _ = event.read();
        }
        self.turn(ops, |backend, io| {
            io.kicked(queue);
            kick(backend, io, queue)
        });
    }

    fn init(&mut self, ops: &mut EventOps) {
        // Without its control file the service would never hear a message; `Worker::spawn` looks at the state.
        if ops.add(Events::with_data(&self.control, CONTROL, EventSet::IN)).is_err() {
            self.state = State::Gone;
        }
    }
}
