//! pvpanic: the guest's kernel says that it panicked (QEMU `docs/specs/pvpanic.rst`).

use crate::registers::{ByteRegisters, on_the_bus};
use crate::{PowerEvent, PowerSink};

/// The kernel panicked.
const PANICKED: u8 = 1 << 0;
/// The kernel panicked and hands over to its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// The device. It has no state: reading says which events it knows.
pub struct PvPanic {
    power: PowerSink,
}

impl PvPanic {
    /// A device that reports to `power`.
    pub fn new(power: PowerSink) -> Self {
        Self { power }
    }
}

on_the_bus!(PvPanic);

impl ByteRegisters for PvPanic {
    const LEN: u8 = 1;

    fn read_byte(&self, _offset: u8) -> u8 {
        PANICKED | CRASH_LOADED
    }

    fn write_byte(&self, _offset: u8, value: u8) {
        if value & PANICKED != 0 {
            (self.power)(PowerEvent::Panicked);
        }
        if value & CRASH_LOADED != 0 {
            (self.power)(PowerEvent::CrashLoaded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Events, survives_every_access};
    use orlop_bus::BusDevice;

    #[test]
    fn a_panic_is_reported() {
        let events = Events::default();
        let device = PvPanic::new(events.sink());
        let mut byte = [0];
        device.read(0, &mut byte);
        assert_eq!(byte, [3]);
        device.write(0, &[1]);
        device.write(0, &[2]);
        device.write(0, &[0xfc]);
        assert_eq!(events.take(), [PowerEvent::Panicked, PowerEvent::CrashLoaded]);
        survives_every_access(&device);
    }
}
