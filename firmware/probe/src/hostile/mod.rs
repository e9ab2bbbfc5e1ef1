//! What no honest driver does. Every attack is followed by a reset of the device, and the device must work again; that
//! the report goes on shows that the machine lives.

pub mod config;
pub mod msix;
pub mod ports;
pub mod queues;
pub mod registers;
pub mod requests;

use crate::Failure;
use crate::machine::{Machine, Physical};
use crate::serial::say;
use crate::virtio::{self, Device, status};

/// How long an attacked device may think before it is reset, in milliseconds. It need not answer.
const SETTLE_MS: u32 = 10;

/// Addresses that are bad for different reasons: nothing there, the configuration space, interrupt controllers, the end
/// of the address space, nearly so.
const BAD_ADDRESSES: [u64; 7] =
    [0x8000_0000, 0xB000_0000, 0xFEC0_0000, 0xFEE0_0000, !0xfff, u64::MAX - 15, 1 << 52];

/// Runs `attack` on every virtio device, then shows that the device still works.
fn on_every_device(
    machine: &mut Machine,
    name: &str,
    attack: impl Fn(&mut Machine, &Device) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let count = virtio::each(machine, |machine, device| {
        machine.free_all();
        let outcome = attack(machine, device).and_then(|()| recovers(machine, device));
        outcome.inspect_err(|_| say!("after {name}"))
    })?;
    if count == 0 { Err("there is no virtio device to attack") } else { Ok(()) }
}

/// A reset must bring the device back.
fn recovers(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    device.reset(machine)?;
    virtio::works(machine, device)
}

/// Gives the device time to do what it does about an attack.
fn settle(machine: &Machine, device: &Device) {
    machine.wait(SETTLE_MS, || device.status() & status::NEEDS_RESET != 0);
}

/// Reads at every offset from `start`, in every size, aligned or not.
fn read_everywhere(memory: &Physical, start: u64, len: u64) {
    for address in start..start + len {
        memory.read8(address);
        memory.read16(address);
        memory.read32(address);
        memory.read64(address);
    }
}

/// Writes `pattern` at every offset from `start`, in every size, aligned or not.
fn write_everywhere(memory: &Physical, start: u64, len: u64, pattern: u64) {
    let [byte, ..] = pattern.to_le_bytes();
    for address in start..start + len {
        memory.write8(address, byte);
        memory.write16(address, pattern as u16);
        memory.write32(address, pattern as u32);
        memory.write64(address, pattern);
    }
}
