//! A guest of a few instructions: it says `ok` on the serial port and then repeats what it is sent.

use std::path::Path;

use orlop_api::config::VmConfig;
use serde_json::json;

/// Where it is loaded, and entered.
const ADDRESS: u32 = 0x10_0000;

/// 32-bit code without paging, as PVH enters it. Says "ok\n" on 0x3f8, then polls the line status (bit 0: data ready) and
/// sends back every byte.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03,       // mov dx, 0x3f8
    0xb0, b'o', 0xee,             // mov al, 'o'; out dx, al
    0xb0, b'k', 0xee,
    0xb0, b'\n', 0xee,
    0x66, 0xba, 0xfd, 0x03,       // poll: mov dx, 0x3fd
    0xec,                         // in al, dx
    0xa8, 0x01,                   // test al, 1
    0x74, 0xf7,                   // jz poll
    0x66, 0xba, 0xf8, 0x03,       // mov dx, 0x3f8
    0xec, 0xee,                   // in al, dx; out dx, al
    0xeb, 0xef,                   // jmp poll
];

/// Writes the guest to `path`: a 64-bit ELF image with a PVH note.
pub fn write(path: &Path) {
    std::fs::write(path, image()).expect("a writable directory");
}

/// A machine that starts the guest at `kernel`, with the JSON fields `more`.
pub fn config(kernel: &Path, more: serde_json::Value) -> VmConfig {
    let mut config = json!({
        "name": "tiny",
        "memory": { "size_bytes": 16 << 20 },
        "boot": { "kernel": { "kernel": { "path": kernel }, "protocol": "pvh" } },
    });
    let fields = config.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(config).expect("a complete configuration")
}

/// ELF-64 (System V ABI, AMD64 supplement): header, one segment to load, one note.
fn image() -> Vec<u8> {
    const HEADERS_BYTES: u64 = 64 + 2 * 56;
    let note_bytes: u64 = 12 + 4 + 4;
    let code_at = HEADERS_BYTES + note_bytes;
    let mut image = Vec::new();
    image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    image.extend(2u16.to_le_bytes()); // ET_EXEC
    image.extend(62u16.to_le_bytes()); // EM_X86_64
    image.extend(1u32.to_le_bytes());
    image.extend(u64::from(ADDRESS).to_le_bytes()); // e_entry
    image.extend(64u64.to_le_bytes()); // e_phoff
    image.extend(0u64.to_le_bytes());
    image.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    let code_bytes = CODE.len() as u64;
    segment(&mut image, 1, 5, [code_at, ADDRESS.into(), ADDRESS.into(), code_bytes, code_bytes, 1]);
    segment(&mut image, 4, 4, [HEADERS_BYTES, 0, 0, note_bytes, note_bytes, 4]);
    for word in [4u32, 4, 18] {
        image.extend(word.to_le_bytes()); // name and descriptor sizes, XEN_ELFNOTE_PHYS32_ENTRY
    }
    image.extend(b"Xen\0");
    image.extend(ADDRESS.to_le_bytes());
    image.extend(CODE);
    image
}

/// A program header: type, flags, then offset, virtual and physical address, sizes in file and memory, alignment.
fn segment(image: &mut Vec<u8>, kind: u32, flags: u32, rest: [u64; 6]) {
    image.extend(kind.to_le_bytes());
    image.extend(flags.to_le_bytes());
    rest.into_iter().for_each(|word| image.extend(word.to_le_bytes()));
}
