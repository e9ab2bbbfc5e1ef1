//! The memory of an operation: where its bytes come from or go to.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

use crate::sys::Alignment;

/// The most bytes that are bounced at once, and so the extra memory of one operation in flight.
pub(crate) const BOUNCE_BYTES: usize = 64 << 10;

/// The most pieces that one `preadv(2)` takes (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// Alignment of bounce buffers in bytes: enough for every device that Linux knows.
const BOUNCE_ALIGN: usize = 4096;

/// Memory that the kernel reads or writes while an operation is in flight. It is owned by the flight, so that it lives
/// until the kernel is done.
///
/// # Safety
///
/// What [`Self::iovecs`] returned must stay mapped, and stay where it is, until the value is dropped, however the value
/// itself is moved. It may change at any time, and nobody may rely on it being unchanged: it can be guest memory.
#[expect(unsafe_code, reason = "the kernel trusts the addresses")]
pub unsafe trait Memory: Send + 'static {
    /// The pieces in order. Called once per operation.
    fn iovecs(&self) -> io::Result<Vec<libc::iovec>>;
}

#[expect(unsafe_code, reason = "implements Memory")]
// SAFETY: the elements of a vector stay where they are when the vector moves, and `&mut` to them cannot be had while
// the flight owns it.
unsafe impl Memory for Vec<u8> {
    fn iovecs(&self) -> io::Result<Vec<libc::iovec>> {
        Ok(vec![libc::iovec { iov_base: self.as_ptr().cast_mut().cast(), iov_len: self.len() }])
    }
}

/// The pieces of an operation that are still to be transferred.
pub(crate) struct Pieces {
    pieces: Vec<libc::iovec>,
    /// Pieces before this one are done.
    first: usize,
}

#[expect(unsafe_code, reason = "addresses are not Send by themselves")]
// SAFETY: the addresses are those of a `Memory`, which is `Send` and travels in the same flight.
unsafe impl Send for Pieces {}

impl Pieces {
    pub(crate) fn new(pieces: Vec<libc::iovec>) -> Self {
        Self { pieces, first: 0 }
    }

    /// What is left, cut to what one system call takes.
    pub(crate) fn left(&self) -> &[libc::iovec] {
        let left = self.pieces.get(self.first..).unwrap_or_default();
        left.get(..PIECES_MAX).unwrap_or(left)
    }

    /// Bytes in all pieces that are left.
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().skip(self.first).fold(0, |sum, piece| sum.saturating_add(piece.iov_len))
    }

    /// Whether `O_DIRECT` takes them as they are.
    pub(crate) fn are_aligned(&self, to: Alignment) -> bool {
        let mask = to.memory.wrapping_sub(1);
        self.pieces.len() <= PIECES_MAX
            && self.pieces.iter().all(|p| (p.iov_base.addr() | p.iov_len) & mask == 0)
    }

    /// The first `count` bytes are done.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.get_mut(self.first) {
            if count < piece.iov_len {
                piece.iov_base = piece.iov_base.wrapping_byte_add(count);
                piece.iov_len = piece.iov_len.saturating_sub(count);
                return;
            }
            count = count.saturating_sub(piece.iov_len);
            self.first = self.first.saturating_add(1);
        }
    }

    /// Calls `each` with address and length of the pieces that make up the first `count` bytes, and with how many bytes
    /// came before.
    fn first_bytes(&self, count: usize, mut each: impl FnMut(*mut u8, usize, usize)) {
        let mut done = 0_usize;
        for piece in self.pieces.iter().skip(self.first) {
            let now = piece.iov_len.min(count.saturating_sub(done));
            if now == 0 && done >= count {
                return;
            }
            each(piece.iov_base.cast(), now, done);
            done = done.saturating_add(now);
        }
    }

    /// Copies `bytes` to where the pieces are, as far as they go.
    pub(crate) fn fill_from(&self, bytes: &[u8]) {
        self.first_bytes(bytes.len(), |at, len, done| {
            if let Some(part) = bytes.get(done..done.saturating_add(len)) {
                #[expect(unsafe_code, reason = "the memory is known by address only")]
                // SAFETY: `Memory` promises that the piece is mapped, and `part` is `len` bytes of our own.
                unsafe {
                    at.copy_from_nonoverlapping(part.as_ptr(), part.len());
                }
            }
        });
    }

    /// Fills the first `count` bytes with zeroes.
    pub(crate) fn zero(&self, count: usize) {
        self.first_bytes(count, |at, len, _| {
            #[expect(unsafe_code, reason = "the memory is known by address only")]
            // SAFETY: `Memory` promises that the piece is mapped; the flight that owns it is borrowed by `self`.
            unsafe {
                at.write_bytes(0, len);
            }
        });
    }
}

