//! The `newc` archive of an initial ram file system (Linux, Documentation/driver-api/early-userspace/buffer-format).

use std::io::{self, Write};

/// Writes an archive entry by entry. Archives may be concatenated: the kernel unpacks them one after the other.
pub(crate) struct Archive<W> {
    out: W,
    next_inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    /// A directory, mode 0755.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0))
    }

    /// A file, mode 0755: everything in these archives is a program, a module or a table that anybody may read.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | 0o755, content, (0, 0))
    }

    /// A symbolic link to `target`.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMLINK | 0o777, target.as_bytes(), (0, 0))
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, CHARACTER | 0o600, &[], (major, minor))
    }

    /// Ends the archive and hands back where it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[], (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) -> io::Result<()> {
        let too_big =
            || io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} does not fit in a cpio archive"));
        let size = u32::try_from(content.len()).map_err(|_| too_big())?;
        let name_size = path.len() + 1;
        let inode = self.next_inode;
        self.next_inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        write!(
            self.out,
            "070701{inode:08X}{mode:08X}{:08X}{:08X}{links:08X}{:08X}{size:08X}{:08X}{:08X}{major:08X}{minor:08X}{name_size:08X}{:08X}",
            0, 0, 0, 0, 0, 0
        )?;
        self.out.write_all(path.as_bytes())?;
        // The header is 110 bytes; name and content are each padded to a multiple of 4.
        self.out.write_all(&[0; 4][..1 + (4 - (110 + name_size) % 4) % 4])?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 3][..(4 - content.len() % 4) % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_their_content_start_at_multiples_of_four() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("bin").unwrap();
        archive.file("bin/a", b"hello").unwrap();
        archive.symlink("init", "bin/a").unwrap();
        archive.device("dev/console", 5, 1).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let headers = bytes.windows(6).enumerate().filter(|(_, w)| w == b"070701").map(|(at, _)| at);
        assert_eq!(headers.clone().count(), 5);
        assert!(headers.clone().all(|at| at % 4 == 0));
        let content = bytes.windows(5).position(|w| w == b"hello").unwrap();
        assert_eq!(content % 4, 0);
    }
}
