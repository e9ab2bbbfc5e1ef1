//! MSI-X (PCI 3.0 §6.8.2): a table of messages in a BAR, masks, and the pending bits.
//!
//! Signalling is the hot path of every device: it takes no lock. Each word of the table is an atomic; a driver that
//! changes a message must mask its vector first (PCI 3.0 §6.8.3.5), and one that does not gets the old message, the
//! new one, or a mix of both, all of which it could have programmed as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::SeqCst};

use orlop_bus::{read_from, value};
use orlop_state::StateError;
use serde::{Deserialize, Serialize};

use crate::{ConfigSpace, LayoutError, MsiSink};

/// Length of one table entry in bytes.
pub const ENTRY_BYTES: u64 = 16;
/// The most vectors that a function can have.
pub const VECTORS_MAX: usize = 2048;
/// Capability id of MSI-X.
const CAPABILITY_ID: u8 = 0x11;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const VECTOR_MASKED: u32 = 1;
const WORDS: usize = 4;

struct Vector {
    /// Address low, address high, data, control.
    words: [AtomicU32; WORDS],
    pending: AtomicBool,
}

impl Vector {
    fn new() -> Self {
        let words = [0, 0, 0, VECTOR_MASKED].map(AtomicU32::new);
        Self { words, pending: AtomicBool::new(false) }
    }

    fn masked(&self) -> bool {
        let [.., control] = &self.words;
        control.load(SeqCst) & VECTOR_MASKED != 0
    }

    fn load(&self) -> [u32; WORDS] {
        self.words.each_ref().map(|word| word.load(SeqCst))
    }

    fn store(&self, values: [u32; WORDS]) {
        for (word, value) in self.words.iter().zip(values) {
            word.store(value, SeqCst);
        }
    }
}

/// One vector as it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorState {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Whether the vector is masked.
    pub masked: bool,
    /// Whether a message waits for the mask to go.
    pub pending: bool,
}

/// What must survive a snapshot. Enable and function mask are in the configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    /// By vector number.
    pub vectors: Vec<VectorState>,
}

/// The MSI-X machinery of one function.
pub struct Msix {
    /// Message control of the capability: enable and function mask.
    control: AtomicU16,
    vectors: Box<[Vector]>,
    sink: Arc<dyn MsiSink>,
}

