//! Reading and writing an image's own tables: small, synchronous, and aligned where the page cache is passed by.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::read_up_to;
use crate::host::{ALIGNMENT_MAX, HostFile};

/// A buffer whose start is aligned for `O_DIRECT`.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let align = usize::try_from(ALIGNMENT_MAX).unwrap_or(4096);
        let bytes = vec![0; len.saturating_add(align)];
        let start = bytes.as_ptr().align_offset(align).min(align);
        Self { bytes, start }
    }

    fn get(&mut self, len: usize) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start.saturating_add(len)).unwrap_or_default()
    }
}

/// Up to `len` bytes from the start of `file`.
pub(crate) fn read_start(file: &File, direct: bool, len: usize) -> io::Result<Vec<u8>> {
    let whole = if direct { len.next_multiple_of(4096) } else { len };
    let mut buffer = Aligned::new(whole);
    let found = read_up_to(file, buffer.get(whole), 0)?;
    Ok(buffer.get(found.min(len)).to_vec())
}

/// Fills `buffer` from `offset` on; the end of the file before that is `UnexpectedEof`.
pub(crate) fn read(host: &HostFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let Some(direct) = host.direct() else { return host.file().read_exact_at(buffer, offset) };
    let (from, len, skip) = around(offset, buffer.len(), direct.offset);
    let mut aligned = Aligned::new(len);
    let found = read_up_to(host.file(), aligned.get(len), from)?;
    let end = skip.saturating_add(buffer.len());
    let there = aligned.get(found).get(skip..end).ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.copy_from_slice(there);
    Ok(())
}

/// Writes `bytes` at `offset`.
pub(crate) fn write(host: &HostFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let Some(direct) = host.direct() else { return host.file().write_all_at(bytes, offset) };
    let (from, len, skip) = around(offset, bytes.len(), direct.offset);
    let mut aligned = Aligned::new(len);
    if skip != 0 || len != bytes.len() {
        read_up_to(host.file(), aligned.get(len), from)?;
    }
    let place = aligned.get(len).get_mut(skip..skip.saturating_add(bytes.len()));
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
    host.file().write_all_at(aligned.get(len), from)
}

/// The aligned range around `len` bytes at `offset`: its start, its length, and how far into it `offset` is.
fn around(offset: u64, len: usize, align: u32) -> (u64, usize, usize) {
    let align = u64::from(align);
    let from = offset & !align.wrapping_sub(1);
    let skip = usize::try_from(offset.wrapping_sub(from)).unwrap_or_default();
    let whole = skip.saturating_add(len).next_multiple_of(usize::try_from(align).unwrap_or(1));
    (from, whole, skip)
}
