//! A network namespace without a name, held by a thread of its own.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::{mpsc, oneshot};

use super::NetError;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Job = Box<dyn FnOnce() -> Task + Send>;

/// A network namespace that lives as long as this value, and its processes and sockets. Its thread runs a small
/// runtime: what is started there opens its sockets inside.
pub struct Namespace {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Namespace {
    /// Makes an empty namespace (only `lo`, down).
    pub async fn open() -> Result<Self, NetError> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (ready, opened) = oneshot::channel();
        thread::Builder::new()
            .name("netns".into())
            .spawn(move || hold(queue, ready))
            .map_err(|source| NetError::Io { doing: "start a thread", source })?;
        opened.await.map_err(|_| NetError::Ended)??;
        Ok(Self { jobs })
    }

    /// Runs `work` inside and hands its result back.
    pub async fn run<F, Fut, T>(&self, work: F) -> Result<T, NetError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (done, result) = oneshot::channel();
        self.spawn(move || async move {
            // Nobody waiting for the result is no reason to stop half-way.
            drop(done.send(work().await));
        })?;
        result.await.map_err(|_| NetError::Ended)
    }

    /// Starts `work` inside and lets it run until it ends or the namespace does.
    pub fn spawn<F, Fut>(&self, work: F) -> Result<(), NetError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let job: Job = Box::new(move || Box::pin(work()));
        self.jobs.send(job).map_err(|_| NetError::Ended)
    }

    /// A descriptor of the namespace, for moving links into it.
    pub async fn descriptor(&self) -> Result<OwnedFd, NetError> {
        self.run(|| async { File::open("/proc/thread-self/ns/net").map(OwnedFd::from) })
            .await?
            .map_err(|source| NetError::Io { doing: "open the VM's network namespace", source })
    }
}

fn hold(mut queue: mpsc::UnboundedReceiver<Job>, ready: oneshot::Sender<Result<(), NetError>>) {
    let opened = unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EPERM => NetError::NotPermitted,
        other => NetError::Io { doing: "make a network namespace", source: io::Error::from(other) },
    });
    let runtime = opened.and_then(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| NetError::Io { doing: "start a runtime", source })
    });
    match runtime {
        Ok(runtime) => {
            if ready.send(Ok(())).is_err() {
                return;
            }
            tokio::task::LocalSet::new().block_on(&runtime, async {
                while let Some(job) = queue.recv().await {
                    tokio::task::spawn_local(job());
                }
            });
        }
        // The opener is gone when this fails, and then nobody needs to know.
        Err(error) => drop(ready.send(Err(error))),
    }
}
