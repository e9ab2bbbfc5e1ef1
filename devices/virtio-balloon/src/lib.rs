//! The memory balloon (virtio 1.3 §5.5): memory that the guest gives back to the host.
//!
//! ```text
//!   host ── Handle::set_target_bytes ──▶ num_pages ──▶ guest's driver takes pages from its own kernel
//!                                                        │ inflate queue: page numbers
//!   host's memory ◀── madvise(2) ── discard ◀────────────┘
//!   guest's driver ── deflate queue, `actual` ──▶ Handle::actual_bytes
//!   guest's driver ── statistics queue ──▶ Handle::stats          (one buffer, returned when the host asks)
//!   guest's driver ── reporting queue ──▶ discard                 (free pages, without inflating)
//! ```
//!
//! A page that was given back reads as zeroes the next time that the guest touches it, so nothing the guest says can
//! harm anyone but itself; page numbers are checked against guest memory all the same.
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
mod discard;
mod handle;
mod statistics;

use std::sync::Arc;

use orlop_virtio::{Parts, QueueSet};

use backend::Keeper;
use device::Balloon;
use handle::Shared;

pub use handle::{Handle, TargetError};
pub use statistics::Statistics;

/// Bytes of a balloon page, whatever the guest's own page size (virtio 1.3 §5.5.6).
pub const PAGE_BYTES: u64 = 4096;

/// What a balloon is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name on the host, for example `balloon0`: names its thread, at most 15 bytes.
    pub name: String,
    /// Bytes to take from the guest at power-on.
    pub target_bytes: u64,
    /// The guest may take memory back when it runs short of it (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`).
    pub deflate_on_oom: bool,
    /// The guest reports its free pages (`VIRTIO_BALLOON_F_PAGE_REPORTING`).
    pub free_page_reporting: bool,
}

/// Why a balloon cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The target cannot be said in the device's terms.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The host gives no event file.
    #[error("cannot create an event file: {0}")]
    Event(#[source] std::io::Error),
}

/// Builds the device, and the handle by which the host talks to it.
pub fn build(config: Config) -> Result<(Parts, Handle), BuildError> {
    let Config { name, target_bytes, deflate_on_oom, free_page_reporting } = config;
    let shared = Arc::new(Shared::new().map_err(BuildError::Event)?);
    let handle = Handle::new(Arc::clone(&shared));
    handle.set_target_bytes(target_bytes)?;
    let device = Balloon::new(deflate_on_oom, free_page_reporting, Arc::clone(&shared));
    let queues = device.queues().collect();
    let backend = Box::new(Keeper::new(shared));
    Ok((Parts { device: Box::new(device), sets: vec![QueueSet { name, queues, backend }] }, handle))
}
