//! Guest memory that a PRDT describes, checked once.

use std::io;
use std::sync::Arc;

use orlop_disk::Memory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Guest memory.
pub type Ram = GuestMemoryMmap<()>;

/// A part of a table that is not in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside;

/// Pieces of guest memory in order, every one inside a region. They keep the memory alive.
#[derive(Debug)]
pub(crate) struct Pieces {
    ram: Arc<Ram>,
    pieces: Vec<(GuestAddress, usize)>,
    len: usize,
}

impl Pieces {
    pub(crate) fn new(ram: &Arc<Ram>) -> Self {
        Self { ram: Arc::clone(ram), pieces: Vec::new(), len: 0 }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds `len` bytes at `address`.
    pub(crate) fn push(&mut self, address: u64, len: usize) -> Result<(), Outside> {
        let mut at = GuestAddress(address);
        for slice in GuestMemoryBackend::get_slices(&*self.ram, at, len) {
            let slice = slice.map_err(|_| Outside)?;
            self.pieces.push((at, slice.len()));
            self.len = self.len.checked_add(slice.len()).ok_or(Outside)?;
            at = GuestAddress(at.0.wrapping_add(u64::try_from(slice.len()).map_err(|_| Outside)?));
        }
        Ok(())
    }

    /// Copies `from` to the start; it is not longer than the pieces.
    pub(crate) fn write(&self, mut from: &[u8]) -> Result<(), Outside> {
        for (address, len) in &self.pieces {
            let (now, later) = from.split_at(from.len().min(*len));
            self.ram.write_slice(now, *address).map_err(|_| Outside)?;
            from = later;
        }
        if from.is_empty() { Ok(()) } else { Err(Outside) }
    }

    /// The bytes.
    pub(crate) fn read(&self) -> Result<Vec<u8>, Outside> {
        let mut all = vec![0; self.len];
        let mut rest = all.as_mut_slice();
        for (address, len) in &self.pieces {
            let (now, later) = rest.split_at_mut(rest.len().min(*len));
            self.ram.read_slice(now, *address).map_err(|_| Outside)?;
            rest = later;
        }
        Ok(all)
    }
}

#[expect(unsafe_code, reason = "implements Memory")]
// SAFETY: the pieces lie within regions of `ram`, which stays mapped while the value lives.
unsafe impl Memory for Pieces {
    fn iovecs(&self) -> io::Result<Vec<libc::iovec>> {
        let outside = |_| io::Error::from_raw_os_error(libc::EFAULT);
        let iovec = |(address, len): &(GuestAddress, usize)| {
            let slice = GuestMemoryBackend::get_slice(&*self.ram, *address, *len).map_err(outside)?;
            Ok(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: *len })
        };
        self.pieces.iter().map(iovec).collect()
    }
}
