//! ACPI power management: the power button, sleep states, and the timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use orlop_bus::BusDevice;
use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use crate::registers::{ByteRegisters, on_the_bus};
use crate::{Clock, Interrupt, PowerEvent, PowerSink};

/// Registers of [`PowerManagement`]: sleep control and sleep status (ACPI 6.5 §4.8.3.7), and the events that the
/// generic event device's method looks at.
const SLEEP_CONTROL: u8 = 0;
const SLEEP_STATUS: u8 = 1;
const EVENT_STATUS: u8 = 2;

/// Sleep control: the state to enter (bits 2 to 4), and go (bit 5).
const SLEEP_TYPE_SHIFT: u32 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;
const SLEEP_ENABLE: u8 = 1 << 5;
/// The value that the machine's `_S5` package names for "off".
const SLEEP_TYPE_S5: u8 = 5;

/// The power button was pressed.
const EVENT_POWER_BUTTON: u8 = 1 << 3;
const EVENTS: u8 = EVENT_POWER_BUTTON;

/// Sleep control and events of a hardware-reduced ACPI machine.
pub struct PowerManagement {
    /// Events that the guest has not seen. Reading clears them.
    events: AtomicU8,
    interrupt: Arc<dyn Interrupt>,
    power: PowerSink,
}

/// Saved state of [`PowerManagement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerManagementState {
    /// Events that the guest has not seen: bit 3 is the power button.
    pub events: u8,
}

impl State for PowerManagementState {
    const KIND: &'static str = "power-management";
    const VERSION: u16 = 1;
}

impl PowerManagement {
    /// Value of `SLP_TYP` for S5, for the ACPI tables.
    pub const S5: u8 = SLEEP_TYPE_S5;
    /// Offset of the sleep control register.
    pub const SLEEP_CONTROL: u64 = SLEEP_CONTROL as u64;
    /// Offset of the sleep status register.
    pub const SLEEP_STATUS: u64 = SLEEP_STATUS as u64;
    /// Offset of the event status register.
    pub const EVENT_STATUS: u64 = EVENT_STATUS as u64;

    /// A device that announces events on `interrupt` and reports to `power`.
    pub fn new(interrupt: Arc<dyn Interrupt>, power: PowerSink) -> Self {
        Self { events: AtomicU8::new(0), interrupt, power }
    }

    /// Presses the power button: the guest is asked to shut down.
    pub fn press_power_button(&self) {
        self.events.fetch_or(EVENT_POWER_BUTTON, Ordering::SeqCst);
        self.interrupt.pulse();
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.events.store(0, Ordering::SeqCst);
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        Record::write("", &PowerManagementState { events: self.events.load(Ordering::SeqCst) })
    }

    /// Takes over a saved state. Events that the guest has not seen are announced again.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: PowerManagementState = record.read()?;
        if state.events & !EVENTS != 0 {
            let reason = format!("events {:#x} include some that do not exist", state.events);
            return Err(StateError::Invalid { kind: PowerManagementState::KIND, reason });
        }
        self.events.store(state.events, Ordering::SeqCst);
        if state.events != 0 {
            self.interrupt.pulse();
        }
        Ok(())
    }
}

on_the_bus!(PowerManagement);

impl ByteRegisters for PowerManagement {
    const LEN: u8 = 3;

    fn read_byte(&self, offset: u8) -> u8 {
        match offset {
            EVENT_STATUS => self.events.swap(0, Ordering::SeqCst),
            // The machine never wakes from a sleep, so no bit of the sleep registers is ever set.
            _ => 0,
        }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        if offset == SLEEP_CONTROL && value & SLEEP_ENABLE != 0 && kind == SLEEP_TYPE_S5 {
            (self.power)(PowerEvent::Shutdown);
        }
    }
}

/// The PM1 control register (ACPI 6.5 §4.8.3.2.1), of which there is only "go to sleep": UEFI firmware powers the machine
/// off by it (OVMF's `ResetSystemLib`). It has no state. The tables name the sleep control register instead.
pub struct Pm1Control {
    power: PowerSink,
}

/// High byte of the register: the state to enter (bits 10 to 12), and go (bit 13). Off is 0 as on QEMU's Q35, which is
/// what firmware was written for.
const PM1_SLEEP_TYPE_MASK: u8 = 0b111 << 2;
const PM1_SLEEP_ENABLE: u8 = 1 << 5;
const PM1_SLEEP_TYPE_OFF: u8 = 0;

impl Pm1Control {
    /// A register that reports to `power`.
    pub fn new(power: PowerSink) -> Self {
        Self { power }
    }
}

on_the_bus!(Pm1Control);

impl ByteRegisters for Pm1Control {
    const LEN: u8 = 2;

    fn read_byte(&self, _offset: u8) -> u8 {
        0
    }

    fn write_byte(&self, offset: u8, value: u8) {
        let off = value & PM1_SLEEP_ENABLE != 0 && value & PM1_SLEEP_TYPE_MASK == PM1_SLEEP_TYPE_OFF;
        if offset == 1 && off {
            (self.power)(PowerEvent::Shutdown);
        }
    }
}

/// Ticks of the timer in a second (ACPI 6.5 §4.8.2.1).
const PM_TIMER_HZ: u128 = 3_579_545;

/// The 32-bit power management timer. It stands still between saving and restoring.
pub struct PmTimer {
    clock: Arc<dyn Clock>,
    /// Added to the clock's ticks.
    offset: AtomicU32,
}

/// Saved state of [`PmTimer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmTimerState {
    /// The counter.
    pub ticks: u32,
}

