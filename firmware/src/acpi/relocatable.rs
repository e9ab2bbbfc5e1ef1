//! The same tables for firmware, which puts them where it has room: every pointer is an offset, and it is said where
//! pointers and sums are.

use acpi_tables::rsdp::Rsdp;

use super::{Allocator, OEM_ID, Placed, Platform, Table, TooLarge, bytes};

/// Offset of the sum in every table's header (ACPI 6.5 §5.2.6).
const CHECKSUM: u64 = 9;
/// Offsets of `X_FIRMWARE_CTRL` and `X_DSDT` in the FADT (§5.2.9), and of the first entry in the XSDT (§5.2.8).
const FADT_X_FIRMWARE_CTRL: u64 = 132;
const FADT_X_DSDT: u64 = 140;
const XSDT_ENTRIES: u64 = 36;
/// Offset of the XSDT's address in the root pointer (§5.2.5.3).
pub const RSDP_XSDT: u64 = 24;
/// The two sums of the root pointer: where each is, and over how many bytes from the start it goes.
pub const RSDP_CHECKSUMS: [(u64, u64); 2] = [(8, 20), (32, 36)];
/// The most that all tables together may be, in bytes.
const TABLES_MAX_BYTES: u32 = 64 << 10;

/// A pointer of 8 bytes among the tables: an offset, to which the place of the tables is to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer(pub u64);

/// The sum of a table that has pointers: a zero, to be put right when the pointers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Where it is.
    pub at: u64,
    /// Where its table starts.
    pub start: u64,
    /// Length of its table in bytes.
    pub len: u64,
}

/// Tables that can be put anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocatable {
    /// The root pointer; the XSDT's address in it is an offset, its sums are zero.
    pub rsdp: Vec<u8>,
    /// All other tables.
    pub tables: Vec<u8>,
    /// The pointers among them.
    pub pointers: Vec<Pointer>,
    /// The sums to be put right.
    pub checksums: Vec<Checksum>,
}

impl Relocatable {
    /// The most that [`Self::tables`] may be, in bytes.
    pub const TABLES_MAX_BYTES: usize = TABLES_MAX_BYTES as usize;

    /// Makes the tables of `platform`.
    pub fn of(platform: &Platform) -> Result<Self, TooLarge> {
        let mut next = Allocator(0);
        let Placed { tables, xsdt } = Placed::at(&mut next, platform);
        if next.0 > TABLES_MAX_BYTES.into() {
            return Err(TooLarge { needs_bytes: next.0, area: 0..TABLES_MAX_BYTES.into() });
        }
        let mut rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
        RSDP_CHECKSUMS.iter().for_each(|(at, _)| clear(&mut rsdp, *at));
        let mut all = Self { rsdp, tables: Vec::new(), pointers: Vec::new(), checksums: Vec::new() };
        tables.iter().for_each(|table| all.append(table, platform.fixed.is_some()));
        Ok(all)
    }

    fn append(&mut self, table: &Table, has_facs: bool) {
        let Table { name, address: start, bytes } = table;
        self.tables.resize(usize::try_from(*start).unwrap_or(0), 0);
        self.tables.extend(bytes);
        let len = bytes.len() as u64;
        let pointers: Vec<u64> = match *name {
            "FACP" if has_facs => vec![FADT_X_FIRMWARE_CTRL, FADT_X_DSDT],
            "FACP" => vec![FADT_X_DSDT],
            "XSDT" => (XSDT_ENTRIES..len).step_by(8).collect(),
            _ => return,
        };
        self.pointers.extend(pointers.iter().map(|at| Pointer(start + at)));
        clear(&mut self.tables, start + CHECKSUM);
        self.checksums.push(Checksum { at: start + CHECKSUM, start: *start, len });
    }
}

fn clear(bytes: &mut [u8], at: u64) {
    if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
        *byte = 0;
    }
}
