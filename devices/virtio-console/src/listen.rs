//! Listening on a port's socket.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::Socket;

/// The longest path of a unix socket in bytes (`unix(7)`).
const PATH_MAX_BYTES: usize = 107;

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The kernel does not take it.
    #[error("the socket path {0} is longer than {PATH_MAX_BYTES} bytes")]
    TooLong(PathBuf),
    /// Another process listens there.
    #[error("another process listens on {0}")]
    InUse(PathBuf),
    /// There is something else by that name, which is left alone.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// Its directory does not exist.
    #[error("cannot listen on {0}: its directory does not exist")]
    NoDirectory(PathBuf),
    /// Anything else that the system says.
    #[error("cannot listen on {path}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A listener, and the file that goes with it when we made it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    made: Option<(PathBuf, u64)>,
}

impl Drop for Listener {
    /// Takes the socket file away, unless somebody else put another there. Where the process may no longer do that,
    /// the file stays and the next one to listen replaces it.
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.made
            && fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

pub(crate) fn listen(socket: Socket) -> Result<Listener, ListenError> {
    let (listener, path) = match socket {
        Socket::Listener(listener) => (listener, None),
        Socket::Path(path) => (bind(&path)?, Some(path)),
    };
    let name = || path.clone().unwrap_or_else(|| name_of(&listener));
    let system = |source| ListenError::System { path: name(), source };
    listener.set_nonblocking(true).map_err(system)?;
    let made = match &path {
        Some(path) => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(system)?;
            Some((path.clone(), fs::symlink_metadata(path).map_err(system)?.ino()))
        }
        None => None,
    };
    Ok(Listener { socket: listener, made })
}

fn name_of(listener: &UnixListener) -> PathBuf {
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|a| a.as_pathname().map(Path::to_path_buf));
    let is_abstract = address.as_ref().is_some_and(|a| a.as_abstract_name().is_some());
    path.unwrap_or_else(|| if is_abstract { "an abstract socket" } else { "an unnamed socket" }.into())
}

fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    if path.as_os_str().len() > PATH_MAX_BYTES {
        return Err(ListenError::TooLong(path.into()));
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path).map_err(|error| bind_error(path, error))
        }
        result => result.map_err(|error| bind_error(path, error)),
    }
}

fn bind_error(path: &Path, error: io::Error) -> ListenError {
    match error.kind() {
        io::ErrorKind::NotFound => ListenError::NoDirectory(path.into()),
        io::ErrorKind::AddrInUse => ListenError::InUse(path.into()),
        _ => ListenError::System { path: path.into(), source: error },
    }
}

/// Removes the socket at `path` if nobody listens on it.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let system = |source| ListenError::System { path: path.into(), source };
    if !fs::symlink_metadata(path).map_err(system)?.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(ListenError::InUse(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Result<Listener, ListenError> {
        listen(Socket::Path(path.into()))
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = at(&path).unwrap();
        assert!(matches!(at(&path), Err(ListenError::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop(live);
        assert!(!path.exists(), "the file goes with its listener");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(at(&path), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(matches!(at(&dir.path().join("no/port")), Err(ListenError::NoDirectory(_))));
        assert!(matches!(at(&dir.path().join("x".repeat(200))), Err(ListenError::TooLong(_))));
    }

    #[test]
    fn a_socket_that_somebody_else_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let theirs = UnixListener::bind(&path).unwrap();
        drop(listen(Socket::Listener(theirs)).unwrap());
        assert!(path.exists());
    }
}
