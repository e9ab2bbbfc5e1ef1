//! SMBIOS 3.0 tables: what a guest shows in `/sys/class/dmi/id` and `dmidecode` (DMTF DSP0134 3.7.0, cited as `§`).

#[cfg(test)]
mod tests;

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use crate::layout::{MemoryLayout, SMBIOS};

/// Longest string in bytes. The structures of a machine then fit their place many times.
pub const STRING_MAX_BYTES: usize = 256;

/// Version that the structures follow: 3.0.
const VERSION: [u8; 3] = [3, 0, 0];
/// Length of the 64-bit entry point (§5.2.2), and alignment of what it points to.
const ANCHOR_BYTES: u64 = 24;

/// Structure types (§7).
const BIOS: u8 = 0;
const SYSTEM: u8 = 1;
const CHASSIS: u8 = 3;
const PROCESSOR: u8 = 4;
const MEMORY_ARRAY: u8 = 16;
const MEMORY_DEVICE: u8 = 17;
const MEMORY_MAPPED: u8 = 19;
const BOOT_INFORMATION: u8 = 32;
const END: u8 = 127;

/// Handles: the type times 256, and the number among its kind.
const MEMORY_ARRAY_HANDLE: u16 = 0x1000;
/// "No error information" (§7.17).
const NO_ERROR_HANDLE: u16 = 0xFFFE;
const NO_CACHE_HANDLE: u16 = 0xFFFF;

/// What the tables show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The machine's identity, in the order of its text.
    pub uuid: [u8; 16],
    /// The machine.
    pub system: System,
    /// Its case.
    pub chassis: Chassis,
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
    /// Where RAM is.
    pub layout: MemoryLayout,
}

/// The machine (§7.2). An empty string is shown as "Not Specified".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// Who made it.
    pub manufacturer: String,
    /// What it is called.
    pub product: String,
    /// Which version of it.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Which of the product's configurations.
    pub sku: String,
    /// What it belongs to.
    pub family: String,
}

/// Its case (§7.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chassis {
    /// Who made it.
    pub manufacturer: String,
    /// Which version of it.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its owner's number for it.
    pub asset: String,
    /// Which of the product's configurations.
    pub sku: String,
}

/// Who tells of the BIOS (type 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiosInformation {
    /// These tables: a directly booted kernel has no BIOS.
    Ours,
    /// Stock firmware, which speaks for itself.
    Firmwares,
}

/// Structures without their entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// All structures, one after the other.
    pub structures: Vec<u8>,
}

/// Tables that do not fit where they belong.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// They are too long.
    #[error("SMBIOS tables of {needs_bytes} bytes do not fit at {:#x}..{:#x}", area.start, area.end)]
    TooLarge {
        /// What they need.
        needs_bytes: u64,
        /// Where they belong.
        area: Range<u64>,
    },
    /// The machine has no memory there.
    #[error(transparent)]
    Memory(#[from] GuestMemoryError),
}

impl Tables {
    /// Makes the structures of the machine that `description` describes.
    pub fn of(description: &Description, bios: BiosInformation) -> Self {
        let mut structures = Vec::new();
        if bios == BiosInformation::Ours {
            structures.extend(bios_information());
        }
        structures.extend(system(description));
        structures.extend(chassis(&description.chassis));
        for socket in 0..description.sockets {
            structures.extend(processor(description, socket));
        }
        structures.extend(memory(&description.layout));
        let mut boot = Structure::new(BOOT_INFORMATION, 0x2000);
        boot.bytes(&[0; 7]);
        structures.extend(boot.finish());
        structures.extend(Structure::new(END, 0x7F00).finish());
        Self { structures }
    }

