//! ELF kernels: `vmlinux`, and any other 64-bit image with program headers.

use std::ops::Range;

use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, EM_X86_64, Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE,
};
use vm_memory::{ByteValued, GuestMemoryBackend};

use super::image::{Image, Source};
use super::{LoadError, place};
use crate::layout::MemoryLayout;

/// First bytes of an ELF file.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";
/// Most program headers that are looked at; a kernel has about five.
const HEADERS_MAX: u16 = 128;
/// Longest note segment that is searched, in bytes.
const NOTES_MAX_BYTES: u64 = 64 << 10;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the address of the PVH entry (Xen `public/elfnote.h`).
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";

const PHDR_BYTES: usize = size_of::<Elf64_Phdr>();

/// A piece of the file that belongs somewhere in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    offset: u64,
    file_bytes: u64,
    range: Range<u64>,
}

/// An ELF kernel, read and checked against the machine, not yet loaded.
#[derive(Debug)]
pub(super) struct Elf {
    segments: Vec<Segment>,
    /// From the lowest to the highest address that the kernel takes.
    pub range: Range<u64>,
    /// The ELF header's entry.
    pub entry: u64,
    /// The entry that the PVH note names.
    pub pvh_entry: Option<u64>,
}

impl Elf {
    /// Reads and checks the headers.
    pub fn parse<F: Source>(image: &mut Image<'_, F>, layout: &MemoryLayout) -> Result<Self, LoadError> {
        let mut header = Elf64_Ehdr::default();
        image.fill(0, header.as_mut_slice(), "ELF header")?;
        check_header(image, &header)?;

        let mut segments = Vec::new();
        let mut pvh_entry = None;
        for index in 0..u64::from(header.e_phnum) {
            let mut program = Elf64_Phdr::default();
            let offset = header.e_phoff.checked_add(index * PHDR_BYTES as u64);
            let offset =
                offset.ok_or_else(|| image.malformed("its program headers are nowhere".to_owned()))?;
            image.fill(offset, program.as_mut_slice(), "program header")?;
            match program.p_type {
                PT_LOAD if program.p_memsz > 0 => segments.push(segment(image, &program, index, layout)?),
                PT_NOTE if pvh_entry.is_none() => pvh_entry = find_entry_note(image, &program)?,
                _ => {}
            }
        }
        let start = segments.iter().map(|s| s.range.start).min();
        let end = segments.iter().map(|s| s.range.end).max();
        let (Some(start), Some(end)) = (start, end) else {
            return Err(image.malformed("it has nothing to load".to_owned()));
        };
        Ok(Self { segments, range: start..end, entry: header.e_entry, pvh_entry })
    }

    /// Whether `address` lies in a piece that is loaded.
    pub fn holds(&self, address: u64) -> bool {
        self.segments.iter().any(|s| s.range.contains(&address))
    }

    /// Copies the pieces into guest memory. What a piece takes in memory beyond what the file holds stays as it is:
    /// memory is zero at power-on.
    pub fn load<F: Source, M: GuestMemoryBackend>(
        &self,
        image: &mut Image<'_, F>,
        memory: &M,
    ) -> Result<(), LoadError> {
        for segment in &self.segments {
            image.copy_to(
                segment.offset,
                segment.file_bytes,
                memory,
                segment.range.start,
                "loadable segment",
            )?;
        }
        Ok(())
    }
}

fn check_header<F: Source>(image: &Image<'_, F>, header: &Elf64_Ehdr) -> Result<(), LoadError> {
    if header.e_ident.get(EI_CLASS) != Some(&ELFCLASS64)
        || header.e_ident.get(EI_DATA) != Some(&ELFDATA2LSB)
        || header.e_machine != EM_X86_64
    {
        return Err(LoadError::Unsupported("an ELF file for another machine than x86-64".to_owned()));
    }
    if usize::from(header.e_phentsize) != PHDR_BYTES {
        let size = header.e_phentsize;
        return Err(image.malformed(format!("its program headers are {size} bytes long, not {PHDR_BYTES}")));
    }
    if header.e_phnum > HEADERS_MAX {
        let count = header.e_phnum;
        return Err(image.malformed(format!("it has {count} program headers, more than {HEADERS_MAX}")));
    }
    Ok(())
}

fn segment<F: Source>(
    image: &Image<'_, F>,
    program: &Elf64_Phdr,
    index: u64,
    layout: &MemoryLayout,
) -> Result<Segment, LoadError> {
    if program.p_filesz > program.p_memsz {
        return Err(image.malformed(format!("segment {index} is longer in the file than in memory")));
    }
    if program.p_offset.checked_add(program.p_filesz).is_none_or(|end| end > image.len_bytes()) {
        return Err(image.malformed(format!("segment {index} reaches past the end of the file")));
    }
    let range = place::checked(program.p_paddr, program.p_memsz)
        .ok_or_else(|| image.malformed(format!("segment {index} wraps around the address space")))?;
    place::free(&range, layout)?;
    Ok(Segment { offset: program.p_offset, file_bytes: program.p_filesz, range })
}

/// Searches a note segment for the PVH entry. Notes are a header of three words (name length, descriptor length,
/// type), then name and descriptor, each padded to 4 bytes (ELF gABI, "Note Section").
fn find_entry_note<F: Source>(
    image: &mut Image<'_, F>,
    program: &Elf64_Phdr,
) -> Result<Option<u64>, LoadError> {
    if program.p_filesz > NOTES_MAX_BYTES {
        let len = program.p_filesz;
        return Err(image.malformed(format!("its notes are {len} bytes long, more than {NOTES_MAX_BYTES}")));
    }
    let mut notes = vec![0; usize::try_from(program.p_filesz).unwrap_or(0)];
    image.fill(program.p_offset, &mut notes, "note segment")?;
    let mut rest = notes.as_slice();
    while let Some((note, after)) = split_note(rest) {
        if note.kind == NOTE_PHYS32_ENTRY && note.name == NOTE_NAME {
            return match *note.descriptor {
                [a, b, c, d] => Ok(Some(u32::from_le_bytes([a, b, c, d]).into())),
                // The entry is 32-bit; as a 64-bit word its upper half is zero.
                [a, b, c, d, 0, 0, 0, 0] => Ok(Some(u32::from_le_bytes([a, b, c, d]).into())),
                _ => Err(image.malformed("its PVH note does not hold a 32-bit address".to_owned())),
            };
        }
        rest = after;
    }
    Ok(None)
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    descriptor: &'a [u8],
}

fn split_note(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let (name_len, bytes) = split_word(bytes)?;
    let (descriptor_len, bytes) = split_word(bytes)?;
    let (kind, bytes) = split_word(bytes)?;
    let (name, bytes) = split_padded(bytes, name_len)?;
    let (descriptor, bytes) = split_padded(bytes, descriptor_len)?;
    Some((Note { kind, name, descriptor }, bytes))
}

fn split_word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

fn split_padded(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let (value, rest) = bytes.split_at_checked(len)?;
    let padding = (len.next_multiple_of(4) - len).min(rest.len());
    Some((value, rest.get(padding..)?))
}
