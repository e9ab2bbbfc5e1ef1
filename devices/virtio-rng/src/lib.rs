//! The entropy device (virtio 1.3 §5.4): one queue of buffers that the host fills with random bytes from
//! `getrandom(2)`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod backend;
mod device;

use std::sync::Arc;
use std::time::Instant;

use orlop_virtio::rate::{RateLimit, TokenBucket};
use orlop_virtio::{Parts, QueueSet};
use vmm_sys_util::timerfd::TimerFd;

use backend::Source;
use device::{Counters, Entropy};

/// The most random bytes that one request gets; it may ask for more (virtio 1.3 §5.4.6.1 lets a device give less).
pub const REQUEST_MAX_BYTES: usize = 64 << 10;

/// What an entropy device is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name on the host, for example `rng0`: names its thread, at most 15 bytes.
    pub name: String,
    /// Limit in bytes; none when absent.
    pub limit: Option<RateLimit>,
}

/// Why an entropy device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The host gives no timer.
    #[error("cannot create a timer: {0}")]
    Timer(#[source] std::io::Error),
}

/// Builds the device.
pub fn build(config: Config) -> Result<Parts, BuildError> {
    let Config { name, limit } = config;
    let counters = Arc::new(Counters::default());
    let timer = TimerFd::new().map_err(|error| BuildError::Timer(error.into()))?;
    let bucket = limit.map(|limit| TokenBucket::of(limit, Instant::now()));
    let backend = Box::new(Source::new(bucket, timer, Arc::clone(&counters)));
    let sets = vec![QueueSet { name, queues: vec![0], backend }];
    Ok(Parts { device: Box::new(Entropy::new(counters)), sets })
}
