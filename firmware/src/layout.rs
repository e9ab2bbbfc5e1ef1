//! The address map: a Q35-shaped machine.
//!
//! ```text
//! 0                                        low RAM, at most 2 GiB
//!   0x0_0500 … 0x2_1000                    boot parameters of a direct boot (see the constants below)
//!   0x9_FC00 … 0x10_0000                   kept from the guest: EBDA, VGA hole, ACPI tables at 0xE_0000
//! 0xB000_0000 … 0xC000_0000                ECAM, 256 buses
//! 0xC000_0000 … 0xFC00_0000                PCI memory, 32-bit BARs
//! 0xFEC0_0000                              IOAPIC
//! 0xFEE0_0000                              local APIC, message-signalled interrupts
//! 0xFEFF_C000 … 0xFF00_0000                pages that KVM needs
//! 0xFF00_0000 … 0x1_0000_0000              room for stock firmware
//! 0x1_0000_0000                            high RAM: whatever does not fit below
//! next multiple of 1 GiB, 32 GiB long      PCI memory, 64-bit BARs
//! ```

use std::ops::{Range, RangeInclusive};

/// Smallest guest memory: the boot parameters and the BIOS area must exist.
pub const RAM_MIN_BYTES: u64 = 1 << 20;
/// Largest guest memory: what fits below 2^46, the smallest physical address width of server processors that have
/// that much, with the PCI window above it.
pub const RAM_MAX_BYTES: u64 = 32 << 40;
/// Guest memory is mapped in pages of this size.
pub const PAGE_BYTES: u64 = 4096;
/// Where low RAM ends at the latest.
pub const LOW_RAM_END_MAX: u64 = 0x8000_0000;
/// Where high RAM starts.
pub const HIGH_RAM_START: u64 = 1 << 32;

/// The enhanced configuration mechanism (PCIe 6.0 §7.2.2). Stock OVMF for Q35 puts it exactly here.
pub const ECAM_START: u64 = 0xB000_0000;
/// 1 MiB for each of 256 buses.
pub const ECAM_BYTES: u64 = 256 << 20;
/// PCI memory for 32-bit BARs.
pub const PCI32: Range<u64> = 0xC000_0000..0xFC00_0000;
/// The last bus that the guest is told of. Linux looks at every device number of every bus below it, present or not,
/// which is 32 exits a bus; nothing is behind the root bus yet.
pub const PCI_LAST_BUS: u8 = 0;
/// Port space that is forwarded to PCI: all but its own configuration ports, as on every PC.
pub const PCI_IO: [RangeInclusive<u16>; 2] = [0x0000..=0x0CF7, 0x0D00..=0xFFFF];
/// Length of the window for 64-bit BARs, which starts above all RAM.
pub const PCI64_BYTES: u64 = 32 << 30;
/// The IOAPIC's registers (SDM vol 3 §11; where KVM's in-kernel IOAPIC answers).
pub const IOAPIC_START: u64 = 0xFEC0_0000;
/// The local APIC's registers, and the addresses of message-signalled interrupts (SDM vol 3 §11.4.1, §11.11).
pub const LAPIC_START: u64 = 0xFEE0_0000;
/// One page for KVM's identity map (KVM api §4.21), away from where stock firmware lives.
pub const KVM_IDENTITY_MAP_START: u64 = 0xFEFF_C000;
/// Three pages for KVM's task state segment (KVM api §4.20).
pub const KVM_TSS_START: u64 = 0xFEFF_D000;
/// End of the pages that KVM needs.
pub const KVM_PAGES_END: u64 = 0xFF00_0000;

