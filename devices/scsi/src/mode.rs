//! Mode pages (SPC-4 §6.11, §7.5; SBC-3 §6.4; MMC-6 §7).

use crate::cdb::{Cdb, cut};
use crate::sense::Sense;
use crate::unit::{Kind, Parameters, Step, Unit};

/// Write cache enable, in the caching page's third byte (SBC-3 §6.4.5).
const WCE: u8 = 1 << 2;
/// The most that a MODE SELECT may bring, in bytes: all pages that there are, and headers.
const SELECT_MAX_BYTES: usize = 256;

/// Which values are asked for (SPC-4 §6.11.1, PC).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Current,
    Changeable,
    Default,
}

/// MODE SENSE (6) and (10).
pub(crate) fn sense(unit: &Unit, operation: u8, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    let long = operation == 0x5a;
    let control = match cdb.byte(2) >> 6 {
        0 => Control::Current,
        1 => Control::Changeable,
        2 => Control::Default,
        // Saved values are not there.
        _ => return Err(Sense::new(5, 0x39, 0x00)),
    };
    let subpage = cdb.byte(3);
    if subpage != 0 && subpage != 0xff {
        return Err(Sense::INVALID_FIELD);
    }
    let pages = match cdb.byte(2) & 0x3f {
        0x3f => known(unit).iter().filter_map(|number| page(unit, *number, control)).flatten().collect(),
        number => page(unit, number, control).ok_or(Sense::INVALID_FIELD)?,
    };
    let descriptor = if cdb.bit(1, 3) { Vec::new() } else { block_descriptor(unit) };
    let body = descriptor.len().saturating_add(pages.len());
    // Device-specific parameter: write protection, and that DPO and FUA are known (SBC-3 §6.4.1).
    let specific = match (unit.kind, unit.medium) {
        (Kind::Disk, Some(medium)) if medium.read_only => 0x90,
        (Kind::Disk, _) => 0x10,
        (Kind::Cdrom, _) => 0x00,
    };
    let descriptor_len = u8::try_from(descriptor.len()).unwrap_or(0);
    let mut data = if long {
        let len = u16::try_from(body.saturating_add(6)).unwrap_or(u16::MAX).to_be_bytes();
        vec![len[0], len[1], 0, specific, 0, 0, 0, descriptor_len]
    } else {
        vec![u8::try_from(body.saturating_add(3)).unwrap_or(u8::MAX), 0, specific, descriptor_len]
    };
    data.extend(descriptor);
    data.extend(pages);
    Ok(cut(data, if long { cdb.u16(7) } else { usize::from(cdb.byte(4)) }))
}

/// The short block descriptor (SBC-3 §6.4.2.2).
fn block_descriptor(unit: &Unit) -> Vec<u8> {
    let Some(medium) = unit.medium().filter(|_| unit.kind == Kind::Disk) else { return Vec::new() };
    let blocks = u32::try_from(medium.blocks()).unwrap_or(u32::MAX);
    [blocks.to_be_bytes(), medium.block_bytes.to_be_bytes()].concat()
}

fn known(unit: &Unit) -> &'static [u8] {
    match unit.kind {
        Kind::Disk => &[0x01, 0x08, 0x0a],
        Kind::Cdrom => &[0x01, 0x0e, 0x1a, 0x2a],
    }
}

/// One page with its header. Nothing can be changed but the write cache.
fn page(unit: &Unit, number: u8, control: Control) -> Option<Vec<u8>> {
    let known = known(unit).contains(&number);
    let mut page: Vec<u8> = match number {
        _ if !known => return None,
        // Read-write error recovery: all automatic, nothing counted.
        0x01 => vec![0x01, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        0x08 => {
            let on = match control {
                Control::Current => unit.write_cache,
                Control::Changeable | Control::Default => true,
            };
            let mut page = vec![0x08, 18, if on { WCE } else { 0 }];
            page.resize(20, 0);
            return Some(page);
        }
        // Control: commands may be reordered.
        0x0a => vec![0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
        // CD audio control: there is no audio.
        0x0e => vec![0x0e, 14, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        0x1a => vec![0x1a, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        _ => capabilities(unit),
    };
    if control == Control::Changeable {
        page.iter_mut().skip(2).for_each(|byte| *byte = 0);
    }
    Some(page)
}

/// CD/DVD capabilities and mechanical status (MMC-3 §6.3.11): reads CD-ROM, has a tray that can be locked and ejects.
fn capabilities(unit: &Unit) -> Vec<u8> {
    const TRAY: u8 = 1 << 5;
    const EJECT: u8 = 1 << 3;
    const LOCK_STATE: u8 = 1 << 1;
    const LOCK: u8 = 1;
    let state = if unit.locked { LOCK_STATE } else { 0 };
    // Reads CD-R, CD-RW and DVD-ROM; mode 2 and multi-session are of no use without such media.
    let mut page = vec![0x2a, 20, 0x0b, 0, 0, 0, TRAY | EJECT | LOCK | state, 0];
    // Speeds in 1000 bytes per second: 52 times 176 (maximum and current); buffer of 512 KiB.
    page.extend([0x23, 0xc0, 0, 0, 2, 0, 0x23, 0xc0]);
    page.resize(22, 0);
    page
}

/// MODE SELECT (6) and (10): the caching page's WCE, nothing else.
pub(crate) fn select(
    unit: &mut Unit,
    operation: u8,
    cdb: Cdb<'_>,
    parameters: Parameters<'_>,
) -> Result<Step, Sense> {
    let long = operation == 0x55;
    let asked = if long { cdb.u16(7) } else { usize::from(cdb.byte(4)) };
    // Pages in the standard's format (PF), and not to be saved (SP).
    if !cdb.bit(1, 4) || cdb.bit(1, 0) || asked > SELECT_MAX_BYTES {
        return Err(Sense::INVALID_FIELD);
    }
    if asked == 0 {
        return Ok(Step::Data(Vec::new()));
    }
    let list = parameters(asked);
    let header = if long { 8 } else { 4 };
    if list.len() < asked || asked < header {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let fields = Cdb(&list);
    let descriptors = if long { fields.u16(6) } else { usize::from(fields.byte(3)) };
    let mut pages = list.get(header.saturating_add(descriptors)..).ok_or(Sense::PARAMETER_LENGTH)?;
    let mut write_cache = unit.write_cache;
    while let Some((first, rest)) = pages.split_first() {
        let (len, rest) = rest.split_first().ok_or(Sense::PARAMETER_LENGTH)?;
        let body = rest.get(..usize::from(*len)).ok_or(Sense::PARAMETER_LENGTH)?;
        pages = rest.get(usize::from(*len)..).unwrap_or_default();
        let number = first & 0x3f;
        let ours = page(unit, number, Control::Current).filter(|_| first & 0x40 == 0);
        let ours = ours.filter(|ours| ours.len() == body.len().saturating_add(2));
        let ours = ours.ok_or(Sense::INVALID_PARAMETER)?;
        let changeable = if number == 0x08 { WCE } else { 0 };
        for (index, (new, old)) in body.iter().zip(ours.iter().skip(2)).enumerate() {
            let mask = if index == 0 { changeable } else { 0 };
            if (new ^ old) & !mask != 0 {
                return Err(Sense::INVALID_PARAMETER);
            }
        }
        if number == 0x08 {
            write_cache = body.first().is_some_and(|byte| byte & WCE != 0);
        }
    }
    unit.write_cache = write_cache;
    // What is in the cache when it is switched off must not stay there.
    Ok(if write_cache { Step::Data(Vec::new()) } else { Step::Flush })
}
