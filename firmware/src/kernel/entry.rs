//! How a processor stands at the kernel's first instruction.
//!
//! The VMM sets these values as they are; the tables that they point to are written into guest memory here.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::LoadError;
use crate::layout::{BOOT_STACK, GDT_START, IDT_START, PAGE_TABLES_START, PVH_START_INFO, ZERO_PAGE};

/// Control register 0: protection, extension type, numeric errors, paging (SDM vol 3 §2.5).
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
/// Control register 4: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled and active.
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Flags register with nothing set but the bit that is always one.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Page table entry bits (SDM vol 3 §4.5): present, writable, and a large page in a page directory.
const PAGE_PRESENT_WRITABLE: u64 = 0b11;
const PAGE_LARGE: u64 = 1 << 7;
/// What a page directory maps with large pages.
const LARGE_PAGE_BYTES: u64 = 2 << 20;
/// Page directories written: one for each of the first 4 GiB.
const DIRECTORIES: u64 = 4;
const TABLE_BYTES: u64 = 4096;
const TABLE_ENTRIES: u64 = 512;

/// Selectors that the Linux boot protocol prescribes (`__BOOT_CS`, `__BOOT_DS`), used for PVH as well.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x20;

/// By which protocol a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The 64-bit Linux boot protocol: long mode, identity-mapped, zero page in RSI.
    Linux64,
    /// PVH: 32-bit protected mode without paging, start info in EBX.
    Pvh,
}

/// A segment register with its hidden part (SDM vol 3 §3.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity already applied.
    pub limit: u32,
    /// Selector in the descriptor table.
    pub selector: u16,
    /// Segment type, 4 bits.
    pub kind: u8,
    /// Code or data (true), or a system segment (false).
    pub code_or_data: bool,
    /// 64-bit code.
    pub long: bool,
    /// 32-bit default operand size.
    pub big: bool,
    /// The limit counts pages.
    pub granular: bool,
}

impl Segment {
    const fn code(long: bool) -> Self {
        // Execute, read, accessed.
        Self { kind: 0xB, selector: CODE_SELECTOR, long, big: !long, ..Self::data() }
    }

    const fn data() -> Self {
        Self {
            base: 0,
            limit: u32::MAX,
            selector: DATA_SELECTOR,
            // Read, write, accessed.
            kind: 0x3,
            code_or_data: true,
            long: false,
            big: true,
            granular: true,
        }
    }

    const fn tss() -> Self {
        Self {
            base: 0,
            limit: 0x67,
            selector: TSS_SELECTOR,
            // Busy task state segment, 32 or 64 bits.
            kind: 0xB,
            code_or_data: false,
            long: false,
            big: false,
            granular: false,
        }
    }

    /// The descriptor as it stands in the table (SDM vol 3 §3.4.5); privilege level 0 and present.
    fn descriptor(&self) -> u64 {
        let limit = u64::from(if self.granular { self.limit >> 12 } else { self.limit });
        let access = u64::from(self.kind) | u64::from(self.code_or_data) << 4 | 1 << 7;
        let flags = u64::from(self.long) << 1 | u64::from(self.big) << 2 | u64::from(self.granular) << 3;
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 0xf) << 48
            | flags << 52
            | (self.base >> 24 & 0xff) << 56
    }
}

/// A descriptor table register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRegister {
    /// Where the table lies.
    pub base: u64,
    /// Its last valid byte, counted from the base.
    pub limit: u16,
}

/// The registers of the first processor at the kernel's first instruction. General registers that are not named are
/// zero. Other processors wait for INIT and start-up messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPoint {
    /// The protocol.
    pub protocol: Protocol,
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Address of the zero page (Linux), else 0.
    pub rsi: u64,
    /// Address of the start info (PVH), else 0.
    pub rbx: u64,
    /// Flags.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3: the page tables, 0 without paging.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
    /// CS.
    pub code: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// TR.
    pub task: Segment,
    /// GDTR.
    pub gdt: TableRegister,
    /// IDTR: an empty table.
    pub idt: TableRegister,
}

