//! Opens what a plan wants: the VMM gets descriptors and no path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::unistd::linkat;

use crate::images::{ImageError, Images};
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
    /// A generated disk.
    #[error("cannot make the disk {label}: {reason}")]
    Generated {
        /// Its label.
        label: String,
        /// Why not.
        reason: String,
    },
    /// A file of an image.
    #[error("{field}: {problem}")]
    Image {
        /// The manifest's field.
        field: String,
        /// Why not. The message says all of it.
        problem: Box<ImageError>,
    },
}

/// Opens, or makes, what is wanted; `images` holds the images that it is in.
pub async fn open(want: &FileWant, images: &mut Images) -> Result<File, FileError> {
    match want {
        FileWant::Existing { path, writable, field } => OpenOptions::new()
            .read(true)
            .write(*writable)
            // Opening a pipe would wait for its other end.
            .custom_flags(libc::O_NONBLOCK)
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
        FileWant::Scratch { len_bytes, field } => {
            let file = scratch()?;
            file.set_len(*len_bytes).map_err(|source| named(field, &scratch_directory(), source))?;
            Ok(file)
        }
        FileWant::Generated(disk) => {
            let file = scratch()?;
            let failed = |reason| FileError::Generated { label: disk.label.clone(), reason };
            iso::write(disk, &file).map_err(failed)?;
            Ok(file)
        }
        FileWant::ImageDisk { image, path, writable, field } => {
            let failed = |error| FileError::Image { field: field.clone(), problem: Box::new(error) };
            images.disk(image, path.as_deref(), *writable).await.map_err(failed)
        }
        FileWant::ImageFile { image, path, field } => {
            let failed = |error| FileError::Image { field: field.clone(), problem: Box::new(error) };
            images.file(image, path).await.map_err(failed)
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
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(&directory, path, how) {
        Err(Errno::EXDEV) => return Err(io::Error::other("a link leads out of the image")),
        opened => File::from(opened?),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(file)
}

fn create_if_absent(path: &Path, len_bytes: u64) -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    // It gets its name once it has its length: whoever is killed between the two leaves nothing.
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(directory)?;
    file.set_len(len_bytes)?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(AT_FDCWD, from.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) => Ok(file),
        // Somebody else made it meanwhile.
        Err(Errno::EEXIST) => OpenOptions::new().read(true).write(true).open(path),
        Err(error) => Err(error.into()),
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

    async fn open(want: &FileWant) -> Result<File, FileError> {
        super::open(want, &mut Images::default()).await
    }

    #[tokio::test]
    async fn a_link_out_of_an_image_is_not_followed() {
        let image = tempfile::tempdir().unwrap();
        fs::write(image.path().join("kernel"), "k").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", image.path().join("out")).unwrap();
        std::os::unix::fs::symlink("kernel", image.path().join("in")).unwrap();
        let want = |path: &str| FileWant::Inside {
            directory: image.path().to_owned(),
            path: path.into(),
            field: "spec.x".into(),
        };
        assert!(open(&want("kernel")).await.is_ok());
        assert!(open(&want("in")).await.is_ok());
        let out = open(&want("out")).await.unwrap_err().to_string();
        assert!(out.starts_with("spec.x: ") && out.ends_with("a link leads out of the image"), "{out}");
    }

    #[tokio::test]
    async fn a_pipe_is_no_kernel_and_nobody_waits_for_its_other_end() {
        let image = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&image.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let want =
            FileWant::Inside { directory: image.path().to_owned(), path: "pipe".into(), field: "f".into() };
        assert!(open(&want).await.unwrap_err().to_string().ends_with("/pipe: not a file"));
    }

    #[tokio::test]
    async fn a_variable_store_is_copied_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (template, path) = (directory.path().join("template"), directory.path().join("ns/store.fd"));
        fs::write(&template, "fresh").unwrap();
        let want =
            FileWant::CopyIfAbsent { path: path.clone(), template: template.clone(), field: "f".into() };
        drop(open(&want).await.unwrap());
        fs::write(&path, "written by the guest").unwrap();
        drop(open(&want).await.unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "written by the guest");
        fs::remove_file(&template).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(open(&want).await.unwrap_err().to_string().starts_with("f: "));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_disk_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        let want = |len_bytes| FileWant::CreateIfAbsent { path: path.clone(), len_bytes, field: "f".into() };
        assert_eq!(open(&want(4096)).await.unwrap().metadata().unwrap().len(), 4096);
        assert_eq!(open(&want(8192)).await.unwrap().metadata().unwrap().len(), 4096);
    }
}
