//! Debian's cloud kernel: as it is installed, and the ELF file that is packed into it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;

use crate::cache::{self, Recipe, step};
use crate::debian::BuildError;
use crate::root::Parts;

/// The directory with `bzImage` and `vmlinux`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let kernel = parts.guest().join("vmlinuz");
    let key = Recipe::new().with(kernel.as_os_str().as_encoded_bytes()).with("1").key();
    cache::artifact("image-kernel", &key, |place| {
        step("unpack the guests' kernel", || {
            let bytes = fs::read(&kernel).map_err(|e| BuildError::file(&kernel, e))?;
            let vmlinux = unpack(&bytes).map_err(|reason| BuildError::unexpected(&kernel, reason))?;
            if !has_pvh_entry(&vmlinux) {
                return Err(BuildError::unexpected(&kernel, "its ELF file has no PVH entry note"));
            }
            let write = |name: &str, content: &[u8]| {
                let path: &Path = &place.join(name);
                fs::write(path, content).map_err(|e| BuildError::file(path, e))
            };
            write("bzImage", &bytes)?;
            write("vmlinux", &vmlinux)
        })
    })
}

/// The payload of a bzImage (Linux, Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
fn unpack(image: &[u8]) -> Result<Vec<u8>, String> {
    const SETUP_SECTS: usize = 0x1f1;
    const HEADER_MAGIC: usize = 0x202;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    const SECTOR_BYTES: usize = 512;

    let short = || "it ends before its setup header does".to_owned();
    if image.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err("it is not a bzImage".into());
    }
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).ok_or_else(short)?;
        Ok::<_, String>(u32::from_le_bytes(bytes.try_into().map_err(|_| short())?) as usize)
    };
    // For old kernels 0 means 4.
    let sectors = match image.get(SETUP_SECTS).ok_or_else(short)? {
        0 => 4,
        n => usize::from(*n),
    };
    let start = (sectors + 1) * SECTOR_BYTES + word(PAYLOAD_OFFSET)?;
    let payload = image.get(start..start + word(PAYLOAD_LENGTH)?).ok_or_else(short)?;
    let mut unpacked = Vec::new();
    StreamingDecoder::new(payload)
        .map_err(|e| format!("its payload is not packed by zstd: {e}"))?
        .read_to_end(&mut unpacked)
        .map_err(|e| format!("its payload is damaged: {e}"))?;
    if unpacked.starts_with(b"\x7fELF") { Ok(unpacked) } else { Err("its payload is not an ELF file".into()) }
}

/// Whether there is a note of owner `Xen`, type 18 (`XEN_ELFNOTE_PHYS32_ENTRY`, xen/include/public/elfnote.h).
fn has_pvh_entry(vmlinux: &[u8]) -> bool {
    let note =
        |description_bytes: u8| [4, 0, 0, 0, description_bytes, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0];
    // The entry is written as 4 or 8 bytes, depending on the kernel's version.
    [note(4), note(8)].iter().any(|note| vmlinux.windows(note.len()).any(|bytes| bytes == note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_file_is_no_kernel() {
        assert_eq!(unpack(&[b'a'; 4096]).unwrap_err(), "it is not a bzImage");
        assert_eq!(unpack(b"").unwrap_err(), "it is not a bzImage");
    }

    #[test]
    fn a_pvh_note_is_found_by_owner_and_type() {
        let note = b"....\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0....";
        assert!(has_pvh_entry(note));
        assert!(!has_pvh_entry(b"\x04\0\0\0\x08\0\0\0\x13\0\0\0Xen\0"));
    }
}
