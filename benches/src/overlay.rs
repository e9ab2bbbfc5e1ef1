//! The load generator in the guest: a second archive behind the initramfs, which Linux unpacks over the first
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

/// Writes `target`: the archive `base`, and behind it `program` as `/bin/bench-load`.
pub fn extend(base: &Path, program: &Path, target: &Path) -> anyhow::Result<()> {
    let mut archive = fs::read(base).with_context(|| format!("cannot read {}", base.display()))?;
    let program = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    pad(&mut archive);
    entry(&mut archive, "bin/bench-load", 0o100_755, &program)?;
    entry(&mut archive, "TRAILER!!!", 0, &[])?;
    File::create(target)?.write_all(&archive).with_context(|| format!("cannot write {}", target.display()))
}

/// One file in the "newc" format: 13 numbers of eight hexadecimal digits, the name, the content, each padded to 4 bytes.
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(io::Error::other)?;
    let name_len = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    let (inode, links) = (0x6f72_6c70, 1);
    write!(archive, "070701")?;
    for number in [inode, mode, 0, 0, links, 0, len, 0, 0, 0, 0, name_len, 0] {
        write!(archive, "{number:08x}")?;
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_starts_at_a_multiple_of_four() {
        let mut archive = vec![1, 2, 3];
        pad(&mut archive);
        entry(&mut archive, "bin/x", 0o100_755, b"hello").expect("it is small");
        assert_eq!(&archive[4..10], b"070701");
        assert_eq!(&archive[114..120], b"bin/x\0");
        assert_eq!(&archive[120..125], b"hello");
        assert_eq!(archive.len(), 128);
    }
}
