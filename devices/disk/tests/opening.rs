//! What can be wrong with an image is said in one clear sentence.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_disk::{Disk, OpenError, Options};

const READ_ONLY: Options = Options { read_only: true, direct: false, shared: false };
const WRITABLE: Options = Options { read_only: false, direct: false, shared: false };

fn image(dir: &Path, name: &str, len: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    path
}

#[test]
fn an_image_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a", 1 << 20);
    let disk = Disk::open(&path, WRITABLE).unwrap();
    assert_eq!((disk.size_bytes(), disk.block_bytes(), disk.is_read_only()), (1 << 20, 512, false));
    assert!(disk.physical_block_bytes().is_power_of_two() && disk.physical_block_bytes() >= 512);
    assert_eq!(disk.path(), path);
}

#[test]
fn a_file_without_whole_blocks_is_never_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes");
    std::fs::write(&path, "my notes").unwrap();
    let error = Disk::open(&path, WRITABLE).unwrap_err();
    assert!(matches!(error, OpenError::Ragged { length_bytes: 8, block_bytes: 512, .. }), "{error}");
    assert_eq!(Disk::open(&path, READ_ONLY).unwrap().size_bytes(), 512);
    assert_eq!(std::fs::read(&path).unwrap(), b"my notes");
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "root.raw", 4096);
    let first = Disk::open(&path, WRITABLE).unwrap();
    let error = Disk::open(&path, WRITABLE).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    let expected =
        format!("disk image {} is in use by another process, which reads or writes it", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(matches!(Disk::open(&path, READ_ONLY), Err(OpenError::Locked { how: "writes", .. })));
    drop(first);
    Disk::open(&path, WRITABLE).unwrap();
}

#[test]
fn readers_share_an_image_and_keep_writers_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a", 4096);
    let readers = [Disk::open(&path, READ_ONLY).unwrap(), Disk::open(&path, READ_ONLY).unwrap()];
    assert!(matches!(Disk::open(&path, WRITABLE), Err(OpenError::Locked { .. })));
    drop(readers);
    Disk::open(&path, WRITABLE).unwrap();
}

#[test]
fn what_is_no_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let cases: [(&Path, Options, &str); 7] = [
        (&dir.path().join("nowhere"), WRITABLE, "does not exist"),
        (dir.path(), WRITABLE, "is a directory"),
        (dir.path(), READ_ONLY, "is a directory"),
        (&image(dir.path(), "empty", 0), WRITABLE, "is empty"),
        (Path::new("/dev/null"), WRITABLE, "is a character device"),
        (&socket, WRITABLE, "is a socket"),
        (&pipe, WRITABLE, "is a pipe"),
    ];
    for (path, options, text) in cases {
        let error = Disk::open(path, options).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_descriptor_is_taken_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a", 4096);
    let reading = || OwnedFd::from(std::fs::File::open(&path).unwrap());
    let error = Disk::from_fd(reading(), "descriptor 7", WRITABLE).unwrap_err();
    assert_eq!(error.to_string(), "disk image descriptor 7 can only be read; attach it read-only");
    Disk::from_fd(reading(), "descriptor 7", READ_ONLY).unwrap();
    let writing = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    assert!(Disk::from_fd(writing.into(), "descriptor 7", READ_ONLY).is_err());
    let both = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let both = Disk::from_fd(both.into(), "descriptor 7", Options { direct: true, ..WRITABLE }).unwrap();
    assert_eq!(both.path(), Path::new("descriptor 7"));
}

#[test]
fn an_image_without_permission_says_who_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a", 4096);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    match Disk::open(&path, WRITABLE) {
        Err(error) => assert!(error.to_string().contains("runs as uid"), "{error}"),
        // Only a process with CAP_DAC_OVERRIDE gets here.
        Ok(disk) => assert_eq!(disk.size_bytes(), 4096),
    }
}

#[test]
fn a_file_system_without_direct_says_so() {
    // procfs has no O_DIRECT; its files are empty, but the flag is refused first.
    let error =
        Disk::open(Path::new("/proc/version"), Options { read_only: true, direct: true, shared: false })
            .unwrap_err();
    assert!(matches!(error, OpenError::NoDirect(_)), "{error}");
}
