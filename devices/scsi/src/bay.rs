//! A unit with the engine of its medium, and the host's hand on the tray.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_disk::{Disk, EngineKind, ErrorHandling, GrowError, Guard, Memory, open_engine};

use crate::mmc;
use crate::sense::Sense;
use crate::unit::{CDROM_BLOCK_BYTES, Kind, MediaEvent, Medium, Unit};

/// A unit and what stands behind it.
pub struct Bay<M> {
    /// What commands are given to.
    pub unit: Unit,
    /// The engine of the medium; none where there is none.
    pub engine: Option<Guard<M>>,
    /// What a disk is on; none for a drive.
    disk: Option<Arc<Disk>>,
}

/// How a disk is to be.
#[derive(Debug)]
pub struct DiskConfig {
    /// Where its bytes are.
    pub disk: Disk,
    /// Its write cache is off after power-on: a write is durable before the guest hears of it, until the guest turns the
    /// cache on.
    pub write_through: bool,
    /// What becomes of the host's errors.
    pub errors: ErrorHandling,
}

/// What is in a bay.
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

/// One drive of a controller.
#[derive(Debug)]
pub struct DriveConfig {
    /// What it is.
    pub kind: DriveKind,
    /// What the guest reads as serial number: printable ASCII, as long as the controller can show it.
    pub serial: String,
    /// How a disk is reached; a CD-ROM drive is always synchronous.
    pub engine: EngineKind,
}

impl DriveConfig {
    /// Whether the serial number is printable ASCII of at most `most_bytes`.
    pub fn has_serial_within(&self, most_bytes: usize) -> bool {
        let printable = self.serial.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        self.serial.len() <= most_bytes && printable
    }
}

/// A bay that a device's thread and the host's hand share. It is locked for one command at most.
pub type SharedBay<M> = Arc<Mutex<Bay<M>>>;

/// A medium that does not fit into a drive, or a tray that does not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediumError {
    /// The blocks of the image are larger than those of a CD-ROM.
    #[error("its blocks of {0} bytes are larger than the {CDROM_BLOCK_BYTES} bytes of a CD-ROM")]
    Blocks(u32),
    /// Not one block.
    #[error("it is smaller than one block of a CD-ROM ({CDROM_BLOCK_BYTES} bytes)")]
    Small,
    /// The guest has locked the tray; it was asked to let go.
    #[error("the guest has locked the tray; it was asked to let go of the medium")]
    Locked,
}

/// A tray as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrayState {
    /// It is out.
    pub open: bool,
    /// The guest has locked it.
    pub locked: bool,
    /// There is a medium on it.
    pub medium: bool,
}

/// The host's hand on the tray of one drive.
pub trait Tray: Send {
    /// Opens the tray and takes the medium. A locked tray is opened only by `force`; without, the guest is asked.
    fn eject(&self, force: bool) -> Result<(), MediumError>;
    /// Puts `disk` in, in place of what was there, and closes the tray.
    fn insert(&self, disk: Disk) -> Result<(), MediumError>;
    /// How it stands.
    fn state(&self) -> TrayState;
}

/// How many operations a drive has in flight at most: it carries out one command at a time.
const CDROM_DEPTH: u16 = 1;

impl Medium {
    /// How a disk shows itself as a medium for `kind`.
    pub fn of(disk: &Disk, kind: Kind) -> Result<Self, MediumError> {
        let own = disk.block_bytes();
        let block_bytes = match kind {
            Kind::Cdrom if own > CDROM_BLOCK_BYTES => return Err(MediumError::Blocks(own)),
            Kind::Cdrom => CDROM_BLOCK_BYTES,
            Kind::Disk => own,
        };
        // Blocks that are not whole are not shown.
        let rest = disk.size_bytes().checked_rem(u64::from(block_bytes)).unwrap_or(0);
        let size_bytes = disk.size_bytes().saturating_sub(rest);
        if size_bytes == 0 {
            return Err(MediumError::Small);
        }
        let physical_block_bytes = disk.physical_block_bytes().max(block_bytes);
        let read_only = disk.is_read_only() || kind == Kind::Cdrom;
        Ok(Self { size_bytes, block_bytes, physical_block_bytes, read_only })
    }
}

