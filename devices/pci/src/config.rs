//! The configuration space of one function: a type 0 header, BARs and the capability list (PCI 3.0 §6).
//!
//! Every byte has a value and a mask of the bits that the guest may change; size probing of a BAR, read-only
//! registers and reserved bits all follow from the masks.

use orlop_bus::{read_from, value};
use orlop_state::StateError;
use serde::{Deserialize, Serialize};

use crate::BarMove;

/// Size of the configuration space that functions fill, in bytes; the extended space above reads zero.
pub const CONFIG_BYTES: usize = 256;
/// Offset of the command register (PCI 3.0 §6.2.2).
pub const COMMAND: u16 = 0x04;
/// Command register: memory BARs answer.
pub const COMMAND_MEMORY: u16 = 1 << 1;

const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const BAR0: usize = 0x10;
const BAR_COUNT: usize = 6;
const BAR_64_BIT: u32 = 0b100;
const CAPABILITIES: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;
/// Memory enable, bus master, parity response, SERR and INTx disable may be changed (PCI 3.0 §6.2.2).
const COMMAND_WRITABLE: u16 = 0x0546;

/// Identification of a function (PCI 3.0 §6.2.1).
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// A configuration space that cannot be laid out: an error of the device's author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The BAR's number, length or address cannot be.
    #[error("BAR {bar} of {len:#x} bytes at {address:#x} is impossible or taken")]
    Bar {
        /// Which BAR.
        bar: u8,
        /// Length in bytes.
        len: u64,
        /// Address at power-on.
        address: u64,
    },
    /// The capabilities do not fit below 256 bytes.
    #[error("a capability of {len} bytes does not fit")]
    Capability {
        /// Its length in bytes, with its two bytes of header.
        len: usize,
    },
    /// More or fewer MSI-X vectors than the specification allows.
    #[error("{count} MSI-X vectors are not 1 to 2048")]
    Vectors {
        /// How many were asked for.
        count: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    len: u64,
    wide: bool,
}

/// What the guest may have changed in a [`ConfigSpace`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState {
    /// All [`CONFIG_BYTES`] bytes.
    pub bytes: Vec<u8>,
}

/// The configuration space of one function.
pub struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    power_on: [u8; CONFIG_BYTES],
    bars: [Option<Bar>; BAR_COUNT],
    next_capability: usize,
    last_capability: usize,
}

