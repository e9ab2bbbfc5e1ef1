//! The flash chip that UEFI firmware keeps its variables in: the basic command set of Intel's CFI chips (Intel order
//! number 290667, "3 Volt Intel StrataFlash Memory", §4), a byte wide, as OVMF's `QemuFlashFvbServicesRuntimeDxe` uses
//! it. There is no CFI query and no buffered write.
//!
//! In array mode the guest reads the chip's memory without us: the host maps it read-only ([`FlashMemory::show`]), so
//! only writes arrive here. Any command ends that, so that the guest's next read arrives here as well, until "read
//! array" brings it back.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_bus::BusDevice;
use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

/// What is erased at once, in bytes.
pub const BLOCK_BYTES: u64 = 4096;

const READ_ARRAY: u8 = 0xFF;
const READ_IDENTIFIERS: u8 = 0x90;
const READ_STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const PROGRAM: [u8; 2] = [0x10, 0x40];
const ERASE: u8 = 0x20;
const ERASE_CONFIRM: u8 = 0xD0;

/// Status register: ready; erase failed; program failed. The chip is never seen busy. On the chip "ready" stays when the
/// register is cleared; here it goes as well, and comes with the next program or erase, as on QEMU's `pflash_cfi01`: by the
/// zero OVMF recognises that it has flash.
const STATUS_CLEARED: u8 = 0;
const STATUS_READY: u8 = 1 << 7;
const STATUS_ERASE_ERROR: u8 = 1 << 5;
const STATUS_PROGRAM_ERROR: u8 = 1 << 4;
const STATUS_ERRORS: u8 = STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;

/// Manufacturer and device that the chip says it is: Intel, 8 Mbit.
const IDENTIFIERS: [u8; 2] = [0x89, 0x15];
/// What an erased byte reads as.
const ERASED: u8 = 0xFF;

/// The memory of a chip, and what keeps it.
pub trait FlashMemory: Send + Sync {
    /// Size in bytes, a multiple of [`BLOCK_BYTES`].
    fn len_bytes(&self) -> u64;
    /// Fills `data` from `offset`; all inside the chip.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Puts `data` at `offset`; all inside the chip. The guest sees it at once; an error says that it will be lost.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Whether the guest reads the memory by itself from now on. Writes go to the device either way.
    fn show(&self, shown: bool);
}

/// The chip.
pub struct Flash {
    memory: Arc<dyn FlashMemory>,
    inner: Mutex<Inner>,
    failures: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Array,
    Identifiers,
    Status,
    /// The next write is the byte to program.
    Program,
    /// The next write confirms that the block is to be erased.
    Erase,
}

struct Inner {
    mode: Mode,
    status: u8,
}

/// Saved state of [`Flash`]; its memory is saved apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashState {
    /// 0 array, 1 identifiers, 2 status, 3 program, 4 erase.
    pub mode: u8,
    /// The status register.
    pub status: u8,
}

impl State for FlashState {
    const KIND: &'static str = "flash";
    const VERSION: u16 = 1;
}

/// All modes, by the numbers of [`FlashState`].
const MODES: [Mode; 5] = [Mode::Array, Mode::Identifiers, Mode::Status, Mode::Program, Mode::Erase];

impl Flash {
    /// A chip with `memory`, in array mode.
    pub fn new(memory: Arc<dyn FlashMemory>) -> Self {
        let inner = Mutex::new(Inner { mode: Mode::Array, status: STATUS_READY });
        Self { memory, inner, failures: AtomicU64::new(0) }
    }

