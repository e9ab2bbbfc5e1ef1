//! The newest bytes of an endless stream, by position.

use std::collections::VecDeque;

/// Keeps the last `capacity` bytes of what was pushed. A position is the number of bytes pushed before it, so it
/// stays valid when the bytes are gone: a reader then learns how many it missed.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Position of the byte that comes next.
    end: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity, end: 0 }
    }

    /// Changes how much is kept.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.trim();
    }

    /// Appends `bytes`, forgetting the oldest.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end = self.end.saturating_add(bytes.len() as u64);
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        self.bytes.extend(kept);
        self.trim();
    }

    /// Position of the oldest byte kept.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Position of the byte that comes next.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// At most `limit` bytes from `position` on: the position of the first one and the bytes. A position before the
    /// oldest byte starts there, one beyond the end gives nothing.
    pub(super) fn read(&self, position: u64, limit: usize) -> (u64, Vec<u8>) {
        let from = position.clamp(self.start(), self.end);
        let skip = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        (from, self.bytes.iter().skip(skip).take(limit).copied().collect())
    }

    fn trim(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.capacity);
        self.bytes.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept() {
        let mut ring = Ring::new(4);
        ring.push(b"abc");
        ring.push(b"de");
        assert_eq!(ring.read(0, 99), (1, b"bcde".to_vec()));
        assert_eq!(ring.read(3, 1), (3, b"d".to_vec()));
        ring.push(b"0123456789");
        assert_eq!(ring.read(2, 99), (11, b"6789".to_vec()));
        assert_eq!((ring.start(), ring.end()), (11, 15));
    }

    #[test]
    fn beyond_the_end_there_is_nothing() {
        let mut ring = Ring::new(4);
        ring.push(b"abc");
        assert_eq!(ring.read(3, 9), (3, vec![]));
        assert_eq!(ring.read(u64::MAX, 9), (3, vec![]));
    }

    #[test]
    fn a_smaller_ring_forgets_the_oldest() {
        let mut ring = Ring::new(4);
        ring.push(b"abcd");
        ring.set_capacity(2);
        assert_eq!(ring.read(0, 9), (2, b"cd".to_vec()));
    }
}
