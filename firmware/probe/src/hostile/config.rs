//! PCI configuration space, written like memory: every register, BARs in impossible places, odd accesses.

use super::BAD_ADDRESSES;
use crate::Failure;
use crate::machine::Machine;
use crate::pci::{self, ADDRESS_PORT, DATA_PORT, Function, register};
use crate::ports;
use crate::serial::say;

/// The enhanced mechanism: base, bytes of a function, functions of a bus.
const ECAM: u64 = 0xB000_0000;
const ECAM_FUNCTION_BYTES: u64 = 4096;
const ECAM_BUS_BYTES: u64 = 1 << 20;
/// Registers of 4 bytes that the ports reach.
const REGISTERS: usize = 64;
const VENDOR_CAPABILITY: u8 = 0x09;
/// The virtio capability that is a window into the BARs (virtio 1.3 §4.1.4.9).
const KIND_PCI_WINDOW: u8 = 5;

/// Runs every attack on every function, then shows that the devices work.
pub fn run(machine: &mut Machine) -> Result<(), Failure> {
    odd_ports();
    say!("survived odd configuration ports");
    enhanced(machine);
    say!("survived odd accesses to the enhanced configuration space");
    for function in pci::functions() {
        every_register(function);
    }
    say!("survived writes to every register");
    for function in pci::functions() {
        moved_bars(machine, function);
    }
    say!("survived BARs in impossible places");
    for function in pci::functions() {
        window(function);
    }
    say!("survived impossible windows");
    super::on_every_device(machine, "configuration attacks", |_, _| Ok(()))
}

/// Reads and writes of all sizes at all eight configuration ports, with addresses of all kinds.
fn odd_ports() {
    for address in [0, 0x8000_0000, 0x8000_0001, 0x8000_00FF, 0x80FF_FFFC, 0xFFFF_FFFF, 0x8000_F8FC] {
        ports::write32(ADDRESS_PORT, address);
        for port in DATA_PORT..DATA_PORT + 4 {
            ports::read8(port);
            ports::read16(port);
            ports::read32(port);
        }
        for port in ADDRESS_PORT..DATA_PORT + 4 {
            ports::read8(port);
            ports::read16(port);
            ports::read32(port);
        }
    }
    // Words at the address port; the byte at its second place is the reset control register and is left alone.
    ports::write16(ADDRESS_PORT, 0xffff);
    ports::write16(ADDRESS_PORT + 2, 0xffff);
    ports::write8(ADDRESS_PORT, 0xff);
    ports::write8(ADDRESS_PORT + 3, 0xff);
}

fn enhanced(machine: &Machine) {
    let memory = machine.memory;
    let functions = [0, 1, 7, 8, 31 * 8, 32 * 8 - 1].map(|f| f * ECAM_FUNCTION_BYTES);
    for base in functions.into_iter().chain([ECAM_BUS_BYTES, 255 * ECAM_BUS_BYTES]) {
        for offset in [0, 1, 2, 3, 0x3d, 0xfd, 0xff, 0x100, 0xffd] {
            let address = ECAM + base + offset;
            memory.read8(address);
            memory.read16(address);
            memory.read32(address);
            memory.read64(address);
        }
        memory.write64(ECAM + base + 0xff8, u64::MAX);
        memory.write8(ECAM + base + 0xfff, 0xff);
    }
}

fn every_register(function: Function) {
    let before: [u32; REGISTERS] = core::array::from_fn(|i| function.read(i as u8 * 4));
    for at in (0..=0xfcu8).step_by(4) {
        for value in [u32::MAX, 0, 0x5555_5555] {
            function.write(at, value);
            function.read(at);
        }
        ports::write32(ADDRESS_PORT, function.address(at));
        for lane in 0..4 {
            ports::write8(DATA_PORT + lane, 0xff);
            ports::write16(DATA_PORT + lane, 0xffff);
        }
    }
    // The command register last: nothing decodes until all is as it was.
    function.write(register::COMMAND, 0);
    for (at, value) in (0u8..).step_by(4).zip(before).filter(|&(at, _)| at != register::COMMAND) {
        function.write(at, value);
    }
    function.write(register::COMMAND, before[usize::from(register::COMMAND) / 4] & 0xffff);
}

fn moved_bars(machine: &Machine, function: Function) {
    let command = function.read(register::COMMAND) & 0xffff;
    let bars: [u32; 6] = core::array::from_fn(|i| function.read(register::BAR0 + 4 * i as u8));
    let in_ram = [0x10_0000, machine.low_memory_end() - 4096];
    for address in BAD_ADDRESSES.into_iter().chain(in_ram) {
        for decode in [false, true] {
            function.write(register::COMMAND, if decode { command | 6 } else { 0 });
            for index in 0..6u8 {
                let half = if index % 2 == 0 { address as u32 } else { (address >> 32) as u32 };
                function.write(register::BAR0 + 4 * index, half);
            }
        }
    }
    // Sizing: all ones, with decoding on.
    for index in 0..6u8 {
        function.write(register::BAR0 + 4 * index, u32::MAX);
        function.read(register::BAR0 + 4 * index);
    }
    function.write(register::COMMAND, 0);
    for (index, value) in (0u8..).zip(bars) {
        function.write(register::BAR0 + 4 * index, value);
    }
    function.write(register::COMMAND, command);
}

/// Virtio's window into its BARs, with lengths and offsets that cannot be.
fn window(function: Function) {
    let windows = function.capabilities(VENDOR_CAPABILITY);
    for at in windows.filter(|&at| function.read_byte(at + 3) == KIND_PCI_WINDOW) {
        for (bar, offset, len) in
            [(0, 0, 0), (0, 0, 3), (0, 0, u32::MAX), (0, u32::MAX, 4), (5, 0, 4), (0xff, 0, 1), (0, 1, 4)]
        {
            function.write(at + 4, bar);
            function.write(at + 8, offset);
            function.write(at + 12, len);
            function.read(at + 16);
            function.write(at + 16, u32::MAX);
        }
        for (register, value) in [(4, 0), (8, 0), (12, 0)] {
            function.write(at + register, value);
        }
    }
}
