//! ATA commands of a disk (ATA8-ACS §7): what each leads to. No I/O.

use orlop_scsi::{Medium, Range};
use serde::{Deserialize, Serialize};

use crate::fis::{ABRT, Command, IDNF, TaskFile};

/// The most that one command moves, in bytes: 65,536 sectors of 512.
const TRANSFER_MAX_BYTES: u64 = 32 << 20;
/// Length of a block of a log, and of a block of ranges, in bytes.
const BLOCK_BYTES: usize = 512;
/// The most sectors of a READ MULTIPLE.
const MULTIPLE_MAX: u16 = 16;

/// What the driver has set in a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Sectors per block of READ and WRITE MULTIPLE; 0 where they are off.
    pub multiple: u8,
    /// Read look-ahead is on; it does nothing.
    pub look_ahead: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { multiple: 0, look_ahead: true }
    }
}

/// The queued command that failed last, as log 10h shows it (ATA8-ACS §A.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedError {
    /// Its tag.
    pub tag: u8,
    /// The status register.
    pub status: u8,
    /// The error register.
    pub error: u8,
    /// The LBA registers.
    pub lba: u64,
}

/// How data gets to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// PIO: a setup frame ends the command.
    Pio,
    /// DMA: a register frame ends the command.
    Dma,
    /// DMA of a queued command with this tag: a set-bits frame ends it.
    Queued(u8),
}

/// What a command leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Read {
        range: Range,
        protocol: Protocol,
    },
    Write {
        range: Range,
        durable: bool,
        protocol: Protocol,
    },
    Flush,
    /// Ranges to discard are in this many bytes that the driver sends.
    Trim {
        bytes: usize,
    },
    /// IDENTIFY DEVICE.
    Identify,
    /// A block of the log of queued commands' errors.
    ErrorLog {
        protocol: Protocol,
    },
    /// These bytes go to the driver.
    Data {
        bytes: Vec<u8>,
        protocol: Protocol,
    },
    /// The write cache is switched; what it held becomes durable.
    WriteCache(bool),
    /// Done; the driver sees these registers.
    Done(TaskFile),
}

/// Whether `command` may be in flight together with others.
pub(crate) fn is_queued(command: u8) -> bool {
    matches!(command, 0x60 | 0x61)
}

/// Sectors from `first` on; a `count` of zero means `most`.
fn range(medium: &Medium, first: u64, count: u64, most: u64) -> Result<Range, u8> {
    let count = if count == 0 { most } else { count };
    let end = first.checked_add(count).filter(|end| *end <= medium.blocks()).ok_or(IDNF)?;
    let bytes = |sectors: u64| sectors.saturating_mul(u64::from(medium.block_bytes));
    let len = bytes(end).saturating_sub(bytes(first));
    if len > TRANSFER_MAX_BYTES { Err(ABRT) } else { Ok(Range { offset: bytes(first), len }) }
}

/// A transfer with 28-bit addresses.
fn short(medium: &Medium, file: &TaskFile) -> Result<Range, u8> {
    // Only LBA addresses are there, not cylinders, heads and sectors.
    if file.device & 0x40 == 0 {
        return Err(ABRT);
    }
    let first = file.lba & 0xff_ffff | u64::from(file.device & 0x0f) << 24;
    range(medium, first, u64::from(file.count & 0xff), 256)
}

/// A transfer with 48-bit addresses.
fn long(medium: &Medium, file: &TaskFile) -> Result<Range, u8> {
    if file.device & 0x40 == 0 {
        return Err(ABRT);
    }
    range(medium, file.lba, u64::from(file.count), 65536)
}

