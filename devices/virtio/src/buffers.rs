//! The memory that a descriptor chain describes, checked once and then cut as a device needs it.

use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::Ram;

/// The longest chain in bytes that a device accepts: bounds what one request can make the host do.
pub const CHAIN_MAX_BYTES: usize = 64 << 20;

/// Why a chain cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A descriptor points outside guest memory.
    #[error("a descriptor points outside guest memory")]
    OutsideMemory,
    /// A device-readable descriptor follows a device-writable one (virtio 1.3 §2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// The chain describes more than the device accepts, usually [`CHAIN_MAX_BYTES`].
    #[error("the chain is longer than the device accepts")]
    TooLong,
    /// Fewer bytes are there than the request needs.
    #[error("the chain is too short for its request")]
    TooShort,
    /// The chain does not end: a loop, an index or an indirect table outside what the driver may use
    /// (virtio 1.3 §2.7.5.3).
    #[error("the chain is broken: a loop, or a bad index or indirect table")]
    Broken,
}

impl ChainError {
    /// The same as a guest fault says it.
    pub(crate) fn as_fault(self) -> &'static str {
        match self {
            Self::OutsideMemory => "a descriptor points outside guest memory",
            Self::Order => "a readable descriptor follows a writable one",
            Self::TooLong => "a descriptor chain is too long",
            Self::TooShort => "a descriptor chain is too short",
            Self::Broken => "a descriptor chain does not end",
        }
    }
}

/// A run of guest memory within one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    len: usize,
}

/// An ordered list of pieces of guest memory, every one of them inside a region of guest memory. It keeps the memory
/// alive, so that a request in flight may outlive the queue that it came from.
#[derive(Debug, Clone)]
pub struct Buffers {
    ram: Arc<Ram>,
    segments: Vec<Segment>,
    len: usize,
}

impl Buffers {
    /// Walks `chain` once: the device-readable part first, then the device-writable part. The guest may change the
    /// descriptors meanwhile or later; what is returned was checked and is what counts.
    /// Each part may be `max_bytes` long.
    pub(crate) fn of_chain(
        ram: &Arc<Ram>,
        chain: DescriptorChain<&Ram>,
        max_bytes: usize,
    ) -> Result<(Self, Self), ChainError> {
        let mut readable = Self { ram: Arc::clone(ram), segments: Vec::new(), len: 0 };
        let mut writable = Self { ram: Arc::clone(ram), segments: Vec::new(), len: 0 };
        let mut ended = false;
        for descriptor in chain {
            // The iterator ends early where a chain is broken; the last descriptor then names a next one.
            ended = !descriptor.has_next();
            let len = usize::try_from(descriptor.len()).map_err(|_| ChainError::TooLong)?;
            if descriptor.is_write_only() {
                writable.extend(descriptor.addr(), len, max_bytes)?;
            } else if writable.segments.is_empty() {
                readable.extend(descriptor.addr(), len, max_bytes)?;
            } else {
                return Err(ChainError::Order);
            }
        }
        if ended { Ok((readable, writable)) } else { Err(ChainError::Broken) }
    }

