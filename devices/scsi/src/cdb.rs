//! The fields of a command descriptor block: big-endian, at fixed places (SPC-4 §4.2). What is beyond its end is zero.

/// A command as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cdb<'a>(pub(crate) &'a [u8]);

impl Cdb<'_> {
    /// The byte at `at`.
    pub(crate) fn byte(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Whether `bit` of the byte at `at` is set.
    pub(crate) fn bit(self, at: usize, bit: u8) -> bool {
        self.byte(at) >> (bit & 7) & 1 == 1
    }

    fn number(self, at: usize, len: usize) -> u64 {
        (at..at.saturating_add(len)).fold(0, |value, at| value << 8 | u64::from(self.byte(at)))
    }

    pub(crate) fn u16(self, at: usize) -> usize {
        usize::try_from(self.number(at, 2)).unwrap_or(0)
    }

    pub(crate) fn u24(self, at: usize) -> u64 {
        self.number(at, 3)
    }

    pub(crate) fn u32(self, at: usize) -> u64 {
        self.number(at, 4)
    }

    pub(crate) fn u64(self, at: usize) -> u64 {
        self.number(at, 8)
    }
}

/// The length of a command by its operation code (SPC-4 §4.2.5.1), in bytes; `None` where the group says nothing.
pub(crate) fn len_bytes(operation: u8) -> Option<usize> {
    match operation >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}

/// `bytes`, at most `most` of them: what an allocation length lets through (SPC-4 §4.2.5.6).
pub(crate) fn cut(mut bytes: Vec<u8>, most: usize) -> Vec<u8> {
    bytes.truncate(most);
    bytes
}
