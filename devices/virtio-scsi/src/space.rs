//! The configuration space (virtio 1.3 §5.6.4).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Length of the configuration space in bytes.
pub(crate) const SPACE_BYTES: usize = 36;
/// Queue 0 is for task management, queue 1 for events, requests start here (virtio 1.3 §5.6.2).
pub(crate) const FIRST_REQUEST_QUEUE: u16 = 2;
/// Offsets of the fields that the driver writes.
const SENSE_SIZE: u64 = 20;
const CDB_SIZE: u64 = 24;
/// Their values after power-on (virtio 1.3 §5.6.4).
const SENSE_SIZE_DEFAULT: u32 = 96;
const CDB_SIZE_DEFAULT: u32 = 32;
/// The largest that the driver may choose, in bytes: sense data is at most 252 (SPC-4 §4.5), a command 260.
const SIZE_MAX: u32 = 260;
/// Length of an event in bytes (virtio 1.3 §5.6.6.3).
const EVENT_BYTES: u32 = 16;
/// Commands that may wait for one unit.
const COMMANDS_PER_UNIT: u32 = 128;
/// The most sectors of 512 bytes in one transfer (32 MiB).
const SECTORS_MAX: u32 = 1 << 16;

/// Sizes that the driver chooses; the thread reads them with each request.
#[derive(Debug)]
pub(crate) struct Sizes {
    sense: AtomicU32,
    cdb: AtomicU32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { sense: SENSE_SIZE_DEFAULT.into(), cdb: CDB_SIZE_DEFAULT.into() }
    }
}

impl Sizes {
    /// Length of the sense field in bytes.
    pub(crate) fn sense(&self) -> usize {
        usize::try_from(self.sense.load(Relaxed)).unwrap_or(0)
    }

    /// Length of the command field in bytes.
    pub(crate) fn cdb(&self) -> usize {
        usize::try_from(self.cdb.load(Relaxed)).unwrap_or(0)
    }

    /// Both as they are saved: sense data, command.
    pub(crate) fn save(&self) -> (u32, u32) {
        (self.sense.load(Relaxed), self.cdb.load(Relaxed))
    }

    /// Takes both over, if they are sizes that a driver may choose.
    pub(crate) fn set(&self, (sense, cdb): (u32, u32)) -> bool {
        let fits = sense <= SIZE_MAX && cdb <= SIZE_MAX;
        if fits {
            self.sense.store(sense, Relaxed);
            self.cdb.store(cdb, Relaxed);
        }
        fits
    }

    pub(crate) fn reset(&self) {
        self.set((SENSE_SIZE_DEFAULT, CDB_SIZE_DEFAULT));
    }

    /// Takes a write of the driver: a whole field, and a size that can be; anything else changes nothing.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let Ok(data) = <[u8; 4]>::try_from(data) else { return };
        let (sense, cdb) = self.save();
        match offset {
            SENSE_SIZE => self.set((u32::from_le_bytes(data), cdb)),
            CDB_SIZE => self.set((sense, u32::from_le_bytes(data))),
            _ => false,
        };
    }
}

/// The configuration space as the driver reads it.
pub(crate) fn space(queues: u16, queue_size: u16, targets: usize, sizes: &Sizes) -> [u8; SPACE_BYTES] {
    let (sense, cdb) = sizes.save();
    // A request has a header and a response beside its data.
    let segments = u32::from(queue_size.saturating_sub(2));
    let last_target = u16::try_from(targets.saturating_sub(1)).unwrap_or(u16::MAX);
    let words = [u32::from(queues), segments, SECTORS_MAX, COMMANDS_PER_UNIT, EVENT_BYTES, sense, cdb];
    let mut space = [0; SPACE_BYTES];
    // max_channel, max_target, max_lun.
    let tail = [0_u16.to_le_bytes(), last_target.to_le_bytes()].concat().into_iter().chain([0; 4]);
    for (to, from) in space.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes()).chain(tail)) {
        *to = from;
    }
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_puts_them() {
        let space = space(4, 128, 3, &Sizes::default());
        let word = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
        assert_eq!([word(0), word(4), word(8), word(12)], [4, 126, 65536, 128]);
        assert_eq!([word(16), word(20), word(24)], [16, 96, 32]);
        assert_eq!([word(28) & 0xffff, word(28) >> 16, word(32)], [0, 2, 0]);
    }

    #[test]
    fn the_driver_chooses_sizes_within_bounds() {
        let sizes = Sizes::default();
        sizes.write(SENSE_SIZE, &252_u32.to_le_bytes());
        sizes.write(CDB_SIZE, &16_u32.to_le_bytes());
        assert_eq!((sizes.sense(), sizes.cdb()), (252, 16));
        for (offset, data) in [(SENSE_SIZE, u32::MAX), (CDB_SIZE, 261), (0, 1), (u64::MAX, 1)] {
            sizes.write(offset, &data.to_le_bytes());
        }
        sizes.write(SENSE_SIZE, &[1]);
        assert_eq!((sizes.sense(), sizes.cdb()), (252, 16));
        sizes.reset();
        assert_eq!((sizes.sense(), sizes.cdb()), (96, 32));
    }
}
