//! Images of this machine: a layout directory, or a tar archive with a layout or what `docker save` writes in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tar::Archive;

use crate::layer::decoder;
use crate::limits::Limits;
use crate::staging::{Space, append};

/// Members that an archive may have.
const MEMBERS_MAX: usize = 10_000;
/// Links from member to member that are followed.
const LINKS_MAX: usize = 4;

/// A local image, open.
#[derive(Debug)]
pub enum Local {
    /// A directory.
    Layout(File),
    /// An archive and where its members are.
    Archive {
        /// The archive, decompressed.
        file: File,
        /// By name.
        members: HashMap<String, Member>,
    },
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// A file: where its bytes begin, and how many there are.
    File(u64, u64),
    /// The same as another member.
    Link(String),
}

impl Local {
    /// A layout directory.
    pub fn layout(path: &Path) -> io::Result<Self> {
        let directory = File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self::Layout(directory))
    }

    /// An archive; where it is compressed, it is decompressed into `scratch` first.
    pub fn archive(path: &Path, mut scratch: File, space: &Space, limits: &Limits) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut start = [0; 4];
        let len = file.read(&mut start)?;
        file.rewind()?;
        if start[..len].starts_with(b"\x1f\x8b") || start[..len] == crate::zstd::MAGIC {
            let mut content = decoder(file)?.take(limits.unpacked_bytes);
            let mut piece = vec![0; 1 << 20];
            loop {
                let len = content.read(&mut piece)?;
                if len == 0 {
                    break;
                }
                append(&mut scratch, &piece[..len], space)?;
            }
            if content.limit() == 0 {
                let text = format!("it unpacks to more than {} bytes", limits.unpacked_bytes);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
            scratch.flush()?;
            scratch.rewind()?;
            file = scratch;
        }
        let members = members(&file, limits)?;
        Ok(Self::Archive { file, members })
    }

    /// Whether there is a file called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// The file called `name`, and its length in bytes.
    pub fn open(&self, name: &str) -> io::Result<(Box<dyn Read + Send>, u64)> {
        match self {
            Self::Layout(directory) => {
                // Nothing in the directory, such as a symbolic link, leads out, and a FIFO does not hold us up.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = File::from(openat2(directory, name, flags, Mode::empty(), resolve)?);
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
                }
                Ok((Box::new(file), metadata.len()))
            }
            Self::Archive { file, members } => {
                let mut name = name;
                for _ in 0..=LINKS_MAX {
                    match members.get(name) {
                        Some(Member::File(at, len)) => {
                            let window = Window { file: file.try_clone()?, at: *at, left: *len };
                            return Ok((Box::new(window), *len));
                        }
                        Some(Member::Link(target)) => name = target,
                        None => break,
                    }
                }
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }

    /// All of the small file called `name`.
    pub fn document(&self, name: &str, limits: &Limits) -> io::Result<Vec<u8>> {
        let (file, len) = self.open(name)?;
        if len > limits.document_bytes {
            let text = format!("{len} bytes, more than {}", limits.document_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let mut bytes = Vec::new();
        file.take(limits.document_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A part of a file; several can be read at once.
struct Window {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let len = self.file.read_at(&mut buffer[..len], self.at)?;
        self.at += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

/// Where the members of a tar archive are. Its headers are read, its content is skipped.
fn members(file: &File, limits: &Limits) -> io::Result<HashMap<String, Member>> {
    let len = file.metadata()?.len();
    let headers = Headers { file, read_bytes: 0, limit_bytes: limits.document_bytes.saturating_mul(8) };
    let mut archive = Archive::new(headers);
    let mut members = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if members.len() >= MEMBERS_MAX {
            return Err(io::Error::other(format!("it has more than {MEMBERS_MAX} members")));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let at = entry.raw_file_position();
            if at.checked_add(entry.size()).is_none_or(|end| end > len) {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("it ends in the middle of '{name}'"),
                ));
            }
            members.insert(name, Member::File(at, entry.size()));
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            let from = if kind.is_symlink() { Path::new(&name).parent() } else { None };
            members.insert(name.clone(), Member::Link(joined(from, &target)));
        }
    }
    Ok(members)
}

/// `target` as seen from the directory `from`, without `.` and `..`.
fn joined(from: Option<&Path>, target: &str) -> String {
    let mut path = PathBuf::new();
    for part in from.unwrap_or(Path::new("")).join(target).components() {
        match part {
            std::path::Component::Normal(name) => path.push(name),
            std::path::Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// Reads the headers of an archive, no more than `limit_bytes` of them: the rest is passed over.
struct Headers<'a> {
    file: &'a File,
    read_bytes: u64,
    limit_bytes: u64,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        self.read_bytes += len as u64;
        if self.read_bytes > self.limit_bytes {
            return Err(io::Error::other(format!("its headers have more than {} bytes", self.limit_bytes)));
        }
        Ok(len)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
