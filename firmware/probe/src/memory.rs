//! Whether the memory that the guest was promised is there.

use crate::Failure;
use crate::machine::Machine;
use crate::serial::say;

/// Words are tried at steps of this many bytes.
const STEP_BYTES: u64 = 64 << 20;
const PATTERN: u64 = 0x5AA5_0FF0_1234_CDEF;

/// Writes and reads words all over usable memory and says how much there is.
pub fn check(machine: &mut Machine) -> Result<(), Failure> {
    let info = machine.start_info.ok_or("PVH's start info is not where it should be")?;
    let memory = machine.memory;
    let mut total = 0;
    for range in info.usable(&memory) {
        total += range.end - range.start;
        let last = range.end - 8;
        let mut address = range.start;
        while address <= last {
            if !try_word(machine, address) {
                say!("memory at {address:#x} does not keep what is written");
                return Err("memory is missing");
            }
            address = if address == last { range.end } else { (address + STEP_BYTES).min(last) };
        }
    }
    say!("memory {total} bytes usable");
    Ok(())
}

/// Whether a word keeps what is written. What lies below the probe's image is not its own and stays as it is.
fn try_word(machine: &Machine, address: u64) -> bool {
    let memory = machine.memory;
    if !memory.is_writable(address, 8) {
        return true;
    }
    let before = memory.read64(address);
    memory.write64(address, PATTERN ^ address);
    let kept = memory.read64(address) == PATTERN ^ address;
    memory.write64(address, before);
    kept
}