    /// The entry point of structures that lie at `address`.
    pub fn anchor(&self, address: u64) -> Vec<u8> {
        let mut anchor = b"_SM3_\0\x18".to_vec();
        anchor.extend(VERSION);
        anchor.extend([1, 0]);
        anchor.extend(u32::try_from(self.structures.len()).unwrap_or(u32::MAX).to_le_bytes());
        anchor.extend(address.to_le_bytes());
        let sum = anchor.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if let Some(checksum) = anchor.get_mut(5) {
            *checksum = sum.wrapping_neg();
        }
        anchor
    }

    /// Puts them where a directly booted kernel finds them.
    pub fn write<M: GuestMemoryBackend>(&self, memory: &M) -> Result<(), WriteError> {
        let start = (SMBIOS.start + ANCHOR_BYTES).next_multiple_of(16);
        let end = start + self.structures.len() as u64;
        if end > SMBIOS.end {
            return Err(WriteError::TooLarge { needs_bytes: end - SMBIOS.start, area: SMBIOS });
        }
        memory.write_slice(&self.anchor(start), GuestAddress(SMBIOS.start))?;
        Ok(memory.write_slice(&self.structures, GuestAddress(start))?)
    }
}

/// A structure: header, fields, and strings that the fields name by number.
struct Structure {
    fields: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self { fields: vec![kind, 0, low, high], strings: Vec::new(), count: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.fields.extend(bytes);
        self
    }

    fn word(&mut self, word: u16) -> &mut Self {
        self.bytes(&word.to_le_bytes())
    }

