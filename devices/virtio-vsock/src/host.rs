//! The host's side: the socket that peers connect to, and the sockets that the guest connects to.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path of a unix socket, in bytes, with a terminating zero (unix(7)).
const PATH_MAX_BYTES: usize = 108;

/// What is added to the path for a port of ten digits.
const SUFFIX_MAX_BYTES: usize = 11;

/// Why the socket that peers connect to cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path with a port behind it does not fit into a socket's address.
    #[error(
        "the vsock socket path '{}' is longer than {} bytes, which leaves no room for a port",
        .0.display(), PATH_MAX_BYTES - 1 - SUFFIX_MAX_BYTES
    )]
    TooLong(PathBuf),
    /// Another process listens there.
    #[error("the vsock socket '{}' is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("'{}' exists and is not a socket: the vsock socket cannot be made there", .0.display())]
    NotASocket(PathBuf),
    /// The file system says no.
    #[error("cannot make the vsock socket '{}': {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The socket that peers connect to. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. A socket file that nobody listens at any more is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, ListenError> {
        if path.as_os_str().len() + SUFFIX_MAX_BYTES >= PATH_MAX_BYTES {
            return Err(ListenError::TooLong(path.to_owned()));
        }
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        let socket = match UnixListener::bind(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path).map_err(io)?
            }
            other => other.map_err(io)?,
        };
        socket.set_nonblocking(true).map_err(io)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next peer, without waiting for one.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Connects to what stands for the host's port `port`, without waiting: where nobody listens, or nobody accepts,
    /// that is an error.
    pub(crate) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        connect(Path::new(&path))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A confined process may not be allowed to; whoever starts the next one replaces the file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes away a socket file that nobody listens at.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |source| ListenError::Io { path: path.to_owned(), source };
    if !std::fs::symlink_metadata(path).map_err(io)?.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(io(e)),
        _ => Err(ListenError::InUse(path.to_owned())),
    }
}

/// `connect(2)` to a unix socket without waiting for room in its backlog, which the standard library cannot.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= PATH_MAX_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut address = libc::sockaddr_un {
        sun_family: libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default(),
        sun_path: [0; PATH_MAX_BYTES],
    };
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    #[expect(unsafe_code, reason = "socket(2) and connect(2)")]
    // SAFETY: the descriptor is new and ours when it is not negative; the address is a zero-terminated `sockaddr_un` that
    // lives across the call, with its own length.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, flags, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from_raw_fd(fd);
        if libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(UnixStream::from(fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(ListenError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&path), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_without_room_for_a_port_is_refused() {
        let long = Path::new("/tmp").join("x".repeat(95));
        assert!(matches!(Listener::bind(&long), Err(ListenError::TooLong(_))));
        assert!(matches!(Listener::bind(Path::new("/nowhere/v")), Err(ListenError::Io { .. })));
    }

    #[test]
    fn a_full_backlog_refuses_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&dir.path().join("v")).unwrap();
        let _port = UnixListener::bind(dir.path().join("v_7")).unwrap();
        let mut streams = Vec::new();
        let error = loop {
            match listener.connect(7) {
                Ok(stream) => streams.push(stream),
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(listener.connect(8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
