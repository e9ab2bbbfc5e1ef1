//! CD-ROM commands (MMC-6 §6): tray, table of contents, features, events.

use crate::cdb::{Cdb, cut};
use crate::sense::Sense;
use crate::unit::{MediaEvent, Unit};

/// A data track, recorded without interruption, that may not be copied digitally (MMC-6 §4.2.3.4).
const DATA_TRACK: u8 = 0x14;
/// The number of the lead-out "track".
const LEAD_OUT: u8 = 0xaa;
/// Frames of pregap before the first block (MMC-6 §4.2.3.3).
const PREGAP_FRAMES: u64 = 150;
/// The CD-ROM profile (MMC-6 §5.3.1).
const PROFILE_CDROM: u16 = 0x0008;

/// START STOP UNIT: with LOEJ the tray moves (MMC-6 §6.42).
pub(crate) fn start_stop(unit: &mut Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    // A power condition, which the other bits then do not matter for.
    if cdb.byte(4) >> 4 != 0 {
        return Ok(Vec::new());
    }
    match (cdb.bit(4, 1), cdb.bit(4, 0)) {
        (true, false) if unit.locked => return Err(Sense::LOCKED),
        (true, false) => {
            if !std::mem::replace(&mut unit.open, true) {
                unit.event = MediaEvent::Removal;
            }
        }
        (true, true) => close(unit),
        (false, _) => {}
    }
    Ok(Vec::new())
}

/// The tray goes in, with what is on it.
pub(crate) fn close(unit: &mut Unit) {
    if std::mem::take(&mut unit.open) && unit.medium.is_some() {
        unit.event = MediaEvent::NewMedia;
        unit.attention = Some(Sense::MEDIUM_CHANGED);
    }
}

/// PREVENT ALLOW MEDIUM REMOVAL (MMC-6 §6.18).
pub(crate) fn prevent_allow(unit: &mut Unit, cdb: Cdb<'_>) -> Vec<u8> {
    unit.locked = cdb.bit(4, 0);
    Vec::new()
}

fn block_address(address: u64, msf: bool) -> [u8; 4] {
    if !msf {
        return u32::try_from(address).unwrap_or(u32::MAX).to_be_bytes();
    }
    let frames = address.saturating_add(PREGAP_FRAMES);
    let part = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    [0, part(frames / 75 / 60), part(frames / 75 % 60), part(frames % 75)]
}

/// READ TOC/PMA/ATIP (MMC-6 §6.25): one session of one data track.
pub(crate) fn read_toc(unit: &Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    let blocks = unit.ready()?.blocks();
    let (msf, most, track) = (cdb.bit(1, 1), cdb.u16(7), cdb.byte(6));
    // The format is where it is now, or where it was for ATAPI drives (SFF-8020i).
    let format = if cdb.byte(2) & 0x0f != 0 { cdb.byte(2) & 0x0f } else { cdb.byte(9) >> 6 };
    let descriptor = |number: u8, at: u64| {
        let [a, b, c, d] = block_address(at, msf);
        [0, DATA_TRACK, number, 0, a, b, c, d]
    };
    let body: Vec<u8> = match format {
        0 => match track {
            0 | 1 => [descriptor(1, 0), descriptor(LEAD_OUT, blocks)].concat(),
            LEAD_OUT => descriptor(LEAD_OUT, blocks).to_vec(),
            _ => return Err(Sense::INVALID_FIELD),
        },
        1 => descriptor(1, 0).to_vec(),
        2 => full_toc(blocks),
        _ => return Err(Sense::INVALID_FIELD),
    };
    let len = u16::try_from(body.len().saturating_add(2)).unwrap_or(u16::MAX).to_be_bytes();
    let mut data = vec![len[0], len[1], 1, 1];
    data.extend(body);
    Ok(cut(data, most))
}

/// The raw table: first and last track, lead-out, and the track itself, always in minutes, seconds and frames.
fn full_toc(blocks: u64) -> Vec<u8> {
    let point = |point: u8, [_, m, s, f]: [u8; 4]| [1, DATA_TRACK, 0, point, 0, 0, 0, 0, m, s, f];
    [
        point(0xa0, [0, 1, 0, 0]),
        point(0xa1, [0, 1, 0, 0]),
        point(0xa2, block_address(blocks, true)),
        point(1, block_address(0, true)),
    ]
    .concat()
}

