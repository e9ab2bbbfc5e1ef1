//! Parts of tables in memory: the newest of them, at most so many.

use std::collections::HashMap;

/// The largest part that is read at once, in bytes.
const SLICE_MAX_BYTES: u64 = 4096;
/// What all parts may take, in bytes: L2 entries for 16 GiB in clusters of 64 KiB.
const ALL_MAX_BYTES: u64 = 2 << 20;

/// Which table a part belongs to; they are written in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Refcounts,
    L2,
}

/// A part of a table.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) kind: Kind,
    /// It was changed since it was read or written.
    pub(crate) dirty: bool,
    used: u64,
}

/// All parts in memory, by their offset in the file.
#[derive(Debug)]
pub(crate) struct Slices {
    parts: HashMap<u64, Slice>,
    clock: u64,
    slice_bytes: u64,
}

impl Slices {
    pub(crate) fn new(cluster_bytes: u64) -> Self {
        Self { parts: HashMap::new(), clock: 0, slice_bytes: cluster_bytes.min(SLICE_MAX_BYTES) }
    }

    /// Length of every part in bytes, a power of two.
    pub(crate) fn slice_bytes(&self) -> u64 {
        self.slice_bytes
    }

    /// The offset of the part that holds the byte at `offset`, and how far into it that is.
    pub(crate) fn split(&self, offset: u64) -> (u64, usize) {
        let within = offset & (self.slice_bytes - 1);
        (offset - within, usize::try_from(within).unwrap_or_default())
    }

    pub(crate) fn is_full(&self) -> bool {
        u64::try_from(self.parts.len()).unwrap_or(u64::MAX) >= ALL_MAX_BYTES / self.slice_bytes
    }

    pub(crate) fn contains(&self, at: u64) -> bool {
        self.parts.contains_key(&at)
    }

    pub(crate) fn get(&mut self, at: u64) -> Option<&mut Slice> {
        self.clock += 1;
        let part = self.parts.get_mut(&at)?;
        part.used = self.clock;
        Some(part)
    }

    pub(crate) fn insert(&mut self, at: u64, kind: Kind, bytes: Box<[u8]>) {
        self.clock += 1;
        self.parts.insert(at, Slice { bytes, kind, dirty: false, used: self.clock });
    }

    /// Drops the part that was not used for longest and need not be written; false when all must be.
    pub(crate) fn evict(&mut self) -> bool {
        let clean = self.parts.iter().filter(|(_, part)| !part.dirty);
        let oldest = clean.min_by_key(|(_, part)| part.used).map(|(at, _)| *at);
        oldest.is_some_and(|at| self.parts.remove(&at).is_some())
    }

    /// Where the changed parts of `kind` are, in order.
    pub(crate) fn dirty(&self, kind: Kind) -> Vec<u64> {
        let changed = self.parts.iter().filter(|(_, part)| part.dirty && part.kind == kind);
        let mut places: Vec<u64> = changed.map(|(at, _)| *at).collect();
        places.sort_unstable();
        places
    }

    /// Drops whatever lies in `len` bytes from `start` on: it belongs to no table any more.
    pub(crate) fn forget(&mut self, start: u64, len: u64) {
        let mut at = start;
        while at < start.saturating_add(len) {
            self.parts.remove(&at);
            at = at.saturating_add(self.slice_bytes);
        }
    }
}
