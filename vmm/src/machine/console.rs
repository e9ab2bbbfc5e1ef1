//! The serial console's hub: one guest, any number of readers, and nobody who can hold up the guest.
//!
//! The guest's bytes go into a ring of bounded size; every reader has a position of its own in the stream and learns
//! how much it missed when it was too slow. Input is a bounded queue from which the serial port takes what fits into
//! its FIFO.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ring::Ring;

/// How much input waits for the guest, in bytes; a writer beyond it waits itself.
pub const INPUT_MAX_BYTES: usize = 4096;
/// How much of the output a reader gets at once, in bytes.
pub const CHUNK_MAX_BYTES: usize = 16 << 10;

struct Hub {
    output: Mutex<Ring>,
    news: Notify,
    input: Mutex<VecDeque<u8>>,
    room: Notify,
    /// There may be input to take and somebody to take it.
    typed: Notify,
}

/// The hub. Clones share it.
#[derive(Clone)]
pub struct Console(Arc<Hub>);

/// Some of the guest's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Position of the first byte in the whole stream.
    pub position: u64,
    /// How many bytes before it the reader missed.
    pub missed: u64,
    /// The bytes, at most [`CHUNK_MAX_BYTES`].
    pub bytes: Vec<u8>,
}

impl Console {
    /// A hub that keeps `backlog_bytes` of output for readers that come later.
    pub fn new(backlog_bytes: usize) -> Self {
        Self(Arc::new(Hub {
            output: Mutex::new(Ring::new(backlog_bytes)),
            news: Notify::new(),
            input: Mutex::new(VecDeque::new()),
            room: Notify::new(),
            typed: Notify::new(),
        }))
    }

    /// A reader that starts with the whole backlog.
    pub fn subscribe(&self) -> ConsoleReader {
        let position = lock(&self.0.output).start();
        self.subscribe_from(position)
    }

    /// A reader that continues at `position` of the stream, for one that comes back.
    pub fn subscribe_from(&self, position: u64) -> ConsoleReader {
        ConsoleReader { hub: Arc::clone(&self.0), position }
    }

    /// The backlog as it is now: the position of its first byte and the bytes.
    pub fn backlog(&self) -> (u64, Vec<u8>) {
        lock(&self.0.output).read(0, usize::MAX)
    }

    /// Types `bytes`: returns when all of them wait for the guest, which may take as long as the guest likes. A
    /// caller that gives up in between has typed a beginning of them.
    pub async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // Registered before the look, so that room made in between is not missed.
            let room = self.0.room.notified();
            let taken = self.try_write(bytes);
            bytes = &bytes[taken..];
            if !bytes.is_empty() {
                room.await;
            }
        }
    }

    /// Types as many of `bytes` as fit now; says how many.
    pub fn try_write(&self, bytes: &[u8]) -> usize {
        let taken = {
            let mut input = lock(&self.0.input);
            let taken = bytes.len().min(INPUT_MAX_BYTES.saturating_sub(input.len()));
            input.extend(&bytes[..taken]);
            taken
        };
        if taken > 0 {
            self.0.typed.notify_one();
        }
        taken
    }

    /// The guest wrote `bytes`. Never waits.
    pub(super) fn output(&self, bytes: &[u8]) {
        lock(&self.0.output).push(bytes);
        self.0.news.notify_waiters();
    }

    /// Returns when there may be input to [`Self::feed`].
    pub(super) async fn typed(&self) {
        self.0.typed.notified().await;
    }

    /// The serial port has room again.
    pub(super) fn want_input(&self) {
        self.0.typed.notify_one();
    }

    /// Offers what was typed to `take`, which says how much of it it took; the rest stays.
    pub(super) fn feed(&self, take: impl FnOnce(&[u8]) -> usize) {
        let mut input = lock(&self.0.input);
        if input.is_empty() {
            return;
        }
        let taken = take(input.make_contiguous()).min(input.len());
        input.drain(..taken);
        drop(input);
        if taken > 0 {
            self.0.room.notify_waiters();
        }
    }

    /// Changes how much output is kept.
    pub(super) fn set_backlog(&self, backlog_bytes: usize) {
        lock(&self.0.output).set_capacity(backlog_bytes);
    }
}

/// One reader's place in the guest's output.
pub struct ConsoleReader {
    hub: Arc<Hub>,
    position: u64,
}

impl ConsoleReader {
    /// The next output, as soon as there is any. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Chunk {
        loop {
            let hub = Arc::clone(&self.hub);
            let news = hub.news.notified();
            if let Some(chunk) = self.try_next() {
                return chunk;
            }
            news.await;
        }
    }

    /// The next output if there is any now.
    pub fn try_next(&mut self) -> Option<Chunk> {
        let output = lock(&self.hub.output);
        let wanted = self.position.min(output.end());
        let (position, bytes) = output.read(wanted, CHUNK_MAX_BYTES);
        self.position = position + bytes.len() as u64;
        (!bytes.is_empty()).then_some(Chunk { position, missed: position - wanted, bytes })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_reader_sees_everything_from_the_backlog_on() {
        let console = Console::new(64);
        console.output(b"early ");
        let (mut one, mut two) = (console.subscribe(), console.subscribe());
        console.output(b"late");
        for reader in [&mut one, &mut two] {
            let chunk = reader.next().await;
            assert_eq!((chunk.position, chunk.missed, chunk.bytes.as_slice()), (0, 0, &b"early late"[..]));
        }
    }

    #[tokio::test]
    async fn a_reader_waits_for_output() {
        let console = Console::new(64);
        let mut reader = console.subscribe();
        let (chunk, ()) = tokio::join!(reader.next(), async { console.output(b"x") });
        assert_eq!(chunk.bytes, b"x");
    }

    #[tokio::test]
    async fn a_slow_reader_learns_what_it_missed() {
        let console = Console::new(4);
        let mut reader = console.subscribe();
        console.output(b"0123456789");
        assert_eq!(reader.next().await, Chunk { position: 6, missed: 6, bytes: b"6789".to_vec() });
        assert_eq!(reader.try_next(), None);
        let mut again = console.subscribe_from(8);
        assert_eq!(again.next().await, Chunk { position: 8, missed: 0, bytes: b"89".to_vec() });
    }

    #[tokio::test]
    async fn input_is_bounded_and_its_writer_waits() {
        let console = Console::new(4);
        let text = vec![7; INPUT_MAX_BYTES + 10];
        assert_eq!(console.try_write(&text), INPUT_MAX_BYTES);
        assert_eq!(console.try_write(&text), 0);
        let mut fed = Vec::new();
        let all = |fed: &mut Vec<u8>| {
            console.feed(|bytes| {
                fed.extend(bytes);
                bytes.len()
            });
        };
        let ((), ()) = tokio::join!(console.write(b"end"), async { all(&mut fed) });
        all(&mut fed);
        assert_eq!(fed.len(), INPUT_MAX_BYTES + 3);
        assert!(fed.ends_with(b"end"));
    }

    #[tokio::test]
    async fn input_that_was_not_taken_stays() {
        let console = Console::new(4);
        console.try_write(b"abc");
        console.typed().await;
        console.feed(|bytes| bytes.len() - 1);
        console.feed(|bytes| {
            assert_eq!(bytes, b"c");
            0
        });
    }
}
