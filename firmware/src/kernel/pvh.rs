//! The PVH start info: what a kernel entered by PVH is told (Xen `public/arch-x86/hvm/start_info.h`).

use std::ops::Range;

use linux_loader::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::LoadError;
use crate::layout::{CMDLINE_START, MemoryLayout, PVH_MEMORY_MAP, PVH_MODULES, PVH_START_INFO};

/// Version 1 carries the memory map.
const VERSION: u32 = 1;
const ENTRY_BYTES: u64 = size_of::<hvm_memmap_table_entry>() as u64;

/// What goes into the start info.
pub(super) struct StartInfo<'a> {
    /// Where the initial RAM file system lies: the one module.
    pub initramfs: Option<Range<u64>>,
    /// Where the ACPI root pointer lies.
    pub rsdp: Option<u64>,
    /// The machine's memory.
    pub layout: &'a MemoryLayout,
}

impl StartInfo<'_> {
    /// Writes it to its place.
    pub fn write<M: GuestMemoryBackend>(&self, memory: &M) -> Result<(), LoadError> {
        let mut entries = 0;
        let mut address = PVH_MEMORY_MAP;
        for entry in self.layout.memory_map() {
            let row = hvm_memmap_table_entry {
                addr: entry.range.start,
                size: entry.range.end - entry.range.start,
                type_: entry.kind as u32,
                reserved: 0,
            };
            memory.write_obj(row, GuestAddress(address)).map_err(LoadError::Memory)?;
            entries += 1;
            address += ENTRY_BYTES;
        }
        if let Some(initramfs) = &self.initramfs {
            let module = hvm_modlist_entry {
                paddr: initramfs.start,
                size: initramfs.end - initramfs.start,
                ..hvm_modlist_entry::default()
            };
            memory.write_obj(module, GuestAddress(PVH_MODULES)).map_err(LoadError::Memory)?;
        }
        let info = hvm_start_info {
            magic: XEN_HVM_START_MAGIC_VALUE,
            version: VERSION,
            nr_modules: u32::from(self.initramfs.is_some()),
            modlist_paddr: if self.initramfs.is_some() { PVH_MODULES } else { 0 },
            cmdline_paddr: CMDLINE_START,
            rsdp_paddr: self.rsdp.unwrap_or(0),
            memmap_paddr: PVH_MEMORY_MAP,
            memmap_entries: entries,
            ..hvm_start_info::default()
        };
        memory.write_obj(info, GuestAddress(PVH_START_INFO)).map_err(LoadError::Memory)
    }
}
