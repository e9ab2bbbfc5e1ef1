//! bzImage: the format of every distribution's `vmlinuz` (Linux `Documentation/arch/x86/boot.rst`).

use std::ops::Range;

use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use vm_memory::{ByteValued, GuestMemoryBackend};

use super::image::{Image, Source};
use super::{LoadError, place};
use crate::layout::MemoryLayout;

/// `HdrS` in the setup header, and where it lies in the file.
const MAGIC: [u8; 4] = *b"HdrS";
const MAGIC_OFFSET: u64 = 0x202;
/// Where the setup header starts in the file.
const HEADER_OFFSET: u64 = 0x1f1;
/// The byte that says how far the setup header reaches, counted from [`MAGIC_OFFSET`].
const HEADER_LEN_OFFSET: u64 = 0x201;
/// Boot protocol 2.12: the first with a 64-bit entry that is announced.
const VERSION_MIN: u16 = 0x020c;
/// Sectors of the setup code where the header says 0.
const SETUP_SECTORS_DEFAULT: u8 = 4;
const SECTOR_BYTES: u64 = 512;
/// The unit of the setup header's `syssize`.
const PARAGRAPH_BYTES: u64 = 16;
/// The 64-bit entry, counted from where the protected-mode kernel is loaded.
const ENTRY_64_OFFSET: u64 = 0x200;

/// A bzImage, read and checked against the machine, not yet loaded.
#[derive(Debug)]
pub(super) struct BzImage {
    /// The setup header as the file has it.
    pub header: setup_header,
    /// From the load address to the end of what the kernel needs before it knows the memory map.
    pub range: Range<u64>,
    payload: Range<u64>,
}

impl BzImage {
    /// Whether the image is one.
    pub fn detect<F: Source>(image: &mut Image<'_, F>) -> bool {
        image.array(MAGIC_OFFSET, "magic").is_ok_and(|magic: [u8; 4]| magic == MAGIC)
    }

    /// Reads and checks the setup header.
    pub fn parse<F: Source>(image: &mut Image<'_, F>, layout: &MemoryLayout) -> Result<Self, LoadError> {
        let header = read_header(image)?;
        check_header(&header)?;
        let sectors = if header.setup_sects == 0 { SETUP_SECTORS_DEFAULT } else { header.setup_sects };
        let start = (u64::from(sectors) + 1) * SECTOR_BYTES;
        if start + ENTRY_64_OFFSET >= image.len_bytes() {
            return Err(image.malformed(format!(
                "it ends at {:#x}, before its protected-mode code at {start:#x}",
                image.len_bytes()
            )));
        }
        // What the header announces may be rounded up to a whole paragraph; a signature may follow it.
        let announced = u64::from(header.syssize) * PARAGRAPH_BYTES;
        if start + announced >= image.len_bytes() + PARAGRAPH_BYTES {
            return Err(image.malformed(format!(
                "it was cut off: it has {} bytes, its header announces {}",
                image.len_bytes(),
                start + announced
            )));
        }
        let payload = start..image.len_bytes();
        // It runs from its preferred address wherever it is loaded; loading it there saves the move.
        let load = header.pref_address;
        let needs = u64::from(header.init_size).max(payload.end - payload.start);
        let range = place::checked(load, needs)
            .ok_or_else(|| image.malformed(format!("its preferred address {load:#x} cannot be")))?;
        place::free(&range, layout)?;
        Ok(Self { header, range, payload })
    }

    /// Address of the 64-bit entry.
    pub fn entry(&self) -> u64 {
        self.range.start + ENTRY_64_OFFSET
    }

    /// Copies the protected-mode kernel into guest memory.
    pub fn load<F: Source, M: GuestMemoryBackend>(
        &self,
        image: &mut Image<'_, F>,
        memory: &M,
    ) -> Result<(), LoadError> {
        let len = self.payload.end - self.payload.start;
        image.copy_to(self.payload.start, len, memory, self.range.start, "protected-mode code")
    }
}

/// The setup header, as much of it as the file has: older kernels have a shorter one, and what follows is code.
fn read_header<F: Source>(image: &mut Image<'_, F>) -> Result<setup_header, LoadError> {
    let [reach] = image.array(HEADER_LEN_OFFSET, "setup header")?;
    let end = MAGIC_OFFSET + u64::from(reach);
    let mut header = setup_header::default();
    let bytes = header.as_mut_slice();
    let len = usize::try_from(end - HEADER_OFFSET).unwrap_or(usize::MAX).min(bytes.len());
    let Some(known) = bytes.get_mut(..len) else {
        return Err(image.malformed("its setup header is too long".to_owned()));
    };
    image.fill(HEADER_OFFSET, known, "setup header")?;
    Ok(header)
}

fn check_header(header: &setup_header) -> Result<(), LoadError> {
    let version = header.version;
    if version < VERSION_MIN {
        return Err(LoadError::Unsupported(format!(
            "a bzImage of boot protocol {}.{:02}; at least 2.12 is needed",
            version >> 8,
            version & 0xff
        )));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(LoadError::Unsupported("a zImage, which is loaded below 1 MiB".to_owned()));
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(LoadError::Unsupported("a 32-bit Linux kernel".to_owned()));
    }
    let alignment = header.kernel_alignment;
    let preferred = header.pref_address;
    if !alignment.is_power_of_two() || !preferred.is_multiple_of(alignment.into()) {
        return Err(LoadError::Unsupported(format!(
            "a kernel whose preferred address {preferred:#x} is not aligned to its own {alignment:#x}"
        )));
    }
    Ok(())
}
