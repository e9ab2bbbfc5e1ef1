//! Broken messages for the tests of what a guest can send.

/// Calls `with` for very many messages that are `good` with some bytes changed, cut off, or repeated; the same ones in
/// every run.
pub fn disturbed(good: &[u8], mut with: impl FnMut(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below.max(1)).unwrap()).unwrap()
    };
    for round in 0..60_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        match round % 4 {
            0 => bytes.truncate(random(bytes.len())),
            1 => {
                let tail = bytes[random(bytes.len())..].to_vec();
                bytes.extend(tail);
            }
            2 => (0..random(400)).for_each(|_| bytes.push(u8::try_from(random(256)).unwrap())),
            _ => {}
        }
        with(&bytes);
    }
}