/// Global descriptor table of the first instruction; the empty interrupt table follows.
pub const GDT_START: u64 = 0x500;
/// Empty interrupt descriptor table: any exception before the kernel loads its own is a triple fault.
pub const IDT_START: u64 = 0x540;
/// PVH start of day structure.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH module list.
pub const PVH_MODULES: u64 = 0x6040;
/// PVH memory map.
pub const PVH_MEMORY_MAP: u64 = 0x6100;
/// The Linux boot protocol's zero page.
pub const ZERO_PAGE: u64 = 0x7000;
/// Initial stack pointer: below it is nothing that matters.
pub const BOOT_STACK: u64 = 0x8FF0;
/// Page tables that map the first 4 GiB to themselves: PML4, PDPT and four page directories.
pub const PAGE_TABLES_START: u64 = 0x9000;
/// Command line, with its terminating NUL.
pub const CMDLINE_START: u64 = 0x2_0000;
/// Longest command line in bytes, without its NUL: what x86 Linux keeps (`COMMAND_LINE_SIZE` is 2048).
pub const CMDLINE_MAX_BYTES: usize = 2047;
/// End of the boot parameters; nothing of a kernel may lie below.
pub const BOOT_PARAMETERS_END: u64 = 0x2_1000;
/// Start of the extended BIOS data area: usable low memory ends here.
pub const EBDA_START: u64 = 0x9_FC00;
/// Where a chipset has its first kind of system management RAM, behind the video memory. Where processors have that mode
/// there is no memory here, so that no firmware takes it for hidden.
pub const COMPATIBLE_SMRAM: Range<u64> = 0xA_0000..0xC_0000;
/// Root pointer and tables of ACPI: in the area that is searched for it (ACPI 6.5 §5.2.5.1).
pub const ACPI: Range<u64> = 0xE_0000..0xF_0000;
/// Entry point and structures of SMBIOS: where they are searched for (SMBIOS 3.7 §5.2), below the reset vector.
pub const SMBIOS: Range<u64> = 0xF_0000..0xF_FFF0;
/// Where memory above the BIOS area starts.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Why a memory size cannot be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Less than the boot parameters need.
    #[error("guest memory of {0} bytes is too small: at least {RAM_MIN_BYTES} bytes (1 MiB) are needed")]
    TooSmall(u64),
    /// More than can be addressed.
    #[error(
        "guest memory of {0} bytes is too large: at most {RAM_MAX_BYTES} bytes (32 TiB) can be addressed"
    )]
    TooLarge(u64),
    /// Not a whole number of pages.
    #[error("guest memory of {0} bytes is not a multiple of {PAGE_BYTES} bytes")]
    NotWholePages(u64),
}

/// What a range of guest memory may be used for, with the numbers of `INT 15h, AX=E820h` (ACPI 6.5 §15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Free for the guest.
    Usable = 1,
    /// Not memory, or not the guest's to use.
    Reserved = 2,
}

/// One row of the memory map that the guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// The addresses.
    pub range: Range<u64>,
    /// What they are for.
    pub kind: MemoryKind,
}

/// Where guest memory of one size lies, and what lies around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLayout {
    /// RAM below 4 GiB; starts at 0.
    pub low: Range<u64>,
    /// RAM above 4 GiB; empty when all fits below.
    pub high: Range<u64>,
    /// PCI memory for 64-bit BARs.
    pub pci64: Range<u64>,
}

impl MemoryLayout {
    /// Lays out `size_bytes` of guest memory.
    pub fn of(size_bytes: u64) -> Result<Self, LayoutError> {
        if size_bytes < RAM_MIN_BYTES {
            return Err(LayoutError::TooSmall(size_bytes));
        }
        if size_bytes > RAM_MAX_BYTES {
            return Err(LayoutError::TooLarge(size_bytes));
        }
        if !size_bytes.is_multiple_of(PAGE_BYTES) {
            return Err(LayoutError::NotWholePages(size_bytes));
        }
        let low_end = size_bytes.min(LOW_RAM_END_MAX);
        let high_end = HIGH_RAM_START + (size_bytes - low_end);
        let pci64_start = high_end.next_multiple_of(1 << 30);
        Ok(Self {
            low: 0..low_end,
            high: HIGH_RAM_START..high_end,
            pci64: pci64_start..pci64_start + PCI64_BYTES,
        })
    }

    /// The ranges of RAM: one, or two for machines of more than 2 GiB. Each becomes one memory slot.
    pub fn ram(&self) -> Vec<Range<u64>> {
        [&self.low, &self.high].into_iter().filter(|r| !r.is_empty()).cloned().collect()
    }

