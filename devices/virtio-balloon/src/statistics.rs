//! What a guest tells about its memory (virtio 1.3 §5.5.6.4).

/// Bytes of `struct virtio_balloon_stat`: le16 tag, le64 value, packed.
const ENTRY_BYTES: usize = 10;
/// The most entries that are looked at; there are 16 tags.
const ENTRIES_MAX: usize = 64;
/// The most bytes of a statistics buffer that matter.
pub(crate) const STATS_MAX_BYTES: usize = ENTRY_BYTES * ENTRIES_MAX;

/// A guest's statistics; each value is absent where the guest does not tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Counts the updates since the guest started its driver, from 1.
    pub update: u64,
    /// Bytes swapped in since boot.
    pub swap_in_bytes: Option<u64>,
    /// Bytes swapped out since boot.
    pub swap_out_bytes: Option<u64>,
    /// Page faults since boot that needed I/O.
    pub major_faults: Option<u64>,
    /// Page faults since boot that needed none.
    pub minor_faults: Option<u64>,
    /// Memory that nobody uses, in bytes.
    pub free_bytes: Option<u64>,
    /// All memory that the guest's kernel manages, in bytes.
    pub total_bytes: Option<u64>,
    /// Memory that programs could get without swapping, in bytes.
    pub available_bytes: Option<u64>,
    /// Memory that caches files and could be freed at once, in bytes.
    pub disk_caches_bytes: Option<u64>,
    /// Huge pages allocated since boot.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be allocated since boot.
    pub hugetlb_failures: Option<u64>,
    /// Processes killed since boot because memory ran out.
    pub oom_kills: Option<u64>,
    /// Allocations since boot that had to wait for memory.
    pub alloc_stalls: Option<u64>,
    /// Pages scanned since boot in the background.
    pub async_scans: Option<u64>,
    /// Pages scanned since boot by who needed memory.
    pub direct_scans: Option<u64>,
    /// Pages reclaimed since boot in the background.
    pub async_reclaims: Option<u64>,
    /// Pages reclaimed since boot by who needed memory.
    pub direct_reclaims: Option<u64>,
}

impl Statistics {
    /// Reads a statistics buffer. Tags that nobody knows and bytes that are no whole entry are left out; of a tag
    /// that comes twice the last counts.
    pub(crate) fn parse(update: u64, bytes: &[u8]) -> Self {
        let mut stats = Self { update, ..Self::default() };
        for entry in bytes.chunks_exact(ENTRY_BYTES).take(ENTRIES_MAX) {
            let (tag, value) = entry.split_at(2);
            let value = orlop_bus::value(value);
            if let Some(field) = stats.field(orlop_bus::value(tag)) {
                *field = Some(value);
            }
        }
        stats
    }

    /// Where the value of `tag` goes. Tags 10 to 15 are Linux's (`include/uapi/linux/virtio_balloon.h`).
    fn field(&mut self, tag: u64) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in_bytes,
            1 => &mut self.swap_out_bytes,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free_bytes,
            5 => &mut self.total_bytes,
            6 => &mut self.available_bytes,
            7 => &mut self.disk_caches_bytes,
            8 => &mut self.hugetlb_allocations,
            9 => &mut self.hugetlb_failures,
            10 => &mut self.oom_kills,
            11 => &mut self.alloc_stalls,
            12 => &mut self.async_scans,
            13 => &mut self.direct_scans,
            14 => &mut self.async_reclaims,
            15 => &mut self.direct_reclaims,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u16, value: u64) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn known_tags_are_read_and_others_left_out() {
        let bytes = [entry(4, 1 << 40), entry(77, 5), entry(0, 0), entry(4, 9), vec![1, 0, 3]].concat();
        let expected =
            Statistics { update: 3, free_bytes: Some(9), swap_in_bytes: Some(0), ..Statistics::default() };
        assert_eq!(Statistics::parse(3, &bytes), expected);
    }

    #[test]
    fn every_tag_has_a_field_of_its_own() {
        let bytes: Vec<u8> = (0..16).flat_map(|tag| entry(tag, u64::from(tag) + 100)).collect();
        let mut stats = Statistics::parse(1, &bytes);
        for tag in 0..16 {
            assert_eq!(*stats.field(tag).unwrap(), Some(tag + 100));
        }
    }
}