impl ConfigSpace {
    /// A function without BARs or capabilities. It has no interrupt pin: interrupts are message-signalled.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            power_on: [0; CONFIG_BYTES],
            bars: [None; BAR_COUNT],
            next_capability: FIRST_CAPABILITY,
            last_capability: 0,
        };
        let [base, sub, interface] = identity.class;
        space.set(0x00, &identity.vendor.to_le_bytes(), &[]);
        space.set(0x02, &identity.device.to_le_bytes(), &[]);
        space.set(usize::from(COMMAND), &[0, 0], &COMMAND_WRITABLE.to_le_bytes());
        space.set(0x08, &[identity.revision, interface, sub, base], &[]);
        space.set(0x0c, &[0], &[0xff]); // cache line size: a scratch register
        space.set(0x2c, &identity.subsystem_vendor.to_le_bytes(), &[]);
        space.set(0x2e, &identity.subsystem.to_le_bytes(), &[]);
        space.set(0x3c, &[0xff], &[0xff]); // interrupt line: not connected
        space
    }

    /// Sets bytes and the bits of them that the guest may change, as they are after power-on. What lies beyond the
    /// space is left out; bytes without a mask are read-only.
    pub fn set(&mut self, offset: usize, bytes: &[u8], writable: &[u8]) {
        let masks = writable.iter().copied().chain(std::iter::repeat(0));
        for ((at, byte), mask) in (offset..).zip(bytes).zip(masks) {
            for (space, new) in
                [(&mut self.bytes, *byte), (&mut self.power_on, *byte), (&mut self.writable, mask)]
            {
                if let Some(place) = space.get_mut(at) {
                    *place = new;
                }
            }
        }
    }

    /// Adds a 32-bit memory BAR of `len` bytes at `address`.
    pub fn add_bar32(&mut self, bar: u8, len: u64, address: u64) -> Result<(), LayoutError> {
        self.add_bar(bar, len, address, false)
    }

    /// Adds a 64-bit memory BAR of `len` bytes at `address`; it takes the next BAR register, too.
    pub fn add_bar64(&mut self, bar: u8, len: u64, address: u64) -> Result<(), LayoutError> {
        self.add_bar(bar, len, address, true)
    }

    fn add_bar(&mut self, bar: u8, len: u64, address: u64, wide: bool) -> Result<(), LayoutError> {
        let error = LayoutError::Bar { bar, len, address };
        let index = usize::from(bar);
        let shape = len.is_power_of_two() && len >= 16 && address & len.wrapping_sub(1) == 0;
        let limit = if wide { u64::MAX } else { u64::from(u32::MAX) };
        let fits = address.checked_add(len).is_some_and(|end| end <= limit) && len <= limit;
        let upper_is_free = !wide || self.bars.get(index.wrapping_add(1)).is_some_and(Option::is_none);
        let after_wide = index
            .checked_sub(1)
            .and_then(|below| self.bars.get(below))
            .is_some_and(|below| below.is_some_and(|b| b.wide));
        let slot = self.bars.get_mut(index).ok_or(error)?;
        if slot.is_some() || after_wide || !shape || !fits || !upper_is_free {
            return Err(error);
        }
        *slot = Some(Bar { len, wide });
        let register = address | if wide { u64::from(BAR_64_BIT) } else { 0 };
        let mask = !len.wrapping_sub(1);
        let width = if wide { 8 } else { 4 };
        let offset = BAR0.wrapping_add(index.wrapping_mul(4));
        let (register, mask) = (register.to_le_bytes(), mask.to_le_bytes());
        self.set(offset, register.get(..width).unwrap_or(&[]), mask.get(..width).unwrap_or(&[]));
        Ok(())
    }

    /// Adds a capability: `body` follows the two header bytes, `writable` masks what the guest may change in it.
    /// Returns the offset of the capability.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u16, LayoutError> {
        let len = body.len().saturating_add(2);
        let offset = self.next_capability;
        let end = offset.saturating_add(len).next_multiple_of(4);
        let (Ok(pointer), true) = (u8::try_from(offset), end <= CONFIG_BYTES) else {
            return Err(LayoutError::Capability { len });
        };
        if self.last_capability == 0 {
            self.set(CAPABILITIES, &[pointer], &[]);
            self.set(STATUS, &[STATUS_CAPABILITIES], &[]);
        } else {
            self.set(self.last_capability.saturating_add(1), &[pointer], &[]);
        }
        self.set(offset, &[id, 0], &[]);
        self.set(offset.saturating_add(2), body, writable);
        self.last_capability = offset;
        self.next_capability = end;
        Ok(u16::from(pointer))
    }

    /// Fills `data` with the bytes at `offset`; zero beyond the space.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        read_from(&self.bytes, u64::from(offset), data);
    }

    /// The 16-bit register at `offset`.
    pub fn register(&self, offset: u16) -> u16 {
        let mut word = [0; 2];
        self.read(offset, &mut word);
        u16::from_le_bytes(word)
    }

    /// Takes a write of the guest and says which BARs answer elsewhere now.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Vec<BarMove> {
        let before = self.placements();
        for (at, new) in (usize::from(offset)..).zip(data) {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = (*byte & !mask) | (new & mask);
            }
        }
        self.moves_since(before)
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.bytes = self.power_on;
    }

    /// The memory BARs that answer now, as `(bar, address, length in bytes)`.
    pub fn windows(&self) -> Vec<(u8, u64, u64)> {
        let bars = self.bars.iter().zip(0u8..);
        bars.zip(self.placements())
            .filter_map(|((bar, number), address)| Some((number, address?, bar.as_ref()?.len)))
            .collect()
    }

    fn placements(&self) -> [Option<u64>; BAR_COUNT] {
        let decoding = self.register(COMMAND) & COMMAND_MEMORY != 0;
        let mut placements = [None; BAR_COUNT];
        for ((place, bar), number) in placements.iter_mut().zip(&self.bars).zip(0u16..) {
            if let Some(bar) = bar
                && decoding
            {
                *place = self.placement(number, *bar);
            }
        }
        placements
    }

    /// Where a BAR answers. Address zero means that nobody assigned one; a BAR whose end is the end of its address
    /// space or beyond is being probed for its size.
    fn placement(&self, number: u16, bar: Bar) -> Option<u64> {
        let mut register = [0; 8];
        let width = if bar.wide { 8 } else { 4 };
        let offset = 0x10u16.saturating_add(number.saturating_mul(4));
        self.read(offset, register.get_mut(..width)?);
        let address = value(&register) & !bar.len.wrapping_sub(1);
        let limit = if bar.wide { u64::MAX } else { u64::from(u32::MAX) };
        let end = address.checked_add(bar.len)?;
        (address != 0 && end <= limit).then_some(address)
    }

    fn moves_since(&self, before: [Option<u64>; BAR_COUNT]) -> Vec<BarMove> {
        let now = self.placements();
        let bars = self.bars.iter().zip(0u8..);
        bars.zip(before.into_iter().zip(now))
            .filter(|(_, (from, to))| from != to)
            .filter_map(|((bar, number), (from, to))| {
                Some(BarMove { bar: number, len: bar.as_ref()?.len, from, to })
            })
            .collect()
    }

    /// What must survive a snapshot.
    pub fn save(&self) -> ConfigState {
        ConfigState { bytes: self.bytes.to_vec() }
    }

    /// Takes over a state of the same function: what the guest cannot change must be the same.
    pub fn restore(&mut self, kind: &'static str, state: &ConfigState) -> Result<(), StateError> {
        let invalid = |reason: String| StateError::Invalid { kind, reason };
        let bytes: [u8; CONFIG_BYTES] = state
            .bytes
            .as_slice()
            .try_into()
            .map_err(|_| invalid(format!("configuration space of {} bytes", state.bytes.len())))?;
        let fixed = bytes.iter().zip(&self.power_on).zip(&self.writable);
        if let Some(at) = fixed.into_iter().position(|((new, own), mask)| (new ^ own) & !mask != 0) {
            return Err(invalid(format!("read-only configuration register {at:#x} differs")));
        }
        self.bytes = bytes;
        Ok(())
    }
}
