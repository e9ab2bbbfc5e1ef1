//! What stock firmware is told of its machine: the contents of fw_cfg (QEMU `docs/specs/fw_cfg.rst`), as SeaBIOS and OVMF
//! read them.

mod loader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::loader::{LOADER_BYTES, acpi, loader};
use crate::layout::{KVM_IDENTITY_MAP_START, KVM_PAGES_END, MemoryKind, MemoryLayout};
use crate::smbios;

/// Numbered items: identity, size of RAM in bytes, processors, whether there is a boot menu, the most processors.
const UUID: u16 = 0x02;
const RAM_SIZE: u16 = 0x03;
const PROCESSORS: u16 = 0x05;
const BOOT_MENU: u16 = 0x0e;
const PROCESSORS_MAX: u16 = 0x0f;

/// Files of the ACPI tables, whose content [`acpi`] makes when firmware asks.
pub const FILE_LOADER: &str = "etc/table-loader";
/// The root pointer.
pub const FILE_RSDP: &str = "etc/acpi/rsdp";
/// All other tables.
pub const FILE_TABLES: &str = "etc/acpi/tables";

/// A device that firmware can boot from, as it recognises it (IEEE 1275, as SeaBIOS `src/boot.c` and OVMF's
/// `QemuBootOrderLib` write it). Devices are those of the root bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootDevice {
    /// A virtio block device.
    VirtioBlk {
        /// Its device number.
        device: u8,
    },
    /// A target of a virtio SCSI controller.
    VirtioScsi {
        /// The controller's device number.
        device: u8,
        /// The target; its unit is 0.
        target: u16,
    },
    /// A port of Q35's AHCI controller.
    Ahci {
        /// The port.
        port: u16,
    },
    /// A virtio network card.
    VirtioNet {
        /// Its device number.
        device: u8,
    },
}

impl BootDevice {
    fn path(self) -> String {
        match self {
            Self::VirtioBlk { device } => format!("/pci@i0cf8/scsi@{device:x}/disk@0,0"),
            Self::VirtioScsi { device, target } => {
                format!("/pci@i0cf8/scsi@{device:x}/channel@0/disk@{target:x},0")
            }
            Self::Ahci { port } => format!("/pci@i0cf8/pci8086,2922@1f,2/drive@{port:x}/disk@0"),
            Self::VirtioNet { device } => format!("/pci@i0cf8/ethernet@{device:x}/ethernet-phy@0"),
        }
    }
}

/// What firmware is told beside the ACPI tables.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// Where its RAM is.
    pub layout: &'a MemoryLayout,
    /// Its processors.
    pub processors: u32,
    /// Its identity, and what else SMBIOS shows.
    pub smbios: &'a smbios::Description,
    /// What to boot from, first things first.
    pub boot_order: Vec<BootDevice>,
    /// How long a boot menu is offered, in milliseconds; zero is none.
    pub menu_ms: u16,
    /// Port of the serial line that a BIOS repeats its screen on, if it is to.
    pub serial_console: Option<u16>,
}

/// Numbered items and files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handover {
    /// By number.
    pub items: BTreeMap<u16, Vec<u8>>,
    /// By name.
    pub files: BTreeMap<&'static str, Vec<u8>>,
}

impl Handover {
    /// What firmware is told of `machine`.
    pub fn of(machine: &Machine<'_>) -> Self {
        let processors = u16::try_from(machine.processors).unwrap_or(u16::MAX).to_le_bytes().to_vec();
        let menu = u16::from(machine.menu_ms > 0);
        let items = [
            (UUID, machine.smbios.uuid.to_vec()),
            (RAM_SIZE, machine.layout.ram_bytes().to_le_bytes().to_vec()),
            (PROCESSORS, processors.clone()),
            (PROCESSORS_MAX, processors),
            (BOOT_MENU, menu.to_le_bytes().to_vec()),
        ];
        let smbios = smbios::Tables::of(machine.smbios, smbios::BiosInformation::Firmwares);
        let mut files = BTreeMap::from([
            ("etc/e820", e820(machine.layout)),
            ("etc/smbios/smbios-anchor", smbios.anchor(0)),
            ("etc/smbios/smbios-tables", smbios.structures),
        ]);
        if machine.menu_ms > 0 {
            files.insert("etc/boot-menu-wait", machine.menu_ms.to_le_bytes().to_vec());
        }
        if !machine.boot_order.is_empty() {
            files.insert("bootorder", boot_order(&machine.boot_order));
        }
        if let Some(port) = machine.serial_console {
            files.insert("etc/sercon-port", port.to_le_bytes().to_vec());
        }
        Self { items: items.into(), files }
    }
}

/// RAM, and what of the address space is nobody's: start, length, kind; little-endian.
fn e820(layout: &MemoryLayout) -> Vec<u8> {
    let ram = layout.ram().into_iter().map(|range| (range, MemoryKind::Usable));
    let kept = (KVM_IDENTITY_MAP_START..KVM_PAGES_END, MemoryKind::Reserved);
    let entry = |(range, kind): (std::ops::Range<u64>, MemoryKind)| {
        let mut entry = range.start.to_le_bytes().to_vec();
        entry.extend((range.end - range.start).to_le_bytes());
        entry.extend((kind as u32).to_le_bytes());
        entry
    };
    ram.chain([kept]).flat_map(entry).collect()
}

/// A path a line; a NUL ends the last one.
fn boot_order(devices: &[BootDevice]) -> Vec<u8> {
    let lines: Vec<String> = devices.iter().map(|device| device.path()).collect();
    let mut text = lines.join("\n").into_bytes();
    text.push(0);
    text
}