/// What `command` leads to on a disk of `medium`, or the error register.
pub(crate) fn decode(command: &Command, medium: &Medium, settings: &mut Settings) -> Result<Act, u8> {
    use Protocol::{Dma, Pio, Queued};
    let Command { command: code, features, registers: file } = command;
    let feature = features & 0xff;
    match code {
        0xec => Ok(Act::Identify),
        0x20 | 0x21 => Ok(Act::Read { range: short(medium, file)?, protocol: Pio }),
        0x24 => Ok(Act::Read { range: long(medium, file)?, protocol: Pio }),
        0xc4 if settings.multiple > 0 => Ok(Act::Read { range: short(medium, file)?, protocol: Pio }),
        0x29 if settings.multiple > 0 => Ok(Act::Read { range: long(medium, file)?, protocol: Pio }),
        0xc8 | 0xc9 => Ok(Act::Read { range: short(medium, file)?, protocol: Dma }),
        0x25 => Ok(Act::Read { range: long(medium, file)?, protocol: Dma }),
        0x30 | 0x31 | 0xca | 0xcb => write(medium, short(medium, file)?, false, Dma),
        0x34 | 0x35 => write(medium, long(medium, file)?, false, Dma),
        0x3d => write(medium, long(medium, file)?, true, Dma),
        0xc5 if settings.multiple > 0 => write(medium, short(medium, file)?, false, Dma),
        0x39 if settings.multiple > 0 => write(medium, long(medium, file)?, false, Dma),
        0xce if settings.multiple > 0 => write(medium, long(medium, file)?, true, Dma),
        // READ and WRITE FPDMA QUEUED: the count is where features are otherwise, the tag in the count.
        0x60 | 0x61 => {
            let range = range(medium, file.lba, u64::from(*features), 65536)?;
            let protocol = Queued(u8::try_from(file.count >> 3 & 0x1f).unwrap_or(0));
            match code {
                0x60 => Ok(Act::Read { range, protocol }),
                _ => write(medium, range, file.device & 0x80 != 0, protocol),
            }
        }
        0x40 | 0x41 => short(medium, file).map(|_| Act::Done(*file)),
        0x42 => long(medium, file).map(|_| Act::Done(*file)),
        0xe7 | 0xea => Ok(Act::Flush),
        0x06 if feature == 1 && file.count == 1 && !medium.read_only => Ok(Act::Trim { bytes: BLOCK_BYTES }),
        0x2f => log(file, Pio),
        0x47 => log(file, Dma),
        0xc6 => set_multiple(file, settings).map(|()| Act::Done(*file)),
        0xef => set_features(feature, file, settings),
        // CHECK POWER MODE: active.
        0xe5 => Ok(Act::Done(TaskFile { count: 0xff, ..*file })),
        // STANDBY, SLEEP: what is in the cache is kept safe.
        0xe0 | 0xe2 | 0xe6 => Ok(Act::Flush),
        // IDLE, RECALIBRATE, INITIALIZE DEVICE PARAMETERS.
        0xe1 | 0xe3 | 0x10 | 0x91 => Ok(Act::Done(*file)),
        _ => Err(ABRT),
    }
}

fn write(medium: &Medium, range: Range, durable: bool, protocol: Protocol) -> Result<Act, u8> {
    if medium.read_only { Err(ABRT) } else { Ok(Act::Write { range, durable, protocol }) }
}

/// READ LOG EXT: the directory, and log 10h, of one block each.
fn log(file: &TaskFile, protocol: Protocol) -> Result<Act, u8> {
    let [address, page_low, _, _, page_high, ..] = file.lba.to_le_bytes();
    if file.count != 1 || page_low != 0 || page_high != 0 {
        return Err(ABRT);
    }
    match address {
        0x00 => {
            let mut bytes = vec![0; BLOCK_BYTES];
            // Version 1; log 10h has one page.
            for at in [0, 0x20] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 1;
                }
            }
            Ok(Act::Data { bytes, protocol })
        }
        0x10 => Ok(Act::ErrorLog { protocol }),
        _ => Err(ABRT),
    }
}

/// Log 10h with its checksum.
pub(crate) fn error_log(error: Option<QueuedError>) -> Vec<u8> {
    const NOT_QUEUED: u8 = 0x80;
    let mut bytes = match error {
        Some(QueuedError { tag, status, error, lba }) => {
            let [l0, l1, l2, l3, l4, l5, ..] = lba.to_le_bytes();
            vec![tag & 0x1f, 0, status, error, l0, l1, l2, 0x40, l3, l4, l5]
        }
        None => vec![NOT_QUEUED],
    };
    bytes.resize(BLOCK_BYTES.saturating_sub(1), 0);
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(0_u8.wrapping_sub(sum));
    bytes
}

fn set_multiple(file: &TaskFile, settings: &mut Settings) -> Result<(), u8> {
    let count = file.count & 0xff;
    if count > MULTIPLE_MAX || !(count == 0 || count.is_power_of_two()) {
        return Err(ABRT);
    }
    settings.multiple = u8::try_from(count).unwrap_or(0);
    Ok(())
}

fn set_features(feature: u16, file: &TaskFile, settings: &mut Settings) -> Result<Act, u8> {
    match feature {
        0x02 => Ok(Act::WriteCache(true)),
        0x82 => Ok(Act::WriteCache(false)),
        0xaa | 0x55 => {
            settings.look_ahead = feature == 0xaa;
            Ok(Act::Done(*file))
        }
        // Transfer mode: any, for none has a meaning here.
        0x03 => Ok(Act::Done(*file)),
        _ => Err(ABRT),
    }
}

/// The ranges of a DATA SET MANAGEMENT (ATA8-ACS §7.10.3.1); those that lie outside the disk are an error.
pub(crate) fn trim_ranges(list: &[u8], medium: &Medium) -> Result<Vec<Range>, u8> {
    let (entries, _) = list.as_chunks::<8>();
    let mut ranges = Vec::new();
    for [l0, l1, l2, l3, l4, l5, c0, c1] in entries {
        let count = u64::from(u16::from_le_bytes([*c0, *c1]));
        let first = u64::from_le_bytes([*l0, *l1, *l2, *l3, *l4, *l5, 0, 0]);
        if count == 0 {
            continue;
        }
        let end = first.checked_add(count).filter(|end| *end <= medium.blocks()).ok_or(IDNF)?;
        let bytes = |sectors: u64| sectors.saturating_mul(u64::from(medium.block_bytes));
        ranges.push(Range { offset: bytes(first), len: bytes(end).saturating_sub(bytes(first)) });
    }
    Ok(ranges)
}
