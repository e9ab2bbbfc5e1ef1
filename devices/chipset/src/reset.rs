//! The three ways in which a PC is reset by a port: keyboard controller, system control port A, reset control register.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use orlop_bus::BusDevice;
use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use crate::registers::{ByteRegisters, on_the_bus};
use crate::{PowerEvent, PowerSink};

/// The keyboard controller, of which there is only the reset line: no keyboard, no mouse.
///
/// Its status always shows output waiting and input free. A driver that looks for a controller tries to drain the
/// output, gives up after a few reads and takes it for absent; a reset through it, which first waits for the input to
/// be free, need not wait. (All ones would be absent as well, but keeps `reboot=k` waiting for seconds.)
pub struct I8042 {
    power: PowerSink,
}

/// Offsets of data, and of status and command.
const I8042_DATA: u8 = 0;
const I8042_COMMAND: u8 = 4;
/// All ones but "input buffer full".
const I8042_STATUS: u8 = 0xFD;
/// Commands 0xF0 to 0xFF pulse the output lines whose bits are 0; line 0 is the processor's reset.
const I8042_PULSE: u8 = 0xF0;
const I8042_PULSE_KEEP_RUNNING: u8 = 1;

impl I8042 {
    /// A controller whose reset line is `power`.
    pub fn new(power: PowerSink) -> Self {
        Self { power }
    }
}

on_the_bus!(I8042);

impl ByteRegisters for I8042 {
    const LEN: u8 = 5;

    fn read_byte(&self, offset: u8) -> u8 {
        match offset {
            I8042_DATA => 0,
            I8042_COMMAND => I8042_STATUS,
            _ => 0xff,
        }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        let pulses = value & I8042_PULSE == I8042_PULSE && value & I8042_PULSE_KEEP_RUNNING == 0;
        if offset == I8042_COMMAND && pulses {
            (self.power)(PowerEvent::Reset);
        }
    }
}

/// System control port A: A20, which is always open here, and the fast reset.
pub struct SystemPortA {
    power: PowerSink,
}

const PORT_A_RESET: u8 = 1 << 0;
const PORT_A_A20: u8 = 1 << 1;

impl SystemPortA {
    /// A port whose reset line is `power`.
    pub fn new(power: PowerSink) -> Self {
        Self { power }
    }
}

on_the_bus!(SystemPortA);

impl ByteRegisters for SystemPortA {
    const LEN: u8 = 1;

    fn read_byte(&self, _offset: u8) -> u8 {
        PORT_A_A20
    }

    fn write_byte(&self, _offset: u8, value: u8) {
        if value & PORT_A_RESET != 0 {
            (self.power)(PowerEvent::Reset);
        }
    }
}

/// The reset control register (ICH9 datasheet §13.7.5), a byte that lies among PCI's configuration ports: it stands
/// before them and hands every other access on. Place it at [`ports::PCI_CONFIG`](crate::ports::PCI_CONFIG).
pub struct ResetControl {
    value: AtomicU8,
    power: PowerSink,
    behind: Arc<dyn BusDevice>,
}

/// Bits 1 (hard reset) and 2 (reset now) stay as written; a reset is a change of bit 2 from 0 to 1.
const RESET_CPU: u8 = 1 << 2;
const RESET_WRITABLE: u8 = 0b1110;
/// Offset of the register among the configuration ports.
const RESET_OFFSET: u64 = 1;

/// Saved state of [`ResetControl`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetControlState {
    /// The register.
    pub value: u8,
}

impl State for ResetControlState {
    const KIND: &'static str = "reset-control";
    const VERSION: u16 = 1;
}

impl ResetControl {
    /// A register that stands before `behind`, PCI's configuration ports.
    pub fn new(behind: Arc<dyn BusDevice>, power: PowerSink) -> Self {
        Self { value: AtomicU8::new(0), power, behind }
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.value.store(0, Ordering::Relaxed);
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        Record::write("", &ResetControlState { value: self.value.load(Ordering::Relaxed) })
    }

    /// Takes over a saved state.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: ResetControlState = record.read()?;
        if state.value & !RESET_WRITABLE != 0 {
            let reason = format!("register {:#x} has bits that do not exist", state.value);
            return Err(StateError::Invalid { kind: ResetControlState::KIND, reason });
        }
        self.value.store(state.value, Ordering::Relaxed);
        Ok(())
    }
}

