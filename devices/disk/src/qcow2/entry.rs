//! Entries of the L1 and L2 tables, and reference counts of any width. Pure.

/// Bits of an L1 or L2 entry that hold a host offset: 9 to 55.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The reference count of what the entry refers to is exactly one: it may be written in place.
pub(crate) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeroes (version 3).
pub(crate) const ZERO: u64 = 1;

/// What an L1 entry refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct L2Table {
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// Whether it may be changed where it is.
    pub(crate) owned: bool,
}

/// The L2 table of an L1 entry, if there is one; an error when reserved bits are set.
pub(crate) fn l2_table(entry: u64) -> Result<Option<L2Table>, &'static str> {
    if entry == 0 {
        return Ok(None);
    }
    if entry & !(OFFSET | COPIED) != 0 || entry & OFFSET == 0 {
        return Err("an L1 entry has reserved bits");
    }
    Ok(Some(L2Table { offset: entry & OFFSET, owned: entry & COPIED != 0 }))
}

/// Where the bytes of a guest cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// In the backing image, or nowhere, which is zeroes.
    Unallocated,
    /// Nowhere: zeroes. `kept` is a host cluster that belongs to it all the same, and whether it is its alone.
    Zero { kept: Option<(u64, bool)> },
    /// In a cluster of the file; `owned` when no snapshot shares it.
    Normal { offset: u64, owned: bool },
    /// Compressed, in `len` bytes from `offset` on, of which the last sector may not be full.
    Compressed { offset: u64, len: u64 },
}

/// Reads an L2 entry of an image of `version`.
pub(crate) fn cluster(entry: u64, cluster_bits: u32, version: u32) -> Result<Cluster, &'static str> {
    if entry & COMPRESSED != 0 {
        // "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8).
        let offset_bits = 62_u32.saturating_sub(cluster_bits.saturating_sub(8));
        let bits = entry & (COMPRESSED - 1);
        let offset = bits & ((1 << offset_bits) - 1);
        let sectors = bits >> offset_bits;
        if entry & COPIED != 0 {
            return Err("a compressed cluster claims to be writable");
        }
        return Ok(Cluster::Compressed { offset, len: (sectors + 1) * 512 - (offset & 511) });
    }
    let (offset, owned, zero) = (entry & OFFSET, entry & COPIED != 0, entry & ZERO != 0);
    if entry & !(OFFSET | COPIED | ZERO) != 0 || zero && version < 3 {
        return Err("an L2 entry has reserved bits");
    }
    if offset & ((1 << cluster_bits) - 1) != 0 {
        return Err("an L2 entry is not aligned to a cluster");
    }
    Ok(match (offset, zero) {
        (0, false) if owned => return Err("an L2 entry has no offset, but is writable"),
        (0, false) => Cluster::Unallocated,
        (0, true) => Cluster::Zero { kept: None },
        (offset, true) => Cluster::Zero { kept: Some((offset, owned)) },
        (offset, false) => Cluster::Normal { offset, owned },
    })
}

/// The big-endian entry number `index` of a table.
pub(crate) fn get(table: &[u8], index: usize) -> Option<u64> {
    let (entries, _) = table.as_chunks::<8>();
    entries.get(index).map(|bytes| u64::from_be_bytes(*bytes))
}

/// Sets the entry number `index`.
pub(crate) fn set(table: &mut [u8], index: usize, entry: u64) {
    let (entries, _) = table.as_chunks_mut::<8>();
    if let Some(place) = entries.get_mut(index) {
        *place = entry.to_be_bytes();
    }
}

