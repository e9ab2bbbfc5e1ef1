//! From the guest's memory into the tap.

use std::time::Duration;

use orlop_net::HEADER_BYTES;
use orlop_virtio::{Fault, QueueIo, Request};

use crate::header::{self, Header};
use crate::iovecs::{IoVecs, PIECES_MAX};
use crate::rx::{FRAME_BYTES, Round};
use crate::shared::{Port, Shared};

/// One transmit queue.
pub(crate) struct Transmitter {
    queue: usize,
    pieces: IoVecs,
}

/// What became of a frame.
enum Sent {
    /// It is done with, sent or dropped and counted.
    Done,
    /// It must wait.
    TapFull,
    /// It was dropped, and all others will be.
    TapGone,
    /// It must wait for the limit.
    Limited(Duration),
}

impl Transmitter {
    pub(crate) fn new(queue: usize) -> Self {
        Self { queue, pieces: IoVecs::default() }
    }

    /// Sends up to `budget` frames.
    pub(crate) fn serve(
        &mut self,
        io: &mut QueueIo,
        shared: &Shared,
        port: &Port,
        budget: usize,
    ) -> Result<Round, Fault> {
        let mut round = Round::Budget;
        io.disable_notification(self.queue)?;
        for _ in 0..budget {
            let Some(request) = io.pop(self.queue)? else {
                if io.enable_notification(self.queue)? {
                    continue;
                }
                round = Round::Done;
                break;
            };
            match self.send(&request, io.features(), shared, port)? {
                Sent::Done => io.push(self.queue, request.head, 0)?,
                Sent::TapFull => {
                    io.undo_pop(self.queue, &request);
                    round = Round::TapFull;
                    break;
                }
                Sent::Limited(wait) => {
                    io.undo_pop(self.queue, &request);
                    round = Round::Limited(wait);
                    break;
                }
                Sent::TapGone => {
                    io.push(self.queue, request.head, 0)?;
                    round = Round::TapGone;
                    break;
                }
            }
        }
        io.notify(self.queue)?;
        Ok(round)
    }

    fn send(
        &mut self,
        request: &Request,
        features: u64,
        shared: &Shared,
        port: &Port,
    ) -> Result<Sent, Fault> {
        let frame = request.readable.len().saturating_sub(HEADER_BYTES);
        let mut bytes: Header = [0; HEADER_BYTES];
        // The header is read once; what the driver does to it later does not matter.
        let readable = request.readable.copy_to(&mut bytes).is_ok();
        let header = header::to_tap(bytes, features);
        let Some(mut header) = header.filter(|_| readable && FRAME_BYTES.contains(&frame)) else {
            port.tx.failed();
            return Ok(Sent::Done);
        };
        if !shared.is_link_up() {
            port.tx.dropped();
            return Ok(Sent::Done);
        }
        let pieces = request.readable.iovecs().map_err(|_| Fault("a transmit buffer is gone"))?;
        if pieces.len() > PIECES_MAX {
            port.tx.failed();
            return Ok(Sent::Done);
        }
        if let Err(wait) = shared.tx_limit.take(frame) {
            return Ok(Sent::Limited(wait));
        }
        self.pieces.0.clear();
        self.pieces.0.push(libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() });
        self.pieces.0.extend(skip(pieces, HEADER_BYTES));
        #[expect(unsafe_code, reason = "the kernel reads from guest memory")]
        // SAFETY: the first piece is `header`, the others are parts of `request.readable`, which keeps guest memory
        // mapped; all of them live across the call.
        let result = unsafe { port.tap.write_vectored(&self.pieces.0) };
        let Err(error) = result else {
            port.tx.passed(frame);
            return Ok(Sent::Done);
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => {
                shared.tx_limit.give_back(frame);
                return Ok(Sent::TapFull);
            }
            Some(libc::EBADFD) => {
                port.tx.dropped();
                return Ok(Sent::TapGone);
            }
            // The interface is down, or the host is out of memory for it.
            Some(libc::EIO | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => port.tx.dropped(),
            _ => port.tx.failed(),
        }
        Ok(Sent::Done)
    }
}

/// The pieces behind the first `len` bytes.
fn skip(pieces: Vec<libc::iovec>, len: usize) -> impl Iterator<Item = libc::iovec> {
    let mut left = len;
    pieces.into_iter().filter_map(move |mut piece| {
        let here = left.min(piece.iov_len);
        left = left.saturating_sub(here);
        piece.iov_base = piece.iov_base.wrapping_byte_add(here);
        piece.iov_len = piece.iov_len.saturating_sub(here);
        (piece.iov_len > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_end_anywhere_in_the_pieces() {
        let memory = [0u8; 40];
        let at = |offset: usize, len| libc::iovec {
            iov_base: memory.as_ptr().wrapping_add(offset).cast_mut().cast(),
            iov_len: len,
        };
        let cut = |pieces: Vec<libc::iovec>| -> Vec<(usize, usize)> {
            let start = memory.as_ptr().addr();
            skip(pieces, 12).map(|p| (p.iov_base.addr() - start, p.iov_len)).collect()
        };
        assert_eq!(cut(vec![at(0, 12), at(20, 5)]), [(20, 5)]);
        assert_eq!(cut(vec![at(0, 40)]), [(12, 28)]);
        assert_eq!(cut(vec![at(0, 5), at(10, 5), at(20, 5)]), [(22, 3)]);
        assert_eq!(cut(vec![at(0, 5)]), []);
    }
}
