//! Block commands (SBC-3 §5): reading, writing, capacity, and giving space back.

use crate::cdb::{Cdb, cut};
use crate::sense::Sense;
use crate::unit::{Kind, Medium, Parameters, Range, Step, Unit};

/// The most that one command may move, in bytes: what one request of a transport may hold.
pub(crate) const TRANSFER_MAX_BYTES: u64 = 32 << 20;
/// The most that one UNMAP descriptor may cover, in bytes (2 GiB).
pub(crate) const UNMAP_MAX_BYTES: u64 = 2 << 30;
/// The most descriptors in one UNMAP.
pub(crate) const UNMAP_MAX_DESCRIPTORS: usize = 32;
/// The most that one WRITE SAME may cover, in bytes (64 MiB): storage that knows no zeroing has to write them all.
pub(crate) const WRITE_SAME_MAX_BYTES: u64 = 64 << 20;

/// First block and number of blocks, by the length of the command.
fn address(operation: u8, cdb: Cdb<'_>) -> (u64, u64) {
    match operation >> 5 {
        0 => {
            // Zero means 256 (SBC-3 §5.8).
            let count = u64::from(cdb.byte(4));
            (cdb.u24(1) & 0x1f_ffff, if count == 0 { 256 } else { count })
        }
        1 | 2 => (cdb.u32(2), u64::try_from(cdb.u16(7)).unwrap_or(0)),
        5 => (cdb.u32(2), cdb.u32(6)),
        _ => (cdb.u64(2), cdb.u32(10)),
    }
}

/// The part of the medium that a transfer is about.
fn transfer(unit: &Unit, operation: u8, cdb: Cdb<'_>) -> Result<Range, Sense> {
    let medium = unit.ready()?;
    // Protection information (RDPROTECT, WRPROTECT) is not there.
    if operation >> 5 != 0 && cdb.byte(1) & 0xe0 != 0 && unit.kind == Kind::Disk {
        return Err(Sense::INVALID_FIELD);
    }
    let (first, blocks) = address(operation, cdb);
    let range = medium.range(first, blocks)?;
    if range.len > TRANSFER_MAX_BYTES { Err(Sense::INVALID_FIELD) } else { Ok(range) }
}

pub(crate) fn read(unit: &Unit, operation: u8, cdb: Cdb<'_>) -> Result<Step, Sense> {
    transfer(unit, operation, cdb).map(Step::Read)
}

fn writable(unit: &Unit) -> Result<&Medium, Sense> {
    let medium = unit.ready()?;
    if medium.read_only { Err(Sense::WRITE_PROTECTED) } else { Ok(medium) }
}

/// WRITE and WRITE AND VERIFY; the latter reads back on real media, and here waits until the data is durable.
pub(crate) fn write(unit: &Unit, operation: u8, cdb: Cdb<'_>) -> Result<Step, Sense> {
    writable(unit)?;
    let verify = matches!(operation, 0x2e | 0xae | 0x8e);
    // Byte-by-byte comparison (BYTCHK) is not there.
    if verify && cdb.byte(1) & 0x06 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let force_unit_access = !verify && operation >> 5 != 0 && cdb.bit(1, 3);
    let durable = verify || force_unit_access || !unit.write_cache;
    Ok(Step::Write { range: transfer(unit, operation, cdb)?, durable })
}

/// VERIFY without comparison: the blocks are there.
pub(crate) fn verify(unit: &Unit, operation: u8, cdb: Cdb<'_>) -> Result<Step, Sense> {
    if cdb.byte(1) & 0x06 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let (first, blocks) = address(operation, cdb);
    unit.ready()?.range(first, blocks).map(|_| Step::Data(Vec::new()))
}

/// SEEK (10).
pub(crate) fn seek(unit: &Unit, cdb: Cdb<'_>) -> Result<Step, Sense> {
    unit.ready()?.range(cdb.u32(2), 1).map(|_| Step::Data(Vec::new()))
}

