//! The block device (virtio 1.3 §5.2): a disk image as a guest's disk, with several queues.
//!
//! ```text
//!   queue ─ pop ─▶ parse ─▶ Command ─▶ Engine (orlop-disk) ─▶ completion ─▶ status byte ─ push ─▶ queue
//!                    └── refused ─────────────────────────────────────────────▲
//! ```
//!
//! Each queue has a thread and an engine of its own; requests of one queue are finished in any order. The guest never
//! reaches the host's disk behind the image: there is no SCSI passthrough, and nothing is read beyond the capacity.
//! What goes wrong on the host (a full file system, a bad sector) is the request's `VIRTIO_BLK_S_IOERR` and is counted.
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
mod counters;
mod device;
mod limits;
mod request;
mod space;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Instant;

use orlop_disk::{Disk, EngineKind, ErrorHandling, GrowError, Guard, open_engine};
use orlop_virtio::{Parts, QueueSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use backend::BlockQueue;
use counters::Counters;
use device::Block;
use limits::Limiter;
use space::Geometry;

pub use limits::{Limits, RateLimit};
pub use state::BlockState;

/// Length of a disk's serial number in bytes, the most that `VIRTIO_BLK_T_GET_ID` returns (virtio 1.3 §5.2.6).
pub const SERIAL_MAX_BYTES: usize = 20;
/// The most queues that a disk may have.
pub const QUEUES_MAX: u16 = 64;
/// The largest queue: as many requests as one engine holds in flight.
pub const QUEUE_SIZE_MAX: u16 = 1024;
/// The smallest queue in which a request with one buffer has room.
pub const QUEUE_SIZE_MIN: u16 = 4;

/// What a block device is made of.
#[derive(Debug)]
pub struct Config {
    /// Its name on the host, for example `blk0`: names its threads, at most 11 bytes.
    pub name: String,
    /// Where its bytes are.
    pub disk: Disk,
    /// What the guest reads as serial number: printable ASCII, at most [`SERIAL_MAX_BYTES`].
    pub serial: String,
    /// How many queues, 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Size of each queue: a power of two from [`QUEUE_SIZE_MIN`] to [`QUEUE_SIZE_MAX`].
    pub queue_size: u16,
    /// How the disk is reached.
    pub engine: EngineKind,
    /// What all queues together may do.
    pub limits: Limits,
    /// A write is durable before the driver hears of it, until the driver turns the cache on.
    pub write_through: bool,
    /// What becomes of the host's errors.
    pub errors: ErrorHandling,
}

/// Why a block device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Too many queues, or none.
    #[error("a disk has 1 to {QUEUES_MAX} queues, not {0}")]
    Queues(u16),
    /// Not a power of two, or out of range.
    #[error("a disk's queue size is a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}, not {0}")]
    QueueSize(u16),
    /// Longer than the guest could read, or not printable.
    #[error("the serial number '{0}' is not printable ASCII of at most {SERIAL_MAX_BYTES} bytes")]
    Serial(String),
    /// Threads could not be named.
    #[error("the disk's name '{0}' is longer than 11 bytes")]
    Name(String),
    /// The host has no more descriptors.
    #[error("cannot create an event file for the disk: {0}")]
    Event(std::io::Error),
}

/// What the device and its queues have in common.
#[derive(Debug)]
struct Shared {
    disk: Arc<Disk>,
    /// The size in it is that of power-on: see [`Shared::geometry`].
    geometry: Geometry,
    serial: String,
    counters: Counters,
    /// The cache mode that the driver chose; false is write-through.
    writeback: AtomicBool,
    /// What it is after power-on.
    caches: bool,
    /// How often the device was reset: what a queue holds from before is forgotten.
    resets: AtomicU64,
    /// Requests that wait for the machine to go on, since the last stop.
    held: AtomicUsize,
    limiter: Option<Limiter>,
    /// Readable when the disk has another size.
    resized: EventFd,
}

impl Shared {
    /// What the guest is told about its disk, as it is now.
    fn geometry(&self) -> Geometry {
        Geometry { size_bytes: self.disk.size_bytes(), ..self.geometry }
    }

    /// Everything that is counted, with what the disk itself counts.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.counters.list();
        counters.push(("image_corruptions", self.disk.corruptions()));
        counters
    }
}

/// The host's view of a running device.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    engine: &'static str,
    refused: Option<String>,
}

impl Handle {
    /// What it counted since power-on, as [`orlop_virtio::Device::counters`].
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters()
    }

    /// Makes the disk longer, to `size_bytes`, and tells the driver (virtio 1.3 §5.2.5).
    pub fn grow(&self, size_bytes: u64) -> Result<(), GrowError> {
        self.shared.disk.grow(size_bytes)?;
        // A counter that is full wakes as well.
        let _ = self.shared.resized.write(1);
        Ok(())
    }

    /// How the disk is reached: `io_uring` or `synchronous`.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Why it is not io_uring, where the host refused that.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

/// Builds the device. Every descriptor that it ever needs is opened here.
pub fn build(config: Config) -> Result<(Parts, Handle), BuildError> {
    let Config { name, disk, serial, queues, queue_size, engine, limits, write_through, errors } = config;
    if queues == 0 || queues > QUEUES_MAX {
        return Err(BuildError::Queues(queues));
    }
    if !queue_size.is_power_of_two() || !(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&queue_size) {
        return Err(BuildError::QueueSize(queue_size));
    }
    let printable = serial.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if serial.len() > SERIAL_MAX_BYTES || !printable {
        return Err(BuildError::Serial(serial));
    }
    if name.len() > 11 {
        return Err(BuildError::Name(name));
    }
    let disk = Arc::new(disk);
    let geometry = Geometry::of(&disk, queues, queue_size);
    let shared = Arc::new(Shared {
        disk: Arc::clone(&disk),
        geometry,
        serial,
        counters: Counters::default(),
        writeback: AtomicBool::new(!write_through),
        caches: !write_through,
        resets: AtomicU64::new(0),
        held: AtomicUsize::new(0),
        limiter: (limits != Limits::default()).then(|| Limiter::new(limits, Instant::now())),
        resized: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(BuildError::Event)?,
    });
    let mut handle = Handle { shared: Arc::clone(&shared), engine: "", refused: None };
    let mut sets = Vec::new();
    for number in 0..queues {
        let (engine, refused) = open_engine(&disk, queue_size, engine);
        handle.engine = engine.name();
        handle.refused = refused.map(|error| error.to_string());
        let engine = Guard::new(engine, errors.clone());
        let backend = BlockQueue::new(Arc::clone(&shared), engine, number == 0).map_err(BuildError::Event)?;
        sets.push(QueueSet {
            name: format!("{name}-q{number}"),
            queues: vec![number],
            backend: Box::new(backend),
        });
    }
    Ok((Parts { device: Box::new(Block::new(shared)), sets }, handle))
}
