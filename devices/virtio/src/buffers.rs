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
