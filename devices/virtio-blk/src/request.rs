//! What a request asks for (virtio 1.3 §5.2.6): everything that the guest says is checked here, once.

use orlop_disk::SECTOR_BYTES;
use orlop_virtio::{Buffers, Request};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::SERIAL_MAX_BYTES;
use crate::counters::Kind;
use crate::space::{
    DISCARD_MAX_SECTORS, DISCARD_MAX_SEGMENTS, Geometry, ZEROES_MAX_SECTORS, ZEROES_MAX_SEGMENTS,
};

/// `struct virtio_blk_req` before its data: type, reserved, sector.
const HEADER_BYTES: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`: sector, number of sectors, flags.
const SEGMENT_BYTES: usize = 16;
/// The flag of a segment that allows to give its space back (write zeroes only).
const SEGMENT_UNMAP: u32 = 1;

/// A range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) unmap: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Read { offset: u64, to: Buffers },
    Write { offset: u64, from: Buffers },
    Flush,
    Id { to: Buffers },
    Discard { segments: Vec<Segment> },
    WriteZeroes { segments: Vec<Segment> },
}

impl Command {
    /// How it is counted, and over how many bytes.
    pub(crate) fn measure(&self) -> (Kind, u64) {
        let bytes = |buffers: &Buffers| u64::try_from(buffers.len()).unwrap_or(u64::MAX);
        let total = |segments: &[Segment]| segments.iter().fold(0_u64, |sum, s| sum.saturating_add(s.len));
        match self {
            Self::Read { to, .. } => (Kind::Read, bytes(to)),
            Self::Write { from, .. } => (Kind::Write, bytes(from)),
            Self::Flush => (Kind::Flush, 0),
            Self::Id { to } => (Kind::Id, bytes(to)),
            Self::Discard { segments } => (Kind::Discard, total(segments)),
            Self::WriteZeroes { segments } => (Kind::WriteZeroes, total(segments)),
        }
    }
}

/// Why nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request cannot be: `VIRTIO_BLK_S_IOERR`.
    Invalid,
    /// The device does not do that: `VIRTIO_BLK_S_UNSUPP`.
    Unsupported,
}

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) head: u16,
    /// Where the status byte goes.
    pub(crate) status: Buffers,
    /// Bytes that the device may write before the status byte.
    pub(crate) payload_bytes: usize,
    pub(crate) command: Result<Command, Refusal>,
}

/// A request that has no room for its status: its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoStatus(pub(crate) u16);

/// Takes `request` apart for a disk of `geometry`.
pub(crate) fn parse(request: Request, geometry: &Geometry) -> Result<Parsed, NoStatus> {
    let Request { head, readable, mut writable } = request;
    let status = writable.split_off_last(1).map_err(|_| NoStatus(head))?;
    let payload_bytes = writable.len();
    let command = command(readable, writable, geometry);
    Ok(Parsed { head, status, payload_bytes, command })
}

fn command(mut readable: Buffers, writable: Buffers, geometry: &Geometry) -> Result<Command, Refusal> {
    let mut header = [0; HEADER_BYTES];
    let first = readable.split_to(HEADER_BYTES).map_err(|_| Refusal::Invalid)?;
    first.copy_to(&mut header).map_err(|_| Refusal::Invalid)?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => {
            let offset = range(sector, writable.len(), geometry)?;
            Ok(Command::Read { offset, to: writable })
        }
        VIRTIO_BLK_T_OUT if geometry.read_only => Err(Refusal::Invalid),
        VIRTIO_BLK_T_OUT => {
            let offset = range(sector, readable.len(), geometry)?;
            Ok(Command::Write { offset, from: readable })
        }
        VIRTIO_BLK_T_FLUSH => Ok(Command::Flush),
        VIRTIO_BLK_T_GET_ID => {
            let mut to = writable;
            let to = to.split_to(SERIAL_MAX_BYTES).map_err(|_| Refusal::Invalid)?;
            Ok(Command::Id { to })
        }
        VIRTIO_BLK_T_DISCARD if !geometry.read_only => {
            let limits =
                Limits { segments: DISCARD_MAX_SEGMENTS, sectors: DISCARD_MAX_SECTORS, known_flags: 0 };
            Ok(Command::Discard { segments: segments(readable, geometry, limits)? })
        }
        VIRTIO_BLK_T_WRITE_ZEROES if !geometry.read_only => {
            let limits = Limits {
                segments: ZEROES_MAX_SEGMENTS,
                sectors: ZEROES_MAX_SECTORS,
                known_flags: SEGMENT_UNMAP,
            };
            Ok(Command::WriteZeroes { segments: segments(readable, geometry, limits)? })
        }
        // SCSI commands are among them: nothing of the guest's ever reaches the host's disk but data.
        _ => Err(Refusal::Unsupported),
    }
}

/// The offset in bytes of a transfer of `len` bytes, which lies within the disk.
fn range(sector: u64, len: usize, geometry: &Geometry) -> Result<u64, Refusal> {
    let len = u64::try_from(len).map_err(|_| Refusal::Invalid)?;
    let offset = sector.checked_mul(u64::from(SECTOR_BYTES)).ok_or(Refusal::Invalid)?;
    let end = offset.checked_add(len).ok_or(Refusal::Invalid)?;
    let blocks = u64::from(geometry.block_bytes);
    if len == 0 || end > geometry.size_bytes || !offset.is_multiple_of(blocks) || !len.is_multiple_of(blocks)
    {
        return Err(Refusal::Invalid);
    }
    Ok(offset)
}

struct Limits {
    segments: u32,
    sectors: u32,
    known_flags: u32,
}

fn segments(readable: Buffers, geometry: &Geometry, limits: Limits) -> Result<Vec<Segment>, Refusal> {
    let most = usize::try_from(limits.segments).unwrap_or(0).saturating_mul(SEGMENT_BYTES);
    if readable.is_empty() || !readable.len().is_multiple_of(SEGMENT_BYTES) || readable.len() > most {
        return Err(Refusal::Invalid);
    }
    let mut raw = vec![0; readable.len()];
    readable.copy_to(&mut raw).map_err(|_| Refusal::Invalid)?;
    let (raw, _) = raw.as_chunks::<SEGMENT_BYTES>();
    raw.iter().map(|raw| segment(*raw, geometry, &limits)).collect()
}

fn segment(raw: [u8; SEGMENT_BYTES], geometry: &Geometry, limits: &Limits) -> Result<Segment, Refusal> {
    let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = raw;
    let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    if flags & !limits.known_flags != 0 {
        return Err(Refusal::Unsupported);
    }
    if sectors > limits.sectors {
        return Err(Refusal::Invalid);
    }
    let len = u64::from(sectors).saturating_mul(u64::from(SECTOR_BYTES));
    let offset = range(u64::from_le_bytes(sector), usize::try_from(len).unwrap_or(usize::MAX), geometry)?;
    Ok(Segment { offset, len, unmap: flags & SEGMENT_UNMAP != 0 })
}
