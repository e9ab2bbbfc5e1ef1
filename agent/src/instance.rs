//! The instances on this machine: a directory each, held by a lock that ends with its processes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

/// Longest path of a unix socket, in bytes (`unix(7)`: `sun_path` less its NUL).
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// The VMM's API socket in an instance's directory.
const API_SOCKET: &str = "api.sock";
const LOCK: &str = "lock";
const RECORD: &str = "instance.json";

/// What other processes know about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the VM.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The process that carries it out.
    pub pid: u32,
    /// The VMM process.
    pub vmm_pid: u32,
    /// The guest's address, where it has a network.
    pub address: Option<String>,
    /// Published ports, as given.
    pub published: Vec<String>,
    /// How long the guest may take to power off, in seconds.
    pub grace_period_seconds: u64,
}

/// Why an instance cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// One by that name runs.
    #[error(
        "VM {0} is running here already: stop it (orlop-agent stop {0}) or give this one another metadata.name"
    )]
    Running(String),
    /// None by that name runs.
    #[error("no VM {0} is running here: see orlop-agent list")]
    NotRunning(String),
    /// Somebody else could change what is in there.
    #[error(
        "{0} belongs to another user, can be written by others, or is a link: remove it, or give another directory in \
         $ORLOP_RUN_DIR"
    )]
    Unsafe(PathBuf),
    /// Its socket's path would not fit.
    #[error(
        "the name is too long: the socket {path} would have {len} bytes of at most {SOCKET_PATH_MAX_BYTES}"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// A file or directory refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstanceError + '_ {
    move |source| InstanceError::Io { path: path.to_owned(), source }
}

/// Refuses a directory that others can write to, and a link that leads to one.
fn is_ours(directory: &Path) -> Result<(), InstanceError> {
    let found = fs::symlink_metadata(directory).map_err(at(directory))?;
    let writable_by_others = found.mode() & 0o022 != 0;
    if found.is_dir() && found.uid() == geteuid().as_raw() && !writable_by_others {
        return Ok(());
    }
    Err(InstanceError::Unsafe(directory.to_owned()))
}

/// Where instances live: `$ORLOP_RUN_DIR`, else `/run/orlop` for root, else `$XDG_RUNTIME_DIR/orlop`.
pub fn root() -> PathBuf {
    if let Some(directory) = std::env::var_os("ORLOP_RUN_DIR") {
        // Other processes, and this one later, may stand elsewhere.
        return std::path::absolute(&directory).unwrap_or_else(|_| directory.into());
    }
    if geteuid().is_root() {
        return "/run/orlop".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) => Path::new(&directory).join("orlop"),
        None => format!("/tmp/orlop-{}", geteuid()).into(),
    }
}

/// A VM's name as people write it: without the namespace where that is `default`.
pub fn display_name(namespace: &str, name: &str) -> String {
    if namespace == "default" { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Reads `[NAMESPACE/]NAME`.
pub fn split_name(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("default", text))
}

/// The directory of one instance, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `namespace/name` as people write it.
    pub display: String,
    directory: PathBuf,
}

impl Place {
    /// Of the VM `name` in `namespace`.
    pub fn of(namespace: &str, name: &str) -> Self {
        // Neither may hold a '/' and both are checked or come from the command line: keep them inside the root.
        let safe = |text: &str| text.replace(['/', '\0'], "_");
        let directory = root().join(format!("{}_{}", safe(namespace), safe(name)));
        Self { display: display_name(namespace, name), directory }
    }

