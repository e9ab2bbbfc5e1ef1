//! PCI configuration by ports 0xCF8 and 0xCFC (PCI 3.0 §3.2.2.3.2).

use crate::Failure;
use crate::machine::Machine;
use crate::ports;
use crate::serial::say;

/// Configuration address port: enable (bit 31), bus, device, function, register.
pub const ADDRESS_PORT: u16 = 0xCF8;
/// Configuration data port.
pub const DATA_PORT: u16 = 0xCFC;
const ENABLE: u32 = 1 << 31;

/// Registers of the configuration header.
pub mod register {
    /// Vendor and device id.
    pub const ID: u8 = 0x00;
    /// Command and status.
    pub const COMMAND: u8 = 0x04;
    /// Revision and class.
    pub const CLASS: u8 = 0x08;
    /// First of six base address registers.
    pub const BAR0: u8 = 0x10;
    /// Offset of the first capability.
    pub const CAPABILITIES: u8 = 0x34;
}

/// Command: memory decoding, bus mastering.
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_MASTER: u32 = 1 << 2;
/// Longest chain of capabilities that is followed.
const CAPABILITIES_MAX: usize = 48;

/// A function of bus 0.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    device: u8,
}

impl core::fmt::Display for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "00:{:02x}.0", self.device)
    }
}

impl Function {
    /// Reads the aligned word that holds `register`.
    pub fn read(self, register: u8) -> u32 {
        ports::write32(ADDRESS_PORT, self.address(register));
        ports::read32(DATA_PORT)
    }

    /// Writes the aligned word that holds `register`.
    pub fn write(self, register: u8, value: u32) {
        ports::write32(ADDRESS_PORT, self.address(register));
        ports::write32(DATA_PORT, value);
    }

    /// Reads one byte.
    pub fn read_byte(self, register: u8) -> u8 {
        self.read(register).to_le_bytes()[usize::from(register & 3)]
    }

    /// The configuration address of `register`.
    pub fn address(self, register: u8) -> u32 {
        ENABLE | u32::from(self.device) << 11 | u32::from(register & !3)
    }

    /// Vendor and device id.
    pub fn ids(self) -> (u16, u16) {
        let word = self.read(register::ID);
        ((word & 0xffff) as u16, (word >> 16) as u16)
    }

    /// Lets the function decode its BARs and reach memory.
    pub fn enable(self) {
        let command = self.read(register::COMMAND) & 0xffff;
        self.write(register::COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
    }

    /// Address in memory BAR `index`; `None` for a port BAR, an unassigned one or one that is not there.
    pub fn bar(self, index: u8) -> Option<u64> {
        if index > 5 {
            return None;
        }
        let low = self.read(register::BAR0 + index * 4);
        let wide = low >> 1 & 3 == 2;
        let high = if wide && index < 5 { self.read(register::BAR0 + index * 4 + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        (low & 1 == 0 && address != 0).then_some(address)
    }

    /// Offsets of the capabilities with `id`.
    pub fn capabilities(self, id: u8) -> impl Iterator<Item = u8> {
        let mut next = self.read_byte(register::CAPABILITIES) & !3;
        let all = core::iter::from_fn(move || {
            let at = next;
            (at != 0).then(|| {
                next = self.read_byte(at + 1) & !3;
                at
            })
        });
        all.take(CAPABILITIES_MAX).filter(move |&at| self.read_byte(at) == id)
    }
}

/// Every function of bus 0 that is there.
pub fn functions() -> impl Iterator<Item = Function> {
    (0..32).map(|device| Function { device }).filter(|f| f.ids().0 != 0xffff)
}

/// Says what is on the bus.
pub fn list(_machine: &mut Machine) -> Result<(), Failure> {
    let mut count = 0;
    for function in functions() {
        let (vendor, device) = function.ids();
        let class = function.read(register::CLASS) >> 8;
        say!(
            "pci {function} {vendor:04x}:{device:04x} class {class:06x} bar0 {:#x}",
            function.bar(0).unwrap_or(0)
        );
        count += 1;
    }
    if count == 0 { Err("there is nothing on the bus, not even a host bridge") } else { Ok(()) }
}
