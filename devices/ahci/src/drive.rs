//! What is on a port.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_disk::{Disk, EngineKind, GrowError};
use orlop_scsi::{Bay, DiskConfig, DriveCounters, Kind, MediumError, SharedBay, Tray};

use crate::ata::{QueuedError, Settings};
use crate::identify::SERIAL_MAX_BYTES;
use crate::pieces::Pieces;
use crate::registers::Present;
use crate::state::DriveState;

/// Commands that a disk has in flight at most: its slots.
const DEPTH: u16 = 32;

/// What is to be on a port.
#[derive(Debug)]
pub enum DriveKind {
    /// A disk.
    Disk(DiskConfig),
    /// A CD-ROM drive.
    Cdrom {
        /// What is in it.
        medium: Option<Disk>,
        /// Its tray is out.
        open: bool,
    },
}

/// One port's drive.
#[derive(Debug)]
pub struct DriveConfig {
    /// What it is.
    pub kind: DriveKind,
    /// What the guest reads as serial number: printable ASCII, at most [`SERIAL_MAX_BYTES`].
    pub serial: String,
    /// How a disk is reached; a CD-ROM drive is always synchronous.
    pub engine: EngineKind,
}

/// A drive that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Longer than the guest could read, or not printable.
    #[error("the serial number '{0}' is not printable ASCII of at most {SERIAL_MAX_BYTES} bytes")]
    Serial(String),
    /// What is to be in it cannot be.
    #[error(transparent)]
    Medium(#[from] MediumError),
}

/// A drive, as the thread, the registers and the host reach it. Its write cache and its tray are the unit's.
pub(crate) struct Drive {
    pub(crate) bay: SharedBay<Pieces>,
    pub(crate) kind: Kind,
    pub(crate) serial: String,
    pub(crate) counters: DriveCounters,
    pub(crate) ata: Mutex<Ata>,
}

/// What a disk remembers beside its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ata {
    pub(crate) settings: Settings,
    pub(crate) queued_error: Option<QueuedError>,
}

impl Drive {
    pub(crate) fn new(config: DriveConfig) -> Result<Self, DriveError> {
        let DriveConfig { kind, serial, engine } = config;
        let printable = serial.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if serial.len() > SERIAL_MAX_BYTES || !printable {
            return Err(DriveError::Serial(serial));
        }
        let bay = match kind {
            DriveKind::Disk(disk) => Bay::disk(disk, serial.clone(), DEPTH, engine)?.0,
            DriveKind::Cdrom { medium, open } => Bay::cdrom(medium, serial.clone(), open)?,
        };
        let kind = bay.unit.kind();
        let bay = Arc::new(Mutex::new(bay));
        Ok(Self { bay, kind, serial, counters: DriveCounters::default(), ata: Mutex::default() })
    }

    pub(crate) fn present(&self) -> Present {
        match self.kind {
            Kind::Disk => Present::Ata,
            Kind::Cdrom => Present::Atapi,
        }
    }

    pub(crate) fn bay(&self) -> MutexGuard<'_, Bay<Pieces>> {
        self.bay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ata(&self) -> MutexGuard<'_, Ata> {
        self.ata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tray(&self) -> Option<Box<dyn Tray>> {
        (self.kind == Kind::Cdrom).then(|| Box::new(Arc::clone(&self.bay)) as Box<dyn Tray>)
    }

    /// Makes a disk longer. ATA has no word for that while a disk runs: its size is looked at after the next reset.
    pub(crate) fn grow(&self, size_bytes: u64) -> Result<(), GrowError> {
        self.bay().grow(size_bytes)
    }

    /// Back to power-on, but for the tray.
    pub(crate) fn reset(&self) {
        let mut bay = self.bay();
        bay.unit.reset();
        bay.measure();
        drop(bay);
        *self.ata() = Ata::default();
    }
}

impl Drive {
    pub(crate) fn save(&self) -> DriveState {
        let unit = self.bay().unit.save();
        let Ata { settings, queued_error } = self.ata().clone();
        DriveState { unit, settings, queued_error }
    }

    pub(crate) fn restore(&self, state: &DriveState) -> Result<(), String> {
        let DriveState { unit, settings, queued_error } = state;
        if !matches!(settings.multiple, 0 | 1 | 2 | 4 | 8 | 16) {
            return Err(format!("blocks of {} sectors", settings.multiple));
        }
        self.bay().restore(unit)?;
        *self.ata() = Ata { settings: settings.clone(), queued_error: *queued_error };
        Ok(())
    }
}