impl State for PmTimerState {
    const KIND: &'static str = "pm-timer";
    const VERSION: u16 = 1;
}

impl PmTimer {
    /// A timer that counts from 0.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let timer = Self { clock, offset: AtomicU32::new(0) };
        timer.set(0);
        timer
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.set(0);
    }

    /// The state, complete. Time must stand still for the guest: called while it is paused.
    pub fn save(&self) -> Result<Record, StateError> {
        Record::write("", &PmTimerState { ticks: self.ticks() })
    }

    /// Takes over a saved state; the timer goes on from there at once.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: PmTimerState = record.read()?;
        self.set(state.ticks);
        Ok(())
    }

    fn ticks(&self) -> u32 {
        ticks(self.clock.monotonic()).wrapping_add(self.offset.load(Ordering::Relaxed))
    }

    fn set(&self, value: u32) {
        self.offset.store(value.wrapping_sub(ticks(self.clock.monotonic())), Ordering::Relaxed);
    }
}

/// `time` in ticks, as much of it as 32 bits hold.
#[expect(clippy::cast_possible_truncation, reason = "the counter wraps")]
fn ticks(time: Duration) -> u32 {
    (time.as_nanos() * PM_TIMER_HZ / 1_000_000_000) as u32
}

impl BusDevice for PmTimer {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let ticks = self.ticks().to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = start.checked_add(index).and_then(|at| ticks.get(at)).copied().unwrap_or(0xff);
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Events, TestClock, read_byte, survives_every_access, survives_every_mutation};
    use std::sync::atomic::AtomicUsize;

    fn device(events: &Events) -> (PowerManagement, Arc<AtomicUsize>) {
        let edges = Arc::new(AtomicUsize::new(0));
        let line = Arc::clone(&edges);
        let interrupt = Arc::new(move || {
            line.fetch_add(1, Ordering::SeqCst);
        });
        (PowerManagement::new(interrupt, events.sink()), edges)
    }

    #[test]
    fn the_power_button_is_seen_once() {
        let (device, edges) = device(&Events::default());
        assert_eq!(read_byte(&device, PowerManagement::EVENT_STATUS), 0);
        device.press_power_button();
        assert_eq!(edges.load(Ordering::SeqCst), 1);
        assert_eq!(read_byte(&device, PowerManagement::EVENT_STATUS), 8);
        assert_eq!(read_byte(&device, PowerManagement::EVENT_STATUS), 0);
    }

    #[test]
    fn only_s5_powers_off() {
        let events = Events::default();
        let (device, _edges) = device(&events);
        for harmless in [0x00, 5 << 2, 1 << 5, 1 << 5 | 3 << 2] {
            device.write(PowerManagement::SLEEP_CONTROL, &[harmless]);
        }
        device.write(PowerManagement::SLEEP_STATUS, &[0x34]);
        device.write(PowerManagement::EVENT_STATUS, &[0x34]);
        assert_eq!(events.take(), []);
        device.write(PowerManagement::SLEEP_CONTROL, &[0x34]);
        assert_eq!(events.take(), [PowerEvent::Shutdown]);
        survives_every_access(&device);
    }

    #[test]
    fn firmware_powers_off_by_pm1_control() {
        let events = Events::default();
        let device = Pm1Control::new(events.sink());
        device.write(0, &0x0000u16.to_le_bytes());
        device.write(0, &0x3C00u16.to_le_bytes());
        device.write(0, &[0x20]);
        assert_eq!(events.take(), []);
        device.write(0, &0x2000u16.to_le_bytes());
        assert_eq!(events.take(), [PowerEvent::Shutdown]);
        survives_every_access(&device);
    }

    #[test]
    fn an_unseen_press_survives_saving() {
        let (device, _edges) = device(&Events::default());
        device.press_power_button();
        let record = device.save().unwrap();
        let (other, edges) = self::device(&Events::default());
        other.restore(&record).unwrap();
        assert_eq!(edges.load(Ordering::SeqCst), 1);
        assert_eq!(other.save().unwrap(), record);
        survives_every_mutation(&record, |record| other.restore(record));
        assert!(other.restore(&Record::write("", &PowerManagementState { events: 1 }).unwrap()).is_err());
        other.reset();
        assert_eq!(read_byte(&other, PowerManagement::EVENT_STATUS), 0);
    }

    fn now(timer: &PmTimer) -> u32 {
        let mut data = [0; 4];
        timer.read(0, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_timer_counts_and_wraps() {
        let clock = TestClock::at(Duration::from_secs(1000));
        let timer = PmTimer::new(clock.clone());
        assert_eq!(now(&timer), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(now(&timer), 3_579_545);
        clock.advance(Duration::from_secs(1200));
        assert_eq!(u128::from(now(&timer)), (1201 * PM_TIMER_HZ) & 0xffff_ffff);
        assert_eq!(read_byte(&timer, 1), now(&timer).to_le_bytes()[1]);
        survives_every_access(&timer);
        timer.reset();
        assert_eq!(now(&timer), 0);
    }

    #[test]
    fn the_timer_goes_on_where_it_was_saved() {
        let clock = TestClock::at(Duration::from_secs(5));
        let timer = PmTimer::new(clock.clone());
        clock.advance(Duration::from_millis(1));
        let record = timer.save().unwrap();
        let later = PmTimer::new(TestClock::at(Duration::from_secs(99)));
        later.restore(&record).unwrap();
        assert_eq!(now(&later), 3579);
        assert_eq!(later.save().unwrap(), record);
        survives_every_mutation(&record, |record| later.restore(record));
    }
}