    /// Size of RAM in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.low.end - self.low.start + (self.high.end - self.high.start)
    }

    /// First address above everything: the guest's processors must be able to address all below.
    pub fn end(&self) -> u64 {
        self.pci64.end
    }

    /// The memory map that a directly booted kernel is told, ascending and without overlaps.
    pub fn memory_map(&self) -> Vec<MemoryMapEntry> {
        let usable = |range| MemoryMapEntry { range, kind: MemoryKind::Usable };
        let reserved = |range| MemoryMapEntry { range, kind: MemoryKind::Reserved };
        let mut map = vec![usable(0..EBDA_START), reserved(EBDA_START..HIGH_MEMORY)];
        if self.low.end > HIGH_MEMORY {
            map.push(usable(HIGH_MEMORY..self.low.end));
        }
        map.push(reserved(ECAM_START..ECAM_START + ECAM_BYTES));
        map.push(reserved(KVM_IDENTITY_MAP_START..KVM_PAGES_END));
        if !self.high.is_empty() {
            map.push(usable(self.high.clone()));
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn all_of_a_small_memory_is_low() {
        for size in [MIB, MIB + 4096, 256 * MIB, 2 * GIB] {
            let layout = MemoryLayout::of(size).unwrap();
            assert_eq!(layout.ram(), vec![layout.low.clone()]);
            assert_eq!(layout.low, 0..size);
            assert_eq!(layout.pci64.start, 4 * GIB);
        }
    }

    #[test]
    fn a_large_memory_goes_on_above_four_gib() {
        let layout = MemoryLayout::of(6 * GIB).unwrap();
        assert_eq!(layout.ram(), [0..2 * GIB, 4 * GIB..8 * GIB]);
        let layout = MemoryLayout::of(2 * GIB + 4096).unwrap();
        assert_eq!(layout.ram(), [0..2 * GIB, 4 * GIB..4 * GIB + 4096]);
        assert_eq!(layout.pci64.start, 5 * GIB);
        assert_eq!(MemoryLayout::of(100 * GIB).unwrap().ram_bytes(), 100 * GIB);
    }

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        assert_eq!(MemoryLayout::of(0), Err(LayoutError::TooSmall(0)));
        assert_eq!(MemoryLayout::of(MIB - 4096), Err(LayoutError::TooSmall(MIB - 4096)));
        assert_eq!(MemoryLayout::of(MIB + 1), Err(LayoutError::NotWholePages(MIB + 1)));
        assert_eq!(MemoryLayout::of(u64::MAX), Err(LayoutError::TooLarge(u64::MAX)));
    }

    #[test]
    fn the_memory_map_is_ascending_and_holds_all_ram() {
        for size in [MIB, 2 * MIB, 512 * MIB, 2 * GIB, 3 * GIB, 6 * GIB, 65 * GIB, 32 << 40] {
            let layout = MemoryLayout::of(size).unwrap();
            let map = layout.memory_map();
            assert!(map.iter().all(|e| e.range.start < e.range.end));
            assert!(map.windows(2).all(|w| w[0].range.end <= w[1].range.start), "{map:x?}");
            let usable: u64 = map
                .iter()
                .filter(|e| e.kind == MemoryKind::Usable)
                .map(|e| e.range.end - e.range.start)
                .sum();
            assert_eq!(usable, size - (HIGH_MEMORY - EBDA_START));
            assert!(map.iter().all(|e| e.range.end <= layout.pci64.start));
        }
    }

    #[test]
    fn nothing_fixed_overlaps() {
        let mut fixed = [
            0..LOW_RAM_END_MAX,
            ECAM_START..ECAM_START + ECAM_BYTES,
            PCI32,
            IOAPIC_START..IOAPIC_START + 0x1000,
            LAPIC_START..LAPIC_START + 0x10_0000,
            KVM_IDENTITY_MAP_START..KVM_TSS_START,
            KVM_TSS_START..KVM_PAGES_END,
        ];
        fixed.sort_by_key(|r| r.start);
        assert!(fixed.windows(2).all(|w| w[0].end <= w[1].start));
        assert_eq!(KVM_PAGES_END - KVM_TSS_START, 3 * PAGE_BYTES);
        assert!(CMDLINE_START + (CMDLINE_MAX_BYTES as u64) < BOOT_PARAMETERS_END);
    }
}
