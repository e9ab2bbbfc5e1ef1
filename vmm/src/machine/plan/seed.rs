//! What a configuration leaves to chance, drawn from one seed, so that equal seeds give equal plans.

use std::io::Read;

use orlop_api::config::VmConfig;

/// Sixteen random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 16]);

impl Seed {
    /// A seed from the host.
    pub fn draw() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// An identity (RFC 9562 §5.4: version 4).
    fn uuid(self) -> String {
        let mut b = self.0;
        b[6] = b[6] & 0x0f | 0x40;
        b[8] = b[8] & 0x3f | 0x80;
        let hex: Vec<String> = b.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |range: std::ops::Range<usize>| hex[range].concat();
        format!("{}-{}-{}-{}-{}", part(0..4), part(4..6), part(6..8), part(8..10), part(10..16))
    }

    /// The address of network card `index`: locally administered, of a single station (IEEE 802-2014 §8.4).
    fn mac(self, index: usize) -> String {
        // FNV-1a over seed and index: spreads well enough for addresses that only must not meet.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.0.into_iter().chain(index.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
        format!("{:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}", a & 0xfc | 0x02)
    }
}

/// Fills in what `config` leaves open.
pub(super) fn fill_in(config: &mut VmConfig, seed: &Seed) {
    config.uuid.get_or_insert_with(|| seed.uuid());
    for (index, net) in config.nets.iter_mut().enumerate() {
        net.mac.get_or_insert_with(|| seed.mac(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_version_4_uuid() {
        assert_eq!(Seed([0xff; 16]).uuid(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Seed([0; 16]).uuid(), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn addresses_differ_and_belong_to_single_stations() {
        let macs: std::collections::BTreeSet<String> =
            (0..64).map(|index| Seed([7; 16]).mac(index)).collect();
        assert_eq!(macs.len(), 64);
        for mac in macs {
            let first = u8::from_str_radix(&mac[..2], 16).unwrap();
            assert_eq!(first & 3, 2, "{mac}");
        }
    }
}
