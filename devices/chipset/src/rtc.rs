//! The real-time clock with its non-volatile memory (MC146818A data sheet; registers as the PC has them).
//!
//! The clock is the host's plus an offset, so it keeps time whatever happens to the guest; setting it changes the
//! offset. There are no alarms and no periodic interrupts: the ACPI tables give the device no interrupt.

mod calendar;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use self::calendar::Date;
use crate::Clock;
use crate::registers::{ByteRegisters, on_the_bus};

/// Bytes of non-volatile memory, registers included.
const RAM_BYTES: usize = 128;
/// Bits of the index port that select a byte; the highest masks NMI on a PC.
const INDEX_MASK: u8 = 0x7f;
/// Offsets of a saved clock beyond this many seconds (some 30,000 years) are refused.
const OFFSET_MAX_SECONDS: i64 = 1 << 40;

/// Registers of the time of day.
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
/// Where the PC keeps the century; the FADT says so.
const CENTURY: u8 = 0x32;
/// Control and status registers.
const REGISTER_A: u8 = 0x0A;
const REGISTER_B: u8 = 0x0B;
const REGISTER_C: u8 = 0x0C;
const REGISTER_D: u8 = 0x0D;

/// Register A: an update is about to change the time of day.
const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register A at power-on: 32768 Hz time base, 1024 Hz rate.
const A_DEFAULT: u8 = 0x26;
/// Register B: the time of day stands still for being set; binary instead of BCD; 24 instead of 12 hours.
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
/// Register D: the memory has had power all the time.
const D_VALID: u8 = 1 << 7;
/// Hours in 12-hour mode: afternoon.
const PM: u8 = 1 << 7;
/// How long before a change of the second "update in progress" shows: 244 µs of warning and 1984 µs of update.
const UPDATE_TIME: Duration = Duration::from_micros(244 + 1984);

/// What firmware learns of its machine from the non-volatile memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// RAM below 4 GiB in bytes.
    pub low: u64,
    /// RAM above 4 GiB in bytes.
    pub high: u64,
    /// Processors.
    pub processors: u32,
}

/// The device.
pub struct Rtc {
    clock: Arc<dyn Clock>,
    inventory: Inventory,
    inner: Mutex<Inner>,
}

struct Inner {
    index: u8,
    /// Seconds added to the host's time.
    offset: i64,
    ram: [u8; RAM_BYTES],
}

/// Saved state of [`Rtc`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    /// The selected byte.
    pub index: u8,
    /// Seconds added to UTC.
    pub offset_seconds: i64,
    /// Non-volatile memory and registers, 128 bytes.
    pub ram: Vec<u8>,
}

impl State for RtcState {
    const KIND: &'static str = "rtc";
    const VERSION: u16 = 1;
}

impl Rtc {
    /// A clock that shows `clock`'s time plus `offset_seconds`, and tells firmware of `inventory`.
    pub fn new(clock: Arc<dyn Clock>, offset_seconds: i64, inventory: Inventory) -> Self {
        let offset = offset_seconds.clamp(-OFFSET_MAX_SECONDS, OFFSET_MAX_SECONDS);
        Self { clock, inventory, inner: Mutex::new(Inner { index: 0, offset, ram: initial_ram(inventory) }) }
    }

