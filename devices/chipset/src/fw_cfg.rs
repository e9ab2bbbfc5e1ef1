//! fw_cfg: how stock firmware is told of its machine (QEMU `docs/specs/fw_cfg.rst`).
//!
//! Numbered items of bytes, and above them files that a directory names. Firmware selects one and reads it, byte by
//! byte through the data port or by a descriptor in its memory (DMA). Few items can be written ([`Held`]), by a descriptor
//! only. What a descriptor asks for is bounded; one that cannot be carried out is a fault: it is counted, and the
//! descriptor says so where it can be reached.

mod items;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_bus::{BusDevice, value};
use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

pub use items::{Content, FileName, Held, Items, NameTooLong};

/// Offsets: selector (16 bits, write-only), data (a byte), address of a descriptor (64 bits, big-endian; the low half
/// starts the transfer).
const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
/// What the address register reads as: "QEMU CFG".
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Bit of a selector that asks to write through the data port, which nobody may.
const WRITE_CHANNEL: u16 = 1 << 14;

/// `struct FWCfgDmaAccess`: control, length and address, big-endian.
const DESCRIPTOR_BYTES: usize = 16;
const CONTROL_ERROR: u32 = 1 << 0;
const CONTROL_READ: u32 = 1 << 1;
const CONTROL_SKIP: u32 = 1 << 2;
const CONTROL_SELECT: u32 = 1 << 3;
const CONTROL_WRITE: u32 = 1 << 4;
/// The most that one descriptor may move, in bytes: no item is nearly as long, and a vCPU is busy meanwhile.
pub const TRANSFER_MAX_BYTES: u32 = 16 << 20;
/// Beyond an item's end there are zeros, written in pieces of this many bytes.
const ZERO_BYTES: usize = 4096;

/// Guest memory, as far as fw_cfg needs it.
pub trait DmaMemory: Send + Sync {
    /// Fills `data` from guest-physical `address`; false when not all of it is RAM.
    fn read(&self, address: u64, data: &mut [u8]) -> bool;
    /// Writes `data` to guest-physical `address`; false when not all of it is RAM.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

/// The device.
pub struct FwCfg {
    items: Items,
    memory: Arc<dyn DmaMemory>,
    inner: Mutex<Inner>,
    faults: AtomicU64,
}

struct Inner {
    key: u16,
    /// The bytes of the selected item; none when there is no such item.
    selected: Option<Arc<[u8]>>,
    offset: usize,
    dma_high: u32,
}

/// Saved state of [`FwCfg`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    /// The selected item.
    pub key: u16,
    /// How far it has been read, in bytes.
    pub offset: u32,
    /// Upper half of the next descriptor's address.
    pub dma_high: u32,
}

impl State for FwCfgState {
    const KIND: &'static str = "fw-cfg";
    const VERSION: u16 = 1;
}

/// A descriptor, as the guest wrote it.
struct Descriptor {
    control: u32,
    length: u32,
    address: u64,
}

