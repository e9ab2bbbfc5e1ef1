//! An image on the host: opened, locked, measured.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::{self, Alignment, Lock};

/// The unit in which virtio counts a disk, whatever its block size (virtio 1.3 §5.2.4).
pub const SECTOR_BYTES: u32 = 512;

/// The largest alignment that an image may demand, in bytes: bounce buffers are aligned to this.
const ALIGNMENT_MAX: u32 = 4096;

/// How long a lock may be refused before it counts as taken.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// How long to wait between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// How to open an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Never write to it. Several may read one image; only one may write it, and then nobody else reads it.
    pub read_only: bool,
    /// Around the host's page cache (`O_DIRECT`).
    pub direct: bool,
}

/// Why an image cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("disk image {0} does not exist")]
    Missing(PathBuf),
    /// The process may not open it like this.
    #[error("no permission to open disk image {path} for {access}; it runs as uid {uid}")]
    Permission {
        /// The image.
        path: PathBuf,
        /// `reading` or `reading and writing`.
        access: &'static str,
        /// Who asked.
        uid: u32,
    },
    /// The image lies on a read-only file system, or its descriptor was opened for reading only.
    #[error("disk image {0} can only be read; attach it read-only")]
    ReadOnly(PathBuf),
    /// A directory, a pipe, a socket, a character device.
    #[error("disk image {path} is {what}, not a file or a block device")]
    NotADisk {
        /// The image.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Not one byte.
    #[error("disk image {0} is empty")]
    Empty(PathBuf),
    /// Another process has it.
    #[error("disk image {path} is in use by another process, which {how} it")]
    Locked {
        /// The image.
        path: PathBuf,
        /// `reads or writes`, or `writes`.
        how: &'static str,
    },
    /// The file system does not do `O_DIRECT`.
    #[error("disk image {0} cannot be opened around the page cache: its file system has no O_DIRECT")]
    NoDirect(PathBuf),
    /// It wants a larger alignment than is supported.
    #[error(
        "disk image {path} demands an alignment of {bytes} bytes for O_DIRECT; at most {ALIGNMENT_MAX} are supported"
    )]
    Alignment {
        /// The image.
        path: PathBuf,
        /// What it demands.
        bytes: u64,
    },
    /// Anything else that the system says.
    #[error("cannot {what} disk image {path}: {source}")]
    System {
        /// The image.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// A raw image, locked for as long as this value (or an engine on it) lives.
///
/// The last block of an image whose length is not a multiple of the block size is filled up with zeroes: in the file
/// when it is writable, only for the guest when it is not. Nothing is ever guessed from the content.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    read_only: bool,
    size_bytes: u64,
    stored_bytes: u64,
    block_bytes: u32,
    physical_block_bytes: u32,
    direct: Option<Alignment>,
}

impl Disk {
    /// Opens the image at `path`.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let direct = if options.direct { libc::O_DIRECT } else { 0 };
        // Without O_NONBLOCK opening a pipe would wait for its other end.
        let file = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(libc::O_NONBLOCK | direct)
            .open(path)
            .map_err(|error| open_error(path, options, error))?;
        Self::measure(file, path, options)
    }

    /// Takes an image that somebody else opened; `name` is how errors call it. The file status flags of the
    /// descriptor are set as `options` want them.
    pub fn from_fd(fd: OwnedFd, name: &str, options: Options) -> Result<Self, OpenError> {
        Self::measure(File::from(fd), Path::new(name), options)
    }

    fn measure(mut file: File, path: &Path, options: Options) -> Result<Self, OpenError> {
        let system = |what| move |source| OpenError::System { path: path.into(), what, source };
        let meta = file.metadata().map_err(system("inspect"))?;
        let kind = meta.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk { path: path.into(), what: name_of(kind) });
        }
        set_flags(&file, path, options)?;
        lock(&file, path, options)?;

        let length = file.seek(SeekFrom::End(0)).map_err(system("measure"))?;
        if length == 0 {
            return Err(OpenError::Empty(path.into()));
        }
        let (logical, physical) = if kind.is_block_device() {
            sys::block_sizes(&file).map_err(system("inspect"))?
        } else {
            (SECTOR_BYTES, u32::try_from(meta.blksize()).unwrap_or(SECTOR_BYTES))
        };
        let direct = match options.direct {
            true => Some(alignment(&mut file, path)?),
            false => None,
        };
        let block_bytes = logical.max(direct.map_or(0, |d| d.offset)).max(SECTOR_BYTES);
        let size_bytes = length
            .checked_next_multiple_of(u64::from(block_bytes))
            .ok_or_else(|| OpenError::Empty(path.into()))?;
        let mut stored_bytes = length;
        if size_bytes != length && !options.read_only && kind.is_file() {
            file.set_len(size_bytes).map_err(system("fill up the last block of"))?;
            stored_bytes = size_bytes;
        }
        Ok(Self {
            file,
            path: path.into(),
            read_only: options.read_only,
            size_bytes,
            stored_bytes,
            block_bytes,
            physical_block_bytes: physical.next_power_of_two().max(block_bytes),
            direct,
        })
    }

    /// The path or name that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The size in bytes, a multiple of [`Self::block_bytes`].
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The smallest unit that can be read or written, in bytes: a power of two of at least 512.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The unit in which the storage works best, in bytes: a power of two, at least [`Self::block_bytes`].
    pub fn physical_block_bytes(&self) -> u32 {
        self.physical_block_bytes
    }

    /// Bytes that are really there; what is between them and [`Self::size_bytes`] reads as zeroes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The alignment to keep, if the page cache is passed by.
    pub(crate) fn direct(&self) -> Option<Alignment> {
        self.direct
    }
}

