//! The node's console log: what it says when the node no longer can.

use std::fs;
use std::path::{Path, PathBuf};

/// The end of a node's console, and where the whole of it is.
#[derive(Clone, Debug)]
pub struct ConsoleLog {
    /// The file with everything that the node's kernel said.
    pub path: PathBuf,
    /// Its last lines.
    pub tail: Vec<String>,
}

/// So many lines explain most panics: the oops, its registers and its call trace.
const TAIL_LINES: usize = 40;

impl ConsoleLog {
    /// Reads the log at `path`; a log that is not there is an empty one.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec();
        Self { path: path.to_path_buf(), tail }
    }

    /// Whether the kernel of the node gave up.
    #[must_use]
    pub fn shows_a_panic(&self) -> bool {
        self.tail.iter().any(|line| line.contains("Kernel panic") || line.contains("Oops:"))
    }
}

impl std::fmt::Display for ConsoleLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.tail.is_empty() {
            return write!(f, "its console log is empty: {}", self.path.display());
        }
        writeln!(f, "the end of its console log ({}):", self.path.display())?;
        for line in &self.tail {
            writeln!(f, "  | {line}")?;
        }
        Ok(())
    }
}
