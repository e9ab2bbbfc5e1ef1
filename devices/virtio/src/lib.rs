//! The virtio frame: what every virtio device shares, so that a device itself is only its configuration space and
//! its requests.
//!
//! A device is two parts. The [`Device`] is what the guest's configuration accesses reach, on vCPU threads and under
//! the transport's lock. A [`Backend`] serves one set of queues on a thread of its own. The frame owns everything
//! between them: status, features, queues, interrupts, starting and stopping the threads, saving and restoring.
//!
//! ```text
//!   guest driver ── vCPU thread ── transport ── Device           (configuration, features)
//!                                     │ Start{queues} / Stop → queues
//!                                     ▼
//!                   kick (eventfd) ── Worker ──── Backend        (requests; tap, file, socket)
//!                                     │
//!                                     └─ Interrupt ── MSI-X ── guest
//! ```
//!
//! Life of a backend, all on its own thread:
//!
//! ```text
//!   Idle ── start(io) ──▶ Serving ── kick/ready ──▶ Serving ── drain(io) ──▶ Idle
//!                            └── Fault ──▶ Broken (DEVICE_NEEDS_RESET) ── drain(io) ──▶ Idle
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

mod buffers;
#[cfg(feature = "conformance")]
pub mod conformance;
mod counters;
mod queue_io;
pub mod rate;
mod transport;
mod worker;

use std::os::fd::RawFd;

use orlop_state::{Record, StateError};
use vm_memory::GuestMemoryMmap;

pub use buffers::{Buffers, CHAIN_MAX_BYTES, ChainError};
pub use counters::{Inspection, QueueInspection};
pub use queue_io::{Interrupt, QueueIo, Request};
pub use transport::{BuildError, Platform, VirtioPci, layout};
pub use worker::{ThreadHook, WorkerError};

/// Guest memory as devices see it.
pub type Ram = GuestMemoryMmap<()>;

/// Device types (virtio 1.3 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceType {
    /// Network card (virtio 1.3 §5.1).
    Net = 1,
    /// Block device (virtio 1.3 §5.2).
    Block = 2,
    /// Console (virtio 1.3 §5.3).
    Console = 3,
    /// Entropy source (virtio 1.3 §5.4).
    Entropy = 4,
    /// Traditional memory balloon (virtio 1.3 §5.5).
    Balloon = 5,
    /// SCSI host (virtio 1.3 §5.6).
    Scsi = 8,
    /// Socket device (virtio 1.3 §5.10).
    Vsock = 19,
}

impl DeviceType {
    /// Its name, which is also the kind of its threads: `virtio-blk`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "virtio-net",
            Self::Block => "virtio-blk",
            Self::Console => "virtio-console",
            Self::Entropy => "virtio-rng",
            Self::Balloon => "virtio-balloon",
            Self::Scsi => "virtio-scsi",
            Self::Vsock => "virtio-vsock",
        }
    }
}

/// The configuration side of a device. Called under the transport's lock, from vCPU threads and from the thread that
/// drives the machine; it must not block.
pub trait Device: Send {
    /// What it is.
    fn device_type(&self) -> DeviceType;
    /// The feature bits it offers, without those that the frame brings itself: `VIRTIO_F_VERSION_1`,
    /// `VIRTIO_F_RING_EVENT_IDX` and `VIRTIO_F_RING_INDIRECT_DESC`.
    fn features(&self) -> u64;
    /// The largest size of each queue, a power of two up to 32768 (virtio 1.3 §2.7).
    fn queue_max_sizes(&self) -> Vec<u16>;
    /// The driver and the device agreed on `features`, a subset of what is offered. Called before any queue starts.
    fn negotiated(&mut self, features: u64);
    /// Fills `data` from the device-specific configuration at `offset`; zero beyond its end. Any size and alignment.
    fn config_read(&self, offset: u64, data: &mut [u8]);
    /// Takes a write to the device-specific configuration; what is read-only or beyond its end is ignored.
    fn config_write(&mut self, offset: u64, data: &[u8]);
    /// Back to the state after power-on. Every queue has stopped.
    fn reset(&mut self);
    /// The device's own state (the frame saves status, features, queues and interrupts). Every queue has stopped.
    fn save(&self) -> Result<Record, StateError>;
    /// Takes over a state from [`Self::save`], checking every value in it. No queue has started; the device was reset
    /// and, where driver and device had agreed on features, [`Self::negotiated`] was called with them.
    fn restore(&mut self, record: &Record) -> Result<(), StateError>;
    /// What it counted since power-on, in a fixed order, names in `snake_case` with a unit: `read_bytes`.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// The data path of a set of queues, on a thread of its own. Queue numbers are positions within the set.
pub trait Backend: Send {
    /// Event files to wait for beside the queues' notifications, each with the token that [`Self::ready`] receives.
    /// They stay the same for the life of the backend; one that has many of its own brings an epoll file.
    fn sources(&self) -> Vec<(RawFd, u32)>;
    /// The driver is ready: features are negotiated, rings are valid. Every queue that the driver enabled is kicked
    /// right after.
    fn start(&mut self, io: &mut QueueIo) -> Result<(), Fault>;
    /// The driver notified `queue`, or it must be looked at for another reason: spurious calls are normal.
    fn kick(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault>;
    /// The source with `token` is readable, or has an error or a hang-up to tell. Sources are watched, level-triggered,
    /// from start to stop.
    fn ready(&mut self, io: &mut QueueIo, token: u32) -> Result<(), Fault>;
    /// Stops: waits until every request in flight is finished and returned to the guest or put back with
    /// [`QueueIo::undo_pop`]. On return nothing touches guest memory. Called after a [`Fault`] as well. The frame
    /// interrupts the driver for what was returned. A request that the host cannot carry out for now may stay with the
    /// backend, which says so with [`QueueIo::keep`] at the next start, forgets it after a [`Device::reset`], and lets
    /// nobody [`Device::save`] meanwhile.
    fn drain(&mut self, io: &mut QueueIo);
}

/// A set of queues with its backend: what a device is built into, beside its [`Device`].
pub struct QueueSet {
    /// The thread's name, at most 15 bytes (`pthread_setname_np(3)`), for example `blk0-q0`.
    pub name: String,
    /// Which of the device's queues, by number.
    pub queues: Vec<u16>,
    /// Serves them.
    pub backend: Box<dyn Backend>,
}

/// A device as its room builds it, before the frame takes it.
pub struct Parts {
    /// The configuration side.
    pub device: Box<dyn Device>,
    /// The data side; together the sets hold every queue exactly once.
    pub sets: Vec<QueueSet>,
}

/// The guest broke the contract in a way that only a reset mends (virtio 1.3 §2.1.1 `DEVICE_NEEDS_RESET`). A bad
/// *request* is no fault: it is answered with an error status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("guest fault: {0}")]
pub struct Fault(pub &'static str);