impl Drop for Disk {
    /// Lets go of the lock at once: a ring that had the file registered closes it some time later.
    fn drop(&mut self) {
        let _ = sys::lock(&self.file, Lock::None);
    }
}

impl AsRawFd for Disk {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn open_error(path: &Path, options: Options, error: io::Error) -> OpenError {
    let path = path.to_path_buf();
    match error.raw_os_error() {
        Some(libc::ENOENT) => OpenError::Missing(path),
        Some(libc::EACCES | libc::EPERM) => {
            let access = if options.read_only { "reading" } else { "reading and writing" };
            OpenError::Permission { path, access, uid: current_uid() }
        }
        Some(libc::EROFS) => OpenError::ReadOnly(path),
        Some(libc::EISDIR) => OpenError::NotADisk { path, what: "a directory" },
        // A socket, or a pipe that nobody reads, or a device without a driver.
        Some(libc::ENXIO) => OpenError::NotADisk { path, what: "a socket, a pipe or a missing device" },
        Some(libc::EINVAL) if options.direct => OpenError::NoDirect(path),
        _ => OpenError::System { path, what: "open", source: error },
    }
}

fn current_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |meta| meta.uid())
}

fn name_of(kind: std::fs::FileType) -> &'static str {
    match kind {
        k if k.is_dir() => "a directory",
        k if k.is_fifo() => "a pipe",
        k if k.is_socket() => "a socket",
        k if k.is_char_device() => "a character device",
        _ => "something else",
    }
}

/// Checks the access mode, and sets `O_DIRECT` as wanted; `O_NONBLOCK` goes, for io_uring takes it as a wish for
/// `EAGAIN`.
fn set_flags(file: &File, path: &Path, options: Options) -> Result<(), OpenError> {
    let system = |source| OpenError::System { path: path.into(), what: "inspect", source };
    let flags = sys::flags(file).map_err(system)?;
    match flags & libc::O_ACCMODE {
        libc::O_RDWR => {}
        libc::O_RDONLY if options.read_only => {}
        libc::O_RDONLY => return Err(OpenError::ReadOnly(path.into())),
        _ => {
            return Err(system(io::Error::other("its descriptor was opened for writing only")));
        }
    }
    let direct = if options.direct { libc::O_DIRECT } else { 0 };
    let wanted = flags & !(libc::O_NONBLOCK | libc::O_DIRECT | libc::O_APPEND) | direct;
    sys::set_flags(file, wanted).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) if options.direct => OpenError::NoDirect(path.into()),
        _ => system(error),
    })
}

/// Takes the lock that `options` need. The kernel may take a moment to let go of the files of a process that was
/// killed, so a refusal counts only when it lasts.
fn lock(file: &File, path: &Path, options: Options) -> Result<(), OpenError> {
    // A write lock needs a descriptor that can write, a read lock one that can read: `set_flags` has checked.
    let wanted = if options.read_only { Lock::Shared } else { Lock::Exclusive };
    let deadline = Instant::now().checked_add(LOCK_PATIENCE);
    loop {
        let Err(error) = sys::lock(file, wanted) else { return Ok(()) };
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
            return Err(OpenError::System { path: path.into(), what: "lock", source: error });
        }
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            let how = if options.read_only { "writes" } else { "reads or writes" };
            return Err(OpenError::Locked { path: path.into(), how });
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

/// What `O_DIRECT` demands here. A kernel that does not say is asked by trying.
fn alignment(file: &mut File, path: &Path) -> Result<Alignment, OpenError> {
    let found = match sys::direct_alignment(file) {
        Some(found) => found,
        None => Alignment { memory: 4096, offset: probe(file).unwrap_or(4096) },
    };
    let largest = u64::from(found.offset).max(u64::try_from(found.memory).unwrap_or(u64::MAX));
    let odd = !found.offset.is_power_of_two() || !found.memory.is_power_of_two();
    if odd || largest > u64::from(ALIGNMENT_MAX) {
        return Err(OpenError::Alignment { path: path.into(), bytes: largest });
    }
    Ok(found)
}

/// The smallest read that succeeds, in bytes.
fn probe(file: &mut File) -> Option<u32> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Box::new(Page([0; 4096]));
    [512_u32, 1024, 2048, 4096].into_iter().find(|len| {
        let part = usize::try_from(*len).ok().and_then(|len| page.0.get_mut(..len));
        let Some(part) = part else { return false };
        file.seek(SeekFrom::Start(u64::from(*len))).is_ok() && file.read(part).is_ok()
    })
}
