//! Guest memory: where it comes from on the host, and how it is emptied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use orlop_api::config::MemoryBacking;
use orlop_firmware::layout::MemoryLayout;
use orlop_virtio::Ram;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

/// Guest memory that the host does not give.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has not so much of it.
    #[error("{size_bytes} bytes of guest memory ({kind}) do not fit on this host: {source}{hint}")]
    DoesNotFit {
        /// How much was asked for.
        size_bytes: u64,
        /// Where from.
        kind: &'static str,
        /// What the system says.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// The mapping cannot be made.
    #[error("guest memory cannot be mapped: {0}")]
    Map(String),
}

/// How a backing is had from the kernel.
struct Recipe {
    kind: &'static str,
    /// Flags of `memfd_create(2)`; none for anonymous memory.
    memfd: Option<libc::c_uint>,
    hint: &'static str,
}

const HUGE_SHIFT_2M: libc::c_uint = 21 << libc::MFD_HUGE_SHIFT;
const HUGE_SHIFT_1G: libc::c_uint = 30 << libc::MFD_HUGE_SHIFT;
const HUGE_HINT: &str = "; reserve pages in /sys/kernel/mm/hugepages";

fn recipe(backing: MemoryBacking) -> Recipe {
    let huge = |shift| Some(libc::MFD_CLOEXEC | libc::MFD_HUGETLB | shift);
    match backing {
        MemoryBacking::Anonymous => Recipe { kind: "anonymous", memfd: None, hint: "" },
        MemoryBacking::Memfd => Recipe { kind: "memfd", memfd: Some(libc::MFD_CLOEXEC), hint: "" },
        MemoryBacking::Hugetlb2M => {
            Recipe { kind: "huge pages of 2 MiB", memfd: huge(HUGE_SHIFT_2M), hint: HUGE_HINT }
        }
        MemoryBacking::Hugetlb1G => {
            Recipe { kind: "huge pages of 1 GiB", memfd: huge(HUGE_SHIFT_1G), hint: HUGE_HINT }
        }
    }
}

/// Maps guest memory as `layout` says, `smram` in it as a region of its own. Anonymous memory asks for transparent huge
/// pages.
pub fn allocate(
    layout: &MemoryLayout,
    smram: Option<&Range<u64>>,
    backing: MemoryBacking,
) -> Result<Ram, MemoryError> {
    let recipe = recipe(backing);
    let split = smram.map_or(layout.low.end, |smram| smram.start);
    let low = [layout.low.start..split, split..layout.low.end];
    let ranges = low.into_iter().chain([layout.high.clone()]).filter(|range| !range.is_empty());
    let regions = ranges.map(|range| {
        let len_bytes = range.end - range.start;
        let region = map(len_bytes, &recipe)?;
        if recipe.memfd.is_none() {
            // Without huge pages the guest is slower and nothing else.
            let _ = advise(&region, libc::MADV_HUGEPAGE);
        }
        // Guest memory does not belong into a core file.
        let _ = advise(&region, libc::MADV_DONTDUMP);
        GuestRegionMmap::new(region, GuestAddress(range.start))
            .ok_or_else(|| MemoryError::Map(format!("{range:#x?} wraps around")))
    });
    let regions: Vec<_> = regions.collect::<Result<_, _>>()?;
    Ram::from_regions(regions).map_err(|e| MemoryError::Map(e.to_string()))
}

/// The part of `ram` that devices reach: all but `smram`, which is a region of its own.
pub fn reachable(ram: &Arc<Ram>, smram: Option<&Range<u64>>) -> Result<Arc<Ram>, MemoryError> {
    let Some(smram) = smram else { return Ok(Arc::clone(ram)) };
    ram.remove_region(GuestAddress(smram.start), smram.end - smram.start)
        .map(|(reachable, _)| Arc::new(reachable))
        .map_err(|e| MemoryError::Map(e.to_string()))
}

/// Maps zeroed anonymous memory that is no RAM of the guest.
pub fn rom(len_bytes: u64) -> Result<vm_memory::MmapRegion<()>, MemoryError> {
    let region = map(len_bytes, &recipe(MemoryBacking::Anonymous))?;
    // As guest memory it does not belong into a core file.
    let _ = advise(&region, libc::MADV_DONTDUMP);
    Ok(region)
}

