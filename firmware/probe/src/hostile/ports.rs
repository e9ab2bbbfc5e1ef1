//! Port accesses of all sizes at odd places.

use crate::Failure;
use crate::machine::Machine;
use crate::ports;
use crate::serial::say;

/// Ports that are swept with reads: where the small devices of a PC are.
const READS: core::ops::Range<u16> = 0..0xD10;
/// Ports whose devices take any write without ending the machine: clock and memory, debug port, serial port, events.
const WRITES: [core::ops::Range<u16>; 4] = [0x70..0x72, 0x80..0x84, 0x3F9..0x400, 0x641..0x644];
const PATTERNS: [u32; 4] = [0, u32::MAX, 0x5555_5555, 0x8080_8080];

const SERIAL: u16 = 0x3F8;
const SERIAL_INTERRUPTS: u16 = SERIAL + 1;
const SERIAL_LINE_CONTROL: u16 = SERIAL + 3;
const SERIAL_MODEM_CONTROL: u16 = SERIAL + 4;
/// 8 bits, no parity, and no divisor latch.
const SERIAL_8N1: u8 = 3;
/// The clock's control register, and its usual content: 24 hours.
const CLOCK_INDEX: u16 = 0x70;
const CLOCK_CONTROL: u8 = 0x0B;
const CLOCK_24_HOURS: u8 = 2;

/// Sweeps reads, then writes, and sets right what the report needs.
pub fn run(_machine: &mut Machine) -> Result<(), Failure> {
    for port in READS {
        ports::read8(port);
        ports::read16(port);
        ports::read32(port);
    }
    for port in (0xFFFC..=0xFFFF).chain([0x8000, 0x5658]) {
        ports::read8(port);
        ports::read16(port);
        ports::read32(port);
        ports::write32(port, u32::MAX);
    }
    for pattern in PATTERNS {
        for port in WRITES.into_iter().flatten() {
            ports::write8(port, pattern as u8);
            ports::write16(port, pattern as u16);
            ports::write32(port, pattern);
        }
        ports::write8(SERIAL_LINE_CONTROL, SERIAL_8N1);
        ports::write8(SERIAL_MODEM_CONTROL, 0);
        ports::write8(SERIAL_INTERRUPTS, 0);
        ports::write8(CLOCK_INDEX, CLOCK_CONTROL);
        ports::write8(CLOCK_INDEX + 1, CLOCK_24_HOURS);
    }
    ports::write_string(SERIAL, b"probe: string output\r\n");
    say!("survived port accesses of all sizes");
    Ok(())
}
