//! The table loader: instructions by which firmware puts tables into memory and mends their pointers and sums (QEMU
//! `hw/acpi/bios-linker-loader.c`; SeaBIOS `src/fw/romfile_loader.h`).

use super::{FILE_RSDP, FILE_TABLES};
use crate::acpi::{Platform, RSDP_CHECKSUMS, RSDP_XSDT, Relocatable, TooLarge};

/// Length of an instruction, and of a file's name in it, in bytes.
const ENTRY_BYTES: usize = 128;
const NAME_BYTES: usize = 56;
/// Length of the whole script in bytes, instructions that do nothing included: its length is told before it is made.
pub const LOADER_BYTES: usize = 4096;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Where memory is taken: anywhere, or in the BIOS segment, where the root pointer is searched for.
const ZONE_HIGH: u8 = 1;
const ZONE_BIOS: u8 = 2;
/// Alignment of the tables in bytes.
const ALIGNMENT: u32 = 64;
/// Bytes of a pointer.
const POINTER_BYTES: u8 = 8;

/// The tables of `platform`, for [`FILE_RSDP`] and [`FILE_TABLES`].
pub fn acpi(platform: &Platform) -> Result<Relocatable, TooLarge> {
    Relocatable::of(platform)
}

/// The script for `tables`.
pub fn loader(tables: &Relocatable) -> Vec<u8> {
    let mut script = Script(Vec::new());
    script.allocate(FILE_RSDP, ZONE_BIOS);
    script.allocate(FILE_TABLES, ZONE_HIGH);
    for pointer in &tables.pointers {
        script.add_pointer(FILE_TABLES, pointer.0);
    }
    for sum in &tables.checksums {
        script.add_checksum(FILE_TABLES, sum.at, sum.start, sum.len);
    }
    script.add_pointer(FILE_RSDP, RSDP_XSDT);
    for (at, len) in RSDP_CHECKSUMS {
        script.add_checksum(FILE_RSDP, at, 0, len);
    }
    script.0.resize(LOADER_BYTES.max(script.0.len()), 0);
    script.0
}

struct Script(Vec<u8>);

impl Script {
    fn instruction(&mut self, command: u32, operands: &[&[u8]]) {
        let end = self.0.len() + ENTRY_BYTES;
        self.0.extend(command.to_le_bytes());
        operands.iter().for_each(|operand| self.0.extend(*operand));
        self.0.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, zone: u8) {
        self.instruction(ALLOCATE, &[&name(file), &ALIGNMENT.to_le_bytes(), &[zone]]);
    }

    /// Adds where the tables are to the pointer at `offset` of `file`.
    fn add_pointer(&mut self, file: &str, offset: u64) {
        self.instruction(ADD_POINTER, &[&name(file), &name(FILE_TABLES), &word(offset), &[POINTER_BYTES]]);
    }

    fn add_checksum(&mut self, file: &str, at: u64, start: u64, len: u64) {
        self.instruction(ADD_CHECKSUM, &[&name(file), &word(at), &word(start), &word(len)]);
    }
}

fn name(file: &str) -> Vec<u8> {
    file.bytes().chain(std::iter::repeat(0)).take(NAME_BYTES).collect()
}

/// An offset in a file, far below 4 GiB.
fn word(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}
