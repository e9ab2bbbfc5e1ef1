//! The socket's file: made for its owner alone, never taken from a living process, removed at the end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// The longest path of a unix socket, in bytes: `sun_path` less its final NUL (`unix(7)`).
const PATH_MAX_BYTES: usize = 107;

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into an address.
    #[error("the socket path {} is {len_bytes} bytes long and may have {PATH_MAX_BYTES}: choose a shorter one", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len_bytes: usize,
    },
    /// The directory is not there.
    #[error("cannot make the socket {}: its directory does not exist", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another process listens there.
    #[error("the socket {} is in use by a running process: stop it or choose another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is not a socket is there.
    #[error("{} exists and is not a socket: remove it or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The host refused.
    #[error("cannot make the socket {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The descriptor that was passed in does not listen.
    #[error("descriptor {fd} is not a listening unix socket: {source}")]
    NotListening {
        /// Its number.
        fd: i32,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket; its file is removed when it is dropped, if it is still the same.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: Option<SocketFile>,
}

impl Socket {
    /// Makes the socket `path` for this user alone. A file that a dead process left there is replaced. To be called before
    /// there are other threads: the process's umask is changed for a moment.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let len_bytes = path.as_os_str().len();
        if len_bytes > PATH_MAX_BYTES {
            return Err(SocketError::TooLong { path: path.to_owned(), len_bytes });
        }
        remove_stale(path)?;
        let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(umask);
        let listener = bound.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SocketError::NoDirectory { path: path.to_owned() },
            io::ErrorKind::AddrInUse => SocketError::InUse { path: path.to_owned() },
            _ => SocketError::Io { path: path.to_owned(), source },
        })?;
        let file =
            SocketFile::of(path).map_err(|source| SocketError::Io { path: path.to_owned(), source })?;
        Ok(Self { listener, file: Some(file) })
    }

    /// Takes over a socket that listens already; number `fd` is for messages.
    pub fn from_fd(socket: OwnedFd, fd: i32) -> Result<Self, SocketError> {
        let refuse = |source: io::Error| SocketError::NotListening { fd, source };
        let listens =
            rustix::net::sockopt::socket_acceptconn(&socket).map_err(|errno| refuse(errno.into()))?;
        if !listens {
            return Err(refuse(io::Error::from(io::ErrorKind::NotConnected)));
        }
        let listener = UnixListener::from(socket);
        listener.local_addr().map_err(refuse)?;
        Ok(Self { listener, file: None })
    }

    /// Where its file is; none when it was passed in.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// The listener, non-blocking, for a tokio runtime; `self` keeps the file.
    pub fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

/// Removes the file of a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io_error = |source| SocketError::Io { path: path.to_owned(), source };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io_error)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(error)),
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

/// The file of a socket, known by its inode.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // A file that cannot be removed is replaced by the next process that wants the path.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_goes_with_the_socket() {
        let directory = directory();
        let path = directory.path().join("api.sock");
        let socket = Socket::bind(&path).expect("a fresh path");
        let mode = path.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_socket_is_not_taken() {
        let directory = directory();
        let path = directory.path().join("api.sock");
        let _living = Socket::bind(&path).expect("a fresh path");
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse { .. })));
        assert!(path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_not_removed_by_its_former_owner() {
        let directory = directory();
        let path = directory.path().join("api.sock");
        // Dead even while a program that another test starts still holds a copy.
        let dead = UnixListener::bind(&path).expect("a fresh path");
        rustix::net::shutdown(&dead, rustix::net::Shutdown::Both).expect("it listens");
        let replaced = Socket::bind(&path).expect("nobody listens");
        std::fs::remove_file(&path).expect("it is there");
        let _new_owner = UnixListener::bind(&path).expect("a free path");
        drop(replaced);
        assert!(path.exists());
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let directory = directory();
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").expect("a writable directory");
        assert!(matches!(Socket::bind(&file), Err(SocketError::NotASocket { .. })));
        assert_eq!(std::fs::read(&file).expect("still there"), b"precious");
        let missing = directory.path().join("no/such/api.sock");
        assert!(matches!(Socket::bind(&missing), Err(SocketError::NoDirectory { .. })));
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(Socket::bind(&long), Err(SocketError::TooLong { .. })));
    }

    #[test]
    fn a_passed_descriptor_must_listen() {
        let directory = directory();
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(matches!(Socket::from_fd(one.into(), 9), Err(SocketError::NotListening { fd: 9, .. })));
        let path = directory.path().join("api.sock");
        let listener = UnixListener::bind(&path).expect("a fresh path");
        let socket = Socket::from_fd(listener.into(), 9).expect("it listens");
        drop(socket);
        assert!(path.exists(), "who made the file removes it");
    }
}
