//! Instructions that Rust has no words for.
#![expect(unsafe_code, reason = "port access, halting and counters are single instructions")]

use core::arch::asm;

macro_rules! port_access {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        /// Reads a port.
        pub fn $read(port: u16) -> $type {
            let value;
            // SAFETY: reading a port touches no memory of this program.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        /// Writes a port.
        pub fn $write(port: u16, value: $type) {
            // SAFETY: writing a port touches no memory of this program; devices are told of memory only by
            // addresses that `Machine` hands out.
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nomem, nostack, preserves_flags)) };
        }
    };
}

port_access!(read8, write8, u8, "al");
port_access!(read16, write16, u16, "ax");
port_access!(read32, write32, u32, "eax");

/// Writes `bytes` to a port with one string instruction.
pub fn write_string(port: u16, bytes: &[u8]) {
    // SAFETY: reads `bytes` only.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rcx") bytes.len() => _, inout("rsi") bytes.as_ptr() => _,
            options(nostack, readonly, preserves_flags));
    }
}

/// The time stamp counter.
pub fn cycles() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Leaves the guest for the host's kernel: CPUID always does.
pub fn cpuid(leaf: u32) -> u32 {
    core::arch::x86_64::__cpuid(leaf).eax
}

/// Waits for ever.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: interrupts are off; nothing follows.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Ends the machine as hardware that has lost its senses does: an exception without a table of handlers.
pub fn triple_fault() -> ! {
    let empty = [0u8; 10];
    // SAFETY: does not return; what happens to this program's state does not matter.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) empty.as_ptr(), options(noreturn)) };
}
