//! Who a unit is (SPC-4 §6.6 and §7.8).

use crate::block::{TRANSFER_MAX_BYTES, UNMAP_MAX_BYTES, UNMAP_MAX_DESCRIPTORS, WRITE_SAME_MAX_BYTES};
use crate::cdb::{Cdb, cut};
use crate::sense::Sense;
use crate::unit::{CDROM_BLOCK_BYTES, Kind, Unit};

const VENDOR: &[u8; 8] = b"ORLOP   ";
const REVISION: &[u8; 4] = b"1   ";
/// Claims SPC-3, which drivers need to ask for the pages below.
const VERSION: u8 = 0x05;

/// Peripheral device type (SPC-4 §6.6.2).
fn device_type(kind: Kind) -> u8 {
    match kind {
        Kind::Disk => 0x00,
        Kind::Cdrom => 0x05,
    }
}

fn product(kind: Kind) -> &'static [u8; 16] {
    match kind {
        Kind::Disk => b"DISK            ",
        Kind::Cdrom => b"CD-ROM          ",
    }
}

pub(crate) fn inquiry(unit: &Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    let most = cdb.u16(3);
    match (cdb.bit(1, 0), cdb.byte(2)) {
        (false, 0) => Ok(cut(standard(unit), most)),
        (false, _) => Err(Sense::INVALID_FIELD),
        (true, page) => {
            let body = vital(unit, page).ok_or(Sense::INVALID_FIELD)?;
            let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
            let mut data = vec![device_type(unit.kind), page];
            data.extend(len.to_be_bytes());
            data.extend(body);
            Ok(cut(data, most))
        }
    }
}

fn standard(unit: &Unit) -> Vec<u8> {
    let removable = if unit.kind == Kind::Cdrom { 0x80 } else { 0 };
    // Response data format 2; commands may be queued (CMDQUE).
    let mut data = vec![device_type(unit.kind), removable, VERSION, 0x02, 31, 0, 0, 0x02];
    data.extend(VENDOR);
    data.extend(product(unit.kind));
    data.extend(REVISION);
    data
}

/// The body of a vital product data page; none where the unit has no such page.
fn vital(unit: &Unit, page: u8) -> Option<Vec<u8>> {
    let disk = unit.kind == Kind::Disk;
    match page {
        0x00 if disk => Some(vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]),
        0x00 => Some(vec![0x00, 0x80, 0x83]),
        0x80 => Some(unit.serial.clone().into_bytes()),
        0x83 => Some(identification(unit)),
        0xb0 if disk => Some(block_limits(unit)),
        // Block device characteristics: a medium that does not rotate (SBC-3 §6.5.3).
        0xb1 if disk => Some([&[0, 1][..], &[0; 58]].concat()),
        0xb2 if disk => Some(provisioning(unit)),
        _ => None,
    }
}

/// Device identification: vendor, product and serial number (T10 vendor ID, SPC-4 §7.8.5.4).
fn identification(unit: &Unit) -> Vec<u8> {
    let text = [&VENDOR[..], product(unit.kind), unit.serial.as_bytes()].concat();
    let mut data = vec![0x02, 0x01, 0, u8::try_from(text.len()).unwrap_or(0)];
    data.extend(text);
    data
}

/// Block limits (SBC-3 §6.5.2), counted in blocks.
fn block_limits(unit: &Unit) -> Vec<u8> {
    let medium = unit.medium;
    let block = u64::from(medium.map_or(CDROM_BLOCK_BYTES, |m| m.block_bytes)).max(1);
    let blocks = |bytes: u64| u32::try_from(bytes / block).unwrap_or(u32::MAX);
    let granularity = blocks(medium.map_or(0, |m| u64::from(m.physical_block_bytes))).max(1);
    let writes = medium.is_some_and(|m| !m.read_only);
    let only_writable = |value: u32| if writes { value } else { 0 };
    // WSNZ: a WRITE SAME of zero blocks is refused.
    let mut data = vec![0x01, 0];
    data.extend(u16::try_from(granularity).unwrap_or(u16::MAX).to_be_bytes());
    data.extend(blocks(TRANSFER_MAX_BYTES).to_be_bytes());
    data.extend(0_u32.to_be_bytes()); // optimal transfer length: any
    data.extend(0_u32.to_be_bytes()); // prefetch
    data.extend(only_writable(blocks(UNMAP_MAX_BYTES)).to_be_bytes());
    data.extend(only_writable(u32::try_from(UNMAP_MAX_DESCRIPTORS).unwrap_or(1)).to_be_bytes());
    data.extend(only_writable(granularity).to_be_bytes());
    data.extend(0_u32.to_be_bytes()); // unmap alignment
    data.extend(u64::from(only_writable(blocks(WRITE_SAME_MAX_BYTES))).to_be_bytes());
    data.resize(60, 0);
    data
}

/// Logical block provisioning (SBC-3 §6.5.4): UNMAP and both WRITE SAMEs give space back. Whether what was given back
/// reads as zeroes is not promised: UNMAP is a hint to the storage.
fn provisioning(unit: &Unit) -> Vec<u8> {
    let writes = unit.medium.is_some_and(|m| !m.read_only);
    if writes { vec![0, 0xe0, 0x02, 0] } else { vec![0; 4] }
}
