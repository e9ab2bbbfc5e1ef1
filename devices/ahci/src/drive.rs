//! What is on a port.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_disk::GrowError;
use orlop_scsi::{Bay, DriveConfig, DriveCounters, Kind, MediumError, SharedBay, Tray};

use crate::ata::{QueuedError, Settings};
use crate::identify::SERIAL_MAX_BYTES;
use crate::pieces::Pieces;
use crate::registers::Present;
use crate::state::DriveState;

/// Commands that a disk has in flight at most: its slots.
const DEPTH: u16 = 32;

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
        if !config.has_serial_within(SERIAL_MAX_BYTES) {
            return Err(DriveError::Serial(config.serial));
        }
        let serial = config.serial.clone();
        let bay = Bay::new(config, DEPTH)?;
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
