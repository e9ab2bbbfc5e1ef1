//! Inputs made from others, the same each time: what a fuzzer does, without knowing what it reaches.

/// A sequence of numbers without a pattern (xorshift64).
pub struct Chance(u64);

impl Default for Chance {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

/// Values at which things end.
const EDGES: &[u8] = &[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b'0', b'9', b'"', b'{', b'-'];

impl Chance {
    /// The next number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 1).unwrap_or(0) % bound
    }

    /// `bytes` with one to four changes; half of them near the start, where headers are.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let near = if self.below(2) == 0 { 128 } else { usize::MAX };
            let at = self.below(bytes.len().min(near).max(1));
            let Some(byte) = bytes.get_mut(at) else {
                bytes.push(0xff);
                continue;
            };
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => drop(bytes.remove(at)),
                2 => {
                    let len = self.below(16) + 1;
                    let piece = bytes[at..(at + len).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => *byte ^= 1 << self.below(8),
                4 | 5 => *byte = EDGES[self.below(EDGES.len())],
                _ => *byte = u8::try_from(self.below(256)).unwrap_or(0),
            }
        }
        bytes
    }
}
