//! The configuration space (virtio 1.3 §5.2.4) and the features behind it.

use orlop_disk::{Disk, SECTOR_BYTES};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

/// Length of the configuration space in bytes: up to and with `write_zeroes_may_unmap` and its padding.
pub(crate) const SPACE_BYTES: usize = 60;
/// Offset of `writeback`, the only field that the driver may write.
pub(crate) const WRITEBACK: u64 = 32;

/// The most that one discard segment may cover, in sectors (2 GiB).
pub(crate) const DISCARD_MAX_SECTORS: u32 = 1 << 22;
/// The most discard segments in one request.
pub(crate) const DISCARD_MAX_SEGMENTS: u32 = 32;
/// The most that one write-zeroes segment may cover, in sectors (64 MiB): storage that knows no such thing has to
/// write them all.
pub(crate) const ZEROES_MAX_SECTORS: u32 = 1 << 17;
/// The most write-zeroes segments in one request.
pub(crate) const ZEROES_MAX_SEGMENTS: u32 = 1;

/// What the guest is told about its disk; only the size may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) size_bytes: u64,
    pub(crate) block_bytes: u32,
    pub(crate) physical_block_bytes: u32,
    /// The unit in which space can be given back.
    pub(crate) discard_bytes: u32,
    pub(crate) read_only: bool,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
}

impl Geometry {
    pub(crate) fn of(disk: &Disk, queues: u16, queue_size: u16) -> Self {
        Self {
            size_bytes: disk.size_bytes(),
            block_bytes: disk.block_bytes(),
            physical_block_bytes: disk.physical_block_bytes(),
            discard_bytes: disk.discard_bytes(),
            read_only: disk.is_read_only(),
            queues,
            queue_size,
        }
    }

    /// The device-specific feature bits (virtio 1.3 §5.2.3).
    pub(crate) fn features(&self) -> u64 {
        let mut bits = vec![
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
        ];
        if self.read_only {
            bits.push(VIRTIO_BLK_F_RO);
        } else {
            bits.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
        }
        if self.queues > 1 {
            bits.push(VIRTIO_BLK_F_MQ);
        }
        bits.into_iter().fold(0, |features, bit| features | 1 << bit)
    }

    /// The configuration space as the driver reads it.
    pub(crate) fn space(&self, writeback: bool) -> [u8; SPACE_BYTES] {
        // A request is a header, its data, and a status byte.
        let data_segments = u32::from(self.queue_size.saturating_sub(2));
        let blocks_per_physical = self.physical_block_bytes.checked_div(self.block_bytes).unwrap_or(1);
        let physical_exponent = u8::try_from(blocks_per_physical.max(1).ilog2()).unwrap_or_default();
        let discard_sectors = self.discard_bytes / SECTOR_BYTES;
        let sectors = self.size_bytes / u64::from(SECTOR_BYTES);
        let (discard, zeroes) = if self.read_only { (0, 0) } else { (1, 1) };

        let mut space = Writer { bytes: [0; SPACE_BYTES], at: 0 };
        space.put(&sectors.to_le_bytes()); // capacity
        space.put(&0_u32.to_le_bytes()); // size_max
        space.put(&data_segments.to_le_bytes()); // seg_max
        space.put(&[0; 4]); // geometry
        space.put(&self.block_bytes.to_le_bytes()); // blk_size
        space.put(&[physical_exponent, 0]); // topology: physical_block_exp, alignment_offset
        space.put(&u16::try_from(blocks_per_physical).unwrap_or(1).to_le_bytes()); // min_io_size
        space.put(&0_u32.to_le_bytes()); // opt_io_size
        space.put(&[u8::from(writeback), 0]); // writeback, unused
        space.put(&self.queues.to_le_bytes()); // num_queues
        space.put(&(discard * DISCARD_MAX_SECTORS).to_le_bytes()); // max_discard_sectors
        space.put(&(discard * DISCARD_MAX_SEGMENTS).to_le_bytes()); // max_discard_seg
        space.put(&(discard * discard_sectors).to_le_bytes()); // discard_sector_alignment
        space.put(&(zeroes * ZEROES_MAX_SECTORS).to_le_bytes()); // max_write_zeroes_sectors
        space.put(&(zeroes * ZEROES_MAX_SEGMENTS).to_le_bytes()); // max_write_zeroes_seg
        space.put(&[u8::from(!self.read_only), 0, 0, 0]); // write_zeroes_may_unmap, unused
        space.bytes
    }
}

struct Writer {
    bytes: [u8; SPACE_BYTES],
    at: usize,
}

impl Writer {
    fn put(&mut self, field: &[u8]) {
        let end = self.at.saturating_add(field.len());
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(field);
        }
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Geometry = Geometry {
        size_bytes: 1 << 30,
        block_bytes: 512,
        physical_block_bytes: 4096,
        discard_bytes: 4096,
        read_only: false,
        queues: 4,
        queue_size: 256,
    };

    #[test]
    fn fields_are_where_the_specification_puts_them() {
        let space = DISK.space(true);
        let u32_at = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(space[..8].try_into().unwrap()), 1 << 21);
        assert_eq!((u32_at(12), u32_at(20)), (254, 512));
        assert_eq!((space[24], space[25], space[26], space[27]), (3, 0, 8, 0));
        assert_eq!(space[WRITEBACK as usize], 1);
        assert_eq!((space[34], space[35]), (4, 0));
        assert_eq!((u32_at(36), u32_at(40), u32_at(44)), (DISCARD_MAX_SECTORS, DISCARD_MAX_SEGMENTS, 8));
        assert_eq!((u32_at(48), u32_at(52), space[56]), (ZEROES_MAX_SECTORS, ZEROES_MAX_SEGMENTS, 1));
        assert_eq!(DISK.space(false)[WRITEBACK as usize], 0);
    }

    #[test]
    fn a_read_only_disk_offers_nothing_that_writes() {
        let disk = Geometry { read_only: true, ..DISK };
        assert_eq!(disk.features() & (1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES), 0);
        assert_ne!(disk.features() & 1 << VIRTIO_BLK_F_RO, 0);
        assert_eq!(disk.space(true)[36..], [0; 24]);
    }
}
