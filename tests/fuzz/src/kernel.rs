//! Any bytes as a kernel: bzImage, ELF, ELF with a PVH note.

use std::io::Cursor;

use orlop_firmware::kernel::{Boot, Choice, LoadError, load};
use orlop_firmware::layout::MemoryLayout;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const MEMORY_BYTES: u64 = 64 << 20;
/// `struct setup_header` of a bzImage starts here (Linux boot protocol).
const SETUP_HEADER: usize = 0x1f1;

/// What is loaded lies in memory, and the entry in what is loaded; the rest is refused.
pub fn run(bytes: &[u8]) {
    // A refusal is as good an end.
    let _ = loaded(bytes);
}

fn loaded(bytes: &[u8]) -> Result<(), LoadError> {
    let layout = MemoryLayout::of(MEMORY_BYTES).expect("a layout");
    let range = |ram: &std::ops::Range<u64>| (GuestAddress(ram.start), (ram.end - ram.start) as usize);
    let ranges: Vec<_> = layout.ram().iter().map(range).collect();
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).expect("memory");
    let (protocol, with_initramfs) = match bytes.last() {
        Some(last) if last % 3 == 1 => (Choice::Linux64, false),
        Some(last) if last % 3 == 2 => (Choice::Pvh, true),
        _ => (Choice::Auto, true),
    };
    let mut initramfs = Cursor::new(vec![0x5a; 5000]);
    let boot = Boot {
        kernel: &mut Cursor::new(bytes.to_vec()),
        initramfs: with_initramfs.then_some(&mut initramfs),
        cmdline: "console=ttyS0",
        protocol,
        rsdp: Some(0xe_0000),
    };
    let state = load(&memory, &layout, boot)?;
    assert!(state.kernel.end <= MEMORY_BYTES, "the kernel is loaded beyond memory");
    if let Some(initramfs) = state.initramfs {
        assert!(initramfs.end <= MEMORY_BYTES, "the initramfs is loaded beyond memory");
        let apart = initramfs.end <= state.kernel.start || initramfs.start >= state.kernel.end;
        assert!(apart, "the initramfs lies on the kernel");
    }
    Ok(())
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A small bzImage of protocol 2.15.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0x90; 1024 + 600];
    image[..1024].fill(0);
    put(&mut image, SETUP_HEADER, &[1]);
    put(&mut image, 0x200, &[0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS\x0f\x02");
    put(&mut image, 0x211, &[1]);
    for (at, value) in [
        (0x22c, 0x7fff_ffff_u32),
        (0x230, 0x20_0000),
        (0x234, 1 | 1 << 16),
        (0x238, 2047),
        (0x258, 0x100_0000),
        (0x260, 0x10_0000),
    ] {
        put(&mut image, at, &value.to_le_bytes());
    }
    image
}

/// An ELF file with one segment to load, and a PVH note.
fn elf(note: bool) -> Vec<u8> {
    let mut image = vec![0; 64 + 2 * 56];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1]);
    put(&mut image, 24, &0x20_0000_u64.to_le_bytes());
    put(&mut image, 32, &64_u64.to_le_bytes());
    put(&mut image, 52, &[64, 0, 56, 0, if note { 2 } else { 1 }, 0]);
    let program = |kind: u32, offset: u64, address: u64, len: u64| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(5_u32.to_le_bytes());
        for word in [offset, address, address, len, len, 4] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    };
    let (code, note_at) = (image.len() as u64, image.len() as u64 + 64);
    put(&mut image, 64, &program(1, code, 0x20_0000, 64));
    put(&mut image, 120, &program(4, note_at, 0, 24));
    image.extend([0x90; 64]);
    let words = [4_u32, 8, 18].map(u32::to_le_bytes).concat();
    image.extend([&words[..], b"Xen\0", &0x20_0000_u64.to_le_bytes()].concat());
    image
}

/// Kernels of every kind, and shortened ones.
pub fn corpus() -> crate::Corpus {
    let whole = [("bzimage", bzimage()), ("elf", elf(false)), ("pvh", elf(true))];
    let mut corpus = crate::Corpus::new();
    for (name, image) in whole {
        for last in 0..3 {
            corpus.push((format!("{name}-{last}"), [&image[..], &[last]].concat()));
        }
        for len in [1, 60, 64, 200, 0x202, 0x264] {
            corpus.push((format!("{name}-cut-{len}"), image[..len.min(image.len())].to_vec()));
        }
    }
    corpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_good_kernels_of_the_corpus_are_loaded() {
        for (name, image) in corpus() {
            if ["bzimage-0", "bzimage-1", "elf-0", "elf-1", "pvh-0", "pvh-1", "pvh-2"]
                .contains(&name.as_str())
            {
                loaded(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}
