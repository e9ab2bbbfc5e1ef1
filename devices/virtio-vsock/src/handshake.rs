//! The line by which a peer on the host says which port of the guest it wants: `CONNECT <port>\n`.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the peer may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest line: `CONNECT 4294967295`.
const LINE_MAX_BYTES: usize = 18;

/// A peer that has not said yet what it wants.
#[derive(Debug)]
pub(crate) struct Handshake {
    stream: UnixStream,
    line: Vec<u8>,
    deadline: Instant,
}

/// How far a handshake is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The line is not complete.
    Waiting,
    /// The peer wants this port. What follows the line is the guest's.
    Wants(u32),
    /// The peer is gone, or says something else.
    Refused,
}

impl Handshake {
    pub(crate) fn new(stream: UnixStream, now: Instant) -> Self {
        Self { stream, line: Vec::new(), deadline: now.checked_add(TIMEOUT).unwrap_or(now) }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Reads what has come of the line, and not a byte beyond it.
    pub(crate) fn advance(&mut self) -> Progress {
        loop {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) if byte == *b"\n" => {
                    return port(&self.line).map_or(Progress::Refused, Progress::Wants);
                }
                Ok(1) if self.line.len() < LINE_MAX_BYTES => self.line.extend(byte),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Progress::Waiting,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => return Progress::Refused,
            }
        }
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_the_one_line_is_understood() {
        assert_eq!(port(b"CONNECT 1024"), Some(1024));
        assert_eq!(port(b"CONNECT 4294967295"), Some(u32::MAX));
        for line in
            ["CONNECT 4294967296", "CONNECT ", "CONNECT +1", "connect 1", "CONNECT 1 ", "GET / HTTP/1.1"]
        {
            assert_eq!(port(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_data_right_behind_it() {
        let (mut peer, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut handshake = Handshake::new(stream, Instant::now());
        assert_eq!(handshake.advance(), Progress::Waiting);
        peer.write_all(b"CONN").unwrap();
        assert_eq!(handshake.advance(), Progress::Waiting);
        peer.write_all(b"ECT 52\nhello").unwrap();
        assert_eq!(handshake.advance(), Progress::Wants(52));
        let mut data = [0; 8];
        let len = handshake.into_stream().read(&mut data).unwrap();
        assert_eq!(&data[..len], b"hello");
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (mut peer, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        peer.write_all(&[b'C'; 100]).unwrap();
        assert_eq!(Handshake::new(stream, Instant::now()).advance(), Progress::Refused);
    }
}
