//! What a device says of itself (ATA8-ACS §7.12 and §7.13).

use orlop_scsi::Medium;

use crate::ata::Settings;

/// Length of a serial number in bytes.
pub const SERIAL_MAX_BYTES: usize = 20;

/// Queued commands that a disk takes, less one.
const QUEUE_LAST: u16 = 31;

struct Words([u16; 256]);

impl Words {
    fn set(&mut self, at: usize, values: &[u16]) {
        for (place, value) in self.0.iter_mut().skip(at).zip(values) {
            *place = *value;
        }
    }

    /// Text, two characters a word, the first one in the upper byte, filled up with spaces.
    fn text(&mut self, at: usize, words: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for place in self.0.iter_mut().skip(at).take(words) {
            let (high, low) = (bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' '));
            *place = u16::from_be_bytes([high, low]);
        }
    }

    /// The words as they are sent, with their checksum (word 255).
    fn bytes(self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(510);
        bytes.push(0xa5);
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes.push(0_u8.wrapping_sub(sum));
        bytes
    }
}

fn halves(value: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
}

/// What both kinds of device say: transfer modes, SATA generation 1 to 3, ATA8.
fn common(serial: &str, model: &str) -> Words {
    let mut words = Words([0; 256]);
    words.text(10, 10, serial);
    words.text(23, 4, "1");
    words.text(27, 20, model);
    words.set(50, &[0x4000]);
    words.set(53, &[0x0006]);
    words.set(63, &[0x0007, 0x0003, 120, 120, 120, 120]);
    words.set(76, &[0x000e, 0x0006]);
    words.set(80, &[0x01f0]);
    words.set(88, &[0x203f]);
    words
}

/// IDENTIFY DEVICE of a disk.
pub(crate) fn disk(serial: &str, medium: &Medium, settings: &Settings, write_cache: bool) -> Vec<u8> {
    let mut words = common(serial, "ORLOP DISK");
    let sectors = medium.blocks();
    words.set(0, &[0x0040, 16383, 0, 16, 0, 0, 63]);
    // READ and WRITE MULTIPLE take 16 sectors at most.
    words.set(47, &[0x8010]);
    words.set(49, &[0x0f00]);
    words.set(59, &[if settings.multiple == 0 { 0 } else { 0x0100 | u16::from(settings.multiple) }]);
    let [low, high, ..] = halves(sectors.min(0x0fff_ffff));
    words.set(60, &[low, high]);
    words.set(75, &[QUEUE_LAST, 0x010e]);
    // Supported and enabled: power management, write cache, look-ahead; 48-bit addresses, FLUSH CACHE (EXT); FUA, logs.
    let cache = if write_cache { 0x20 } else { 0 };
    let ahead = if settings.look_ahead { 0x40 } else { 0 };
    words.set(82, &[0x0068, 0x7400, 0x4060, 0x0008 | cache | ahead, 0x3400, 0x4060]);
    words.set(100, &halves(sectors));
    // One block of ranges for DATA SET MANAGEMENT.
    words.set(105, &[1]);
    let per_physical = medium.physical_block_bytes.checked_div(medium.block_bytes).unwrap_or(1).max(1);
    let exponent = u16::try_from(per_physical.ilog2()).unwrap_or(0) & 0xf;
    let several = if exponent > 0 { 0x2000 } else { 0 };
    let long = if medium.block_bytes > 512 { 0x1000 } else { 0 };
    words.set(106, &[0x4000 | several | long | exponent]);
    if long != 0 {
        let [low, high, ..] = halves(u64::from(medium.block_bytes / 2));
        words.set(117, &[low, high]);
    }
    // TRIM, and a medium that does not rotate.
    words.set(169, &[if medium.read_only { 0 } else { 1 }]);
    words.set(209, &[0x4000]);
    words.set(217, &[1]);
    words.set(222, &[0x1020]);
    words.bytes()
}

/// IDENTIFY PACKET DEVICE of a CD-ROM drive.
pub(crate) fn cdrom(serial: &str) -> Vec<u8> {
    let mut words = common(serial, "ORLOP CD-ROM");
    // ATAPI, CD-ROM, removable, packets of 12 bytes.
    words.set(0, &[0x85c0]);
    words.set(49, &[0x0b00]);
    // PACKET, DEVICE RESET, power management.
    words.set(82, &[0x0218, 0x4000, 0x4000, 0x0218, 0, 0x4000]);
    words.set(222, &[0x1020]);
    words.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIUM: Medium =
        Medium { size_bytes: 1 << 30, block_bytes: 512, physical_block_bytes: 4096, read_only: false };

    #[test]
    fn a_disk_shows_its_size_and_its_sectors() {
        let bytes = disk("SERIAL", &MEDIUM, &Settings::default(), true);
        let word = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
        assert_eq!(bytes.len(), 512);
        assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!((word(60), word(61), word(100), word(101)), (0, 0x20, 0, 0x20));
        assert_eq!((word(106), word(85)), (0x6003, 0x68));
        assert_eq!(&bytes[20..26], b"ESIRLA");
        let long = Medium { block_bytes: 4096, ..MEDIUM };
        let bytes = disk("", &long, &Settings::default(), false);
        assert_eq!((bytes[212], bytes[213], bytes[234], bytes[235]), (0, 0x50, 0, 8));
    }
}