    fn extend(&mut self, address: GuestAddress, len: usize, max_bytes: usize) -> Result<(), ChainError> {
        let total = self.len.checked_add(len).ok_or(ChainError::TooLong)?;
        if total > max_bytes {
            return Err(ChainError::TooLong);
        }
        let mut at = address;
        for slice in GuestMemoryBackend::get_slices(&*self.ram, address, len) {
            let slice = slice.map_err(|_| ChainError::OutsideMemory)?;
            self.segments.push(Segment { address: at, len: slice.len() });
            let step = u64::try_from(slice.len()).map_err(|_| ChainError::TooLong)?;
            at = GuestAddress(at.0.wrapping_add(step));
        }
        self.len = total;
        Ok(())
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the first `len` bytes off and returns them.
    pub fn split_to(&mut self, len: usize) -> Result<Self, ChainError> {
        if len > self.len {
            return Err(ChainError::TooShort);
        }
        let mut head = Vec::new();
        let mut left = len;
        let mut tail = Vec::with_capacity(self.segments.len());
        for segment in self.segments.drain(..) {
            let take = segment.len.min(left);
            left = left.saturating_sub(take);
            if take > 0 {
                head.push(Segment { address: segment.address, len: take });
            }
            if take < segment.len {
                let skip = u64::try_from(take).map_err(|_| ChainError::TooLong)?;
                tail.push(Segment {
                    address: GuestAddress(segment.address.0.wrapping_add(skip)),
                    len: segment.len.saturating_sub(take),
                });
            }
        }
        self.segments = tail;
        self.len = self.len.saturating_sub(len);
        Ok(Self { ram: Arc::clone(&self.ram), segments: head, len })
    }

    /// Takes the last `len` bytes off and returns them.
    pub fn split_off_last(&mut self, len: usize) -> Result<Self, ChainError> {
        let head = self.len.checked_sub(len).ok_or(ChainError::TooShort)?;
        let head = self.split_to(head)?;
        Ok(std::mem::replace(self, head))
    }

    /// Copies the first `to.len()` bytes out of guest memory.
    pub fn copy_to(&self, mut to: &mut [u8]) -> Result<(), ChainError> {
        if to.len() > self.len {
            return Err(ChainError::TooShort);
        }
        for segment in &self.segments {
            let (now, later) = to.split_at_mut(segment.len.min(to.len()));
            self.ram.read_slice(now, segment.address).map_err(|_| ChainError::OutsideMemory)?;
            to = later;
        }
        Ok(())
    }

    /// Copies `from` into the first `from.len()` bytes of guest memory.
    pub fn copy_from(&self, mut from: &[u8]) -> Result<(), ChainError> {
        if from.len() > self.len {
            return Err(ChainError::TooShort);
        }
        for segment in &self.segments {
            let (now, later) = from.split_at(segment.len.min(from.len()));
            self.ram.write_slice(now, segment.address).map_err(|_| ChainError::OutsideMemory)?;
            from = later;
        }
        Ok(())
    }

    /// The guest-physical pieces, as `(address, length in bytes)`.
    pub fn segments(&self) -> impl Iterator<Item = (GuestAddress, usize)> + '_ {
        self.segments.iter().map(|s| (s.address, s.len))
    }

