//! The node's console log: what it says when the node no longer can.

use std::fs;
use std::path::{Path, PathBuf};

/// What a node's console said in the end, and where the whole of it is.
#[derive(Clone, Debug)]
pub struct ConsoleLog {
    /// The file with everything that the node's kernel said.
    pub path: PathBuf,
    /// Its last lines; after a panic, those that tell why.
    pub lines: Vec<String>,
    /// Whether the kernel of the node gave up.
    pub panicked: bool,
}

/// So many lines explain most panics: the oops, its registers and its call trace.
const LINES: usize = 40;

/// What the first line of a kernel's end contains.
const PANIC: [&str; 4] = ["Kernel panic", "Oops:", "BUG:", "sysrq triggered crash"];

impl ConsoleLog {
    /// Reads the log at `path`; a log that is not there is an empty one.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        Self::of(path, &String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
    }

    fn of(path: &Path, text: &str) -> Self {
        let all: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        let panic = all.iter().position(|line| PANIC.iter().any(|word| line.contains(word)));
        let first = panic.unwrap_or(all.len().saturating_sub(LINES));
        let lines = all.into_iter().skip(first).take(LINES).collect();
        Self { path: path.to_path_buf(), lines, panicked: panic.is_some() }
    }
}

impl std::fmt::Display for ConsoleLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.lines.is_empty() {
            return write!(f, "its console log is empty: {}", self.path.display());
        }
        writeln!(f, "from its console log ({}):", self.path.display())?;
        for line in &self.lines {
            writeln!(f, "  | {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_from_its_first_line() {
        let trace: String = (0..100).map(|n| format!("trace {n}\r\n")).collect();
        let log = ConsoleLog::of(Path::new("x"), &format!("boot\nready\nOops: int3: 0000 [#1] SMP\n{trace}"));
        assert!(log.panicked);
        assert_eq!((log.lines.len(), log.lines[0].as_str()), (LINES, "Oops: int3: 0000 [#1] SMP"));
        assert_eq!(log.lines[1], "trace 0");
    }

    #[test]
    fn without_a_panic_the_last_lines_are_shown() {
        let log = ConsoleLog::of(Path::new("x"), "one\ntwo\n");
        assert!(!log.panicked);
        assert_eq!(log.lines, ["one", "two"]);
    }
}