impl<M: Memory> Bay<M> {
    /// A bay with a drive in it. Of a disk, `depth` operations may be in flight.
    pub fn new(config: DriveConfig, depth: u16) -> Result<Self, MediumError> {
        let DriveConfig { kind, serial, engine } = config;
        match kind {
            DriveKind::Disk(disk) => Self::disk(disk, serial, depth, engine),
            DriveKind::Cdrom { medium, open } => Self::cdrom(medium, serial, open),
        }
    }

    fn disk(config: DiskConfig, serial: String, depth: u16, kind: EngineKind) -> Result<Self, MediumError> {
        let DiskConfig { disk, write_through, errors } = config;
        let medium = Medium::of(&disk, Kind::Disk)?;
        let disk = Arc::new(disk);
        let (engine, _) = open_engine(&disk, depth, kind);
        let mut unit = Unit::new(Kind::Disk, serial, Some(medium));
        if write_through {
            unit.starts_without_cache();
        }
        Ok(Self { unit, engine: Some(Guard::new(engine, errors)), disk: Some(disk) })
    }

    /// Makes a disk longer, to `size_bytes`; the guest sees it with [`Bay::measure`].
    pub fn grow(&self, size_bytes: u64) -> Result<(), GrowError> {
        self.disk.as_ref().map_or(Err(GrowError::ReadOnly), |disk| disk.grow(size_bytes))
    }

    /// Shows the size that the disk has now; whether that is another one.
    pub fn measure(&mut self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let (Ok(now), Some(medium)) = (Medium::of(disk, Kind::Disk), &mut self.unit.medium) else {
            return false;
        };
        std::mem::replace(medium, now) != now
    }

    /// How many operations wait for the machine to go on.
    pub fn held(&self) -> usize {
        self.engine.as_ref().map_or(0, Guard::held)
    }

    /// A CD-ROM drive with `disk` in it, on an open tray where `open` says so.
    fn cdrom(disk: Option<Disk>, serial: String, open: bool) -> Result<Self, MediumError> {
        let mut bay = Self { unit: Unit::new(Kind::Cdrom, serial, None), engine: None, disk: None };
        if let Some(disk) = disk {
            bay.load(disk)?;
        }
        bay.unit.open = open;
        Ok(bay)
    }

    fn load(&mut self, disk: Disk) -> Result<(), MediumError> {
        let medium = Medium::of(&disk, Kind::Cdrom)?;
        let (engine, _) = open_engine(&Arc::new(disk), CDROM_DEPTH, EngineKind::Synchronous);
        let engine = Guard::new(engine, ErrorHandling::REPORT);
        (self.unit.medium, self.engine) = (Some(medium), Some(engine));
        Ok(())
    }

    /// As [`Unit::restore`]; an engine whose medium is gone goes with it.
    pub fn restore(&mut self, state: &crate::UnitState) -> Result<(), String> {
        self.unit.restore(state)?;
        if self.unit.medium.is_none() {
            self.engine = None;
        }
        Ok(())
    }
}

fn lock<M>(bay: &Mutex<Bay<M>>) -> MutexGuard<'_, Bay<M>> {
    bay.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Memory> Tray for SharedBay<M> {
    fn eject(&self, force: bool) -> Result<(), MediumError> {
        let mut bay = lock(self);
        if bay.unit.locked && !force {
            bay.unit.event = MediaEvent::EjectRequest;
            return Err(MediumError::Locked);
        }
        (bay.unit.locked, bay.unit.open, bay.unit.medium, bay.engine) = (false, true, None, None);
        bay.unit.event = MediaEvent::Removal;
        Ok(())
    }

    fn insert(&self, disk: Disk) -> Result<(), MediumError> {
        let mut bay = lock(self);
        if bay.unit.locked && bay.unit.medium.is_some() {
            bay.unit.event = MediaEvent::EjectRequest;
            return Err(MediumError::Locked);
        }
        bay.load(disk)?;
        bay.unit.open = true;
        mmc::close(&mut bay.unit);
        Ok(())
    }

    fn state(&self) -> TrayState {
        let bay = lock(self);
        TrayState { open: bay.unit.open, locked: bay.unit.locked, medium: bay.unit.medium.is_some() }
    }
}

impl Sense {
    /// The same as an ATAPI drive's error register shows it: the sense key in the upper half (ATA8-ACS §7.19).
    pub fn atapi_error(self) -> u8 {
        self.key << 4
    }
}