    /// A string; control characters, which would end it or hide, are left out (§6.1.3).
    fn string(&mut self, text: &str) -> &mut Self {
        let mut kept: Vec<u8> = text.bytes().filter(|byte| *byte >= 0x20 && *byte != 0x7f).collect();
        kept.truncate(STRING_MAX_BYTES);
        if kept.is_empty() {
            return self.bytes(&[0]);
        }
        self.count = self.count.saturating_add(1);
        self.fields.push(self.count);
        self.strings.extend(kept);
        self.strings.push(0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(len) = u8::try_from(self.fields.len()).ok().zip(self.fields.get_mut(1)) {
            *len.1 = len.0;
        }
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        self.fields.extend(self.strings);
        self.fields.push(0);
        self.fields
    }
}

/// §7.1. No characteristics but "virtual machine".
fn bios_information() -> Vec<u8> {
    const NOT_SUPPORTED: u64 = 1 << 3;
    const VIRTUAL_MACHINE: u8 = 1 << 4;
    let mut bios = Structure::new(BIOS, 0);
    bios.string("Orlop").string(env!("CARGO_PKG_VERSION")).word(0).string("01/01/2026").bytes(&[0]);
    bios.bytes(&NOT_SUPPORTED.to_le_bytes()).bytes(&[0, VIRTUAL_MACHINE, 0xff, 0xff, 0xff, 0xff]);
    bios.finish()
}

fn system(description: &Description) -> Vec<u8> {
    const POWER_SWITCH: u8 = 6;
    let System { manufacturer, product, version, serial, sku, family } = &description.system;
    let mut system = Structure::new(SYSTEM, 0x0100);
    system.string(manufacturer).string(product).string(version).string(serial);
    // The first three parts of the identity are little-endian (§7.2.1).
    let [a, b, c, d, e, f, g, h, rest @ ..] = description.uuid;
    system.bytes(&[d, c, b, a, f, e, h, g]).bytes(&rest).bytes(&[POWER_SWITCH]).string(sku).string(family);
    system.finish()
}

fn chassis(chassis: &Chassis) -> Vec<u8> {
    const OTHER: u8 = 1;
    const SAFE: u8 = 3;
    const UNKNOWN: u8 = 2;
    let Chassis { manufacturer, version, serial, asset, sku } = chassis;
    let mut structure = Structure::new(CHASSIS, 0x0300);
    structure.string(manufacturer).bytes(&[OTHER]).string(version).string(serial).string(asset);
    structure.bytes(&[SAFE, SAFE, SAFE, UNKNOWN]).bytes(&[0; 8]).string(sku);
    structure.finish()
}

/// §7.5. Speeds and caches are not told: they are the host's.
fn processor(description: &Description, socket: u32) -> Vec<u8> {
    const CENTRAL: u8 = 3;
    const OTHER_FAMILY: u8 = 1;
    const POPULATED_ENABLED: u8 = 0x41;
    const OTHER_UPGRADE: u8 = 1;
    const UNKNOWN: u16 = 1 << 1;
    let cores = u16::try_from(description.cores).unwrap_or(u16::MAX);
    let threads = description.cores.saturating_mul(description.threads);
    let threads = u16::try_from(threads).unwrap_or(u16::MAX);
    let short = |count: u16| u8::try_from(count).unwrap_or(u8::MAX);
    let handle = 0x0400u16.saturating_add(u16::try_from(socket).unwrap_or(0));
    let mut structure = Structure::new(PROCESSOR, handle);
    structure.string(&format!("CPU {socket}")).bytes(&[CENTRAL, OTHER_FAMILY]).string("").bytes(&[0; 8]);
    structure.string("").bytes(&[0; 7]).bytes(&[POPULATED_ENABLED, OTHER_UPGRADE]);
    structure.word(NO_CACHE_HANDLE).word(NO_CACHE_HANDLE).word(NO_CACHE_HANDLE);
    structure.string("").string("").string("").bytes(&[short(cores), short(cores), short(threads)]);
    structure.word(UNKNOWN).word(OTHER_FAMILY.into()).word(cores).word(cores).word(threads);
    structure.finish()
}

/// One array with one device (§7.17, §7.18), and where it is seen (§7.20).
fn memory(layout: &MemoryLayout) -> Vec<u8> {
    const OTHER: u8 = 1;
    const SYSTEM_MEMORY: u8 = 3;
    const MULTI_BIT_ECC: u8 = 6;
    const IN_EXTENDED_FIELD: u32 = 0x8000_0000;
    const UNKNOWN_WIDTH: u16 = 0xffff;
    const SIZE_IN_EXTENDED_FIELD: u16 = 0x7fff;
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    let bytes = layout.ram_bytes();
    let mut array = Structure::new(MEMORY_ARRAY, MEMORY_ARRAY_HANDLE);
    array.bytes(&[OTHER, SYSTEM_MEMORY, MULTI_BIT_ECC]).bytes(&IN_EXTENDED_FIELD.to_le_bytes());
    array.word(NO_ERROR_HANDLE).word(1).bytes(&bytes.to_le_bytes());
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    let mut device = Structure::new(MEMORY_DEVICE, 0x1100);
    device.word(MEMORY_ARRAY_HANDLE).word(NO_ERROR_HANDLE).word(UNKNOWN_WIDTH).word(UNKNOWN_WIDTH);
    let size = u16::try_from(mib).ok().filter(|size| *size < SIZE_IN_EXTENDED_FIELD);
    device.word(size.unwrap_or(SIZE_IN_EXTENDED_FIELD)).bytes(&[DIMM, 0]).string("DIMM 0").string("");
    device.bytes(&[RAM]).word(1 << 1).word(0).string("").string("").string("").string("").bytes(&[0]);
    device.bytes(&if size.is_some() { 0 } else { mib }.to_le_bytes()).bytes(&[0; 8]);
    let mut all = array.finish();
    all.extend(device.finish());
    for (range, number) in layout.ram().into_iter().zip(0u16..) {
        let mut mapped = Structure::new(MEMORY_MAPPED, 0x1300u16.saturating_add(number));
        mapped.bytes(&u32::MAX.to_le_bytes()).bytes(&u32::MAX.to_le_bytes()).word(MEMORY_ARRAY_HANDLE);
        mapped.bytes(&[1]).bytes(&range.start.to_le_bytes()).bytes(&(range.end - 1).to_le_bytes());
        all.extend(mapped.finish());
    }
    all
}
