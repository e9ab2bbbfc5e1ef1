//! A logical unit and what commands do with it. No I/O, no locks.

use crate::cdb::{Cdb, cut, len_bytes};
use crate::sense::Sense;
use crate::{SENSE_BYTES, block, inquiry, mmc, mode};

/// Block size of a CD-ROM in bytes (MMC-6 §4.2.3.8, mode 1).
pub const CDROM_BLOCK_BYTES: u32 = 2048;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A direct-access block device (SBC-3).
    Disk,
    /// A CD-ROM drive with a tray (MMC-6).
    Cdrom,
}

/// What a unit reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// Capacity in bytes, a multiple of `block_bytes`.
    pub size_bytes: u64,
    /// The unit of addresses in bytes: a power of two of at least 512.
    pub block_bytes: u32,
    /// The unit in which the storage works best, in bytes: a power of two, at least `block_bytes`.
    pub physical_block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
}

impl Medium {
    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.size_bytes.checked_div(u64::from(self.block_bytes)).unwrap_or(0)
    }

    /// `blocks` blocks from `first` on in bytes, if they are all there.
    pub(crate) fn range(&self, first: u64, blocks: u64) -> Result<Range, Sense> {
        let end = first.checked_add(blocks).filter(|end| *end <= self.blocks()).ok_or(Sense::OUT_OF_RANGE)?;
        let bytes = |blocks: u64| blocks.saturating_mul(u64::from(self.block_bytes));
        Ok(Range { offset: bytes(first), len: bytes(end).saturating_sub(bytes(first)) })
    }
}

/// A part of the medium, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// What a command leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Done; these bytes go to the guest.
    Data(Vec<u8>),
    /// The guest is to get this part of the medium.
    Read(Range),
    /// The guest's data goes to this part of the medium.
    Write {
        /// Where.
        range: Range,
        /// It must be durable before the command is done.
        durable: bool,
    },
    /// Everything that was written must be durable.
    Flush,
    /// The content of these is no longer needed.
    Discard(Vec<Range>),
    /// This part becomes zeroes.
    WriteZeroes {
        /// Which.
        range: Range,
        /// Its space may be given back.
        unmap: bool,
    },
}

/// The data that the guest sends with a command: given a length, up to that many bytes from its start.
pub type Parameters<'a> = &'a dyn Fn(usize) -> Vec<u8>;

/// What happened to a drive's medium and was not told yet (MMC-6 §6.6, media event codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MediaEvent {
    None = 0,
    EjectRequest = 1,
    NewMedia = 2,
    Removal = 3,
}

/// A logical unit.
#[derive(Debug)]
pub struct Unit {
    pub(crate) kind: Kind,
    pub(crate) serial: String,
    pub(crate) medium: Option<Medium>,
    /// The tray is out.
    pub(crate) open: bool,
    /// The guest wants the medium kept in (PREVENT ALLOW MEDIUM REMOVAL).
    pub(crate) locked: bool,
    /// Writes are done when they are in the host's cache; without, when they are durable (SBC-3 §6.4.5, WCE).
    pub(crate) write_cache: bool,
    /// What `write_cache` is after power-on.
    caches: bool,
    pub(crate) attention: Option<Sense>,
    pub(crate) event: MediaEvent,
    /// What REQUEST SENSE tells, where the transport did not.
    pub(crate) sense: Sense,
}

