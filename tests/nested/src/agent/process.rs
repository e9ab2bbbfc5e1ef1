//! A running job: its process group, and the threads that carry its output away.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use orlop_nested::wire::{BEAT_SECONDS, Message, Spec};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::port::Outbox;

/// How long the output of a process that has ended is waited for. A child of it may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A process with its group. Dropping it kills the group.
pub(crate) struct Process {
    session: u32,
    group: Pid,
    input: Input,
}

enum Input {
    Pipe(ChildStdin),
    Terminal(File),
    Closed,
}

impl Process {
    /// Starts what `spec` says; its output and its end go to `outbox`.
    pub(crate) fn start(spec: &Spec, session: u32, outbox: Outbox) -> io::Result<Self> {
        match spec.terminal {
            None => Self::start_on_pipes(spec, session, outbox),
            Some((rows, columns)) => Self::start_on_terminal(spec, session, outbox, rows, columns),
        }
    }

    fn start_on_pipes(spec: &Spec, session: u32, outbox: Outbox) -> io::Result<Self> {
        let (program, arguments) = spec.argv.split_first().ok_or_else(nothing_to_start)?;
        let mut child = configured(Command::new(program), spec)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take().map_or(Input::Closed, Input::Pipe);
        let (done, pumps) = sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            pump(stdout, Message::Stdout, session, &outbox, done.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            pump(stderr, Message::Stderr, session, &outbox, done);
        }
        Ok(Self::watch(child, session, input, outbox, pumps))
    }

    fn start_on_terminal(
        spec: &Spec,
        session: u32,
        outbox: Outbox,
        rows: u16,
        columns: u16,
    ) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = OpenOptions::new().read(true).write(true).open(name.to_string_lossy().as_ref())?;
        let master = File::from(master);
        resize(&master, rows, columns)?;
        // setsid makes the process the leader of a session and a group, and the terminal its own.
        let child = configured(Command::new("setsid"), spec)
            .args(["--ctty", "--wait", "--"])
            .args(&spec.argv)
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .spawn()?;
        let (done, pumps) = sync_channel(1);
        pump(master.try_clone()?, Message::Stdout, session, &outbox, done);
        Ok(Self::watch(child, session, Input::Terminal(master), outbox, pumps))
    }

    /// Waits for the end of `child` on a thread of its own, which also says every now and then that it lives.
    fn watch(mut child: Child, session: u32, input: Input, outbox: Outbox, pumps: Receiver<()>) -> Self {
        let group = Pid::from_child(&child);
        let (ended, end) = channel::<()>();
        let beats = outbox.clone();
        thread::spawn(move || {
            while end.recv_timeout(Duration::from_secs(BEAT_SECONDS)) == Err(RecvTimeoutError::Timeout) {
                if !beats.send(session, &Message::Beat) {
                    return;
                }
            }
        });
        thread::spawn(move || {
            let code =
                child.wait().map_or(127, |s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0)));
            while pumps.recv_timeout(LAST_WORDS).is_ok() {}
            outbox.finish(session, &Message::Exit(code));
            drop(ended);
        });
        Self { session, group, input }
    }

    pub(crate) fn session(&self) -> u32 {
        self.session
    }

    /// Carries out a message that came for the running process.
    pub(crate) fn tell(&mut self, message: Message) {
        let told = match (message, &mut self.input) {
            (Message::Stdin(bytes), Input::Pipe(pipe)) => pipe.write_all(&bytes),
            (Message::Stdin(bytes), Input::Terminal(master)) => master.write_all(&bytes),
            (Message::Resize(rows, columns), Input::Terminal(master)) => resize(master, rows, columns),
            (Message::StdinEnd, Input::Pipe(_)) => {
                self.input = Input::Closed;
                Ok(())
            }
            _ => Ok(()),
        };
        if told.is_err() {
            // It no longer reads, as `head` does: what else comes is for nobody.
            self.input = Input::Closed;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if the whole group has ended by itself.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

fn configured(mut command: Command, spec: &Spec) -> Command {
    command.env_clear().envs(spec.env.iter().map(|(name, value)| (name, value))).current_dir(&spec.cwd);
    command
}

fn nothing_to_start() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no program was named")
}

fn resize(terminal: &File, rows: u16, columns: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Carries bytes to the outbox until they end; then drops `done`.
fn pump(
    mut from: impl Read + Send + 'static,
    wrap: fn(Vec<u8>) -> Message,
    session: u32,
    outbox: &Outbox,
    done: SyncSender<()>,
) {
    let outbox = outbox.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if !outbox.send(session, &wrap(buffer[..n].to_vec())) {
                return;
            }
            // Tells the one who waits for the last words that there are still some.
            if done.try_send(()) == Err(TrySendError::Disconnected(())) {
                return;
            }
        }
    });
}