/// One feature with its header (MMC-6 §5.2.2).
fn feature(code: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut data = code.to_be_bytes().to_vec();
    data.extend([flags, u8::try_from(body.len()).unwrap_or(0)]);
    data.extend(body);
    data
}

/// GET CONFIGURATION (MMC-6 §6.6).
pub(crate) fn get_configuration(unit: &Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    const CURRENT: u8 = 0b01;
    const PERSISTENT: u8 = 0b10;
    const TRAY_EJECT_LOCK: u8 = 0b0010_1001;
    let readable = unit.ready().is_ok();
    let [high, low] = PROFILE_CDROM.to_be_bytes();
    let present = if readable { CURRENT } else { 0 };
    let features: Vec<(u16, bool, Vec<u8>)> = vec![
        (0x0000, true, feature(0x0000, PERSISTENT | CURRENT, &[high, low, present, 0])),
        (0x0001, true, feature(0x0001, 0x08 | PERSISTENT | CURRENT, &[0, 0, 0, 1, 1, 0, 0, 0])),
        // Removable: tray, eject, lock.
        (0x0003, true, feature(0x0003, 0x04 | PERSISTENT | CURRENT, &[TRAY_EJECT_LOCK, 0, 0, 0])),
        (0x0010, readable, feature(0x0010, present, &[0, 0, 8, 0, 0, 1, 1, 0])),
        (0x001e, readable, feature(0x001e, 0x08 | present, &[0, 0, 0, 0])),
        (0x0100, true, feature(0x0100, PERSISTENT | CURRENT, &[])),
    ];
    let start = u16::try_from(cdb.u16(2)).unwrap_or(0);
    let wanted = |code: u16, current: bool| match cdb.byte(1) & 0b11 {
        0 => Some(code >= start),
        1 => Some(code >= start && current),
        2 => Some(code == start),
        _ => None,
    };
    let mut body = Vec::new();
    for (code, current, bytes) in features {
        if wanted(code, current).ok_or(Sense::INVALID_FIELD)? {
            body.extend(bytes);
        }
    }
    let current = if readable { PROFILE_CDROM } else { 0 };
    let len = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    let mut data = len.to_be_bytes().to_vec();
    data.extend([0, 0]);
    data.extend(current.to_be_bytes());
    data.extend(body);
    Ok(cut(data, cdb.u16(7)))
}

/// GET EVENT STATUS NOTIFICATION (MMC-6 §6.7): what happened to the medium since it was last asked.
pub(crate) fn event_status(unit: &mut Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    const MEDIA_CLASS: u8 = 4;
    const SUPPORTED: u8 = 1 << MEDIA_CLASS;
    const NO_EVENT_AVAILABLE: u8 = 0x80;
    // Only asking is there, not being told (IMMED).
    if !cdb.bit(1, 0) {
        return Err(Sense::INVALID_FIELD);
    }
    let most = cdb.u16(7);
    if cdb.byte(4) & SUPPORTED == 0 {
        return Ok(cut(vec![0, 2, NO_EVENT_AVAILABLE, SUPPORTED], most));
    }
    // An event that the answer has no room for is kept.
    let event =
        if most > 4 { std::mem::replace(&mut unit.event, MediaEvent::None) } else { MediaEvent::None };
    let present = if unit.medium().is_some() { 0b10 } else { 0 };
    let status = present | u8::from(unit.open);
    Ok(cut(vec![0, 6, MEDIA_CLASS, SUPPORTED, event as u8, status, 0, 0], most))
}

/// READ DISC INFORMATION (MMC-6 §6.21): a finished disc of one session.
pub(crate) fn read_disc_information(unit: &Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    unit.ready()?;
    if cdb.byte(1) & 0b111 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut data = vec![0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0];
    data.resize(34, 0);
    Ok(cut(data, cdb.u16(7)))
}

/// MECHANISM STATUS (MMC-6 §6.12): no changer; whether the tray is out.
pub(crate) fn mechanism_status(unit: &Unit, cdb: Cdb<'_>) -> Result<Vec<u8>, Sense> {
    let door = if unit.open { 0x10 } else { 0 };
    Ok(cut(vec![0, door, 0, 0, 0, 1, 0, 0], cdb.u16(8)))
}
