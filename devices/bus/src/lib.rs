//! Port and memory buses: where a device meets the addresses a guest uses.
//!
//! A bus maps address ranges to devices and nothing more. Registers live behind the device's own small lock; the
//! bus never holds its lock while a device works, so a device may change the bus from within an access (a PCI BAR
//! that moves).
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod access;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use access::{read_from, value};

/// Something that answers reads and writes in a range of addresses.
///
/// Called from vCPU threads, several at once. `offset` is relative to the start of the range and `offset +
/// data.len()` may reach beyond its end: accesses of 1 to 8 bytes arrive at any alignment, exactly as the guest made
/// them. A device answers what it does not understand with all ones and never panics.
pub trait BusDevice: Send + Sync {
    /// Fills `data` with what the guest reads at `offset`.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes what the guest wrote at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A range that cannot be placed on a bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The range is empty or runs past the end of the address space.
    #[error("range {base:#x}+{len:#x} is empty or wraps around")]
    BadRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Another device answers there already.
    #[error("range {base:#x}+{len:#x} overlaps the device at {other:#x}")]
    Overlap {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
        /// First address of the device that is there.
        other: u64,
    },
}

struct Slot {
    last: u64,
    device: Arc<dyn BusDevice>,
}

/// One address space: the port space or the memory-mapped space.
#[derive(Default)]
pub struct Bus {
    slots: RwLock<BTreeMap<u64, Slot>>,
}

impl Bus {
    /// Places `device` at `base..base + len`.
    pub fn insert(&self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let last =
            len.checked_sub(1).and_then(|l| base.checked_add(l)).ok_or(BusError::BadRange { base, len })?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((&other, slot)) = slots.range(..=last).next_back()
            && slot.last >= base
        {
            return Err(BusError::Overlap { base, len, other });
        }
        slots.insert(base, Slot { last, device });
        Ok(())
    }

    /// Takes the device that starts at `base` away; says whether there was one.
    pub fn remove(&self, base: u64) -> bool {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(&base).is_some()
    }

    /// Reads at `address`. Where nobody answers, `data` is all ones and the result is false.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        match self.find(address) {
            Some((offset, device)) => {
                device.read(offset, data);
                true
            }
            None => {
                data.fill(0xff);
                false
            }
        }
    }

    /// Writes at `address`; says whether anybody answers there.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        match self.find(address) {
            Some((offset, device)) => {
                device.write(offset, data);
                true
            }
            None => false,
        }
    }

    fn find(&self, address: u64) -> Option<(u64, Arc<dyn BusDevice>)> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let (&base, slot) = slots.range(..=address).next_back()?;
        (address <= slot.last).then(|| (address.wrapping_sub(base), Arc::clone(&slot.device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Cell(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Cell {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    #[test]
    fn an_access_reaches_the_device_that_owns_the_address() {
        let bus = Bus::default();
        let cell = Arc::new(Cell::default());
        bus.insert(0x10, 8, cell.clone()).unwrap();
        let mut byte = [0];
        assert!(bus.read(0x17, &mut byte));
        assert_eq!(byte, [7]);
        assert!(bus.write(0x12, &[1, 2]));
        assert_eq!(*cell.0.lock().unwrap(), [(2, vec![1, 2])]);
    }

    #[test]
    fn nobody_there_reads_as_all_ones() {
        let bus = Bus::default();
        bus.insert(0x10, 8, Arc::new(Cell::default())).unwrap();
        for address in [0, 0xf, 0x18, u64::MAX] {
            let mut word = [0; 4];
            assert!(!bus.read(address, &mut word));
            assert_eq!(word, [0xff; 4]);
            assert!(!bus.write(address, &word));
        }
    }

    #[test]
    fn ranges_may_touch_but_not_overlap() {
        let bus = Bus::default();
        let cell = Arc::new(Cell::default());
        bus.insert(0x10, 8, cell.clone()).unwrap();
        bus.insert(0x18, 8, cell.clone()).unwrap();
        bus.insert(u64::MAX, 1, cell.clone()).unwrap();
        assert_eq!(bus.insert(0x8, 9, cell.clone()), Err(BusError::Overlap { base: 8, len: 9, other: 0x10 }));
        assert_eq!(
            bus.insert(0x1f, 1, cell.clone()),
            Err(BusError::Overlap { base: 0x1f, len: 1, other: 0x18 })
        );
        assert!(matches!(bus.insert(5, 0, cell.clone()), Err(BusError::BadRange { .. })));
        assert!(matches!(bus.insert(5, u64::MAX, cell.clone()), Err(BusError::BadRange { .. })));
        assert!(bus.remove(0x10));
        assert!(!bus.remove(0x10));
        bus.insert(0x10, 8, cell).unwrap();
    }
}
