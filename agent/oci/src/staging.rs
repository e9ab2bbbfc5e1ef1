//! One import under way: files that are not the cache's yet.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustix::fs::fstatvfs;
use sha2::{Digest, Sha256};

use crate::layer::Sink;
use crate::store::{StoreError, at, open_lock};
use crate::tree::Content;

/// Read at once, in bytes; a whole piece of zeroes becomes a hole.
const PIECE_BYTES: usize = 64 << 10;
/// How much is written between two looks at the free space, in bytes.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

/// The directory of an import, held by a lock. It goes away when it is dropped.
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    lock: File,
    space: Arc<Space>,
}

/// Looks after the free space of a file system.
#[derive(Debug)]
pub struct Space {
    directory: File,
    reserve_bytes: u64,
}

impl Space {
    /// Of the file system that `directory` is on, of which `reserve_bytes` stay free.
    pub fn of(directory: &Path, reserve_bytes: u64) -> io::Result<Self> {
        Ok(Self { directory: File::open(directory)?, reserve_bytes })
    }

    /// Whether `len_bytes` more may be written.
    pub fn check(&self, len_bytes: u64) -> io::Result<()> {
        let space = fstatvfs(&self.directory)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < self.reserve_bytes.saturating_add(len_bytes) {
            let text = format!(
                "the file system has {} free, and {} of it stay free",
                crate::human_bytes(free),
                crate::human_bytes(self.reserve_bytes)
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }
}

impl Staging {
    /// The lock in the directory.
    pub const LOCK: &str = "lock";

    /// Takes the directory, empty; `None` while somebody else has it.
    pub fn claim(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(Self::LOCK);
        loop {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))?;
            let lock = match open_lock(&path) {
                Ok(lock) => lock,
                // Its last holder cleared it away between the two steps.
                Err(StoreError::Io { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
            let mine = lock.metadata().map_err(at(&path))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == mine.ino()) {
                let space = Arc::new(Space::of(directory, 0).map_err(at(directory))?);
                return Ok(Some(Self { directory: directory.to_owned(), lock, space }));
            }
        }
    }

    /// Empties it of what an import left that was killed, and keeps `reserve_bytes` free from now on.
    pub fn begin(&mut self, reserve_bytes: u64) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))?.flatten() {
            if entry.file_name() != Self::LOCK {
                fs::remove_file(entry.path()).map_err(at(&self.directory))?;
            }
        }
        self.space = Arc::new(Space::of(&self.directory, reserve_bytes).map_err(at(&self.directory))?);
        Ok(())
    }

    /// What watches the free space.
    pub fn space(&self) -> Arc<Space> {
        Arc::clone(&self.space)
    }

    /// A file without a name on the same file system.
    pub fn scratch(&self) -> Result<File, StoreError> {
        scratch(&self.directory).map_err(at(&self.directory))
    }

    /// What it takes on the disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
    }

    /// Gives a file that was kept its place in the cache.
    pub fn move_file(&self, sha256: &str, to: &Path) -> Result<(), StoreError> {
        let from = self.directory.join(sha256);
        fs::rename(&from, to).map_err(at(&from))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Under another name, so that whoever takes this one next has a directory of their own. What cannot be removed
        // now, the next import clears away.
        let gone = self.directory.with_extension(format!("gone-{}", std::process::id()));
        if fs::rename(&self.directory, &gone).is_ok() {
            drop(fs::remove_dir_all(&gone));
        }
        drop(self.lock.unlock());
    }
}

impl Sink for Staging {
    fn keep(&mut self, content: &mut dyn Read) -> io::Result<Content> {
        let new = self.directory.join("new");
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o400).open(&new)?;
        let content = write_sparse(content, &file, &self.space)?;
        fs::rename(&new, self.directory.join(&content.sha256))?;
        Ok(content)
    }
}

/// A file without a name in `directory`.
pub fn scratch(directory: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o600).open(directory)
}

/// Writes `content` to `file`, which is empty, with holes for zeroes.
fn write_sparse(content: &mut dyn Read, file: &File, space: &Space) -> io::Result<Content> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, mut until_look) = (0, 0);
    loop {
        let len = fill(content, &mut piece)?;
        let data = &piece[..len];
        if len == 0 {
            break;
        }
        hash.update(data);
        if data.iter().any(|byte| *byte != 0) {
            if until_look < len as u64 {
                space.check(LOOK_EVERY_BYTES)?;
                until_look = LOOK_EVERY_BYTES;
            }
            file.write_all_at(data, at)?;
            until_look -= len as u64;
        }
        at += len as u64;
    }
    file.set_len(at)?;
    Ok(Content { sha256: HEXLOWER.encode(&hash.finalize()), len_bytes: at })
}

/// Reads until `buffer` is full or there is no more.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Writes all of `bytes` at the end of `file`, as far as there is space.
pub fn append(file: &mut File, bytes: &[u8], space: &Space) -> io::Result<()> {
    space.check(bytes.len() as u64)?;
    file.write_all(bytes)
}
