//! The data side: fills buffers, as fast as the limit allows.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use orlop_virtio::rate::TokenBucket;
use orlop_virtio::{Backend, Buffers, Fault, QueueIo};
use vmm_sys_util::timerfd::TimerFd;

use crate::REQUEST_MAX_BYTES;
use crate::device::Counters;

/// The only queue, by position in its set.
const REQUESTS: usize = 0;
/// The token of the timer that ends a wait for the limit.
const TIMER: u32 = 0;
/// Random bytes drawn at a time, on the stack.
const CHUNK_BYTES: usize = 256;

pub(crate) struct Source {
    bucket: Option<TokenBucket>,
    timer: TimerFd,
    counters: Arc<Counters>,
}

impl Source {
    pub fn new(bucket: Option<TokenBucket>, timer: TimerFd, counters: Arc<Counters>) -> Self {
        Self { bucket, timer, counters }
    }

    /// Answers requests until there are none, or the limit says to wait.
    fn serve(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        while let Some(mut request) = io.pop(REQUESTS)? {
            let len = request.writable.len().min(REQUEST_MAX_BYTES);
            if let Err(wait) = self.allowed(len) {
                io.undo_pop(REQUESTS, &request);
                self.counters.throttled_requests.fetch_add(1, Relaxed);
                return self.wait(wait);
            }
            let written = fill(&mut request.writable, len);
            self.counters.entropy_bytes.fetch_add(u64::try_from(written).unwrap_or(0), Relaxed);
            if written == 0 {
                self.counters.failed_requests.fetch_add(1, Relaxed);
            }
            io.push(REQUESTS, request.head, written)?;
        }
        Ok(())
    }

    fn allowed(&mut self, len: usize) -> Result<(), Duration> {
        let tokens = u64::try_from(len).unwrap_or(u64::MAX);
        self.bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(tokens, Instant::now()))
    }

    fn wait(&mut self, wait: Duration) -> Result<(), Fault> {
        // Zero would disarm the timer.
        let wait = wait.max(Duration::from_nanos(1));
        self.timer.reset(wait, None).map_err(|_| Fault("the host cannot set a timer"))
    }
}

/// Fills the first `len` bytes of `buffers` and says how many it filled. The host's source fails only where the
/// system call is forbidden; the request is then answered with what there is.
fn fill(buffers: &mut Buffers, len: usize) -> usize {
    let mut chunk = [0; CHUNK_BYTES];
    let mut written = 0usize;
    while written < len {
        let take = len.saturating_sub(written).min(CHUNK_BYTES);
        let Some(chunk) = chunk.get_mut(..take) else { break };
        let drawn = getrandom::fill(chunk).is_ok();
        let placed = drawn && buffers.split_to(take).and_then(|piece| piece.copy_from(chunk)).is_ok();
        if !placed {
            break;
        }
        written = written.saturating_add(take);
    }
    written
}

impl Backend for Source {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.timer.as_raw_fd(), TIMER)]
    }

    fn start(&mut self, _io: &mut QueueIo) -> Result<(), Fault> {
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, _queue: usize) -> Result<(), Fault> {
        loop {
            io.disable_notification(REQUESTS)?;
            self.serve(io)?;
            io.notify(REQUESTS)?;
            // While the timer runs there is no point in looking again: it will.
            if !io.enable_notification(REQUESTS)? || self.timer.is_armed().unwrap_or(false) {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, io: &mut QueueIo, _token: u32) -> Result<(), Fault> {
        // Disarming takes the expiry away without reading: a kick in between may have set the timer anew, and a read
        // would then wait for it.
        let _ = self.timer.clear();
        self.kick(io, REQUESTS)
    }

    fn drain(&mut self, _io: &mut QueueIo) {
        // Requests are answered as they are taken; what waits for the limit is still in the ring.
        let _ = self.timer.clear();
    }
}
