//! Gives guest memory back to the host.

use orlop_virtio::Ram;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::PAGE_BYTES;

/// What became of pages that were to be given back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Pages that the host has again.
    pub given: u64,
    /// Pages outside guest memory.
    pub outside: u64,
    /// Pages that the host's kernel would not take (huge pages, a file system that cannot punch holes).
    pub refused: u64,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.given = self.given.saturating_add(other.given);
        self.outside = self.outside.saturating_add(other.outside);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

/// Gives the pages with the numbers in `pfns` back, neighbours together. Sorts `pfns`.
pub(crate) fn pages(ram: &Ram, pfns: &mut [u32]) -> Outcome {
    pfns.sort_unstable();
    let mut outcome = Outcome::default();
    let mut rest = &*pfns;
    while let Some((&first, _)) = rest.split_first() {
        // A run goes on while the next number is the same or one more.
        let run = rest.windows(2).take_while(|pair| matches!(pair, [a, b] if b.abs_diff(*a) <= 1)).count();
        let (now, later) = rest.split_at_checked(run.saturating_add(1)).unwrap_or((rest, &[]));
        let last = now.last().copied().unwrap_or(first);
        let count = u64::from(last.abs_diff(first)).saturating_add(1);
        let start = u64::from(first).saturating_mul(PAGE_BYTES);
        outcome.add(range(ram, start, count.saturating_mul(PAGE_BYTES)));
        rest = later;
    }
    outcome
}

/// Gives the whole pages in `start..start + len` back.
pub(crate) fn range(ram: &Ram, start: u64, len: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let end = start.saturating_add(len) / PAGE_BYTES * PAGE_BYTES;
    let mut at = start.checked_next_multiple_of(PAGE_BYTES).unwrap_or(end);
    while at < end {
        let region = ram.find_region(GuestAddress(at));
        let stop = match &region {
            Some(region) => end.min(region.last_addr().0.saturating_add(1)),
            None => next_region(ram, at).unwrap_or(end).min(end),
        };
        let pages = stop.saturating_sub(at).div_ceil(PAGE_BYTES);
        match region {
            None => outcome.outside = outcome.outside.saturating_add(pages),
            Some(region) if give(ram, region.flags(), at, stop.saturating_sub(at)) => {
                outcome.given = outcome.given.saturating_add(pages);
            }
            Some(_) => outcome.refused = outcome.refused.saturating_add(pages),
        }
        at = stop;
    }
    outcome
}

/// Where the first region above `at` starts.
fn next_region(ram: &Ram, at: u64) -> Option<u64> {
    ram.iter().map(|region| region.start_addr().0).filter(|start| *start > at).min()
}

/// Gives `len` bytes of one region, mapped with `flags`, back; says whether the host's kernel took them.
#[expect(unsafe_code, reason = "madvise(2) changes memory behind the compiler's back")]
fn give(ram: &Ram, flags: i32, at: u64, len: u64) -> bool {
    let Ok(len) = usize::try_from(len) else { return false };
    let Ok(slice) = ram.get_slice(GuestAddress(at), len) else { return false };
    // Shared memory is a file's: only a hole in the file frees it.
    let advice = if flags & libc::MAP_SHARED != 0 { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
    // SAFETY: `slice` is `len` bytes of a mapping that `ram` owns and keeps; it stays mapped. Its bytes become zero,
    // which is a change as the guest itself could make: nobody holds references into guest memory.
    unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), slice.len(), advice) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, FileOffset};

    const HALF: usize = 16 * 4096;

    /// Two regions with a hole of the same size between them, filled with ones.
    fn ram(shared: bool) -> Ram {
        let file = || {
            let file = tempfile::tempfile_in("/dev/shm").unwrap();
            file.set_len(HALF as u64).unwrap();
            shared.then(|| FileOffset::new(file, 0))
        };
        let regions = [0, 2 * HALF as u64].map(|at| (GuestAddress(at), HALF, file()));
        let ram = Ram::from_ranges_with_files(regions).unwrap();
        for at in [0, 2 * HALF as u64] {
            ram.write_slice(&[1; HALF], GuestAddress(at)).unwrap();
        }
        ram
    }

    /// The numbers of the pages that are zero.
    fn zero_pages(ram: &Ram) -> Vec<u64> {
        let pages = (0..3 * HALF as u64 / 4096).filter(|page| {
            let mut bytes = [1; 4096];
            ram.read_slice(&mut bytes, GuestAddress(page * 4096)).is_ok() && bytes == [0; 4096]
        });
        pages.collect()
    }

    #[test]
    fn pages_that_are_given_back_read_as_zero() {
        for shared in [false, true] {
            let ram = ram(shared);
            let outcome = pages(&ram, &mut [9, 3, 5, 4, 3, 32]);
            assert_eq!(outcome, Outcome { given: 5, outside: 0, refused: 0 }, "shared: {shared}");
            assert_eq!(zero_pages(&ram), [3, 4, 5, 9, 32]);
        }
    }

    #[test]
    fn pages_outside_memory_are_counted_and_nothing_else() {
        let ram = ram(false);
        let outcome = pages(&ram, &mut [15, 16, 17, 31, 32, 48, u32::MAX, u32::MAX - 1]);
        assert_eq!(outcome, Outcome { given: 2, outside: 6, refused: 0 });
        assert_eq!(zero_pages(&ram), [15, 32]);
    }

    #[test]
    fn only_whole_pages_of_a_range_go() {
        let ram = ram(false);
        assert_eq!(range(&ram, 4095, 4098), Outcome { given: 1, ..Outcome::default() });
        assert_eq!(range(&ram, 1, 4096), Outcome::default());
        assert_eq!(range(&ram, 8192, 0), Outcome::default());
        assert_eq!(zero_pages(&ram), [1]);
    }

    #[test]
    fn a_range_across_everything_skips_the_holes() {
        let ram = ram(false);
        let outcome = range(&ram, 0, u64::MAX);
        assert_eq!((outcome.given, outcome.refused), (32, 0));
        assert_eq!(zero_pages(&ram).len(), 32);
        assert_eq!(range(&ram, u64::MAX - 10, 100), Outcome::default());
    }
}
