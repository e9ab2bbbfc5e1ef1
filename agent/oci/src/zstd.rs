//! A stream of zstd frames (RFC 8878 §3): data frames one after the other, skippable frames between them left out.

use std::io::{self, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// First bytes of a data frame (RFC 8878 §3.1.1).
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a skippable frame, little-endian, without the lowest four bits (RFC 8878 §3.1.2).
const SKIPPABLE: u32 = 0x184d_2a50;
/// The most that a frame may refer back, in bytes; memory is taken for it. RFC 8878 §3.1.1.1.2 asks for 8 MiB, and
/// `zstd --ultra` makes 128 MiB.
const WINDOW_MAX_BYTES: u64 = 128 << 20;

/// The decompressed bytes of all frames.
pub struct Frames<R: Read> {
    frame: Option<StreamingDecoder<Peeked<R>, FrameDecoder>>,
}

impl<R: Read> Frames<R> {
    /// Starts with the first frame of `blob`.
    pub fn new(blob: R) -> io::Result<Self> {
        Ok(Self { frame: next(Peeked { first: [0; 4], at: 4, inner: blob })? })
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            let len = frame.read(buffer)?;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            self.frame = match self.frame.take() {
                Some(frame) => next(frame.into_inner())?,
                None => None,
            };
        }
        Ok(0)
    }
}

/// The next data frame, unless there is none.
fn next<R: Read>(mut blob: Peeked<R>) -> io::Result<Option<StreamingDecoder<Peeked<R>, FrameDecoder>>> {
    loop {
        let mut first = [0; 4];
        match blob.inner.read(&mut first[..1])? {
            0 => return Ok(None),
            _ => blob.inner.read_exact(&mut first[1..])?,
        }
        if u32::from_le_bytes(first) & !0xf == SKIPPABLE {
            let mut len = [0; 4];
            blob.inner.read_exact(&mut len)?;
            let len = u64::from(u32::from_le_bytes(len));
            if io::copy(&mut (&mut blob.inner).take(len), &mut io::sink())? != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        }
        (blob.first, blob.at) = (first, 0);
        return StreamingDecoder::new_with_max_window_size(blob, WINDOW_MAX_BYTES)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    }
}

/// A reader whose next four bytes were looked at already.
struct Peeked<R> {
    first: [u8; 4],
    at: usize,
    inner: R,
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.first.len() {
            let len = (&self.first[self.at..]).read(buffer)?;
            self.at += len;
            return Ok(len);
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn frame(text: &str) -> Vec<u8> {
        compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
    }

    fn read(blob: &[u8]) -> io::Result<String> {
        io::read_to_string(Frames::new(blob)?)
    }

    #[test]
    fn frames_follow_each_other_and_skippable_ones_are_left_out() {
        let skippable = [&0x184d_2a57_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let blob = [skippable.clone(), frame("one "), skippable.clone(), frame("two"), skippable].concat();
        assert_eq!(read(&blob).unwrap(), "one two");
        assert_eq!(read(b"").unwrap(), "");
    }

    #[test]
    fn what_is_cut_off_or_no_frame_is_an_error() {
        let whole = frame(&"text ".repeat(1000));
        for len in 1..whole.len() - 1 {
            assert!(read(&whole[..len]).is_err(), "{len}");
        }
        assert!(read(&[frame("x"), b"rest".to_vec()].concat()).is_err());
        assert!(read(&[0x57, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
