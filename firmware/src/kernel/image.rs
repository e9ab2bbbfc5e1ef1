//! Reading an image whose every length is a lie until checked.

use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, ReadVolatile};

use super::{LoadError, Part};

/// Something to load: a file, or bytes in a [`std::io::Cursor`].
pub trait Source: Read + ReadVolatile + Seek {}

impl<T: Read + ReadVolatile + Seek> Source for T {}

/// An image being read: nothing outside of its length is ever asked for.
pub(super) struct Image<'a, F> {
    source: &'a mut F,
    part: Part,
    len_bytes: u64,
}

impl<'a, F: Source> Image<'a, F> {
    pub fn new(source: &'a mut F, part: Part) -> Result<Self, LoadError> {
        let len_bytes = source.seek(SeekFrom::End(0)).map_err(|source| LoadError::Read { part, source })?;
        if len_bytes == 0 {
            return Err(LoadError::Malformed { part, reason: "it is empty".to_owned() });
        }
        Ok(Self { source, part, len_bytes })
    }

    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The `N` bytes at `offset`; `what` names them in the error.
    pub fn array<const N: usize>(&mut self, offset: u64, what: &str) -> Result<[u8; N], LoadError> {
        let mut bytes = [0; N];
        self.fill(offset, &mut bytes, what)?;
        Ok(bytes)
    }

    /// Fills `bytes` from `offset`.
    pub fn fill(&mut self, offset: u64, bytes: &mut [u8], what: &str) -> Result<(), LoadError> {
        self.check(offset, bytes.len() as u64, what)?;
        self.seek(offset)?;
        self.source.read_exact(bytes).map_err(|e| self.read_error(e))
    }

    /// Copies `len` bytes from `offset` to guest memory at `address`.
    pub fn copy_to<M: GuestMemoryBackend>(
        &mut self,
        offset: u64,
        len: u64,
        memory: &M,
        address: u64,
        what: &str,
    ) -> Result<(), LoadError> {
        self.check(offset, len, what)?;
        self.seek(offset)?;
        let len = usize::try_from(len).map_err(|_| self.malformed(format!("its {what} is too long")))?;
        memory.read_exact_volatile_from(GuestAddress(address), self.source, len).map_err(|e| match e {
            vm_memory::GuestMemoryError::IOError(source) => self.read_error(source),
            other => LoadError::Memory(other),
        })
    }

    pub fn malformed(&self, reason: String) -> LoadError {
        LoadError::Malformed { part: self.part, reason }
    }

    fn check(&self, offset: u64, len: u64, what: &str) -> Result<(), LoadError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len_bytes => Ok(()),
            _ => Err(self.malformed(format!(
                "its {what} ({len} bytes at offset {offset:#x}) reaches past its end at {:#x}",
                self.len_bytes
            ))),
        }
    }

    fn seek(&mut self, offset: u64) -> Result<(), LoadError> {
        self.source.seek(SeekFrom::Start(offset)).map(drop).map_err(|e| self.read_error(e))
    }

    fn read_error(&self, source: io::Error) -> LoadError {
        LoadError::Read { part: self.part, source }
    }
}
