//! What the two ends of a job port say to each other.
//!
//! A port is one virtio-serial port of the node: a unix socket outside, `/dev/virtio-ports/orlop.jobN` inside. It carries
//! one job at a time as frames: session (u32), kind (u32), length of the body (u32), body; integers little-endian. The
//! session number is chosen anew for every job, so that what a dead job still says is not taken for the next one's.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the port `n` in the guest: `/sys/class/virtio-ports/*/name`.
#[must_use]
pub fn port_name(n: usize) -> String {
    format!("orlop.job{n}")
}

/// Name of the port whose hang-up powers the node off.
pub const LIFELINE: &str = "orlop.lifeline";

/// How many jobs one node takes at the same time.
pub const PORTS: usize = 8;

/// Seconds between two [`Message::Beat`] of a running job.
pub const BEAT_SECONDS: u64 = 2;

/// No frame is longer: 1 MiB.
const MAX_BODY_BYTES: u32 = 1 << 20;

/// A process to run in the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments; the program is looked up in the PATH of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Rows and columns of the terminal that the process gets; pipes if absent.
    pub terminal: Option<(u16, u16)>,
}

/// One frame's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the node: run this; whatever ran on the port before is killed.
    Start(Spec),
    /// To the node: bytes for the job's standard input.
    Stdin(Vec<u8>),
    /// To the node: its standard input ends here.
    StdinEnd,
    /// To the node: the terminal has now so many rows and columns.
    Resize(u16, u16),
    /// From the node: bytes of standard output, or of the terminal.
    Stdout(Vec<u8>),
    /// From the node: bytes of standard error.
    Stderr(Vec<u8>),
    /// From the node: the job ended with this code, 128 + N if signal N ended it. Always the last frame.
    Exit(i32),
    /// From the node: the job could not be started.
    Refused(String),
    /// From the node: the job runs, the node lives.
    Beat,
}

impl Message {
    fn kind(&self) -> u32 {
        match self {
            Self::Start(_) => 1,
            Self::Stdin(_) => 2,
            Self::StdinEnd => 3,
            Self::Resize(..) => 4,
            Self::Stdout(_) => 5,
            Self::Stderr(_) => 6,
            Self::Exit(_) => 7,
            Self::Refused(_) => 8,
            Self::Beat => 9,
        }
    }

    fn body(&self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Start(spec) => serde_json::to_vec(spec)?,
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => bytes.clone(),
            Self::Resize(rows, columns) => [rows.to_le_bytes(), columns.to_le_bytes()].concat(),
            Self::Exit(code) => code.to_le_bytes().to_vec(),
            Self::Refused(why) => why.clone().into_bytes(),
            Self::StdinEnd | Self::Beat => Vec::new(),
        })
    }

    fn parse(kind: u32, body: Vec<u8>) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        Ok(match kind {
            1 => Self::Start(serde_json::from_slice(&body)?),
            2 => Self::Stdin(body),
            3 => Self::StdinEnd,
            4 => match body[..] {
                [r0, r1, c0, c1] => Self::Resize(u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1])),
                _ => return Err(bad("a terminal size is four bytes")),
            },
            5 => Self::Stdout(body),
            6 => Self::Stderr(body),
            7 => Self::Exit(i32::from_le_bytes(
                body.try_into().map_err(|_| bad("an exit code is four bytes"))?,
            )),
            8 => Self::Refused(String::from_utf8_lossy(&body).into_owned()),
            9 => Self::Beat,
            _ => {
                return Err(bad("unknown kind of frame: the two ends of the port are of different versions"));
            }
        })
    }

    /// Writes the frame in one piece.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, session: u32, out: &mut impl Write) -> io::Result<()> {
        let body = self.body()?;
        let len = u32::try_from(body.len()).ok().filter(|len| *len <= MAX_BODY_BYTES);
        let len =
            len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame longer than 1 MiB"))?;
        let mut frame = Vec::with_capacity(12 + body.len());
        for word in [session, self.kind(), len] {
            frame.extend_from_slice(&word.to_le_bytes());
        }
        frame.extend_from_slice(&body);
        out.write_all(&frame)
    }

    /// Reads the next frame and the session that it belongs to.
    ///
    /// # Errors
    /// Those of `input`; `InvalidData` for what is not a frame.
    pub fn read(input: &mut impl Read) -> io::Result<(u32, Self)> {
        let mut words = [0; 3];
        for word in &mut words {
            let mut bytes = [0; 4];
            input.read_exact(&mut bytes)?;
            *word = u32::from_le_bytes(bytes);
        }
        let [session, kind, len] = words;
        if len > MAX_BODY_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame longer than 1 MiB"));
        }
        let mut body = vec![0; len as usize];
        input.read_exact(&mut body)?;
        Ok((session, Self::parse(kind, body)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let spec = Spec { argv: vec!["true".into()], terminal: Some((24, 80)), ..Spec::default() };
        let all = [
            Message::Start(spec),
            Message::Stdin(b"in".to_vec()),
            Message::StdinEnd,
            Message::Resize(24, 80),
            Message::Stdout(vec![]),
            Message::Stderr(vec![0, 255]),
            Message::Exit(-1),
            Message::Refused("no such program".into()),
            Message::Beat,
        ];
        let mut bytes = Vec::new();
        for message in &all {
            message.write(7, &mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        for message in all {
            assert_eq!(Message::read(&mut input).unwrap(), (7, message));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn a_frame_that_claims_a_gigabyte_is_refused() {
        let bytes = [[1, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 64]].concat();
        assert_eq!(Message::read(&mut bytes.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
