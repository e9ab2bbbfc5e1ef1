//! Guest memory as KVM knows it: slots, in one address space or, with a system management mode, in two.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use orlop_firmware::layout::COMPATIBLE_SMRAM;
use orlop_virtio::Ram;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::KvmError;
use super::vm::set_slot;

/// An address space of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// What processors see as a rule.
    Usual,
    /// What they see in system management mode.
    Smm,
}

impl Space {
    /// The slot `number` in it (KVM api §4.35: bits 16 to 31 are the address space).
    pub(super) fn slot(self, number: u32) -> u32 {
        match self {
            Self::Usual => number,
            Self::Smm => 1 << 16 | number,
        }
    }
}

/// Guest memory as KVM knows it. The slots, and with them every vCPU's view of memory, go before the memory does.
pub struct MemorySlots {
    fd: Arc<VmFd>,
    pieces: Vec<Piece>,
    /// Number of the piece that can be hidden, and how much of its start is seen now, in bytes.
    smram: Option<(usize, Mutex<u64>)>,
    #[expect(dead_code, reason = "held as long as the slots are")]
    ram: Arc<Ram>,
}

/// A run of memory that is one slot in each address space.
struct Piece {
    address: u64,
    len: u64,
    host: u64,
}

impl MemorySlots {
    pub(super) fn place(fd: Arc<VmFd>, ram: &Arc<Ram>, smram: Option<&Range<u64>>) -> Result<Self, KvmError> {
        let cut = if smram.is_some() { COMPATIBLE_SMRAM } else { 0..0 };
        let pieces: Vec<Piece> = ram
            .iter()
            .flat_map(|region| {
                let (start, host) = (region.start_addr().0, region.as_ptr() as u64);
                without(&(start..start + region.len()), &cut).into_iter().map(move |range| Piece {
                    address: range.start,
                    len: range.end - range.start,
                    host: host + (range.start - start),
                })
            })
            .collect();
        let found = smram.and_then(|range| pieces.iter().position(|piece| piece.address == range.start));
        let smram = found.map(|number| (number, Mutex::new(pieces[number].len)));
        // Made first, so that a failure half-way takes the slots away again.
        let slots = Self { fd, pieces, smram, ram: Arc::clone(ram) };
        for number in 0..slots.pieces.len() {
            for space in slots.spaces() {
                slots.set(space, number, slots.pieces[number].len)?;
            }
        }
        Ok(slots)
    }

    /// Hides `hidden`, which reaches to the end of what can be hidden, from whoever is not in system management mode, and
    /// shows what is before it.
    pub fn hide(&self, hidden: Option<Range<u64>>) -> Result<(), KvmError> {
        let Some((number, seen)) = &self.smram else { return Ok(()) };
        let piece = &self.pieces[*number];
        let wanted =
            hidden.map_or(piece.len, |range| range.start.saturating_sub(piece.address).min(piece.len));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen > 0 {
            self.set(Space::Usual, *number, 0)?;
            *seen = 0;
        }
        if wanted > 0 {
            self.set(Space::Usual, *number, wanted)?;
            *seen = wanted;
        }
        Ok(())
    }

    fn spaces(&self) -> impl Iterator<Item = Space> + use<> {
        [Space::Usual].into_iter().chain(self.smram.is_some().then_some(Space::Smm))
    }

    /// Makes the first `len` bytes of a piece a slot of `space`; none takes it away.
    fn set(&self, space: Space, number: usize, len: u64) -> Result<(), KvmError> {
        let piece = &self.pieces[number];
        let region = kvm_userspace_memory_region {
            slot: space.slot(number as u32),
            flags: 0,
            guest_phys_addr: piece.address,
            memory_size: len,
            userspace_addr: piece.host,
        };
        set_slot(&self.fd, region)
    }
}

impl Drop for MemorySlots {
    fn drop(&mut self) {
        for number in 0..self.pieces.len() {
            for space in self.spaces() {
                // A slot that is not there cannot be taken away; nothing else can fail.
                let _ = self.set(space, number, 0);
            }
        }
    }
}

/// What of `range` is outside `cut`.
fn without(range: &Range<u64>, cut: &Range<u64>) -> Vec<Range<u64>> {
    let before = range.start..range.end.min(cut.start.max(range.start));
    let after = range.start.max(cut.end.min(range.end))..range.end;
    let parts = if cut.is_empty() { vec![range.clone()] } else { vec![before, after] };
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_leaves_what_is_around_it() {
        let of = |range: Range<u64>, cut: Range<u64>| {
            let parts = without(&range, &cut);
            parts.iter().map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(0..100, 0..0), [(0, 100)]);
        assert_eq!(of(0..100, 40..60), [(0, 40), (60, 100)]);
        assert_eq!(of(50..100, 40..60), [(60, 100)]);
        assert_eq!(of(0..50, 40..60), [(0, 40)]);
        assert_eq!(of(45..55, 40..60), []);
        assert_eq!(of(60..100, 40..60), [(60, 100)]);
        assert_eq!(of(0..30, 40..60), [(0, 30)]);
    }

    #[test]
    fn the_address_spaces_have_slots_of_their_own() {
        assert_eq!((Space::Usual.slot(3), Space::Smm.slot(3)), (3, 0x1_0003));
    }
}