impl EntryPoint {
    /// Entry at `rip` by `protocol`.
    pub(super) fn at(rip: u64, protocol: Protocol) -> Self {
        let long = protocol == Protocol::Linux64;
        Self {
            protocol,
            rip,
            rsp: BOOT_STACK,
            rsi: if long { ZERO_PAGE } else { 0 },
            rbx: if long { 0 } else { PVH_START_INFO },
            rflags: RFLAGS_RESERVED,
            cr0: if long { CR0_PE | CR0_ET | CR0_NE | CR0_PG } else { CR0_PE | CR0_ET },
            cr3: if long { PAGE_TABLES_START } else { 0 },
            cr4: if long { CR4_PAE } else { 0 },
            efer: if long { EFER_LME | EFER_LMA } else { 0 },
            code: Segment::code(long),
            data: Segment::data(),
            task: Segment::tss(),
            gdt: TableRegister { base: GDT_START, limit: 6 * 8 - 1 },
            idt: TableRegister { base: IDT_START, limit: 7 },
        }
    }

    /// Writes the tables that the registers point to.
    pub(super) fn write_tables<M: GuestMemoryBackend>(&self, memory: &M) -> Result<(), LoadError> {
        // The upper half of a 64-bit task segment's descriptor is the last entry.
        let gdt = [0, 0, self.code.descriptor(), self.data.descriptor(), self.task.descriptor(), 0];
        write_words(memory, self.gdt.base, &gdt)?;
        write_words(memory, self.idt.base, &[0])?;
        if self.cr3 != 0 {
            write_page_tables(memory, self.cr3)?;
        }
        Ok(())
    }
}

/// Maps the first 4 GiB to themselves with 2 MiB pages, which every 64-bit processor has.
fn write_page_tables<M: GuestMemoryBackend>(memory: &M, pml4: u64) -> Result<(), LoadError> {
    let pdpt = pml4 + TABLE_BYTES;
    let directories = pdpt + TABLE_BYTES;
    write_words(memory, pml4, &[pdpt | PAGE_PRESENT_WRITABLE])?;
    let pointers: Vec<u64> =
        (0..DIRECTORIES).map(|i| (directories + i * TABLE_BYTES) | PAGE_PRESENT_WRITABLE).collect();
    write_words(memory, pdpt, &pointers)?;
    let pages: Vec<u64> = (0..DIRECTORIES * TABLE_ENTRIES)
        .map(|i| (i * LARGE_PAGE_BYTES) | PAGE_LARGE | PAGE_PRESENT_WRITABLE)
        .collect();
    write_words(memory, directories, &pages)
}

fn write_words<M: GuestMemoryBackend>(memory: &M, address: u64, words: &[u64]) -> Result<(), LoadError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(address)).map_err(LoadError::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryMmap;

    #[test]
    fn descriptors_are_those_every_manual_shows() {
        assert_eq!(Segment::code(true).descriptor(), 0x00af_9b00_0000_ffff);
        assert_eq!(Segment::code(false).descriptor(), 0x00cf_9b00_0000_ffff);
        assert_eq!(Segment::data().descriptor(), 0x00cf_9300_0000_ffff);
        assert_eq!(Segment::tss().descriptor(), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn the_page_tables_map_every_address_below_four_gib_to_itself() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let entry = EntryPoint::at(0x100_0200, Protocol::Linux64);
        entry.write_tables(&memory).unwrap();
        let word = |address: u64| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        let next = |table: u64, index: u64| word(table + index * 8) & !0xfff;
        for address in [0, 0x7000, 0x100_0200, 0x7fff_ffff, 0xfee0_0000, 0xffff_ffff_u64] {
            let pdpt = next(entry.cr3, address >> 39);
            let directory = next(pdpt, address >> 30 & 511);
            let page = word(directory + (address >> 21 & 511) * 8);
            assert_eq!(page & 0xfff, PAGE_LARGE | PAGE_PRESENT_WRITABLE);
            assert_eq!((page & !0x1f_ffff) | (address & 0x1f_ffff), address);
        }
        assert_eq!(word(entry.cr3 + 8), 0);
    }

    #[test]
    fn pvh_is_entered_without_paging() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let entry = EntryPoint::at(0x10_0000, Protocol::Pvh);
        entry.write_tables(&memory).unwrap();
        assert_eq!((entry.cr3, entry.cr4, entry.efer, entry.rsi), (0, 0, 0, 0));
        assert_eq!(entry.rbx, PVH_START_INFO);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(PAGE_TABLES_START)).unwrap(), 0);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(GDT_START + 0x10)).unwrap(), 0x00cf_9b00_0000_ffff);
    }
}
