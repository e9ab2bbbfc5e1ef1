//! A job on this process's own standard streams.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::stdio::{stdin, stdout};
use rustix::termios::{self, OptionalActions, Termios};

use crate::job::{Job, JobError, Stream, drive};
use crate::link::RunDir;
use crate::virtual_node::spec;
use crate::wire::Message;

/// Runs `job` in the node whose directory this is, with our standard streams as its own.
pub(crate) fn attach(run_dir: &RunDir, job: &Job, terminal: bool) -> Result<i32, JobError> {
    let port = run_dir.free_port()?.ok_or(JobError::Busy)?;
    let session = port.session;
    let window = terminal.then(window_size);
    let raw = if terminal { RawTerminal::enter() } else { None };
    let mut forwarding = Some((port.stream.try_clone()?, window.is_some()));
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => write_through(&mut io::stdout(), bytes),
        Stream::Stderr => write_through(&mut io::stderr(), bytes),
    };
    let spec = spec(job, window);
    let code =
        drive(run_dir, port, spec, job.deadline, &mut || forward(session, &mut forwarding), &mut output);
    drop(raw);
    code
}

/// Starts the threads that carry input and window sizes to the job. They end with the process, or with the port.
fn forward(session: u32, connection: &mut Option<(UnixStream, bool)>) -> io::Result<()> {
    let Some((mut stream, has_window)) = connection.take() else { return Ok(()) };
    if has_window {
        let mut resizes = signal_hook::iterator::Signals::new([signal_hook::consts::SIGWINCH])?;
        let mut stream = stream.try_clone()?;
        thread::spawn(move || {
            for _ in resizes.forever() {
                let (rows, columns) = window_size();
                if Message::Resize(rows, columns).write(session, &mut stream).is_err() {
                    return;
                }
            }
        });
    }
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut input = io::stdin().lock();
        while let Ok(n @ 1..) = input.read(&mut buffer) {
            if Message::Stdin(buffer[..n].to_vec()).write(session, &mut stream).is_err() {
                return;
            }
        }
        // The job may have ended meanwhile; then nobody waits for this.
        let _ = Message::StdinEnd.write(session, &mut stream);
    });
    Ok(())
}

fn write_through(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn window_size() -> (u16, u16) {
    termios::tcgetwinsize(stdout()).map_or((24, 80), |size| (size.ws_row.max(1), size.ws_col.max(1)))
}

/// The terminal in raw mode until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let before = termios::tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to set right.
        let _ = termios::tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}
