//! A unit with the engine of its medium, and the host's hand on the tray.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_disk::{Disk, Engine, EngineKind, Memory, open_engine};

use crate::mmc;
use crate::sense::Sense;
use crate::unit::{CDROM_BLOCK_BYTES, Kind, MediaEvent, Medium, Unit};

/// A unit and what stands behind it.
pub struct Bay<M> {
    /// What commands are given to.
    pub unit: Unit,
    /// The engine of the medium; none where there is none.
    pub engine: Option<Box<dyn Engine<M>>>,
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
    /// The blocks that the guest is to see are no power of two from the image's own to 4096 bytes.
    #[error("blocks of {wanted} bytes are no power of two from {own}, the image's own, to 4096")]
    BlockSize {
        /// What the guest was to see, in bytes.
        wanted: u32,
        /// What the image has, in bytes.
        own: u32,
    },
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
    /// How a disk shows itself as a medium for `kind`, in blocks of `block_bytes` where that is given.
    pub fn of(disk: &Disk, kind: Kind, block_bytes: Option<u32>) -> Result<Self, MediumError> {
        let own = disk.block_bytes();
        let block_bytes = match (kind, block_bytes) {
            (Kind::Cdrom, _) if own > CDROM_BLOCK_BYTES => return Err(MediumError::Blocks(own)),
            (Kind::Cdrom, _) => CDROM_BLOCK_BYTES,
            (Kind::Disk, None) => own,
            (Kind::Disk, Some(wanted)) if wanted.is_power_of_two() && (own..=4096).contains(&wanted) => {
                wanted
            }
            (Kind::Disk, Some(wanted)) => return Err(MediumError::BlockSize { wanted, own }),
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
    /// A disk of which `depth` operations may be in flight, and why it is not reached by io_uring although it should.
    pub fn disk(
        disk: Disk,
        serial: String,
        block_bytes: Option<u32>,
        depth: u16,
        kind: EngineKind,
    ) -> Result<(Self, Option<std::io::Error>), MediumError> {
        let medium = Medium::of(&disk, Kind::Disk, block_bytes)?;
        let (engine, refused) = open_engine(&Arc::new(disk), depth, kind);
        Ok((Self { unit: Unit::new(Kind::Disk, serial, Some(medium)), engine: Some(engine) }, refused))
    }

    /// A CD-ROM drive with `disk` in it, on an open tray where `open` says so.
    pub fn cdrom(disk: Option<Disk>, serial: String, open: bool) -> Result<Self, MediumError> {
        let mut bay = Self { unit: Unit::new(Kind::Cdrom, serial, None), engine: None };
        if let Some(disk) = disk {
            bay.load(disk)?;
        }
        bay.unit.open = open;
        Ok(bay)
    }

    fn load(&mut self, disk: Disk) -> Result<(), MediumError> {
        let medium = Medium::of(&disk, Kind::Cdrom, None)?;
        let (engine, _) = open_engine(&Arc::new(disk), CDROM_DEPTH, EngineKind::Synchronous);
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
