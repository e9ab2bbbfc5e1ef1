//! Rate limits: one bucket of bytes per card and direction, whichever of its pairs carries the frames.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use orlop_virtio::rate::TokenBucket;

/// A limit on what passes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes per second, frames without their virtio headers.
    pub bytes_per_second: u64,
    /// Bytes that may pass at once after a pause; `None` stands for a second's worth.
    pub burst_bytes: Option<u64>,
}

/// The limit of one direction, or none.
#[derive(Debug)]
pub(crate) struct Limiter(Option<Mutex<TokenBucket>>);

impl Limiter {
    pub(crate) fn new(limit: Option<RateLimit>) -> Self {
        Self(limit.map(|limit| {
            let bucket = TokenBucket::new(limit.bytes_per_second, limit.burst_bytes, Instant::now());
            Mutex::new(bucket)
        }))
    }

    /// Pays for `bytes`, or says after how long to ask again.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Duration> {
        let Some(bucket) = &self.0 else { return Ok(()) };
        let tokens = u64::try_from(bytes).unwrap_or(u64::MAX);
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(tokens, Instant::now())
    }

    /// Takes back what was paid too much.
    pub(crate) fn give_back(&self, bytes: usize) {
        if let Some(bucket) = &self.0 {
            let tokens = u64::try_from(bytes).unwrap_or(u64::MAX);
            bucket.lock().unwrap_or_else(PoisonError::into_inner).give_back(tokens);
        }
    }
}