    /// The pieces as host addresses, for `readv(2)` and its kin. The pointers stay valid while `self` (or a clone)
    /// lives; what is behind them belongs to the guest and may change at any moment.
    pub fn iovecs(&self) -> Result<Vec<libc::iovec>, ChainError> {
        self.segments
            .iter()
            .map(|s| {
                let slice = GuestMemoryBackend::get_slice(&*self.ram, s.address, s.len)
                    .map_err(|_| ChainError::OutsideMemory)?;
                Ok(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: s.len })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use virtio_queue::{Queue, QueueOwnedT, QueueT};

    const WRITE: u16 = 2;

    /// Two regions that touch at 64 KiB; every byte is the low one of its address.
    fn ram() -> Arc<Ram> {
        let regions = [(GuestAddress(0), 0x1_0000), (GuestAddress(0x1_0000), 0x1_0000)];
        let ram = Ram::from_ranges(&regions).unwrap();
        let bytes: Vec<u8> = (0..0x2_0000u32).map(|at| at as u8).collect();
        ram.write_slice(&bytes, GuestAddress(0)).unwrap();
        Arc::new(ram)
    }

    /// The buffers of a chain of `(address, length, flags)`, walked with `max_bytes`.
    fn walk(parts: &[(u64, u32, u16)], max_bytes: usize) -> Result<(Buffers, Buffers), ChainError> {
        let ram = ram();
        for (index, (address, len, flags)) in parts.iter().enumerate() {
            let next = u16::from(index + 1 < parts.len());
            let (low, high) = (u64::from(*len), u64::from(flags | next) | (index as u64 + 1) << 16);
            ram.write_obj([*address, low | high << 32], GuestAddress(16 * index as u64)).unwrap();
        }
        ram.write_obj([0u16, 1, 0], GuestAddress(0x800)).unwrap();
        let mut queue = Queue::new(64).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(0x800)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(0xc00)).unwrap();
        queue.try_set_desc_table_address(GuestAddress(0)).unwrap();
        queue.set_ready(true);
        let chain = queue.iter(&*ram).unwrap().next().unwrap();
        Buffers::of_chain(&ram, chain, max_bytes)
    }

    fn readable(parts: &[(u64, u32, u16)]) -> Buffers {
        walk(parts, CHAIN_MAX_BYTES).unwrap().0
    }

    fn bytes(buffers: &Buffers) -> Vec<u8> {
        let mut bytes = vec![0; buffers.len()];
        buffers.copy_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_buffer_across_regions_is_one_buffer_in_two_pieces() {
        let buffers = readable(&[(0xfffe, 4, 0)]);
        assert_eq!(
            buffers.segments().map(|(at, len)| (at.0, len)).collect::<Vec<_>>(),
            [(0xfffe, 2), (0x1_0000, 2)]
        );
        assert_eq!(bytes(&buffers), [0xfe, 0xff, 0, 1]);
        assert_eq!(buffers.iovecs().unwrap().iter().map(|v| v.iov_len).collect::<Vec<_>>(), [2, 2]);
        buffers.copy_from(&[9; 4]).unwrap();
        assert_eq!(bytes(&buffers), [9; 4]);
    }

    #[test]
    fn readable_and_writable_parts_are_told_apart() {
        let (readable, writable) =
            walk(&[(0x1000, 3, 0), (0x1010, 2, WRITE), (0x1020, 1, WRITE)], 8).unwrap();
        assert_eq!((bytes(&readable), bytes(&writable)), (vec![0, 1, 2], vec![0x10, 0x11, 0x20]));
        let wrong = walk(&[(0x1000, 3, WRITE), (0x1010, 2, 0)], 8);
        assert_eq!(wrong.unwrap_err(), ChainError::Order);
    }

    #[test]
    fn each_part_has_a_limit_of_its_own() {
        assert!(walk(&[(0x1000, 8, 0), (0x1010, 8, WRITE)], 8).is_ok());
        assert_eq!(walk(&[(0x1000, 8, 0), (0x1000, 1, 0)], 8).unwrap_err(), ChainError::TooLong);
        assert_eq!(walk(&[(0, u32::MAX, WRITE)], CHAIN_MAX_BYTES).unwrap_err(), ChainError::TooLong);
        assert_eq!(walk(&[(0x2_0000, 1, 0)], 8).unwrap_err(), ChainError::OutsideMemory);
        assert_eq!(walk(&[(u64::MAX, 2, 0)], 8).unwrap_err(), ChainError::OutsideMemory);
    }

    #[test]
    fn nothing_is_copied_where_there_is_too_little() {
        let mut buffers = readable(&[(0x1000, 3, 0)]);
        assert_eq!(buffers.copy_to(&mut [0; 4]), Err(ChainError::TooShort));
        assert_eq!(buffers.copy_from(&[7; 4]), Err(ChainError::TooShort));
        assert_eq!(buffers.split_to(4).unwrap_err(), ChainError::TooShort);
        assert_eq!(buffers.split_off_last(4).unwrap_err(), ChainError::TooShort);
        assert_eq!(bytes(&buffers), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn cutting_keeps_every_byte_in_its_place(
            parts in prop::collection::vec((0x1000u64..0x1_f000, 0u32..200), 1..20),
            cut in any::<prop::sample::Index>(),
            from_the_end: bool,
        ) {
            let parts: Vec<_> = parts.into_iter().map(|(at, len)| (at, len, 0)).collect();
            let mut rest = readable(&parts);
            let whole = bytes(&rest);
            let at = cut.index(whole.len() + 1);
            let (head, tail) = if from_the_end {
                let tail = rest.split_off_last(whole.len() - at).unwrap();
                (rest, tail)
            } else {
                let head = rest.split_to(at).unwrap();
                (head, rest)
            };
            prop_assert_eq!((head.len(), tail.len()), (at, whole.len() - at));
            prop_assert_eq!([bytes(&head), bytes(&tail)].concat(), whole);
            prop_assert!(head.segments().chain(tail.segments()).all(|(_, len)| len > 0));
        }
    }
}
