//! Why an image cannot be a disk.

use std::io;
use std::path::PathBuf;

use crate::format::FormatError;
use crate::host::ALIGNMENT_MAX;

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
    /// A file to be written that is not made of whole blocks: filling it up would change what may be no disk at all.
    #[error(
        "disk image {path} has {length_bytes} bytes, which are not whole blocks of {block_bytes}; attach it read-only, or \
         fill it up (truncate -s %{block_bytes})"
    )]
    Ragged {
        /// The image.
        path: PathBuf,
        /// Its length in bytes.
        length_bytes: u64,
        /// Its block in bytes.
        block_bytes: u32,
    },
    /// Another process has it.
    #[error("disk image {path} is in use by {holders}, which {how} it")]
    Locked {
        /// The image.
        path: PathBuf,
        /// `reads or writes`, or `writes`.
        how: &'static str,
        /// Who has it, as far as they say.
        holders: String,
    },
    /// Its format.
    #[error("disk image {path}: {source}")]
    Format {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// Growing, or an overlay, of something that has no room for it.
    #[error("disk image {path} {what}")]
    Layers {
        /// The image.
        path: PathBuf,
        /// What does not fit.
        what: String,
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
