//! The report: lines on the first serial port.

use core::fmt;

use crate::ports;

const DATA: u16 = 0x3F8;
const LINE_STATUS: u16 = 0x3FD;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// The port is never busy for longer than this many reads; one that is gone must not hang the probe.
const PATIENCE: u32 = 10_000;

/// The first serial port.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut left = PATIENCE;
            while ports::read8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && left > 0 {
                left -= 1;
            }
            ports::write8(DATA, byte);
        }
        Ok(())
    }
}

/// Says one line.
macro_rules! say {
    ($($arguments:tt)*) => {{
        use core::fmt::Write;
        let _never_fails = writeln!($crate::serial::Serial, "probe: {}\r", format_args!($($arguments)*));
    }};
}
pub(crate) use say;