/// WRITE SAME (10) and (16), as far as it makes zeroes or gives space back.
pub(crate) fn write_same(
    unit: &Unit,
    operation: u8,
    cdb: Cdb<'_>,
    parameters: Parameters<'_>,
) -> Result<Step, Sense> {
    let medium = writable(unit)?;
    let (no_data, anchor, unmap) = (cdb.bit(1, 0), cdb.bit(1, 4), cdb.bit(1, 3));
    if cdb.byte(1) & 0xe0 != 0 || anchor || (no_data && operation == 0x41) {
        return Err(Sense::INVALID_FIELD);
    }
    let (first, blocks) = address(operation, cdb);
    // Zero blocks mean all up to the end (SBC-3 §5.43), which is more than the block limits page allows (WSNZ).
    if blocks == 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let range = medium.range(first, blocks)?;
    if range.len > WRITE_SAME_MAX_BYTES {
        return Err(Sense::INVALID_FIELD);
    }
    if !no_data {
        let wanted = usize::try_from(medium.block_bytes).unwrap_or(usize::MAX);
        let block = parameters(wanted);
        if block.len() < wanted {
            return Err(Sense::PARAMETER_LENGTH);
        }
        if block.iter().any(|byte| *byte != 0) {
            return Err(Sense::INVALID_PARAMETER);
        }
    }
    Ok(Step::WriteZeroes { range, unmap })
}

/// UNMAP (SBC-3 §5.28).
pub(crate) fn unmap(unit: &Unit, cdb: Cdb<'_>, parameters: Parameters<'_>) -> Result<Step, Sense> {
    const HEADER_BYTES: usize = 8;
    const DESCRIPTOR_BYTES: usize = 16;
    let medium = writable(unit)?;
    if cdb.bit(1, 0) {
        return Err(Sense::INVALID_FIELD);
    }
    let asked = cdb.u16(7);
    if asked == 0 {
        return Ok(Step::Data(Vec::new()));
    }
    let most = UNMAP_MAX_DESCRIPTORS.saturating_mul(DESCRIPTOR_BYTES).saturating_add(HEADER_BYTES);
    if asked < HEADER_BYTES {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if asked > most {
        return Err(Sense::INVALID_FIELD);
    }
    let list = parameters(asked);
    if list.len() < asked {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let described = Cdb(&list).u16(2).min(asked.saturating_sub(HEADER_BYTES));
    let descriptors = list.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(DESCRIPTOR_BYTES);
    let ranges = descriptors.take(described / DESCRIPTOR_BYTES).map(|descriptor| {
        let descriptor = Cdb(descriptor);
        let range = medium.range(descriptor.u64(0), descriptor.u32(8))?;
        if range.len > UNMAP_MAX_BYTES { Err(Sense::INVALID_PARAMETER) } else { Ok(range) }
    });
    let ranges: Vec<Range> = ranges.collect::<Result<_, _>>()?;
    Ok(Step::Discard(ranges.into_iter().filter(|range| range.len > 0).collect()))
}

/// READ CAPACITY (10): the last block, or all ones where that needs more than 32 bits (SBC-3 §5.15).
pub(crate) fn read_capacity_10(unit: &Unit, _cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    let medium = unit.ready()?;
    let last = u32::try_from(medium.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
    Ok([last.to_be_bytes(), medium.block_bytes.to_be_bytes()].concat())
}

/// READ CAPACITY (16) (SBC-3 §5.16).
pub(crate) fn read_capacity_16(unit: &Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    let medium = unit.ready()?;
    let last = medium.blocks().saturating_sub(1);
    let per_physical = medium.physical_block_bytes.checked_div(medium.block_bytes).unwrap_or(1).max(1);
    let mut data = [&last.to_be_bytes()[..], &medium.block_bytes.to_be_bytes()].concat();
    data.push(0);
    data.push(u8::try_from(per_physical.ilog2()).unwrap_or(0));
    // LBPME: logical block provisioning is there for what can be written.
    data.push(if medium.read_only { 0 } else { 0x80 });
    data.resize(32, 0);
    Ok(cut(data, usize::try_from(cdb.u32(10)).unwrap_or(usize::MAX)))
}