impl Msix {
    /// `count` vectors, all masked, MSI-X disabled.
    pub fn new(count: usize, sink: Arc<dyn MsiSink>) -> Result<Self, LayoutError> {
        if !(1..=VECTORS_MAX).contains(&count) {
            return Err(LayoutError::Vectors { count });
        }
        let vectors = (0..count).map(|_| Vector::new()).collect();
        Ok(Self { control: AtomicU16::new(0), vectors, sink })
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Never: there is at least one vector.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Length of the table in bytes.
    pub fn table_bytes(&self) -> u64 {
        self.vectors.iter().map(|_| ENTRY_BYTES).sum()
    }

    /// Length of the pending bit array in bytes.
    pub fn pba_bytes(&self) -> u64 {
        self.vectors.chunks(64).map(|_| 8).sum()
    }

    /// Adds the capability to `config`: table and pending bits are in BAR `bar` at the offsets given, multiples of 8.
    /// Returns the offset of the message control register, whose value goes to [`Self::set_control`] after every
    /// write to the configuration space.
    pub fn add_capability(
        &self,
        config: &mut ConfigSpace,
        bar: u8,
        table: u32,
        pba: u32,
    ) -> Result<u16, LayoutError> {
        let count = self.vectors.len();
        let last = u16::try_from(count.saturating_sub(1)).map_err(|_| LayoutError::Vectors { count })?;
        let mut body = last.to_le_bytes().to_vec();
        body.extend((table & !7 | u32::from(bar & 7)).to_le_bytes());
        body.extend((pba & !7 | u32::from(bar & 7)).to_le_bytes());
        let writable = (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes();
        Ok(config.add_capability(CAPABILITY_ID, &body, &writable)?.saturating_add(2))
    }

    /// Takes the message control register; what was pending and may go now, goes.
    pub fn set_control(&self, control: u16) {
        let control = control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        if self.control.swap(control, SeqCst) != control {
            self.vectors.iter().for_each(|vector| self.replay(vector));
        }
    }

    /// Whether the guest enabled MSI-X.
    pub fn enabled(&self) -> bool {
        self.control.load(SeqCst) & CONTROL_ENABLE != 0
    }

    /// Signals vector `number`: at once, or, while it is masked, as soon as it is not. A number that does not exist
    /// and a function whose MSI-X is disabled do nothing. Says whether a message went out or waits.
    pub fn signal(&self, number: u16) -> bool {
        let Some(vector) = self.vectors.get(usize::from(number)) else { return false };
        if !self.enabled() {
            return false;
        }
        if self.may_go(vector) {
            self.send(vector);
        } else {
            vector.pending.store(true, SeqCst);
            // The mask may have gone between the look and the mark; whoever sees the mark first sends.
            self.replay(vector);
        }
        true
    }

    fn may_go(&self, vector: &Vector) -> bool {
        let open = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;
        self.control.load(SeqCst) & open == CONTROL_ENABLE && !vector.masked()
    }

    fn replay(&self, vector: &Vector) {
        if self.may_go(vector) && vector.pending.swap(false, SeqCst) {
            self.send(vector);
        }
    }

    fn send(&self, vector: &Vector) {
        let [low, high, data, _] = vector.load();
        self.sink.signal(u64::from(high) << 32 | u64::from(low), data);
    }

    /// Reads the table; zero beyond its end.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        // An access of up to 8 bytes touches at most two entries.
        let first = offset / ENTRY_BYTES;
        let entries = usize::try_from(first).ok().and_then(|at| self.vectors.get(at..)).unwrap_or(&[]);
        let image: Vec<u8> =
            entries.iter().take(2).flat_map(Vector::load).flat_map(u32::to_le_bytes).collect();
        read_from(&image, offset % ENTRY_BYTES, data);
    }

    /// Writes the table: 4 or 8 aligned bytes (PCI 3.0 §6.8.2); anything else is ignored.
    pub fn table_write(&self, offset: u64, data: &[u8]) {
        let entry = usize::try_from(offset / ENTRY_BYTES).ok();
        let Some(vector) = entry.and_then(|at| self.vectors.get(at)) else { return };
        if !(data.len() == 4 && offset.is_multiple_of(4) || data.len() == 8 && offset.is_multiple_of(8)) {
            return;
        }
        let word = usize::try_from(offset % ENTRY_BYTES / 4).unwrap_or(0);
        for ((place, bytes), index) in vector.words.iter().skip(word).zip(data.chunks(4)).zip(word..) {
            let new = u32::try_from(value(bytes)).unwrap_or(0);
            let reserved = if index == 3 { !VECTOR_MASKED } else { 0 };
            let aligned = if index == 0 { !3 } else { !0 };
            place.store(new & aligned & !reserved, SeqCst);
        }
        self.replay(vector);
    }

    /// Reads the pending bits; zero beyond their end.
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.vectors.chunks(8).map(|eight| {
            eight.iter().rev().fold(0u8, |bits, vector| bits << 1 | u8::from(vector.pending.load(SeqCst)))
        });
        read_from(&bytes.collect::<Vec<_>>(), offset, data);
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.control.store(0, SeqCst);
        for vector in &self.vectors {
            vector.store([0, 0, 0, VECTOR_MASKED]);
            vector.pending.store(false, SeqCst);
        }
    }

    /// What must survive a snapshot.
    pub fn save(&self) -> MsixState {
        let vectors = self.vectors.iter().map(|vector| {
            let [low, high, data, _] = vector.load();
            VectorState {
                address: u64::from(high) << 32 | u64::from(low),
                data,
                masked: vector.masked(),
                pending: vector.pending.load(SeqCst),
            }
        });
        MsixState { vectors: vectors.collect() }
    }

    /// Checks that `state` belongs to as many vectors as there are.
    pub fn check(&self, kind: &'static str, state: &MsixState) -> Result<(), StateError> {
        let (found, own) = (state.vectors.len(), self.vectors.len());
        if found != own {
            let reason = format!("{found} MSI-X vectors where the device has {own}");
            return Err(StateError::Invalid { kind, reason });
        }
        if let Some(at) = state.vectors.iter().position(|v| v.address & 3 != 0) {
            let reason = format!("the message address of MSI-X vector {at} is not aligned");
            return Err(StateError::Invalid { kind, reason });
        }
        Ok(())
    }

    /// Takes over a state that [`Self::check`] found good, with the message control of the configuration space.
    /// What is pending stays so until the guest unmasks it.
    pub fn restore(&self, state: &MsixState, control: u16) {
        self.control.store(control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK), SeqCst);
        for (vector, saved) in self.vectors.iter().zip(&state.vectors) {
            let [low, high] = halves(saved.address);
            vector.store([low, high, saved.data, u32::from(saved.masked)]);
            vector.pending.store(saved.pending, SeqCst);
        }
    }
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