/// The reference count number `index` in a block of counts of `1 << order` bits ("Refcount table and blocks").
pub(crate) fn refcount(block: &[u8], index: usize, order: u32) -> Option<u64> {
    let bits = 1_usize << order;
    if bits < 8 {
        let at = index.checked_mul(bits)?;
        let byte = u64::from(*block.get(at / 8)?);
        return Some(byte >> (at % 8) & ((1 << bits) - 1));
    }
    let bytes = bits / 8;
    let at = index.checked_mul(bytes)?;
    let count = block.get(at..at.checked_add(bytes)?)?;
    Some(count.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Sets a reference count; false when it does not fit.
pub(crate) fn set_refcount(block: &mut [u8], index: usize, order: u32, count: u64) -> bool {
    let bits = 1_usize << order;
    if bits < 64 && count >> bits != 0 {
        return false;
    }
    let at = index.saturating_mul(bits);
    if bits < 8 {
        let Some(byte) = block.get_mut(at / 8) else { return false };
        let mask = ((1_u16 << bits) - 1) << (at % 8);
        let value = u16::try_from(count).unwrap_or_default() << (at % 8);
        let [_, new] = (u16::from(*byte) & !mask | value).to_be_bytes();
        *byte = new;
        return true;
    }
    let (start, bytes) = (at / 8, bits / 8);
    let Some(place) = block.get_mut(start..start.saturating_add(bytes)) else { return false };
    let value = count.to_be_bytes();
    let value = value.get(8_usize.saturating_sub(bytes)..).unwrap_or_default();
    place.copy_from_slice(value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l2_entries_are_read_as_the_specification_says() {
        let at = |entry| cluster(entry, 16, 3);
        assert_eq!(at(0), Ok(Cluster::Unallocated));
        assert_eq!(at(1), Ok(Cluster::Zero { kept: None }));
        assert_eq!(at(COPIED | 0x5_0000), Ok(Cluster::Normal { offset: 0x5_0000, owned: true }));
        assert_eq!(at(0x5_0001), Ok(Cluster::Zero { kept: Some((0x5_0000, false)) }));
        // 16 bits: the offset has 54 bits, the rest counts sectors beyond the first.
        let compressed = COMPRESSED | 2 << 54 | 0x1_0301;
        assert_eq!(at(compressed), Ok(Cluster::Compressed { offset: 0x1_0301, len: 3 * 512 - 0x101 }));
        for bad in [COPIED, 0x5_0200, 0x5_0002, 1 << 60, COMPRESSED | COPIED] {
            assert!(at(bad).is_err(), "{bad:#x}");
        }
        assert!(cluster(1, 16, 2).is_err(), "version 2 has no zero clusters");
    }

    #[test]
    fn reference_counts_of_every_width_are_where_they_belong() {
        for order in 0..7 {
            let mut block = vec![0; 512];
            let largest = if order == 6 { u64::MAX } else { (1 << (1 << order)) - 1 };
            let count = (512 * 8) >> order;
            assert!(set_refcount(&mut block, 3, order, largest));
            assert_eq!(refcount(&block, 3, order), Some(largest));
            assert_eq!((refcount(&block, 2, order), refcount(&block, 4, order)), (Some(0), Some(0)));
            assert!(set_refcount(&mut block, 3, order, 0) && block == vec![0; 512]);
            assert!(!set_refcount(&mut block, count, order, 1));
            assert_eq!(refcount(&block, count, order), None);
            assert!(order == 6 || !set_refcount(&mut block, 0, order, largest + 1));
        }
        let mut block = vec![0; 4];
        set_refcount(&mut block, 1, 4, 0x1234);
        assert_eq!(block, [0, 0, 0x12, 0x34]);
        set_refcount(&mut block, 1, 1, 3);
        assert_eq!(block, [0x0c, 0, 0x12, 0x34]);
    }

    #[test]
    fn l1_entries_with_reserved_bits_are_corrupt() {
        assert_eq!(l2_table(0), Ok(None));
        assert_eq!(l2_table(COPIED | 0x1_0000), Ok(Some(L2Table { offset: 0x1_0000, owned: true })));
        assert!(l2_table(1 << 62 | 0x1_0000).is_err() && l2_table(COPIED).is_err() && l2_table(1).is_err());
    }
}
