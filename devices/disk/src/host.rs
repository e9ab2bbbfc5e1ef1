//! A file or block device on the host: opened, locked, measured.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock;
use crate::open_error::OpenError;
use crate::sys::{self, Alignment};

/// The unit in which virtio counts a disk, whatever its block size (virtio 1.3 §5.2.4).
pub const SECTOR_BYTES: u32 = 512;

/// The largest alignment that an image may demand, in bytes: bounce buffers are aligned to this.
pub(crate) const ALIGNMENT_MAX: u32 = 4096;

/// How to open an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Never write to it. Several may read one image; only one may write it, and then nobody else reads it.
    pub read_only: bool,
    /// Around the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Others who say the same may write to it at the same time: their guests agree among themselves.
    pub shared: bool,
}

/// Bytes on the host, locked for as long as this value (or an engine on it) lives.
#[derive(Debug)]
pub(crate) struct HostFile {
    file: File,
    path: PathBuf,
    read_only: bool,
    /// No operation goes beyond it.
    size_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    block_bytes: u32,
    physical_block_bytes: u32,
    direct: Option<Alignment>,
    is_device: bool,
}

impl HostFile {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path, options: Options, holder: &str) -> Result<Self, OpenError> {
        let direct = if options.direct { libc::O_DIRECT } else { 0 };
        // Without O_NONBLOCK opening a pipe would wait for its other end.
        let file = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(libc::O_NONBLOCK | direct)
            .open(path)
            .map_err(|error| open_error(path, options, error))?;
        Self::measure(file, path, options, holder)
    }

    /// Takes a file that somebody else opened; `name` is how errors call it. The file status flags of the descriptor
    /// are set as `options` want them.
    pub(crate) fn from_fd(
        fd: OwnedFd,
        name: &str,
        options: Options,
        holder: &str,
    ) -> Result<Self, OpenError> {
        Self::measure(File::from(fd), Path::new(name), options, holder)
    }

    fn measure(mut file: File, path: &Path, options: Options, holder: &str) -> Result<Self, OpenError> {
        let system = |what| move |source| OpenError::System { path: path.into(), what, source };
        let meta = file.metadata().map_err(system("inspect"))?;
        let kind = meta.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk { path: path.into(), what: name_of(kind) });
        }
        set_flags(&file, path, options)?;
        lock::take(&file, path, lock::Claim::of(options), holder)?;

        let length = file.seek(SeekFrom::End(0)).map_err(system("measure"))?;
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
        Ok(Self {
            file,
            path: path.into(),
            read_only: options.read_only,
            size_bytes: AtomicU64::new(length),
            stored_bytes: AtomicU64::new(length),
            block_bytes,
            physical_block_bytes: physical.next_power_of_two().max(block_bytes),
            direct,
            is_device: kind.is_block_device(),
        })
    }

    /// Makes the whole file a disk by itself. What its last block lacks reads as zeroes; a file that may be written has
    /// to be made of whole blocks.
    pub(crate) fn whole(&self) -> Result<(), OpenError> {
        let length = self.size_bytes();
        let size_bytes = length.checked_next_multiple_of(u64::from(self.block_bytes));
        let size_bytes =
            size_bytes.filter(|_| length > 0).ok_or_else(|| OpenError::Empty(self.path.clone()))?;
        if size_bytes != length && !self.read_only && !self.is_device {
            let (path, block_bytes) = (self.path.clone(), self.block_bytes);
            return Err(OpenError::Ragged { path, length_bytes: length, block_bytes });
        }
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }

    /// Lets operations go anywhere: whoever maps a disk onto this file sees to what is there.
    pub(crate) fn unbound(&self) {
        self.size_bytes.store(i64::MAX.unsigned_abs() & !u64::from(ALIGNMENT_MAX - 1), Ordering::Release);
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The path or name that it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether writes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it is a block device, which cannot be made longer.
    pub(crate) fn is_device(&self) -> bool {
        self.is_device
    }

    /// Where operations end, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Bytes that are really there; what is between them and the end of an operation reads as zeroes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Acquire)
    }

    /// The file has this many bytes now.
    pub(crate) fn set_stored_bytes(&self, bytes: u64) {
        self.stored_bytes.store(bytes, Ordering::Release);
    }

    /// Makes a file longer, sparsely; a device must have grown already.
    pub(crate) fn grow(&self, size_bytes: u64) -> io::Result<()> {
        let mut file = &self.file;
        if self.is_device {
            let there = file.seek(SeekFrom::End(0))?;
            if there < size_bytes {
                return Err(io::Error::other(format!("the device has {there} bytes")));
            }
        } else {
            file.set_len(size_bytes)?;
        }
        self.set_stored_bytes(size_bytes);
        self.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        Ok(())
    }

    /// The smallest unit that can be read or written, in bytes: a power of two of at least 512.
    pub(crate) fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The unit in which the storage works best, in bytes: a power of two, at least [`Self::block_bytes`].
    pub(crate) fn physical_block_bytes(&self) -> u32 {
        self.physical_block_bytes
    }

    /// The alignment to keep, if the page cache is passed by.
    pub(crate) fn direct(&self) -> Option<Alignment> {
        self.direct
    }
}

impl Drop for HostFile {
    /// Lets go of the lock at once: a ring that had the file registered closes it some time later.
    fn drop(&mut self) {
        lock::release(&self.file);
    }
}

impl AsRawFd for HostFile {
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
