//! What may lie where in low memory.

use std::ops::Range;

use super::LoadError;
use crate::layout::{BOOT_PARAMETERS_END, EBDA_START, HIGH_MEMORY, MemoryLayout, PAGE_BYTES};

/// `start..start + len`, unless that wraps around.
pub(super) fn checked(start: u64, len: u64) -> Option<Range<u64>> {
    Some(start..start.checked_add(len)?)
}

/// Refuses a piece of the kernel that is not all in low RAM, or lies on the boot parameters or the BIOS area.
pub(super) fn free(range: &Range<u64>, layout: &MemoryLayout) -> Result<(), LoadError> {
    if range.end > layout.low.end {
        return Err(LoadError::DoesNotFit { needs_bytes: range.end, has_bytes: layout.low.end });
    }
    let taken = [(0..BOOT_PARAMETERS_END, "the boot parameters"), (EBDA_START..HIGH_MEMORY, "the BIOS area")];
    for (area, what) in taken {
        if overlap(range, &area) {
            return Err(LoadError::Overlap { range: range.clone(), what });
        }
    }
    Ok(())
}

/// The highest page-aligned place for `len` bytes in low RAM that ends at or below `limit`, leaves `taken` alone and
/// is not on the boot parameters or in the BIOS area.
pub(super) fn highest(len: u64, limit: u64, taken: &Range<u64>, layout: &MemoryLayout) -> Option<Range<u64>> {
    let top = layout.low.end.min(limit);
    let below = |end: u64| Some(end.checked_sub(len)? / PAGE_BYTES * PAGE_BYTES);
    [below(top), below(top.min(taken.start))].into_iter().flatten().find_map(|start| {
        let range = checked(start, len)?;
        (!overlap(&range, taken) && range.start >= HIGH_MEMORY).then_some(range)
    })
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mib: u64) -> MemoryLayout {
        MemoryLayout::of(mib << 20).unwrap()
    }

    #[test]
    fn the_highest_place_is_at_the_end_of_low_ram() {
        let kernel = 0x100_0000..0x300_0000;
        let place = |len, limit| highest(len, limit, &kernel, &layout(256));
        assert_eq!(place(4096, u64::MAX), Some(0xFFF_F000..0x1000_0000));
        assert_eq!(place(1, u64::MAX), Some(0xFFF_F000..0xFFF_F001));
        assert_eq!(place(4096, 0x800_0000), Some(0x7FF_F000..0x800_0000));
    }

    #[test]
    fn what_does_not_fit_above_the_kernel_goes_below_it() {
        let kernel = 0x100_0000..0x300_0000;
        assert_eq!(highest(0x10_0000, 0x308_0000, &kernel, &layout(256)), Some(0xF0_0000..0x100_0000));
        assert_eq!(highest(0x100_0000, 0x308_0000, &kernel, &layout(256)), None);
        assert_eq!(highest(u64::MAX, u64::MAX, &kernel, &layout(256)), None);
    }

    #[test]
    fn a_kernel_on_the_boot_parameters_is_refused() {
        let layout = layout(2);
        assert!(matches!(free(&(0x7000..0x8000), &layout), Err(LoadError::Overlap { .. })));
        assert!(matches!(free(&(0x9_0000..0xA_0000), &layout), Err(LoadError::Overlap { .. })));
        assert!(matches!(free(&(0x10_0000..0x20_0001), &layout), Err(LoadError::DoesNotFit { .. })));
        free(&(0x3_0000..0x8_0000), &layout).unwrap();
        free(&(0x10_0000..0x20_0000), &layout).unwrap();
    }
}
