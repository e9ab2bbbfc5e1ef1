//! Disk images in memory.

use std::fs::File;

use orlop_disk::{Disk, Options};

/// Length of every image in bytes.
pub const IMAGE_BYTES: u64 = 1 << 20;

/// An image without a name, and a second descriptor for looking at it.
pub fn image(read_only: bool) -> (Disk, File) {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("fuzz", flags).expect("a file in memory"));
    file.set_len(IMAGE_BYTES).expect("a file in memory takes its length");
    let own = file.try_clone().expect("a second descriptor");
    let disk = Disk::from_fd(file.into(), "fuzz", Options { read_only, direct: false, shared: false });
    (disk.expect("a raw image"), own)
}

/// No request ever changes how long the image is.
pub fn check(image: &File) {
    let len = image.metadata().expect("an open file has metadata").len();
    assert_eq!(len, IMAGE_BYTES, "a request changed the length of the image");
}
