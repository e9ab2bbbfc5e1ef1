//! What PVH tells (Xen `public/arch-x86/hvm/start_info.h`).

use crate::machine::Physical;

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
/// Rows of the memory map that are looked at.
const ROWS_MAX: u32 = 32;
const ROW_BYTES: u64 = 24;
/// Longest command line.
const LINE_MAX: usize = 512;

/// A range of memory that the guest may use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
}

/// The start info.
#[derive(Debug, Clone, Copy)]
pub struct StartInfo {
    address: u64,
}

impl StartInfo {
    /// The start info at `address`, if it is one.
    pub fn at(memory: &Physical, address: u64) -> Option<Self> {
        (memory.read32(address) == MAGIC).then_some(Self { address })
    }

    /// Address of the ACPI root pointer; 0 when there is none.
    pub fn rsdp(self, memory: &Physical) -> u64 {
        memory.read64(self.address + 32)
    }

    /// The ranges of usable memory, ascending.
    pub fn usable(self, memory: &Physical) -> impl Iterator<Item = Range> {
        let memory = *memory;
        let map = memory.read64(self.address + 40);
        let rows = memory.read32(self.address + 48).min(ROWS_MAX);
        (0..u64::from(rows)).filter_map(move |row| {
            let at = map + row * ROW_BYTES;
            let (start, len) = (memory.read64(at), memory.read64(at + 8));
            (memory.read32(at + 16) == RAM).then_some(Range { start, end: start + len })
        })
    }

    /// The command line.
    pub fn command_line(self, memory: &Physical) -> CommandLine {
        let address = memory.read64(self.address + 24);
        let mut line = CommandLine::default();
        for (offset, slot) in (0..).zip(&mut line.bytes) {
            match memory.read8(address + offset) {
                0 => break,
                byte => *slot = byte,
            }
            line.len += 1;
        }
        line
    }
}

/// A copy of the command line.
pub struct CommandLine {
    bytes: [u8; LINE_MAX],
    len: usize,
}

impl Default for CommandLine {
    fn default() -> Self {
        Self { bytes: [0; LINE_MAX], len: 0 }
    }
}

impl CommandLine {
    /// The line; empty if it is not text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}
