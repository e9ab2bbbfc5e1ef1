//! A file that all serial output is appended to, beside the hub and its readers.

use std::fs::File;
use std::io::{self, Write};

use super::console::{Chunk, ConsoleReader};

/// The file, and how far it is.
pub struct SerialLog {
    file: File,
    reader: ConsoleReader,
}

impl SerialLog {
    /// Appends what `reader` reads to `file`, which does not block.
    pub fn new(file: File, reader: ConsoleReader) -> Self {
        Self { file, reader }
    }

    /// Waits for output and writes it. A file that takes no more loses output; the guest does not notice.
    pub async fn copy(&mut self) -> io::Result<()> {
        let chunk = self.reader.next().await;
        self.write(&chunk)
    }

    /// Writes what there is now.
    pub fn finish(&mut self) -> io::Result<()> {
        while let Some(chunk) = self.reader.try_next() {
            self.write(&chunk)?;
        }
        Ok(())
    }

    fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        if chunk.missed > 0 {
            writeln!(self.file, "\n[{} bytes of output are missing here]", chunk.missed)?;
        }
        self.file.write_all(&chunk.bytes)
    }
}
