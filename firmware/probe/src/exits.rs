//! What it costs to leave the guest.

use core::hint::black_box;

use crate::machine::Machine;
use crate::serial::say;
use crate::{Failure, pci, ports, virtio};

/// Exits of each kind.
const ROUNDS: u32 = 10_000;
/// A port that takes writes without effect.
const DEBUG_PORT: u16 = 0x80;

/// Measures exits of each kind, in cycles of the time stamp counter.
pub fn measure(machine: &mut Machine) -> Result<(), Failure> {
    report("port-write", || ports::write8(DEBUG_PORT, 0));
    report("cpuid", || {
        black_box(ports::cpuid(0));
    });
    let memory = machine.memory;
    let device = pci::functions().find_map(|f| virtio::Device::find(machine, f));
    if let Some(device) = device {
        report("mmio-read", || {
            black_box(memory.read8(device.common + virtio::common::STATUS));
        });
    }
    Ok(())
}

fn report(name: &str, mut leave: impl FnMut()) {
    let start = ports::cycles();
    for _ in 0..ROUNDS {
        leave();
    }
    let cycles = (ports::cycles() - start) / u64::from(ROUNDS);
    say!("exits {name} {ROUNDS} of {cycles} cycles");
}
