//! System management RAM as the host bridge of Q35 sets it up (82Q35 MCH datasheet, registers SMRAM, ESMRAMC and TSEGMB):
//! memory at the top of low RAM that only a processor in system management mode reaches.
//!
//! Of the two kinds there is only TSEG, which firmware of today uses; the area at 0xA0000 is offered to nobody, so that
//! `D_OPEN`, `D_CLS` and `H_SMRAME` are never set. TSEG ends where low RAM ends and is 1, 2 or 8 MiB long, or as long as
//! the extension register of QEMU's Q35 says (`docs/specs`: MCH register 0x50): no setting puts it anywhere else.
//! TSEGMB only remembers. From `D_LCK` on, all of them are fixed until the machine is reset.

use std::ops::Range;

use crate::ConfigSpace;

/// How long TSEG is at most, in bytes: what the extension register says.
pub const TSEG_MAX_BYTES: u64 = 16 << 20;

/// Size of the extended TSEG in MiB, 16 bits: firmware asks by writing all ones and takes another answer for a size.
const EXTENDED_TSEG: usize = 0x50;
const SMRAM: u16 = 0x9d;
const ESMRAMC: u16 = 0x9e;
const TSEGMB: usize = 0xac;

/// SMRAM: nothing can be changed any more; there is system management RAM; its compatible segment, which is fixed.
const LOCKED: u8 = 1 << 4;
const ENABLED: u8 = 1 << 3;
const SEGMENT: u8 = 0b010;
/// ESMRAMC: how caches treat it (always on, by which firmware recognises that there is any), size and enable of TSEG.
const CACHES: u8 = 0b111 << 3;
const TSEG_SIZE: u8 = 0b11 << 1;
const TSEG_ENABLED: u8 = 1;

/// What may be changed until it is locked: the registers' bytes and the bits of them.
const LOCKABLE: [(u16, u8); 4] =
    [(SMRAM, LOCKED | ENABLED), (ESMRAMC, TSEG_SIZE | TSEG_ENABLED), (0xae, 0xf0), (0xaf, 0xff)];

/// Hides a range of memory from whoever is not in system management mode, and shows the rest. Called from a vCPU in the
/// middle of an access, one call at a time.
pub type HideSmram = Box<dyn Fn(Option<Range<u64>>) + Send + Sync>;

/// System management RAM of a machine.
pub struct Smram {
    /// Where low RAM ends.
    pub top: u64,
    /// What hides it.
    pub hide: HideSmram,
}

/// Gives the host bridge's `config` its registers.
pub(crate) fn lay_out(config: &mut ConfigSpace) {
    let mib = u16::try_from(TSEG_MAX_BYTES >> 20).unwrap_or(0);
    config.set(EXTENDED_TSEG, &mib.to_le_bytes(), &[]);
    config.set(SMRAM.into(), &[SEGMENT, CACHES], &[LOCKED | ENABLED, TSEG_SIZE | TSEG_ENABLED]);
    config.set(TSEGMB, &[0; 4], &[0, 0, 0xf0, 0xff]);
}

/// The memory below `top` that is hidden now.
pub(crate) fn hidden(config: &ConfigSpace, top: u64) -> Option<Range<u64>> {
    let (control, extended) = (byte(config, SMRAM), byte(config, ESMRAMC));
    if control & ENABLED == 0 || extended & TSEG_ENABLED == 0 {
        return None;
    }
    let len = match (extended & TSEG_SIZE) >> 1 {
        0b00 => 1 << 20,
        0b01 => 2 << 20,
        0b10 => 8 << 20,
        _ => TSEG_MAX_BYTES,
    };
    Some(top.saturating_sub(len)..top)
}

/// Takes out of a write of `data` at `offset` what is locked; says whether it wanted to change any of it.
pub(crate) fn withhold(config: &ConfigSpace, offset: u16, data: &mut [u8]) -> bool {
    if byte(config, SMRAM) & LOCKED == 0 {
        return false;
    }
    let mut refused = false;
    for (at, new) in (offset..).zip(data) {
        if let Some((_, mask)) = LOCKABLE.iter().find(|(register, _)| *register == at) {
            let own = byte(config, at);
            refused |= (*new ^ own) & mask != 0;
            *new = own;
        }
    }
    refused
}

fn byte(config: &ConfigSpace, offset: u16) -> u8 {
    let mut byte = [0];
    config.read(offset, &mut byte);
    let [byte] = byte;
    byte
}
