//! The guest's serial console on this terminal.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::termios::{self, SetArg, Termios};
use orlop_client::Console;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The key that leaves the console: Ctrl-], as in `virtctl console` and telnet.
pub const ESCAPE: u8 = 0x1d;

/// How a console session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The escape key was typed.
    Escape,
    /// The machine is over.
    Machine,
}

/// Raw mode on the terminal, until dropped.
struct Raw {
    before: Option<Termios>,
}

impl Raw {
    /// Where standard input is no terminal, nothing changes.
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let before = termios::tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The terminal may be gone; then there is nothing to restore.
            let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Connects `console` to standard input and output until the escape key or the end of the machine.
pub async fn attach(console: Console) -> io::Result<Left> {
    let _raw = Raw::enter()?;
    let keys_end = io::stdin().is_terminal();
    let (mut from_guest, mut to_guest) = tokio::io::split(console);
    let output = async {
        let mut stdout = tokio::io::stdout();
        let mut buffer = [0; 4096];
        loop {
            let len = match from_guest.read(&mut buffer).await {
                // A VMM that ends takes its socket with it.
                Ok(0) | Err(_) => return Ok(Left::Machine),
                Ok(len) => len,
            };
            stdout.write_all(buffer.get(..len).unwrap_or_default()).await?;
            stdout.flush().await?;
        }
    };
    let input = async {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 1024];
        loop {
            let len = stdin.read(&mut buffer).await?;
            let typed = buffer.get(..len).unwrap_or_default();
            let until = keys_end.then(|| typed.iter().position(|&b| b == ESCAPE)).flatten();
            let typed = until.and_then(|end| typed.get(..end)).unwrap_or(typed);
            if to_guest.write_all(typed).await.is_err() || len == 0 {
                // The end of the input is not the end of the session, nor is a guest that is going away.
                std::future::pending::<()>().await;
            }
            to_guest.flush().await.or_else(|e| if until.is_some() { Ok(()) } else { Err(e) })?;
            if until.is_some() {
                return Ok(Left::Escape);
            }
        }
    };
    tokio::select! {
        left = output => left,
        left = input => left,
    }
}
