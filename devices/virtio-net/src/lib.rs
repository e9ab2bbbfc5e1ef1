//! The virtio network card (virtio 1.3 §5.1) on a tap.
//!
//! Frames are copied once in each direction, by the kernel: `readv(2)` from the tap goes straight into the guest's
//! receive buffers, `writev(2)` straight out of its memory. Each pair of queues has a thread and a tap queue of its own.
//!
//! ```text
//!   guest ── control queue ── Control ─┐  (MAC, pairs, offloads)
//!         ── tx n ── Transmitter ──────┼── Shared ── Handle (link), Device (configuration space)
//!         ── rx n ── Receiver ─────────┘
//!                        └── tap queue n ── host
//! ```
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

mod build;
mod control;
mod device;
mod features;
mod header;
mod iovecs;
mod limit;
mod pair;
mod rx;
mod shared;
mod tx;

pub use build::{BuildError, NetConfig, build};
pub use limit::RateLimit;
pub use shared::NetHandle;
