//! The zero page: what a kernel entered by the Linux boot protocol is told.

use std::ops::Range;

use linux_loader::bootparam::{E820_MAX_ENTRIES_ZEROPAGE, boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::LoadError;
use crate::layout::{CMDLINE_START, MemoryLayout, ZERO_PAGE};

/// Signatures of the boot sector and of the setup header.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// A boot loader without an assigned number.
const LOADER_UNKNOWN: u8 = 0xff;
/// What an ELF kernel, which has no setup header, is told of its own alignment.
const ELF_ALIGNMENT: u32 = 0x100_0000;

/// What goes into the zero page.
pub(super) struct ZeroPage<'a> {
    /// The setup header of a bzImage.
    pub header: Option<setup_header>,
    /// Length of the command line, without its NUL.
    pub cmdline_len: u32,
    /// Where the initial RAM file system lies; below 4 GiB.
    pub initramfs: Option<Range<u64>>,
    /// Where the ACPI root pointer lies.
    pub rsdp: Option<u64>,
    /// The machine's memory.
    pub layout: &'a MemoryLayout,
}

impl ZeroPage<'_> {
    /// Writes it to its place.
    pub fn write<M: GuestMemoryBackend>(&self, memory: &M) -> Result<(), LoadError> {
        let mut page = boot_params { hdr: self.header(), ..boot_params::default() };
        // Lets the kernel find the tables without a search (boot protocol 2.14); 0 means search.
        page.acpi_rsdp_addr = self.rsdp.unwrap_or(0);
        let (table, entries) = self.e820();
        page.e820_table = table;
        page.e820_entries = entries;
        memory.write_obj(page, GuestAddress(ZERO_PAGE)).map_err(LoadError::Memory)
    }

    fn header(&self) -> setup_header {
        let mut header = self.header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: ELF_ALIGNMENT,
            cmdline_size: self.cmdline_len,
            ..setup_header::default()
        });
        header.type_of_loader = LOADER_UNKNOWN;
        header.ext_loader_ver = 0;
        header.ext_loader_type = 0;
        header.cmd_line_ptr = low(CMDLINE_START);
        if let Some(initramfs) = &self.initramfs {
            header.ramdisk_image = low(initramfs.start);
            header.ramdisk_size = low(initramfs.end - initramfs.start);
        }
        header
    }

    fn e820(&self) -> ([boot_e820_entry; E820_MAX_ENTRIES_ZEROPAGE], u8) {
        let mut table = [boot_e820_entry::default(); E820_MAX_ENTRIES_ZEROPAGE];
        let mut entries = 0;
        for (slot, entry) in table.iter_mut().zip(self.layout.memory_map()) {
            *slot = boot_e820_entry {
                addr: entry.range.start,
                size: entry.range.end - entry.range.start,
                r#type: entry.kind as u32,
            };
            entries += 1;
        }
        (table, entries)
    }
}

/// An address or length in low memory, which always fits 32 bits.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