    /// Writes that the host could not keep.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Back to power-on; what is in the chip stays.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.status = STATUS_READY;
        self.enter(&mut inner, Mode::Array);
    }

    /// The state, complete but for the chip's memory.
    pub fn save(&self) -> Result<Record, StateError> {
        let inner = self.lock();
        let mode = (0u8..).zip(MODES).find(|(_, mode)| *mode == inner.mode).map_or(0, |(number, _)| number);
        Record::write("", &FlashState { mode, status: inner.status })
    }

    /// Takes over a saved state.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: FlashState = record.read()?;
        let invalid = |reason: String| StateError::Invalid { kind: FlashState::KIND, reason };
        let mode = MODES.get(usize::from(state.mode)).copied();
        let mode = mode.ok_or_else(|| invalid(format!("mode {}", state.mode)))?;
        if state.status & !(STATUS_READY | STATUS_ERRORS) != 0 {
            return Err(invalid(format!("status {:#x}", state.status)));
        }
        let mut inner = self.lock();
        inner.status = state.status;
        self.enter(&mut inner, mode);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, inner: &mut Inner, mode: Mode) {
        let (before, now) = (inner.mode == Mode::Array, mode == Mode::Array);
        inner.mode = mode;
        if before != now {
            self.memory.show(now);
        }
    }

    /// Takes one byte written at `offset`, inside the chip.
    fn write_byte(&self, inner: &mut Inner, offset: u64, value: u8) {
        let next = match inner.mode {
            Mode::Program => {
                self.program(inner, offset, value);
                Mode::Status
            }
            Mode::Erase => {
                // Anything but the confirmation is a command sequence error (§4.5).
                inner.status |= STATUS_READY;
                if value == ERASE_CONFIRM {
                    self.erase(inner, offset);
                } else {
                    inner.status |= STATUS_ERRORS;
                }
                Mode::Status
            }
            _ => match value {
                READ_ARRAY => Mode::Array,
                READ_IDENTIFIERS => Mode::Identifiers,
                READ_STATUS => Mode::Status,
                CLEAR_STATUS => {
                    inner.status = STATUS_CLEARED;
                    Mode::Array
                }
                ERASE => Mode::Erase,
                command if PROGRAM.contains(&command) => Mode::Program,
                _ => Mode::Array,
            },
        };
        self.enter(inner, next);
    }

    /// Programming only takes bits away.
    fn program(&self, inner: &mut Inner, offset: u64, value: u8) {
        inner.status |= STATUS_READY;
        let mut byte = [0];
        self.memory.read(offset, &mut byte);
        let [before] = byte;
        self.keep(inner, offset, &[before & value], STATUS_PROGRAM_ERROR);
    }

    fn erase(&self, inner: &mut Inner, offset: u64) {
        let block = offset / BLOCK_BYTES * BLOCK_BYTES;
        let erased = vec![ERASED; usize::try_from(BLOCK_BYTES).unwrap_or(0)];
        self.keep(inner, block, &erased, STATUS_ERASE_ERROR);
    }

    fn read_array(&self, offset: u64, data: &mut [u8]) {
        let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if offset.checked_add(len).is_some_and(|end| end <= self.memory.len_bytes()) {
            self.memory.read(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    fn keep(&self, inner: &mut Inner, offset: u64, data: &[u8], error: u8) {
        if self.memory.write(offset, data).is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            inner.status |= error;
        }
    }
}

impl BusDevice for Flash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let inner = self.lock();
        match inner.mode {
            Mode::Array => self.read_array(offset, data),
            Mode::Identifiers => {
                let identifiers = IDENTIFIERS.into_iter().cycle().skip(usize::from(offset % 2 == 1));
                for (byte, identifier) in data.iter_mut().zip(identifiers) {
                    *byte = identifier;
                }
            }
            Mode::Status | Mode::Program | Mode::Erase => data.fill(inner.status),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut inner = self.lock();
        for (value, at) in data.iter().zip(offset..self.memory.len_bytes()) {
            self.write_byte(&mut inner, at, *value);
        }
    }
}

/// A chip as whoever is not in system management mode sees it: its array, which is only read. What is written there is
/// dropped and counted. A command that is being carried out meanwhile is neither seen nor disturbed.
pub struct GuardedFlash {
    flash: Arc<Flash>,
    refused: AtomicU64,
}

impl GuardedFlash {
    /// The outside of `flash`.
    pub fn new(flash: Arc<Flash>) -> Self {
        Self { flash, refused: AtomicU64::new(0) }
    }

    /// Writes that were dropped.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl BusDevice for GuardedFlash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.flash.read_array(offset, data);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
