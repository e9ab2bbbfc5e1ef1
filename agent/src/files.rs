//! Opens what a plan wants: the VMM gets descriptors and no path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;

use crate::iso;
use crate::plan::FileWant;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file that the manifest names.
    #[error("{field}: {path}: {source}")]
    Named {
        /// The manifest's field.
        field: String,
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file without a name.
    #[error("cannot make a scratch file in {directory}: {source}")]
    Scratch {
        /// Where it would be.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The cloud-init seed.
    #[error("cannot make the cloud-init disk: {0}")]
    Seed(String),
}

/// Opens, or makes, what is wanted.
pub fn open(want: &FileWant) -> Result<File, FileError> {
    match want {
        FileWant::Existing { path, writable, field } => OpenOptions::new()
            .read(true)
            .write(*writable)
            .open(path)
            .map_err(|source| named(field, path, source)),
        FileWant::Inside { directory, path, field } => {
            inside(directory, path).map_err(|source| named(field, &directory.join(path), source))
        }
        FileWant::CreateIfAbsent { path, len_bytes, field } => {
            create_if_absent(path, *len_bytes).map_err(|source| named(field, path, source))
        }
        FileWant::CopyIfAbsent { path, template, field } => {
            copy_if_absent(path, template).map_err(|source| named(field, path, source))
        }
        FileWant::Scratch { len_bytes } => {
            let file = scratch()?;
            let directory = scratch_directory();
            file.set_len(*len_bytes).map_err(|source| FileError::Scratch { directory, source })?;
            Ok(file)
        }
        FileWant::Seed(seed) => {
            let file = scratch()?;
            iso::write_seed(seed, &file).map_err(FileError::Seed)?;
            Ok(file)
        }
    }
}

fn named(field: &str, path: &Path, source: io::Error) -> FileError {
    FileError::Named { field: field.to_owned(), path: path.to_owned(), source }
}

/// A file of a directory that stands in for an image: nothing in the image, such as a symbolic link, leads out.
fn inside(directory: &Path, path: &Path) -> io::Result<File> {
    let directory = File::open(directory)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(&directory, path, how)?))
}

fn create_if_absent(path: &Path, len_bytes: u64) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            file.set_len(len_bytes)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(),
        Err(error) => Err(error),
    }
}

/// The copy takes its name only when it is whole.
fn copy_if_absent(path: &Path, template: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let copied = fs::copy(template, &fresh).and_then(|_| {
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)
    });
    if copied.is_err() {
        // The error is about what failed first.
        let _ = fs::remove_file(&fresh);
    }
    copied.and_then(|()| open())
}

/// A file without a name (`O_TMPFILE`): it ends with its last descriptor, however the processes end.
pub fn scratch() -> Result<File, FileError> {
    let directory = scratch_directory();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(&directory)
        .map_err(|source| FileError::Scratch { directory, source })
}

/// Where scratch files live: `$TMPDIR`, else `/var/tmp`, which is on a disk.
fn scratch_directory() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_an_image_is_not_followed() {
        let image = tempfile::tempdir().unwrap();
        fs::write(image.path().join("kernel"), "k").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", image.path().join("out")).unwrap();
        std::os::unix::fs::symlink("kernel", image.path().join("in")).unwrap();
        let want = |path: &str| FileWant::Inside {
            directory: image.path().to_owned(),
            path: path.into(),
            field: "spec.x".into(),
        };
        assert!(open(&want("kernel")).is_ok());
        assert!(open(&want("in")).is_ok());
        assert!(open(&want("out")).unwrap_err().to_string().starts_with("spec.x: "));
    }

    #[test]
    fn a_variable_store_is_copied_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (template, path) = (directory.path().join("template"), directory.path().join("ns/store.fd"));
        fs::write(&template, "fresh").unwrap();
        let want =
            FileWant::CopyIfAbsent { path: path.clone(), template: template.clone(), field: "f".into() };
        drop(open(&want).unwrap());
        fs::write(&path, "written by the guest").unwrap();
        drop(open(&want).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "written by the guest");
        fs::remove_file(&template).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(open(&want).unwrap_err().to_string().starts_with("f: "));
        assert!(!path.exists());
    }

    #[test]
    fn a_disk_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        let want = |len_bytes| FileWant::CreateIfAbsent { path: path.clone(), len_bytes, field: "f".into() };
        assert_eq!(open(&want(4096)).unwrap().metadata().unwrap().len(), 4096);
        assert_eq!(open(&want(8192)).unwrap().metadata().unwrap().len(), 4096);
    }
}
