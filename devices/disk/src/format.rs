//! Image formats: their names, telling them apart, and what can be wrong with one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How an image stores a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Byte by byte; a block device, an ISO 9660 image.
    #[default]
    Raw,
    /// qcow2, version 2 or 3 (QEMU docs/interop/qcow2.rst).
    Qcow2,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

/// What is wrong with an image of a format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A format that is recognized, and not supported: it must not be given to a guest as if it were a raw disk.
    #[error("it is a {0} image, which is not supported; convert it to raw or qcow2")]
    Foreign(&'static str),
    /// The format says something else.
    #[error("it is not a {0} image")]
    NotOne(Format),
    /// It needs something that is not supported.
    #[error("it uses {0}, which is not supported")]
    Unsupported(String),
    /// It names another image, which nobody allowed.
    #[error(
        "it is an overlay over '{0}', which is opened only where the configuration names it: set `backing`"
    )]
    NeedsBacking(String),
    /// The caller gave a backing image to one that has none.
    #[error("it has no backing image, but the configuration names one")]
    NeedsNoBacking,
    /// Several would change its tables at the same time.
    #[error("it is qcow2, which only one machine can write to at a time: only raw disks can be shared")]
    Shared,
    /// It may only be read.
    #[error("it is marked as {0}; only reading is possible until 'qemu-img check -r all' has repaired it")]
    ReadOnly(&'static str),
    /// Its content contradicts itself.
    #[error("it is corrupt: {0}")]
    Corrupt(&'static str),
    /// A number in it is larger than is supported.
    #[error("its {what} is {value}, beyond the limit of {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// How large it may be.
        limit: u64,
    },
    /// It cannot be read or written.
    #[error("it cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

/// Bytes from the start of an image that tell formats apart.
const MAGIC_BYTES: usize = 520;

/// Tells what `file` is. A guest that may write a raw disk could make it look like any format, so this is for a file
/// that no guest has written yet, once; whoever asked is to remember the answer.
pub(crate) fn detect(file: &File, direct: bool) -> Result<Format, FormatError> {
    let mut start = crate::host_io::read_start(file, direct, MAGIC_BYTES)?;
    start.resize(MAGIC_BYTES, 0);
    foreign_name(&start)?;
    Ok(if start.starts_with(b"QFI\xfb") { Format::Qcow2 } else { Format::Raw })
}

/// An error for what begins like a format that is not supported.
fn foreign_name(start: &[u8]) -> Result<(), FormatError> {
    const MAGICS: [(usize, &[u8], &str); 9] = [
        (0, b"KDMV", "vmdk"),
        (0, b"COWD", "vmdk"),
        (0, b"# Disk DescriptorFile", "vmdk"),
        (0, b"vhdxfile", "vhdx"),
        (0, b"conectix", "vhd"),
        (0, b"QED\0", "qed"),
        (0, b"WithoutFreeSpace", "parallels"),
        (0, b"WithouFreSpacExt", "parallels"),
        (64, b"\x7f\x10\xda\xbe", "vdi"),
    ];
    let is = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match MAGICS.iter().find(|(at, magic, _)| is(*at, magic)) {
        Some((_, _, name)) => Err(FormatError::Foreign(name)),
        // The first version of qcow has the magic of the second.
        None if start.get(..8) == Some(b"QFI\xfb\0\0\0\x01") => Err(FormatError::Foreign("qcow (version 1)")),
        None => Ok(()),
    }
}

/// Reads up to `buffer.len()` bytes at `offset`; fewer at the end.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(start: &[u8]) -> String {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(start, 0).unwrap();
        detect(&file, false).map_or_else(|error| error.to_string(), |format| format.to_string())
    }

    #[test]
    fn formats_are_told_apart_by_their_first_bytes() {
        assert_eq!(said(b"QFI\xfb\0\0\0\x03"), "qcow2");
        assert_eq!(said(b"\xeb\x63\x90"), "raw");
        assert_eq!(said(&[]), "raw");
        for (start, name) in [
            (&b"KDMV\x01\0\0\0"[..], "vmdk"),
            (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
            (b"vhdxfile", "vhdx"),
            (b"QFI\xfb\0\0\0\x01", "qcow (version 1)"),
        ] {
            let expected =
                format!("it is a {name} image, which is not supported; convert it to raw or qcow2");
            assert_eq!(said(start), expected);
        }
        assert!(said(&[&[b'<'; 64][..], b"\x7f\x10\xda\xbe"].concat()).contains("vdi"));
    }
}
