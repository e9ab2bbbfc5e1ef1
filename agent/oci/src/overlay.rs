//! A writable view of a cached file: the one place to replace once the VMM has overlays of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{OFlags, SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

/// A copy of `base` without a name in `directory`, which the guest may write to: by reflink, which costs nothing, where
/// the file system can and both are on it; else byte by byte, holes left out. It ends with its last descriptor.
pub fn writable_copy(base: &File, directory: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).map_err(io::Error::other)?;
    let copy = OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o600).open(directory)?;
    if reflink(base, &copy)? {
        return Ok(copy);
    }
    let len = base.metadata()?.len();
    copy.set_len(len)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(base, at, len)? {
        let (mut from, mut to) = (base, &copy);
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        // On Linux the standard library copies between files in the kernel (copy_file_range).
        let copied = io::copy(&mut Read::take(from, end - start), &mut to)?;
        if copied != end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    Ok(copy)
}

/// Whether `to` now shares the blocks of `from` (`ioctl_ficlonerange(2)`).
fn reflink(from: &File, to: &File) -> io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        // Not this file system, or not between these two.
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The next stretch of data at or after `at`, as `(start, end)`.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(len))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_copy_has_the_same_bytes_and_holes_and_leaves_its_base_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("base");
        let base = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        base.set_len(64 << 20).unwrap();
        for (at, text) in [(0, "start"), ((32 << 20) + 7, "middle"), ((64 << 20) - 3, "end")] {
            base.write_all_at(text.as_bytes(), at).unwrap();
        }
        let copy = writable_copy(&base, directory.path()).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 64 << 20);
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
        let (mut a, mut b) = (vec![0; 64 << 20], vec![0; 64 << 20]);
        base.read_exact_at(&mut a, 0).unwrap();
        copy.read_exact_at(&mut b, 0).unwrap();
        assert!(a == b);
        copy.write_all_at(b"guest", 0).unwrap();
        base.read_exact_at(&mut a[..5], 0).unwrap();
        assert_eq!(&a[..5], b"start");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "it has no name");
    }

    #[test]
    fn an_empty_base_gives_an_empty_copy() {
        let directory = tempfile::tempdir().unwrap();
        let base = tempfile::tempfile().unwrap();
        assert_eq!(writable_copy(&base, directory.path()).unwrap().metadata().unwrap().len(), 0);
    }
}
