//! A stream in one direction, in the other, and questions with answers, over TCP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Where the guest listens.
pub const PORT: u16 = 5001;

/// How much is read or written at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// How long the guest may take to listen.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// What the first byte of a connection asks the guest for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The guest receives, and says at the end how much.
    Rx,
    /// The guest sends.
    Tx,
    /// The guest answers every byte with one.
    Echo,
}

impl Direction {
    fn letter(self) -> u8 {
        match self {
            Self::Rx => b'r',
            Self::Tx => b't',
            Self::Echo => b'e',
        }
    }
}

/// The guest's side: serves one connection after the other.
pub fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut letter = [0];
        stream.read_exact(&mut letter)?;
        // The host closes the connection in the middle of it when its time is over.
        let _ = match letter {
            [b'r'] => receive(&mut stream),
            [b't'] => send(&mut stream),
            [b'e'] => echo(&mut stream),
            _ => bail!("no such direction: {letter:?}"),
        };
    }
    Ok(())
}

fn receive(stream: &mut TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0_u64;
    loop {
        match stream.read(&mut chunk)? {
            0 => return stream.write_all(&bytes.to_le_bytes()),
            count => bytes += count as u64,
        }
    }
}

fn send(stream: &mut TcpStream) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK_BYTES];
    loop {
        stream.write_all(&chunk)?;
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

/// The host's side: loads the wire for `duration`, and returns bytes per second, or questions per second.
pub fn drive(address: &str, direction: Direction, duration: Duration) -> anyhow::Result<f64> {
    let mut stream = connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[direction.letter()])?;
    let started = Instant::now();
    let amount = match direction {
        Direction::Rx => drive_rx(&mut stream, started, duration)?,
        Direction::Tx => drive_tx(&mut stream, started, duration)?,
        Direction::Echo => drive_echo(&mut stream, started, duration)?,
    };
    Ok(amount as f64 / started.elapsed().as_secs_f64())
}

fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let started = Instant::now();
    loop {
        match TcpStream::connect((address, PORT)) {
            Err(_) if started.elapsed() < CONNECT_DEADLINE => std::thread::sleep(Duration::from_millis(50)),
            stream => return stream.with_context(|| format!("cannot connect to the guest at {address}")),
        }
    }
}

fn drive_rx(stream: &mut TcpStream, started: Instant, duration: Duration) -> io::Result<u64> {
    let chunk = vec![0x5a; CHUNK_BYTES];
    while started.elapsed() < duration {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn drive_tx(stream: &mut TcpStream, started: Instant, duration: Duration) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    while started.elapsed() < duration {
        bytes += stream.read(&mut chunk)? as u64;
    }
    Ok(bytes)
}

fn drive_echo(stream: &mut TcpStream, started: Instant, duration: Duration) -> io::Result<u64> {
    let mut byte = [7];
    let mut answers = 0;
    while started.elapsed() < duration {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        answers += 1;
    }
    Ok(answers)
}