impl Descriptor {
    fn parse(bytes: [u8; DESCRIPTOR_BYTES]) -> Self {
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = bytes;
        Self {
            control: u32::from_be_bytes([c0, c1, c2, c3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
            address: u64::from_be_bytes(address),
        }
    }
}

impl FwCfg {
    /// A device that shows `items` and moves them through `memory`.
    pub fn new(items: Items, memory: Arc<dyn DmaMemory>) -> Self {
        let inner = Inner { key: 0, selected: items.get(0), offset: 0, dma_high: 0 };
        Self { items, memory, inner: Mutex::new(inner), faults: AtomicU64::new(0) }
    }

    /// Descriptors that could not be carried out.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Back to power-on.
    pub fn reset(&self) {
        let mut inner = self.lock();
        self.select(&mut inner, 0);
        inner.dma_high = 0;
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        let inner = self.lock();
        let offset = u32::try_from(inner.offset).unwrap_or(u32::MAX);
        Record::write("", &FwCfgState { key: inner.key, offset, dma_high: inner.dma_high })
    }

    /// Takes over a saved state.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: FwCfgState = record.read()?;
        let mut inner = self.lock();
        self.select(&mut inner, state.key);
        // An offset beyond the item reads as zeros, as it would have.
        inner.offset = usize::try_from(state.offset).unwrap_or(usize::MAX);
        inner.dma_high = state.dma_high;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn select(&self, inner: &mut Inner, key: u16) {
        inner.key = key & !WRITE_CHANNEL;
        inner.selected = self.items.get(inner.key);
        inner.offset = 0;
    }

    /// Carries out the descriptor at `address`.
    fn transfer(&self, inner: &mut Inner, address: u64) {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        if !self.memory.read(address, &mut bytes) {
            self.faults.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let done = self.carry_out(inner, &Descriptor::parse(bytes));
        let status = if done { 0 } else { CONTROL_ERROR };
        // Where it was read from it can be written to, unless it is the guest's own doing.
        if !self.memory.write(address, &status.to_be_bytes()) || !done {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn carry_out(&self, inner: &mut Inner, descriptor: &Descriptor) -> bool {
        let Descriptor { control, length, address } = *descriptor;
        if control & CONTROL_SELECT != 0 {
            let [high, low, _, _] = control.to_be_bytes();
            self.select(inner, u16::from_be_bytes([high, low]));
        }
        if control & (CONTROL_READ | CONTROL_SKIP | CONTROL_WRITE) == 0 || length == 0 {
            return true;
        }
        let Ok(len) = usize::try_from(length) else { return false };
        if length > TRANSFER_MAX_BYTES {
            return false;
        }
        let moved = if control & CONTROL_READ != 0 {
            self.read_out(inner, address, len)
        } else {
            control & CONTROL_WRITE == 0 || self.write_in(inner, address, len)
        };
        inner.offset = inner.offset.saturating_add(len);
        moved
    }

    /// Moves `len` bytes of the selected item to guest memory at `address`; beyond its end, zeros.
    fn read_out(&self, inner: &Inner, address: u64, len: usize) -> bool {
        let item = inner.selected.as_deref().unwrap_or(&[]);
        let rest = item.get(inner.offset..).unwrap_or(&[]);
        let there = rest.get(..len).unwrap_or(rest);
        if !self.memory.write(address, there) {
            return false;
        }
        let mut done = there.len();
        while done < len {
            let zeros = [0; ZERO_BYTES];
            let piece = zeros.get(..len.saturating_sub(done)).unwrap_or(&zeros);
            let at = u64::try_from(done).ok().and_then(|done| address.checked_add(done));
            if !at.is_some_and(|at| self.memory.write(at, piece)) {
                return false;
            }
            done = done.saturating_add(piece.len());
        }
        true
    }
}

impl FwCfg {
    /// Moves `len` bytes at guest memory `address` into the selected item, where it takes them.
    fn write_in(&self, inner: &mut Inner, address: u64, len: usize) -> bool {
        let Some((item_len, held)) = self.items.held(inner.key) else { return false };
        if inner.offset.checked_add(len).is_none_or(|end| end > item_len) {
            return false;
        }
        let mut data = vec![0; len];
        let written = self.memory.read(address, &mut data) && held.write(inner.offset, &data);
        if written {
            inner.selected = self.items.get(inner.key);
        }
        written
    }
}

impl Inner {
    fn next_byte(&mut self) -> u8 {
        let byte = self.selected.as_deref().and_then(|item| item.get(self.offset)).copied();
        self.offset = self.offset.saturating_add(1);
        byte.unwrap_or(0)
    }
}

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (SELECTOR | DATA, [byte]) => *byte = self.lock().next_byte(),
            (DMA_HIGH.., data) => {
                let signature = DMA_SIGNATURE.to_be_bytes();
                let start = usize::try_from(offset.saturating_sub(DMA_HIGH)).unwrap_or(usize::MAX);
                for (index, byte) in data.iter_mut().enumerate() {
                    *byte =
                        start.checked_add(index).and_then(|at| signature.get(at)).copied().unwrap_or(0xff);
                }
            }
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut inner = self.lock();
        match (offset, data) {
            (SELECTOR, [low, high]) => self.select(&mut inner, u16::from_le_bytes([*low, *high])),
            (DMA_HIGH, [a, b, c, d]) => inner.dma_high = u32::from_be_bytes([*a, *b, *c, *d]),
            (DMA_LOW, [a, b, c, d]) => {
                let low = u32::from_be_bytes([*a, *b, *c, *d]);
                let address = u64::from(inner.dma_high) << 32 | u64::from(low);
                inner.dma_high = 0;
                self.transfer(&mut inner, address);
            }
            (DMA_HIGH, data) if data.len() == 8 => {
                self.transfer(&mut inner, value(data).swap_bytes());
            }
            _ => {}
        }
    }
}
