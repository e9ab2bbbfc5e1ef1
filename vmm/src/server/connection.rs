//! Connections: how many, how slow, how long.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;

use super::{Api, STREAMS_MAX, router};
use crate::machine::Handle;

/// How many connections are served at a time.
const CONNECTIONS_MAX: u32 = 64;

/// How many more may be open without being served: those that said nothing yet, and those that wait for a place. When
/// there are more, the one that has been silent for the longest is dropped.
const WAITING_MAX: usize = 128;

/// How long a request's head may take to arrive, and how long a connection may idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How large a request's head may be, in bytes.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// How long a client may leave an answer or a stream unread before it is dropped.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// How long clients have to read the last words when the machine is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long to wait when the host is out of descriptors or memory for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves the API on `listener` until the machine of `handle` is over, and then for as long as clients read the last
/// words, two seconds at most. For a tokio runtime of one thread.
pub async fn serve(listener: UnixListener, handle: Handle) {
    let api = Api::new(handle.clone());
    let streams = Arc::clone(&api.streams);
    let router = router(api);
    give_back_freed_memory();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let over = handle.stopped();
    tokio::pin!(over);
    let mut waiting = Waiting::default();
    loop {
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            _ = &mut over => break,
        };
        waiting.make_room(&places).await;
        let (router, handle, places) = (router.clone(), handle.clone(), Arc::clone(&places));
        let waits = Arc::new(AtomicU8::new(SILENT));
        let state = Arc::clone(&waits);
        let task = tokio::spawn(async move {
            // Whoever says nothing takes nobody's place.
            if tokio::time::timeout(HEAD_TIMEOUT, spoke(&stream)).await.is_err() {
                return;
            }
            state.store(WAITS, Ordering::Relaxed);
            // The semaphore is never closed; were it, serving without a bound would beat not serving.
            let place = places.acquire_owned().await.ok();
            state.store(SERVED, Ordering::Relaxed);
            // What breaks a connection is its client's affair; the others do not notice.
            let _ = drive(connect(stream, router), &handle).await;
            drop(place);
        });
        waiting.0.push_back((waits, task.abort_handle()));
    }
    let all_read = async {
        let _ = places.acquire_many(CONNECTIONS_MAX).await;
        let _ = streams.acquire_many(STREAMS_MAX).await;
    };
    let _ = tokio::time::timeout(LAST_WORDS, all_read).await;
}

/// Gives the pages of freed memory back to the host. Making the routes makes their descriptions too, which are needed by
/// nobody but `GET /openapi.json`, and are several times as large as all that stays.
fn give_back_freed_memory() {
    #[expect(unsafe_code, reason = "malloc_trim(3)")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns when the client has said something, or is gone.
async fn spoke(stream: &UnixStream) {
    // A stream may be called readable before anything is there.
    while stream.readable().await.is_ok() {
        let peek = || Ok(recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK).map(drop)?);
        match stream.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

// How far an open connection is.
const SILENT: u8 = 0;
const WAITS: u8 = 1;
const SERVED: u8 = 2;

/// Connections that are open and not served, the oldest first.
#[derive(Default)]
struct Waiting(VecDeque<(Arc<AtomicU8>, AbortHandle)>);

impl Waiting {
    /// Makes room for one more.
    async fn make_room(&mut self, places: &Arc<Semaphore>) {
        self.0.retain(|(state, task)| state.load(Ordering::Relaxed) != SERVED && !task.is_finished());
        if self.0.len() < WAITING_MAX {
            return;
        }
        let silent = self.0.iter().position(|(state, _)| state.load(Ordering::Relaxed) == SILENT);
        match silent.and_then(|oldest| self.0.remove(oldest)) {
            Some((_, task)) => task.abort(),
            // All of them have asked for something: they are served first.
            None => drop(places.acquire().await),
        }
    }
}

/// The next connection.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

type Stream = TokioIo<Pin<Box<TimeoutStream<UnixStream>>>>;
type Connection = http1::UpgradeableConnection<Stream, TowerToHyperService<Router>>;

/// Serves one client until it is gone; when the machine is over, until it has its answer.
async fn drive(connection: Connection, handle: &Handle) -> hyper::Result<()> {
    tokio::pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done,
        _ = handle.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

fn connect(stream: UnixStream, router: Router) -> Connection {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
        .with_upgrades()
}
