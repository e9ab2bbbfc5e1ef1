//! ACPI power management: the power button, sleep states, and the timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
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

/// The PM1 registers (ACPI 6.5 §4.8.3.1, §4.8.3.2) of a machine whose fixed events never come: status is zero, enable only
/// remembers, and control is "ACPI is on" and "go to sleep".
pub struct Pm1 {
    enable: AtomicU16,
    power: PowerSink,
}

/// Offsets: two bytes of status, of enable, of control.
const PM1_ENABLE: u8 = 2;
const PM1_CONTROL: u8 = 4;
/// What can be enabled: timer, global lock, power button, sleep button, clock.
const PM1_EVENTS: u16 = 1 << 0 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10;
/// Low byte of control: the machine is in ACPI mode.
const PM1_SCI_ENABLE: u8 = 1;
/// High byte of control: the state to enter (bits 10 to 12), and go (bit 13).
const PM1_SLEEP_TYPE_SHIFT: u32 = 2;
const PM1_SLEEP_ENABLE: u8 = 1 << 5;
/// What QEMU's Q35 takes for off: UEFI firmware powers off by it without a look at the tables (OVMF `ResetSystemLib`).
const PM1_SLEEP_TYPE_FIRMWARE_OFF: u8 = 0;

/// Saved state of [`Pm1`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pm1State {
    /// The enable register.
    pub enable: u16,
}

impl State for Pm1State {
    const KIND: &'static str = "pm1";
    const VERSION: u16 = 1;
}

impl Pm1 {
    /// Offset of the control register.
    pub const CONTROL: u64 = PM1_CONTROL as u64;

    /// Registers that report to `power`.
    pub fn new(power: PowerSink) -> Self {
        Self { enable: AtomicU16::new(0), power }
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.enable.store(0, Ordering::Relaxed);
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        Record::write("", &Pm1State { enable: self.enable.load(Ordering::Relaxed) })
    }

    /// Takes over a saved state.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: Pm1State = record.read()?;
        if state.enable & !PM1_EVENTS != 0 {
            let reason = format!("enable register {:#x} has bits that do not exist", state.enable);
            return Err(StateError::Invalid { kind: Pm1State::KIND, reason });
        }
        self.enable.store(state.enable, Ordering::Relaxed);
        Ok(())
    }

    /// Puts `value` into one byte of the enable register.
    fn enable(&self, high: bool, value: u8) {
        let change = |before: u16| {
            let [low_byte, high_byte] = before.to_le_bytes();
            let bytes = if high { [low_byte, value] } else { [value, high_byte] };
            Some(u16::from_le_bytes(bytes) & PM1_EVENTS)
        };
        // It cannot fail: `change` always has a value.
        let _ = self.enable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

on_the_bus!(Pm1);

impl ByteRegisters for Pm1 {
    const LEN: u8 = 6;

    fn read_byte(&self, offset: u8) -> u8 {
        let [low, high] = self.enable.load(Ordering::Relaxed).to_le_bytes();
        match offset {
            PM1_ENABLE => low,
            3 => high,
            PM1_CONTROL => PM1_SCI_ENABLE,
            _ => 0,
        }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        match offset {
            PM1_ENABLE => self.enable(false, value),
            3 => self.enable(true, value),
            5 => {
                let kind = value >> PM1_SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                let off = matches!(kind, SLEEP_TYPE_S5 | PM1_SLEEP_TYPE_FIRMWARE_OFF);
                if value & PM1_SLEEP_ENABLE != 0 && off {
                    (self.power)(PowerEvent::Shutdown);
                }
            }
            _ => {}
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
    fn firmware_and_kernels_power_off_by_pm1_control() {
        let events = Events::default();
        let device = Pm1::new(events.sink());
        let control = |value: u16| device.write(Pm1::CONTROL, &value.to_le_bytes());
        [0x0000, 0x1401, 0x2c00, 0x3c00].into_iter().for_each(control);
        device.write(Pm1::CONTROL, &[0x34]);
        device.write(0, &[0x34; 4]);
        assert_eq!(events.take(), []);
        control(0x2000);
        control(0x3401);
        assert_eq!(events.take(), [PowerEvent::Shutdown; 2]);
        survives_every_access(&device);
    }

    #[test]
    fn fixed_events_are_enabled_and_never_come() {
        let device = Pm1::new(Events::default().sink());
        device.write(0, &[0xff; 4]);
        let registers = |device: &Pm1| {
            let mut registers = [0xAA; 6];
            device.read(0, &mut registers);
            registers
        };
        assert_eq!(registers(&device), [0, 0, 0x21, 0x07, 1, 0]);
        let record = device.save().unwrap();
        let other = Pm1::new(Events::default().sink());
        other.restore(&record).unwrap();
        assert_eq!(registers(&other), registers(&device));
        survives_every_mutation(&record, |record| other.restore(record));
        assert!(other.restore(&Record::write("", &Pm1State { enable: 2 }).unwrap()).is_err());
        device.reset();
        assert_eq!(registers(&device), [0, 0, 0, 0, 1, 0]);
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
