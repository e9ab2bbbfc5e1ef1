//! The serial console on this process's own terminal, or on whatever standard input and output are.
//!
//! Everything runs on the thread that asks, by readiness: a reader that is slow makes this console fall behind and
//! nothing else.

use std::io::{self, IsTerminal};
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::machine::{ConsoleReader, Handle};

/// What ends the machine: Ctrl-], as in telnet.
const ESCAPE: u8 = 0x1d;
/// What a pipe takes without blocking once it is writable (`pipe(7)`, `PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// The terminal, in raw mode where it is one. Dropping it brings back how it was.
pub struct Terminal {
    cooked: Option<Termios>,
}

/// A standard descriptor, watched.
type Watched = AsyncFd<BorrowedFd<'static>>;

/// What came of waiting.
enum Event {
    Output(Vec<u8>),
    Input,
    Stopped,
}

impl Terminal {
    /// Takes standard input and output.
    pub fn open() -> io::Result<Self> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(Self { cooked: None });
        }
        let cooked = tcgetattr(&input)?;
        let mut raw = cooked.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw)?;
        eprint!("[Ctrl-] ends the machine]\r\n");
        Ok(Self { cooked: Some(cooked) })
    }

    /// Shows the console and types what comes in, until the machine has ended. The escape key ends it.
    pub async fn attach(&self, handle: &Handle) {
        let mut reader = handle.console().subscribe();
        // A regular file or /dev/null cannot be waited for: then there is no input, and output never has to wait.
        let mut input = watch(stdin(), Interest::READABLE);
        let output = watch(stdout(), Interest::WRITABLE);
        let stopped = handle.stopped();
        tokio::pin!(stopped);
        loop {
            let event = tokio::select! {
                chunk = reader.next() => Event::Output(chunk.bytes),
                () = ready(&input, Interest::READABLE) => Event::Input,
                _ = &mut stopped => Event::Stopped,
            };
            match event {
                Event::Output(bytes) => show(&output, &bytes).await,
                Event::Input => match self.typed() {
                    Typed::Bytes(bytes) => handle.console().write(&bytes).await,
                    Typed::End => input = None,
                    Typed::Escape => {
                        // It can only be refused when it has ended already.
                        let _ = handle.shutdown().await;
                    }
                },
                Event::Stopped => return drain(&mut reader, &output).await,
            }
        }
    }

    fn typed(&self) -> Typed {
        let mut buffer = [0; 1024];
        let count = rustix::io::read(stdin(), &mut buffer).unwrap_or(0);
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            Typed::End
        } else if self.cooked.is_some() && bytes.contains(&ESCAPE) {
            Typed::Escape
        } else {
            Typed::Bytes(bytes.to_vec())
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(cooked) = &self.cooked {
            // If the terminal is gone there is nothing to bring back.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, cooked);
        }
    }
}

/// What standard input gave.
enum Typed {
    Bytes(Vec<u8>),
    Escape,
    End,
}

#[expect(unsafe_code, reason = "tokio asks for a descriptor that stays what it is")]
fn watch(fd: BorrowedFd<'static>, interest: Interest) -> Option<Watched> {
    // SAFETY: standard input and output stay open, and the same, for the life of this process: nothing here closes or
    // replaces them.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.ok()
}

/// Returns when `fd` can be read or written without waiting; never where there is none to wait for.
async fn ready(fd: &Option<Watched>, interest: Interest) {
    let Some(watched) = fd else { return std::future::pending().await };
    let flags = if interest.is_readable() { PollFlags::IN } else { PollFlags::OUT };
    // The descriptor is shared with other processes, so it stays blocking, and what tokio remembers of its readiness
    // is checked before it is believed.
    while let Ok(mut guard) = watched.ready(interest).await {
        let mut asked = [PollFd::new(watched.get_ref(), flags)];
        if poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            return guard.retain_ready();
        }
        guard.clear_ready();
    }
}

async fn show(output: &Option<Watched>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        if output.is_some() {
            ready(output, Interest::WRITABLE).await;
        }
        let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
        match rustix::io::write(stdout(), piece) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // Nobody reads any more: the output is in the hub still.
            Err(_) => return,
        }
    }
}

async fn drain(reader: &mut ConsoleReader, output: &Option<Watched>) {
    while let Some(chunk) = reader.try_next() {
        show(output, &chunk.bytes).await;
    }
}
