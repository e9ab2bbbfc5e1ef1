//! ACPI tables (ACPI 6.5).
//!
//! A directly booted kernel finds a "hardware-reduced" machine (§4.1): no fixed event registers, no SCI. Sleeping comes
//! through the sleep control register. The PM timer is there although such machines need none: Linux uses it where the FADT
//! names one.
//!
//! Behind firmware the machine has ACPI's fixed hardware ([`FixedHardware`]): on a hardware-reduced one, Linux takes the
//! interrupt controllers of a PC for absent and leaves them as a BIOS has them, with its timer ticking into vectors of
//! exceptions. The power button comes through a generic event device (§5.6.9), reset through the reset register, always.

mod dsdt;
mod fixed;
mod relocatable;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

pub use self::relocatable::{Checksum, Pointer, RSDP_CHECKSUMS, RSDP_XSDT, Relocatable};
use crate::layout::{ACPI, ECAM_BYTES, ECAM_START, IOAPIC_START, LOW_RAM_END_MAX, MemoryLayout, PCI32};

/// Who made the tables.
const OEM_ID: [u8; 6] = *b"ORLOP ";
const OEM_TABLE_ID: [u8; 8] = *b"ORLOPVMM";
const OEM_REVISION: u32 = 1;
/// Tables start at multiples of this.
const ALIGNMENT: u64 = 16;

/// The machine, as much of it as its tables tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Where PCI is.
    pub pci: PciSpace,
    /// APIC ids of the processors, the boot processor first.
    pub apic_ids: Vec<u32>,
    /// Power button, sleep and reset.
    pub power: Power,
    /// The fixed hardware; without it the machine is hardware-reduced.
    pub fixed: Option<FixedHardware>,
    /// Port of the 32-bit PM timer.
    pub pm_timer_port: u16,
    /// First port of the real-time clock.
    pub rtc_port: u16,
    /// The first serial port, if there is one.
    pub serial: Option<Uart>,
    /// Port of pvpanic, if there is one.
    pub pvpanic_port: Option<u16>,
}

/// The addresses that belong to PCI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciSpace {
    /// The enhanced configuration mechanism.
    pub ecam: u64,
    /// Windows for BARs below 4 GiB.
    pub memory32: Vec<Range<u64>>,
    /// The window for 64-bit BARs.
    pub memory64: Range<u64>,
}

impl PciSpace {
    /// As a directly booted kernel finds it: nobody has moved anything.
    pub fn of(layout: &MemoryLayout) -> Self {
        Self { ecam: ECAM_START, memory32: vec![PCI32], memory64: layout.pci64.clone() }
    }

    /// As firmware leaves it that has put the configuration mechanism at `ecam`. It places BARs wherever the chipset
    /// lets it: from the most that low RAM can be (OVMF) up to the IOAPIC (SeaBIOS), and above RAM as far as processors
    /// with `address_bits` reach.
    pub fn programmed(layout: &MemoryLayout, ecam: u64, address_bits: u32) -> Self {
        let all = LOW_RAM_END_MAX..IOAPIC_START;
        let parts = [
            all.start..ecam.clamp(all.start, all.end),
            ecam.saturating_add(ECAM_BYTES).clamp(all.start, all.end)..all.end,
        ];
        let end = 1u64.checked_shl(address_bits).unwrap_or(u64::MAX).max(layout.pci64.end);
        Self {
            ecam,
            memory32: parts.into_iter().filter(|part| !part.is_empty()).collect(),
            memory64: layout.pci64.start..end,
        }
    }
}

/// Power button, sleep and reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Power {
    /// Port of the sleep control register.
    pub sleep_control_port: u16,
    /// Port of the sleep status register.
    pub sleep_status_port: u16,
    /// `SLP_TYP` for S5.
    pub s5: u8,
    /// Port of the event status byte: bit 3 is the power button, reading clears it.
    pub event_status_port: u16,
    /// Edge-triggered interrupt of the generic event device.
    pub event_gsi: u32,
    /// Port of the reset register.
    pub reset_port: u16,
    /// What is written there for a reset.
    pub reset_value: u8,
}

/// ACPI's fixed hardware (§4.8). No event of it is ever set: it is there so that a kernel finds a whole PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHardware {
    /// Port of PM1 status and enable, 4 bytes.
    pub pm1_event_port: u16,
    /// Port of PM1 control, 2 bytes.
    pub pm1_control_port: u16,
    /// The system control interrupt, level-triggered; nothing else may use it.
    pub sci_gsi: u8,
}

/// A 16550 with its eight ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uart {
    /// First port.
    pub port: u16,
    /// Edge-triggered interrupt.
    pub gsi: u32,
}

/// A table, and where it must lie: tables point at one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name: a table's signature, or `RSDP`.
    pub name: &'static str,
    /// Guest physical address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All tables of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Address of the root pointer.
    pub rsdp: u64,
    /// The tables, ascending.
    pub tables: Vec<Table>,
}

/// The tables do not fit where they belong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ACPI tables of {needs_bytes} bytes do not fit at {:#x}..{:#x}", area.start, area.end)]
pub struct TooLarge {
    /// What the tables need.
    pub needs_bytes: u64,
    /// Where they belong.
    pub area: Range<u64>,
}

impl Tables {
    /// Makes the tables of `platform`, to lie in the BIOS area where a directly booted kernel finds them.
    pub fn of(platform: &Platform) -> Result<Self, TooLarge> {
        let mut next = Allocator(ACPI.start);
        let rsdp = next.take(Rsdp::len() as u64);
        let Placed { mut tables, xsdt } = Placed::at(&mut next, platform);
        let end = next.0;
        tables.insert(0, Table { name: "RSDP", address: rsdp, bytes: bytes(&Rsdp::new(OEM_ID, xsdt)) });
        if end > ACPI.end {
            return Err(TooLarge { needs_bytes: end - ACPI.start, area: ACPI });
        }
        Ok(Self { rsdp, tables })
    }

    /// Writes the tables to their places.
    pub fn write<M: GuestMemoryBackend>(&self, memory: &M) -> Result<(), GuestMemoryError> {
        self.tables.iter().try_for_each(|t| memory.write_slice(&t.bytes, GuestAddress(t.address)))
    }
}

/// All tables but the root pointer, each at its address.
struct Placed {
    tables: Vec<Table>,
    xsdt: u64,
}

impl Placed {
    fn at(next: &mut Allocator, platform: &Platform) -> Self {
        let mut tables = Vec::new();
        let mut place = |name, bytes: Vec<u8>| {
            let address = next.take(bytes.len() as u64);
            tables.push(Table { name, address, bytes });
            address
        };
        // First, since it wants more alignment than the others (§5.2.10).
        let facs = platform.fixed.is_some().then(|| place("FACS", bytes(&FACS::new())));
        let dsdt = place("DSDT", dsdt::table(platform));
        let listed = [
            place("FACP", fixed::fadt(platform, dsdt, facs)),
            place("APIC", fixed::madt(platform)),
            place("MCFG", fixed::mcfg(platform.pci.ecam)),
        ];
        let xsdt = place("XSDT", xsdt(&listed));
        Self { tables, xsdt }
    }
}

/// Hands out aligned addresses, ascending.
struct Allocator(u64);

impl Allocator {
    fn take(&mut self, len: u64) -> u64 {
        let address = self.0.next_multiple_of(ALIGNMENT);
        self.0 = address.saturating_add(len);
        address
    }
}

fn xsdt(tables: &[u64]) -> Vec<u8> {
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    tables.iter().for_each(|&address| xsdt.add_entry(address));
    bytes(&xsdt)
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}
