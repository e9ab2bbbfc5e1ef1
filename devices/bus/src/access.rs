//! The bytes of an access, for devices whose registers are little-endian.

/// Fills `data` with what `image` holds at `offset`; zero beyond its end.
pub fn read_from(image: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let there = usize::try_from(offset).ok().and_then(|at| image.get(at..)).unwrap_or(&[]);
    for (to, from) in data.iter_mut().zip(there) {
        *to = *from;
    }
}

/// The little-endian value of an access of up to 8 bytes; bytes after the eighth are left out.
pub fn value(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_an_image_gives_zero() {
        let mut data = [0xff; 4];
        read_from(&[1, 2, 3], 1, &mut data);
        assert_eq!(data, [2, 3, 0, 0]);
        for offset in [3, 4, u64::MAX] {
            read_from(&[1, 2, 3], offset, &mut data);
            assert_eq!(data, [0; 4]);
        }
    }

    #[test]
    fn a_value_is_little_endian() {
        assert_eq!(value(&[]), 0);
        assert_eq!(value(&[0x34, 0x12]), 0x1234);
        assert_eq!(value(&[0xff; 8]), u64::MAX);
        assert_eq!(value(&[0, 0, 0, 0, 0, 0, 0, 1, 9]), 1 << 56);
    }
}