    /// The VMM's API socket.
    pub fn api_socket(&self) -> PathBuf {
        self.directory.join(API_SOCKET)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is known of the run that holds it; an error when none does.
    pub fn running(&self) -> Result<Record, InstanceError> {
        let gone = || InstanceError::NotRunning(self.display.clone());
        let lock = File::open(self.directory.join(LOCK)).map_err(|_| gone())?;
        // Whoever can take the lock shared proves that nobody holds it.
        if lock.try_lock_shared().is_ok() {
            return Err(gone());
        }
        let text = fs::read_to_string(self.directory.join(RECORD)).map_err(|_| gone())?;
        serde_json::from_str(&text).map_err(|_| gone())
    }

    /// Takes it for a new run. What a killed run left is cleared away.
    pub fn claim(&self) -> Result<Claim, InstanceError> {
        let len = self.api_socket().as_os_str().len();
        if len > SOCKET_PATH_MAX_BYTES {
            return Err(InstanceError::PathTooLong { path: self.api_socket(), len });
        }
        loop {
            let builder = || {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700);
                builder
            };
            builder().create(&self.directory).map_err(at(&self.directory))?;
            self.directory.parent().into_iter().chain([self.directory.as_path()]).try_for_each(is_ours)?;
            let path = self.directory.join(LOCK);
            let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
                Ok(file) => file,
                // Another process cleared the directory away between the two steps.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at(&path)(error)),
            };
            file.try_lock().map_err(|_| InstanceError::Running(self.display.clone()))?;
            let mine = file.metadata().map_err(at(&path))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == mine.ino()) {
                let claim = Claim { place: self.clone(), lock: file };
                claim.clear_but_lock()?;
                return Ok(claim);
            }
        }
    }
}

/// An instance that this process holds.
#[derive(Debug)]
pub struct Claim {
    /// Where it is.
    pub place: Place,
    lock: File,
}

impl Claim {
    /// A second descriptor of the lock: the instance stays held until both are closed.
    pub fn share_lock(&self) -> Result<File, InstanceError> {
        self.lock.try_clone().map_err(at(&self.place.directory))
    }

    /// Tells other processes about the run.
    pub fn publish(&self, record: &Record) -> Result<(), InstanceError> {
        let path = self.place.directory.join(RECORD);
        let text = serde_json::to_vec_pretty(record).map_err(|e| at(&path)(e.into()))?;
        let new = path.with_extension("new");
        fs::write(&new, text).map_err(at(&new))?;
        fs::rename(&new, &path).map_err(at(&path))
    }

    fn clear_but_lock(&self) -> Result<(), InstanceError> {
        let directory = &self.place.directory;
        for entry in fs::read_dir(directory).map_err(at(directory))?.flatten() {
            if entry.file_name() != LOCK {
                let path = entry.path();
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// Every instance that runs, in the order of their names.
pub fn list() -> Result<Vec<Record>, InstanceError> {
    let root = root();
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(&root)(error)),
    };
    let mut records: Vec<Record> = entries
        .flatten()
        .filter_map(|entry| {
            let place = Place { display: String::new(), directory: entry.path() };
            place.running().ok()
        })
        .collect();
    records.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place(directory: &Path) -> Place {
        Place { display: "a".into(), directory: directory.join("default_a") }
    }

    #[test]
    fn a_second_run_by_the_same_name_is_refused_until_the_first_is_over() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        let first = place.claim().unwrap();
        assert!(matches!(place.claim(), Err(InstanceError::Running(_))));
        let shared = first.share_lock().unwrap();
        drop(first);
        assert!(matches!(place.claim(), Err(InstanceError::Running(_))), "a copy of the lock still holds it");
        drop(shared);
        place.claim().unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_cleared_away() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        drop(place.claim().unwrap());
        fs::write(place.api_socket(), "").unwrap();
        assert!(matches!(place.running(), Err(InstanceError::NotRunning(_))));
        let claim = place.claim().unwrap();
        assert!(!place.api_socket().exists());
        let record = Record {
            name: "a".into(),
            namespace: "default".into(),
            pid: 1,
            vmm_pid: 2,
            address: None,
            published: vec![],
            grace_period_seconds: 30,
        };
        claim.publish(&record).unwrap();
        assert_eq!(place.running().unwrap(), record);
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let link = place(root.path());
        std::os::unix::fs::symlink(&elsewhere, link.directory()).unwrap();
        assert!(matches!(link.claim(), Err(InstanceError::Unsafe(_))));
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(place(&open).claim(), Err(InstanceError::Unsafe(_))));
        assert!(fs::read_dir(&elsewhere).unwrap().next().is_none());
    }

    #[test]
    fn a_name_too_long_for_a_socket_is_said() {
        let error = Place::of("default", &"x".repeat(200)).claim().unwrap_err();
        assert!(matches!(error, InstanceError::PathTooLong { .. }));
    }
}
