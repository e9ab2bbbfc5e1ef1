//! Command headers and command tables in guest memory (AHCI 1.3.1 §4.2.2, §4.2.3): read once, then trusted no more.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use crate::pieces::{Outside, Pieces, Ram};

const HEADER_BYTES: u64 = 32;
const PRDT_OFFSET: u64 = 0x80;
const PRDT_ENTRY_BYTES: u64 = 16;
/// Byte count of a PRDT entry, less one.
const PRDT_COUNT: u32 = 0x3f_ffff;

/// A command slot, as the driver filled it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Where its header is.
    header: GuestAddress,
    table: u64,
    entries: u16,
    /// Length of the command frame in dwords.
    pub(crate) frame_dwords: u8,
    /// It is for a device behind a port multiplier.
    pub(crate) multiplied: bool,
    /// The command frame.
    pub(crate) frame: [u8; 64],
    /// The packet of an ATAPI command.
    pub(crate) packet: [u8; 16],
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at.saturating_add(4)).unwrap_or_default();
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

impl Slot {
    /// Reads slot `number` of the list at `list`.
    pub(crate) fn read(ram: &Ram, list: u64, number: u8) -> Result<Self, Outside> {
        let header = list.checked_add(u64::from(number).saturating_mul(HEADER_BYTES)).ok_or(Outside)?;
        let header = GuestAddress(header);
        let mut bytes = [0; 16];
        ram.read_slice(&mut bytes, header).map_err(|_| Outside)?;
        let flags = word(&bytes, 0);
        // The seven low bits of the table's address are zero.
        let table = (u64::from(word(&bytes, 12)) << 32 | u64::from(word(&bytes, 8))) & !0x7f;
        let (mut frame, mut packet) = ([0; 64], [0; 16]);
        ram.read_slice(&mut frame, GuestAddress(table)).map_err(|_| Outside)?;
        let packet_at = table.checked_add(0x40).ok_or(Outside)?;
        ram.read_slice(&mut packet, GuestAddress(packet_at)).map_err(|_| Outside)?;
        Ok(Self {
            header,
            table,
            entries: u16::try_from(flags >> 16).unwrap_or(0),
            frame_dwords: u8::try_from(flags & 0x1f).unwrap_or(0),
            multiplied: flags >> 12 & 0xf != 0,
            frame,
            packet,
        })
    }

    /// The first `most` bytes of memory that the PRDT describes, or all of it where that is less. However long the
    /// PRDT is, no more of it is read than that needs.
    pub(crate) fn memory(&self, ram: &Arc<Ram>, most: usize) -> Result<Pieces, Outside> {
        let mut pieces = Pieces::new(ram);
        let mut at = self.table.checked_add(PRDT_OFFSET).ok_or(Outside)?;
        for _ in 0..self.entries {
            let left = most.saturating_sub(pieces.len());
            if left == 0 {
                break;
            }
            let mut entry = [0; 16];
            ram.read_slice(&mut entry, GuestAddress(at)).map_err(|_| Outside)?;
            let address = (u64::from(word(&entry, 4)) << 32 | u64::from(word(&entry, 0))) & !1;
            let count = (word(&entry, 12) & PRDT_COUNT).saturating_add(1);
            pieces.push(address, usize::try_from(count).unwrap_or(usize::MAX).min(left))?;
            at = at.checked_add(PRDT_ENTRY_BYTES).ok_or(Outside)?;
        }
        Ok(pieces)
    }

    /// Tells the driver how many bytes were moved (PRDBC).
    pub(crate) fn set_count(&self, ram: &Ram, bytes: usize) -> Result<(), Outside> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let at = self.header.0.checked_add(4).ok_or(Outside)?;
        ram.write_slice(&count, GuestAddress(at)).map_err(|_| Outside)
    }
}
