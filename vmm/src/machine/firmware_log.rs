//! What firmware says on its debug console, as lines of the process's own log: standard error.
//!
//! Firmware is the guest's: it can say as much as it likes. The log takes a bounded part of it, and neither a log that
//! nobody reads nor a guest that never ends its line holds anybody up. On a terminal the lines would stand between those
//! of the guest's console: there they are left out.

use std::io::IsTerminal;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::console::ConsoleReader;

/// How much of it a process logs, in bytes; stock firmware says some 10 KiB a boot.
const LOG_MAX_BYTES: usize = 1 << 20;
/// Longest line in bytes: less than a pipe takes at once without waiting (`pipe(7)`: PIPE_BUF).
const LINE_MAX_BYTES: usize = 1024;

/// The log, and how far it is.
pub struct FirmwareLog {
    reader: ConsoleReader,
    lines: Lines,
}

impl FirmwareLog {
    /// Logs what `reader` reads.
    pub fn new(reader: ConsoleReader) -> Self {
        let left = if std::io::stderr().is_terminal() { 0 } else { LOG_MAX_BYTES };
        Self { reader, lines: Lines { line: String::new(), left } }
    }

    /// Waits for output and logs it.
    pub async fn copy(&mut self) {
        let chunk = self.reader.next().await;
        self.lines.take(&chunk.bytes, write);
    }

    /// Logs what there is now.
    pub fn finish(&mut self) {
        while let Some(chunk) = self.reader.try_next() {
            self.lines.take(&chunk.bytes, write);
        }
        self.lines.take(b"\n", write);
    }
}

/// Cuts a stream into lines.
struct Lines {
    line: String,
    left: usize,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut write: impl FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(&mut write),
                b' '..=b'~' => self.line.push(char::from(*byte)),
                // Neither control sequences nor half of an encoding reach a terminal.
                b'\r' => {}
                _ => self.line.push('.'),
            }
            if self.line.len() >= LINE_MAX_BYTES {
                self.end(&mut write);
            }
        }
    }

    fn end(&mut self, write: &mut impl FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() || self.left == 0 {
            return;
        }
        self.left = self.left.saturating_sub(line.len());
        write(&line);
        if self.left == 0 {
            write("(the rest is not logged)");
        }
    }
}

/// Writes a line where it need not wait for it.
fn write(line: &str) {
    let stderr = rustix::stdio::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0) {
        eprintln!("firmware: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines { line: String::new(), left: 3000 };
        let mut said = Vec::new();
        pieces.iter().for_each(|piece| lines.take(piece, |line| said.push(line.to_owned())));
        said
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        assert_eq!(
            taken(&[b"SeaBIOS (ver", b"sion 1)\r\n\n", b"CPU", b"\n"]),
            ["SeaBIOS (version 1)", "CPU"]
        );
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(taken(&[b"\x1b[2J\xff\0x\n"]), [".[2J..x"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_a_flood_is_not_logged() {
        let said = taken(&[&[b'x'; 100_000]]);
        assert_eq!(said.len(), 4);
        assert!(said[..3].iter().all(|line| line.len() == LINE_MAX_BYTES));
        assert_eq!(said[3], "(the rest is not logged)");
    }
}