fn map(len_bytes: u64, recipe: &Recipe) -> Result<vm_memory::MmapRegion<()>, MemoryError> {
    let refuse = |source| MemoryError::DoesNotFit {
        size_bytes: len_bytes,
        kind: recipe.kind,
        source,
        hint: recipe.hint,
    };
    let len = usize::try_from(len_bytes).map_err(|e| MemoryError::Map(e.to_string()))?;
    let builder = MmapRegionBuilder::new(len).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
    let builder = match recipe.memfd {
        // A guest rarely touches all that it has, so a host may promise more than it holds; cgroups set the bound.
        None => builder.with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE),
        Some(flags) => {
            let file = memfd(flags).map_err(refuse)?;
            file.set_len(len_bytes).map_err(refuse)?;
            builder.with_mmap_flags(libc::MAP_SHARED).with_file_offset(FileOffset::new(file, 0))
        }
    };
    builder.build().map_err(|e| match e {
        MmapRegionError::Mmap(source) => refuse(source),
        other => MemoryError::Map(other.to_string()),
    })
}

fn memfd(flags: libc::c_uint) -> io::Result<File> {
    #[expect(unsafe_code, reason = "memfd_create(2)")]
    // SAFETY: the name is a C string; the call touches nothing else.
    let fd = unsafe { libc::memfd_create(c"guest-memory".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "a descriptor just made")]
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn advise(region: &vm_memory::MmapRegion<()>, advice: libc::c_int) -> io::Result<()> {
    #[expect(unsafe_code, reason = "madvise(2)")]
    // SAFETY: the range is one live mapping. Advice that empties it changes only what a guest would see as well: guest
    // memory is shared with the guest and read through vm-memory, which expects any value at any time.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives all of the memory back to the host: it reads as zero from now on. No vCPU runs and every device is drained.
pub fn discard(ram: &Ram) -> io::Result<()> {
    for region in ram.iter() {
        let advice = if region.file_offset().is_some() { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
        advise(region, advice)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn memory_of_either_kind_is_zero_again_after_discard() {
        let layout = MemoryLayout::of(2 << 20).unwrap();
        for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
            let ram = allocate(&layout, None, backing).unwrap();
            ram.write_obj(0x1234_5678_u32, GuestAddress(0x10_0000)).unwrap();
            discard(&ram).unwrap();
            assert_eq!(ram.read_obj::<u32>(GuestAddress(0x10_0000)).unwrap(), 0);
        }
    }

    #[test]
    fn memory_beyond_the_hole_is_a_region_of_its_own() {
        let ram = allocate(&MemoryLayout::of(6 << 30).unwrap(), None, MemoryBacking::Memfd).unwrap();
        assert_eq!(ram.num_regions(), 2);
        ram.write_obj(1_u8, GuestAddress((8 << 30) - 1)).unwrap();
        assert!(ram.write_obj(1_u8, GuestAddress(3 << 30)).is_err());
    }

    #[test]
    fn devices_reach_everything_but_system_management_ram() {
        let layout = MemoryLayout::of(3 << 30).unwrap();
        let smram = (2 << 30) - (16 << 20)..2 << 30;
        let ram = Arc::new(allocate(&layout, Some(&smram), MemoryBacking::Anonymous).unwrap());
        let reachable = reachable(&ram, Some(&smram)).unwrap();
        for (address, reached) in [
            (0, true),
            (smram.start - 4, true),
            (smram.start, false),
            (smram.end - 4, false),
            (1 << 32, true),
        ] {
            ram.write_obj(7_u32, GuestAddress(address)).unwrap();
            assert_eq!(reachable.read_obj::<u32>(GuestAddress(address)).ok(), reached.then_some(7));
        }
        // Not even the end of something that begins before it.
        assert!(reachable.write_slice(&[0; 8], GuestAddress(smram.start - 4)).is_err());
        assert_eq!(ram.read_obj::<u32>(GuestAddress(smram.start)).unwrap(), 7);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_size() {
        let layout = MemoryLayout::of(16 << 40).unwrap();
        let error = allocate(&layout, None, MemoryBacking::Hugetlb1G).unwrap_err();
        assert!(error.to_string().contains("huge pages of 1 GiB"), "{error}");
    }
}
