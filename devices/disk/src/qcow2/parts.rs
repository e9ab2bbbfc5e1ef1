//! Parts of a request's memory, for operations on the file and on the backing image.

use std::io;

use crate::memory::{BOUNCE_BYTES, Memory, Pieces, ZEROES};

/// Memory that belongs to a request, or to an allocation, of the engine that made it.
#[derive(Debug, Clone)]
pub(crate) struct Part(Vec<libc::iovec>);

impl Part {
    /// The engine keeps what `pieces` refer to until the operation's completion was seen.
    pub(crate) fn new(pieces: Vec<libc::iovec>) -> Self {
        Self(pieces)
    }

    /// The pieces in order.
    pub(crate) fn pieces(&self) -> &[libc::iovec] {
        &self.0
    }
}

#[expect(unsafe_code, reason = "addresses are not Send by themselves")]
// SAFETY: the addresses are those of a `Memory`, which is `Send`, of buffers on the heap, or of constant zeroes.
unsafe impl Send for Part {}

#[expect(unsafe_code, reason = "implements Memory")]
// SAFETY: `Part`s are made by `Qcow2Engine` alone. It holds the request's `Memory`, and the buffers of allocations and of
// compressed clusters, in slots of its own until the engine below has completed the operation; and when it is dropped it
// waits for that.
unsafe impl Memory for Part {
    fn iovecs(&self) -> io::Result<Vec<libc::iovec>> {
        Ok(self.0.clone())
    }
}

/// `len` bytes of `pieces`, after the first `skip`.
pub(crate) fn slice(pieces: &[libc::iovec], mut skip: u64, mut len: u64) -> Vec<libc::iovec> {
    let mut found = Vec::new();
    for piece in pieces {
        let here = u64::try_from(piece.iov_len).unwrap_or(u64::MAX);
        if skip >= here {
            skip -= here;
            continue;
        }
        let now = (here - skip).min(len);
        if now == 0 {
            break;
        }
        let start = piece.iov_base.wrapping_byte_add(usize::try_from(skip).unwrap_or_default());
        found.push(libc::iovec { iov_base: start, iov_len: usize::try_from(now).unwrap_or_default() });
        (skip, len) = (0, len - now);
    }
    found
}

/// `len` bytes of zeroes, only to be read.
pub(crate) fn zeroes(len: u64) -> Vec<libc::iovec> {
    let mut left = usize::try_from(len).unwrap_or_default();
    let mut pieces = Vec::new();
    while left > 0 {
        let now = left.min(BOUNCE_BYTES);
        pieces.push(libc::iovec { iov_base: ZEROES.0.as_ptr().cast_mut().cast(), iov_len: now });
        left -= now;
    }
    pieces
}

/// The whole of `buffer`, which stays where it is.
pub(crate) fn whole(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
}

/// Fills `pieces` with zeroes.
pub(crate) fn clear(pieces: Vec<libc::iovec>) {
    let pieces = Pieces::new(pieces);
    pieces.zero(pieces.len());
}

/// Copies the start of `bytes` to where `to` is, or all of it.
pub(crate) fn store(to: &Part, bytes: &[u8]) {
    Pieces::new(to.pieces().to_vec()).fill_from(bytes);
}
