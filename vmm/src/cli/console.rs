//! The serial console on this terminal.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use orlop_client::{Client, Console};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;

/// What leaves the console: Ctrl-], as in telnet.
const ESCAPE: u8 = 0x1d;

/// How many pieces of typed input wait for the VMM.
const TYPED_MAX: usize = 16;

/// Attaches standard input and output to the console until the escape key, or until the machine is over. Where standard
/// input is not a terminal its end does not detach.
pub async fn attach(client: &Client) -> anyhow::Result<ExitCode> {
    let console = client.console().await?;
    let terminal = RawTerminal::enter()?;
    if terminal.is_some() {
        eprint!("[attached to the console; Ctrl-] leaves]\r\n");
    }
    let (mut output, input) = tokio::io::split(console);
    let mut typed = typed_input();
    let done = tokio::select! {
        done = show(&mut output) => done,
        done = send(&mut typed, input, terminal.is_some()) => done,
    };
    drop(terminal);
    done.map(|()| ExitCode::SUCCESS)
}

async fn show(output: &mut (impl AsyncReadExt + Unpin)) -> anyhow::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = output.read(&mut buffer).await.context("the console broke")?;
        if count == 0 {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let shown = buffer.get(..count).unwrap_or_default();
        out.write_all(shown).and_then(|()| out.flush()).context("cannot write to standard output")?;
    }
}

async fn send(
    typed: &mut mpsc::Receiver<Vec<u8>>,
    mut to: WriteHalf<Console>,
    escape: bool,
) -> anyhow::Result<()> {
    while let Some(mut bytes) = typed.recv().await {
        let end = bytes.iter().position(|byte| escape && *byte == ESCAPE);
        bytes.truncate(end.unwrap_or(bytes.len()));
        to.write_all(&bytes).await.context("the console broke")?;
        to.flush().await.context("the console broke")?;
        if end.is_some() {
            return Ok(());
        }
    }
    // Standard input is at its end: only output is left. The write side stays open, since closing it detaches.
    std::future::pending().await
}

/// Reads standard input on a thread of its own, which ends with the process.
fn typed_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(TYPED_MAX);
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            let piece = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The terminal in raw mode (`termios(3)`), put back when dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` where standard input is not a terminal.
    fn enter() -> anyhow::Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot set the terminal to raw mode")?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