impl Unit {
    /// A unit after power-on. `serial` is printable ASCII of at most [`crate::SERIAL_MAX_BYTES`]; a disk has a medium.
    pub fn new(kind: Kind, serial: String, medium: Option<Medium>) -> Self {
        Self {
            kind,
            serial,
            medium,
            open: false,
            locked: false,
            write_cache: true,
            caches: true,
            attention: Some(Sense::RESET),
            event: MediaEvent::None,
            sense: Sense::NONE,
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is in it and can be reached.
    pub fn medium(&self) -> Option<&Medium> {
        self.medium.as_ref().filter(|_| !self.open)
    }

    /// Whether writes are done when they are in the host's cache.
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// The write cache is off after power-on, and now.
    pub(crate) fn starts_without_cache(&mut self) {
        (self.caches, self.write_cache) = (false, false);
    }

    /// The next command is told that the disk has another size.
    pub fn capacity_changed(&mut self) {
        self.attention = Some(Sense::CAPACITY_CHANGED);
    }

    /// Sets the write cache, as ATA SET FEATURES does.
    pub fn set_write_cache(&mut self, on: bool) {
        self.write_cache = on;
    }

    /// Back to power-on, or after a bus reset: the tray and what is on it stay.
    pub fn reset(&mut self) {
        self.locked = false;
        self.write_cache = self.caches;
        self.attention = Some(Sense::RESET);
        self.sense = Sense::NONE;
        self.event = MediaEvent::None;
    }

    /// Keeps `sense` for REQUEST SENSE, for a transport that does not bring it with the status.
    pub fn keep_sense(&mut self, sense: Sense) {
        self.sense = sense;
    }

    /// What `cdb` leads to; `parameters` is the data sent with it. A command that is shorter than its operation code
    /// says is refused.
    pub fn start(&mut self, cdb: &[u8], parameters: Parameters<'_>) -> Result<Step, Sense> {
        let operation = cdb.first().copied().ok_or(Sense::INVALID_COMMAND)?;
        if len_bytes(operation).is_some_and(|len| cdb.len() < len) {
            return Err(Sense::INVALID_FIELD);
        }
        let cdb = Cdb(cdb);
        match operation {
            // These three neither report nor clear a unit attention (SAM-5 §5.14).
            0x12 => return inquiry::inquiry(self, cdb).map(Step::Data),
            0xa0 => return report_luns(cdb).map(Step::Data),
            0x03 => return Ok(Step::Data(self.request_sense(cdb))),
            // What happened to the medium is told here in its own way (MMC-6 §4.1.6.2).
            0x4a | 0x46 if self.kind == Kind::Cdrom => {}
            _ => {
                if let Some(attention) = self.attention.take() {
                    return Err(attention);
                }
            }
        }
        match self.kind {
            Kind::Disk => self.start_disk(operation, cdb, parameters),
            Kind::Cdrom => self.start_cdrom(operation, cdb, parameters),
        }
    }

    fn start_disk(&mut self, operation: u8, cdb: Cdb<'_>, parameters: Parameters<'_>) -> Result<Step, Sense> {
        match operation {
            0x00 | 0x1d => self.ready().map(|_| Step::Data(Vec::new())),
            // START STOP UNIT, PREVENT ALLOW: there is nothing to stop and nothing to take out.
            0x1b if cdb.bit(4, 0) || !cdb.bit(4, 1) => Ok(Step::Data(Vec::new())),
            0x1e => Ok(Step::Data(Vec::new())),
            0x0a | 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e => block::write(self, operation, cdb),
            0x41 | 0x93 => block::write_same(self, operation, cdb, parameters),
            0x42 => block::unmap(self, cdb, parameters),
            0x2f | 0xaf | 0x8f => block::verify(self, operation, cdb),
            _ => self.start_any(operation, cdb, parameters),
        }
    }

    fn start_cdrom(
        &mut self,
        operation: u8,
        cdb: Cdb<'_>,
        parameters: Parameters<'_>,
    ) -> Result<Step, Sense> {
        match operation {
            0x00 | 0x1d => self.ready().map(|_| Step::Data(Vec::new())),
            0x1b => mmc::start_stop(self, cdb).map(Step::Data),
            0x1e => Ok(Step::Data(mmc::prevent_allow(self, cdb))),
            0x2b => block::seek(self, cdb),
            0x43 => mmc::read_toc(self, cdb).map(Step::Data),
            0x46 => mmc::get_configuration(self, cdb).map(Step::Data),
            0x4a => mmc::event_status(self, cdb).map(Step::Data),
            0x51 => mmc::read_disc_information(self, cdb).map(Step::Data),
            0xbd => mmc::mechanism_status(self, cdb).map(Step::Data),
            0xad => Err(Sense::INVALID_COMMAND),
            _ => self.start_any(operation, cdb, parameters),
        }
    }

    fn start_any(&mut self, operation: u8, cdb: Cdb<'_>, parameters: Parameters<'_>) -> Result<Step, Sense> {
        match operation {
            0x08 | 0x28 | 0xa8 | 0x88 => block::read(self, operation, cdb),
            0x1a | 0x5a => mode::sense(self, operation, cdb).map(Step::Data),
            0x15 | 0x55 => mode::select(self, operation, cdb, parameters),
            0x25 => block::read_capacity_10(self, cdb).map(Step::Data),
            0x9e if cdb.byte(1) & 0x1f == 0x10 => block::read_capacity_16(self, cdb).map(Step::Data),
            0x9e => Err(Sense::INVALID_FIELD),
            0x35 | 0x91 => self.ready().map(|_| Step::Flush),
            _ => Err(Sense::INVALID_COMMAND),
        }
    }

    /// The medium, or why there is none.
    pub(crate) fn ready(&self) -> Result<&Medium, Sense> {
        match &self.medium {
            _ if self.open => Err(Sense::TRAY_OPEN),
            Some(medium) => Ok(medium),
            None => Err(Sense::NO_MEDIUM),
        }
    }

    fn request_sense(&mut self, cdb: Cdb<'_>) -> Vec<u8> {
        let kept = std::mem::replace(&mut self.sense, Sense::NONE);
        let sense = if kept == Sense::NONE { self.attention.take().unwrap_or(Sense::NONE) } else { kept };
        // Only the fixed format is there; a guest that asks for descriptors gets it all the same (SPC-4 §6.39).
        cut(sense.fixed().to_vec(), usize::from(cdb.byte(4)).min(SENSE_BYTES))
    }
}

/// REPORT LUNS (SPC-4 §6.33): every target has its logical unit 0 and no other.
fn report_luns(cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    const ONE_LUN_BYTES: u8 = 8;
    let most = usize::try_from(cdb.u32(6)).unwrap_or(0);
    let listed = match cdb.byte(2) {
        0 | 2 => ONE_LUN_BYTES,
        // Well-known logical units: none.
        1 => 0,
        _ => return Err(Sense::INVALID_FIELD),
    };
    let mut list = vec![0, 0, 0, listed, 0, 0, 0, 0];
    list.extend(std::iter::repeat_n(0, usize::from(listed)));
    Ok(cut(list, most))
}