impl BusDevice for ResetControl {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match data {
            [byte] if offset == RESET_OFFSET => *byte = self.value.load(Ordering::Relaxed),
            _ => self.behind.read(offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match data {
            [value] if offset == RESET_OFFSET => {
                let before = self.value.swap(value & RESET_WRITABLE, Ordering::Relaxed);
                if value & !before & RESET_CPU != 0 {
                    (self.power)(PowerEvent::Reset);
                }
            }
            _ => self.behind.write(offset, data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Events, read_byte, survives_every_access, survives_every_mutation};
    use std::sync::Mutex;

    #[test]
    fn the_keyboard_controller_resets_the_machine() {
        let events = Events::default();
        let device = I8042::new(events.sink());
        for harmless in [0x20, 0x60, 0xAA, 0xF1, 0xFF] {
            device.write(4, &[harmless]);
        }
        device.write(0, &[0xFE]);
        assert_eq!(events.take(), []);
        device.write(4, &[0xFE]);
        assert_eq!(events.take(), [PowerEvent::Reset]);
        survives_every_access(&device);
    }

    #[test]
    fn a_driver_finds_no_keyboard_and_does_not_wait_for_one() {
        let device = I8042::new(Events::default().sink());
        // Output that never drains: absent. Input that is free: a reset need not wait.
        for _ in 0..100 {
            assert_eq!(read_byte(&device, 4) & 0b11, 0b01);
            assert_eq!(read_byte(&device, 0), 0);
        }
    }

    #[test]
    fn port_a_resets_and_keeps_a20_open() {
        let events = Events::default();
        let device = SystemPortA::new(events.sink());
        device.write(0, &[0]);
        assert_eq!(read_byte(&device, 0), 2);
        assert_eq!(events.take(), []);
        device.write(0, &[3]);
        assert_eq!(events.take(), [PowerEvent::Reset]);
        survives_every_access(&device);
    }

    #[derive(Default)]
    struct ConfigPorts(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for ConfigPorts {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(0xAB);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    #[test]
    fn only_a_byte_at_cf9_is_the_reset_control() {
        let events = Events::default();
        let ports = Arc::new(ConfigPorts::default());
        let device = ResetControl::new(ports.clone(), events.sink());
        device.write(0, &[0, 6, 0, 0x80]);
        device.write(1, &[6, 6]);
        device.write(4, &[6]);
        assert_eq!(*ports.0.lock().unwrap(), [(0, vec![0, 6, 0, 0x80]), (1, vec![6, 6]), (4, vec![6])]);
        assert_eq!(read_byte(&device, 0), 0xAB);
        assert_eq!(read_byte(&device, 1), 0);
        assert_eq!(events.take(), []);
        survives_every_access(&device);
    }

    #[test]
    fn a_rising_bit_two_resets_once() {
        let events = Events::default();
        let device = ResetControl::new(Arc::new(ConfigPorts::default()), events.sink());
        device.write(1, &[2]);
        assert_eq!((read_byte(&device, 1), events.take()), (2, vec![]));
        device.write(1, &[6]);
        device.write(1, &[6]);
        assert_eq!((read_byte(&device, 1), events.take()), (6, vec![PowerEvent::Reset]));
        device.reset();
        device.write(1, &[0xff]);
        assert_eq!((read_byte(&device, 1), events.take()), (0xE, vec![PowerEvent::Reset]));
    }

    #[test]
    fn the_reset_control_survives_saving() {
        let events = Events::default();
        let device = ResetControl::new(Arc::new(ConfigPorts::default()), events.sink());
        device.write(1, &[6]);
        let record = device.save().unwrap();
        let other = ResetControl::new(Arc::new(ConfigPorts::default()), events.sink());
        other.restore(&record).unwrap();
        assert_eq!(other.save().unwrap(), record);
        survives_every_mutation(&record, |record| other.restore(record));
        let wrong = Record::write("", &ResetControlState { value: 0x80 }).unwrap();
        assert!(other.restore(&wrong).is_err());
    }
}
