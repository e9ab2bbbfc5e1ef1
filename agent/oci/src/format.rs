//! Which format a disk image has, by its first bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A format of disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk, ISO images included.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// A format that is known and not carried out, by its name.
    Other(&'static str),
}

/// First bytes that name a format. A raw disk starts with boot code or zeroes, and none of these is that.
const MAGIC: [(&[u8], Format); 9] = [
    (b"QFI\xfb", Format::Qcow2),
    (b"KDMV", Format::Other("vmdk")),
    (b"COWD", Format::Other("vmdk")),
    (b"# Disk DescriptorFile", Format::Other("vmdk")),
    (b"vhdxfile", Format::Other("vhdx")),
    (b"conectix", Format::Other("vhd")),
    (b"\x1f\x8b\x08", Format::Other("gzip")),
    (b"\xfd7zXZ\0", Format::Other("xz")),
    (b"\x28\xb5\x2f\xfd", Format::Other("zstd")),
];

/// Looks at a file that nobody writes to. To ask a disk that a guest has written to would let the guest choose.
pub fn detect(file: &File) -> io::Result<Format> {
    let mut start = [0; 32];
    let mut len = 0;
    while len < start.len() {
        match file.read_at(&mut start[len..], len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(MAGIC
        .iter()
        .find(|(magic, _)| start[..len].starts_with(magic))
        .map_or(Format::Raw, |(_, format)| *format))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_format_is_known_by_its_first_bytes() {
        let of = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            detect(&file).unwrap()
        };
        assert_eq!(of(b""), Format::Raw);
        assert_eq!(of(b"QF"), Format::Raw);
        assert_eq!(of(&[0; 512]), Format::Raw);
        assert_eq!(of(b"QFI\xfb\0\0\0\x03"), Format::Qcow2);
        assert_eq!(of(b"\x1f\x8b\x08\0"), Format::Other("gzip"));
    }
}