    /// Machine reset. The battery keeps time and memory; only control registers and the inventory start afresh.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.index = 0;
        let fresh = initial_ram(self.inventory);
        for register in [REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D] {
            inner.put(register, byte_of(&fresh, register));
        }
        for (register, value) in inventory_registers(self.inventory) {
            inner.put(register, value);
        }
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        let inner = self.lock();
        let state = RtcState { index: inner.index, offset_seconds: inner.offset, ram: inner.ram.to_vec() };
        Record::write("", &state)
    }

    /// Takes over a saved state.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: RtcState = record.read()?;
        let invalid = |reason: String| StateError::Invalid { kind: RtcState::KIND, reason };
        if state.index & !INDEX_MASK != 0 {
            return Err(invalid(format!("index {:#x} is out of range", state.index)));
        }
        if state.offset_seconds.unsigned_abs() > OFFSET_MAX_SECONDS.unsigned_abs() {
            return Err(invalid(format!("an offset of {} seconds", state.offset_seconds)));
        }
        let ram = <[u8; RAM_BYTES]>::try_from(state.ram.as_slice())
            .map_err(|_| invalid(format!("memory of {} bytes instead of {RAM_BYTES}", state.ram.len())))?;
        *self.lock() = Inner { index: state.index, offset: state.offset_seconds, ram };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn get(&self, register: u8) -> u8 {
        byte_of(&self.ram, register)
    }

    fn put(&mut self, register: u8, value: u8) {
        if let Some(byte) = self.ram.get_mut(usize::from(register)) {
            *byte = value;
        }
    }

    fn stands_still(&self) -> bool {
        self.get(REGISTER_B) & B_SET != 0
    }

    fn read(&self, now: Duration) -> u8 {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY if !self.stands_still() => {
                self.time_register(self.index, self.date(now))
            }
            REGISTER_A if !self.stands_still() => {
                let left =
                    Duration::from_secs(1).saturating_sub(Duration::from_nanos(now.subsec_nanos().into()));
                let updating = if left <= UPDATE_TIME { A_UPDATE_IN_PROGRESS } else { 0 };
                self.get(REGISTER_A) | updating
            }
            index => self.get(index),
        }
    }

    fn write(&mut self, value: u8, now: Duration) {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                let running = !self.stands_still();
                if running {
                    self.latch(now);
                }
                self.put(self.index, value);
                if running {
                    self.commit(now);
                }
            }
            REGISTER_A => self.put(REGISTER_A, value & !A_UPDATE_IN_PROGRESS),
            REGISTER_B => {
                let before = self.stands_still();
                if !before && value & B_SET != 0 {
                    self.latch(now);
                }
                self.put(REGISTER_B, value);
                if before && value & B_SET == 0 {
                    self.commit(now);
                }
            }
            REGISTER_C | REGISTER_D => {}
            index => self.put(index, value),
        }
    }

    fn date(&self, now: Duration) -> Date {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        Date::from_unix(seconds.saturating_add(self.offset))
    }

    /// Puts the time of day into its registers.
    fn latch(&mut self, now: Duration) {
        let date = self.date(now);
        for register in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            let value = self.time_register(register, date);
            self.put(register, value);
        }
    }

    /// Takes the time of day from its registers. One that cannot be changes nothing.
    fn commit(&mut self, now: Duration) {
        let Some(date) = self.registers_date() else { return };
        let host = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.offset = date.to_unix().saturating_sub(host).clamp(-OFFSET_MAX_SECONDS, OFFSET_MAX_SECONDS);
    }

    fn time_register(&self, register: u8, date: Date) -> u8 {
        let mode = self.get(REGISTER_B);
        match register {
            SECONDS => encode(date.second, mode),
            MINUTES => encode(date.minute, mode),
            HOURS if mode & B_24_HOURS != 0 => encode(date.hour, mode),
            HOURS => {
                let afternoon = if date.hour >= 12 { PM } else { 0 };
                encode((date.hour + 11) % 12 + 1, mode) | afternoon
            }
            WEEKDAY => encode(date.weekday(), mode),
            DAY => encode(date.day, mode),
            MONTH => encode(date.month, mode),
            YEAR => encode(date.year_of_century(), mode),
            _ => encode(date.century(), mode),
        }
    }

    fn registers_date(&self) -> Option<Date> {
        let mode = self.get(REGISTER_B);
        let field = |register| decode(self.get(register), mode);
        let hour = if mode & B_24_HOURS != 0 {
            field(HOURS)?
        } else {
            let raw = self.get(HOURS);
            let hour = decode(raw & !PM, mode).filter(|h| (1..=12).contains(h))?;
            hour % 12 + if raw & PM != 0 { 12 } else { 0 }
        };
        let year = i64::from(field(CENTURY)?) * 100 + i64::from(field(YEAR)?);
        Date {
            year,
            month: field(MONTH)?,
            day: field(DAY)?,
            hour,
            minute: field(MINUTES)?,
            second: field(SECONDS)?,
        }
        .checked()
    }
}

on_the_bus!(Rtc);

impl ByteRegisters for Rtc {
    const LEN: u8 = 2;

    fn read_byte(&self, offset: u8) -> u8 {
        // The index port cannot be read.
        if offset == 0 { 0xff } else { self.lock().read(self.clock.wall()) }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        if offset == 0 {
            self.lock().index = value & INDEX_MASK;
        } else {
            self.lock().write(value, self.clock.wall());
        }
    }
}

/// `value`, below 100, as a register of this mode shows it.
fn encode(value: u8, mode: u8) -> u8 {
    if mode & B_BINARY != 0 { value } else { value / 10 % 10 * 16 + value % 10 }
}

/// The inverse of [`encode`].
fn decode(value: u8, mode: u8) -> Option<u8> {
    if mode & B_BINARY != 0 {
        Some(value)
    } else {
        (value >> 4 < 10 && value & 15 < 10).then(|| (value >> 4) * 10 + (value & 15))
    }
}

fn byte_of(ram: &[u8; RAM_BYTES], register: u8) -> u8 {
    ram.get(usize::from(register)).copied().unwrap_or(0xff)
}

fn initial_ram(inventory: Inventory) -> [u8; RAM_BYTES] {
    let mut ram = [0; RAM_BYTES];
    let registers = [(REGISTER_A, A_DEFAULT), (REGISTER_B, B_24_HOURS), (REGISTER_D, D_VALID)];
    for (register, value) in registers.into_iter().chain(inventory_registers(inventory)) {
        if let Some(byte) = ram.get_mut(usize::from(register)) {
            *byte = value;
        }
    }
    ram
}

/// Where firmware looks (SeaBIOS `src/hw/rtc.h`): processors beside the first (0x5F), and memory sizes: base memory in KiB (0x15), memory above 1 MiB in KiB (0x17, again 0x30),
/// above 16 MiB in 64 KiB (0x34) and above 4 GiB in 64 KiB (0x5B, three bytes). Each saturates.
fn inventory_registers(inventory: Inventory) -> [(u8, u8); 12] {
    const BASE_KIB: u16 = 640;
    let units = |bytes: u64, above: u64, unit: u64| bytes.saturating_sub(above) / unit;
    let word = |value: u64| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
    let [base_low, base_high] = BASE_KIB.to_le_bytes();
    let [ext_low, ext_high] = word(units(inventory.low, 1 << 20, 1 << 10));
    let [mid_low, mid_high] = word(units(inventory.low, 16 << 20, 64 << 10));
    let high = u32::try_from(units(inventory.high, 0, 64 << 10)).unwrap_or(u32::MAX).min(0xff_ffff);
    let [high_0, high_1, high_2, _] = high.to_le_bytes();
    [
        (0x15, base_low),
        (0x16, base_high),
        (0x17, ext_low),
        (0x18, ext_high),
        (0x30, ext_low),
        (0x31, ext_high),
        (0x34, mid_low),
        (0x35, mid_high),
        (0x5B, high_0),
        (0x5C, high_1),
        (0x5D, high_2),
        (0x5F, u8::try_from(inventory.processors.saturating_sub(1)).unwrap_or(u8::MAX)),
    ]
}

#[cfg(test)]
mod tests;
