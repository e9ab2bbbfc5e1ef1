//! The SCSI host (virtio 1.3 §5.6): disks and CD-ROM drives behind one controller.
//!
//! ```text
//!   request queue ─ pop ─▶ parse ─▶ Unit::start (orlop-scsi) ─▶ Engine (orlop-disk) ─▶ completion ─▶ response ─ push
//!                            └── no such target, no room ────────────────────────────────▲
//! ```
//!
//! One thread serves all queues. Requests are finished in any order. No command ever reaches the host's own devices.
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
mod request;
mod space;
mod state;
mod tasks;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_disk::GrowError;
use orlop_scsi::{Bay, DriveConfig, DriveCounters, MediumError, SERIAL_MAX_BYTES, SharedBay, Tray};
use orlop_virtio::{Parts, QueueSet};

use backend::{GuestData, Host};
use counters::Counters;
use device::Controller;
use space::Sizes;

pub use state::ScsiState;

/// The most targets: the number that fits the guest's addresses (virtio 1.3 §5.6.6.1).
pub const UNITS_MAX: usize = 256;
/// The most request queues.
pub const QUEUES_MAX: u16 = 64;
/// The largest queue.
pub const QUEUE_SIZE_MAX: u16 = 1024;
/// The smallest queue in which a request with one buffer has room.
pub const QUEUE_SIZE_MIN: u16 = 4;

/// What a controller is made of.
#[derive(Debug)]
pub struct Config {
    /// Its name on the host, for example `scsi0`: names its thread, at most 15 bytes.
    pub name: String,
    /// Its targets, from 0 on: 1 to [`UNITS_MAX`].
    pub units: Vec<DriveConfig>,
    /// How many request queues, 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Size of each queue: a power of two from [`QUEUE_SIZE_MIN`] to [`QUEUE_SIZE_MAX`].
    pub queue_size: u16,
}

/// Why a controller cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No target, or too many.
    #[error("a SCSI controller has 1 to {UNITS_MAX} targets, not {0}")]
    Units(usize),
    /// Too many queues, or none.
    #[error("a SCSI controller has 1 to {QUEUES_MAX} request queues, not {0}")]
    Queues(u16),
    /// Not a power of two, or out of range.
    #[error(
        "a SCSI controller's queue size is a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}, not {0}"
    )]
    QueueSize(u16),
    /// Longer than the guest could read, or not printable.
    #[error("the serial number '{0}' is not printable ASCII of at most {SERIAL_MAX_BYTES} bytes")]
    Serial(String),
    /// What is to be behind a target cannot be.
    #[error("target {target}: {source}")]
    Medium {
        /// Which target.
        target: usize,
        /// What is wrong.
        source: MediumError,
    },
    /// The host has no more descriptors.
    #[error("cannot create an event file for the SCSI controller: {0}")]
    Event(std::io::Error),
}

/// One unit, as the device's thread, its configuration side and the host reach it.
struct Target {
    bay: SharedBay<GuestData>,
    counters: DriveCounters,
}

/// What the device's parts have in common.
struct Shared {
    targets: Vec<Target>,
    queues: u16,
    queue_size: u16,
    /// What the driver chose.
    sizes: Sizes,
    counters: Counters,
    /// How often the device was reset: what the thread holds from before is forgotten.
    resets: AtomicU64,
}

fn lock(bay: &Mutex<Bay<GuestData>>) -> MutexGuard<'_, Bay<GuestData>> {
    bay.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host's view of a running controller.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// What the unit of `target` counted since power-on.
    pub fn counters(&self, target: usize) -> Vec<(&'static str, u64)> {
        self.shared.targets.get(target).map(|target| target.counters.list()).unwrap_or_default()
    }

    /// Makes the disk of `target` longer, to `size_bytes`: the guest's next command is told (SBC-3 §4.7).
    pub fn grow(&self, target: usize, size_bytes: u64) -> Result<(), GrowError> {
        let Some(target) = self.shared.targets.get(target) else { return Err(GrowError::ReadOnly) };
        let mut bay = lock(&target.bay);
        bay.grow(size_bytes)?;
        if bay.measure() {
            bay.unit.capacity_changed();
        }
        Ok(())
    }

    /// The tray of `target`, if that is a CD-ROM drive.
    pub fn tray(&self, target: usize) -> Option<Box<dyn Tray>> {
        let bay = &self.shared.targets.get(target)?.bay;
        let drive = lock(bay).unit.kind() == orlop_scsi::Kind::Cdrom;
        drive.then(|| Box::new(Arc::clone(bay)) as Box<dyn Tray>)
    }
}

/// Builds the controller. Every descriptor that it ever needs, but those of media to come, is opened here.
pub fn build(config: Config) -> Result<(Parts, Handle), BuildError> {
    let Config { name, units, queues, queue_size } = config;
    if units.is_empty() || units.len() > UNITS_MAX {
        return Err(BuildError::Units(units.len()));
    }
    if queues == 0 || queues > QUEUES_MAX {
        return Err(BuildError::Queues(queues));
    }
    if !queue_size.is_power_of_two() || !(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&queue_size) {
        return Err(BuildError::QueueSize(queue_size));
    }
    let depth = queues.saturating_mul(queue_size);
    let targets = units.into_iter().enumerate().map(|(target, unit)| {
        if !unit.has_serial_within(SERIAL_MAX_BYTES) {
            return Err(BuildError::Serial(unit.serial));
        }
        let bay = Bay::new(unit, depth).map_err(|source| BuildError::Medium { target, source })?;
        Ok(Target { bay: Arc::new(Mutex::new(bay)), counters: DriveCounters::default() })
    });
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let shared = Arc::new(Shared {
        targets,
        queues,
        queue_size,
        sizes: Sizes::default(),
        counters: Counters::default(),
        resets: AtomicU64::new(0),
    });
    let backend = Host::new(Arc::clone(&shared)).map_err(BuildError::Event)?;
    let all = (0..queues.saturating_add(space::FIRST_REQUEST_QUEUE)).collect();
    let sets = vec![QueueSet { name, queues: all, backend: Box::new(backend) }];
    let device = Box::new(Controller::new(Arc::clone(&shared)));
    Ok((Parts { device, sets }, Handle { shared }))
}