/// A page-aligned buffer of [`BOUNCE_BYTES`] between `O_DIRECT` and memory that is not aligned for it.
pub(crate) struct Bounce(NonNull<u8>);

#[expect(unsafe_code, reason = "addresses are not Send by themselves")]
// SAFETY: the buffer is owned and reached through this value only.
unsafe impl Send for Bounce {}

impl Bounce {
    fn layout() -> Option<Layout> {
        Layout::from_size_align(BOUNCE_BYTES, BOUNCE_ALIGN).ok()
    }

    pub(crate) fn new() -> io::Result<Self> {
        let layout = Self::layout().ok_or(io::ErrorKind::OutOfMemory)?;
        #[expect(unsafe_code, reason = "aligned allocation")]
        // SAFETY: the layout's size is not zero.
        let at = unsafe { alloc_zeroed(layout) };
        NonNull::new(at).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// Copies the first `count` bytes of `pieces` in.
    pub(crate) fn fill(&mut self, pieces: &Pieces, count: usize) {
        pieces.first_bytes(count.min(BOUNCE_BYTES), |at, len, done| {
            #[expect(unsafe_code, reason = "the memory is known by address only")]
            // SAFETY: `Memory` promises that the piece is mapped, `done + len <= BOUNCE_BYTES`, and the two do not
            // overlap because the buffer is our own.
            unsafe {
                at.copy_to_nonoverlapping(self.as_ptr().wrapping_add(done), len);
            }
        });
    }

    /// Copies the first `count` bytes out to `pieces`.
    pub(crate) fn spill(&self, pieces: &Pieces, count: usize) {
        pieces.first_bytes(count.min(BOUNCE_BYTES), |at, len, done| {
            #[expect(unsafe_code, reason = "the memory is known by address only")]
            // SAFETY: as in `fill`.
            unsafe {
                at.copy_from_nonoverlapping(self.as_ptr().wrapping_add(done), len);
            }
        });
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout() {
            #[expect(unsafe_code, reason = "aligned allocation")]
            // SAFETY: allocated in `new` with this layout; a flight is dropped only when the kernel is done with it.
            unsafe {
                dealloc(self.as_ptr(), layout);
            }
        }
    }
}

/// A page-aligned block of zeroes to write from.
#[repr(align(4096))]
pub(crate) struct Zeroes(pub(crate) [u8; BOUNCE_BYTES]);

/// The zeroes that every flight writes from.
pub(crate) static ZEROES: Zeroes = Zeroes([0; BOUNCE_BYTES]);

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces_of(buffers: &mut [Vec<u8>]) -> Pieces {
        Pieces::new(
            buffers
                .iter_mut()
                .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() })
                .collect(),
        )
    }

    #[test]
    fn pieces_advance_across_their_borders() {
        let mut buffers = [vec![0; 3], vec![], vec![0; 5]];
        let mut pieces = pieces_of(&mut buffers);
        assert_eq!(pieces.len(), 8);
        pieces.advance(2);
        assert_eq!(pieces.left().iter().map(|p| p.iov_len).collect::<Vec<_>>(), [1, 0, 5]);
        pieces.advance(1);
        assert_eq!(pieces.len(), 5);
        pieces.advance(9);
        assert_eq!((pieces.len(), pieces.left().len()), (0, 0));
    }

    #[test]
    fn a_bounce_copies_across_pieces_and_no_further() {
        let mut source = [b"abc".to_vec(), b"defgh".to_vec()];
        let mut bounce = Bounce::new().unwrap();
        bounce.fill(&pieces_of(&mut source), 5);
        let mut target = [vec![b'-'; 2], vec![b'-'; 6]];
        bounce.spill(&pieces_of(&mut target), 5);
        assert_eq!(target, [b"ab".to_vec(), b"cde---".to_vec()]);
    }

    #[test]
    fn zeroing_stops_at_its_count() {
        let mut target = [vec![1; 2], vec![1; 4]];
        let mut pieces = pieces_of(&mut target);
        pieces.advance(1);
        pieces.zero(3);
        assert_eq!(target, [vec![1, 0], vec![0, 0, 1, 1]]);
    }

    #[test]
    fn alignment_counts_addresses_lengths_and_pieces() {
        let at = |addr: usize, len: usize| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(addr),
            iov_len: len,
        };
        let to = Alignment { memory: 512, offset: 512 };
        assert!(Pieces::new(vec![at(0x1000, 512), at(0x2200, 1024)]).are_aligned(to));
        assert!(!Pieces::new(vec![at(0x1001, 512)]).are_aligned(to));
        assert!(!Pieces::new(vec![at(0x1000, 100), at(0x2000, 412)]).are_aligned(to));
        assert!(!Pieces::new(vec![at(0x1000, 512); 1025]).are_aligned(to));
    }
}
