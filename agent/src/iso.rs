//! The cloud-init seed as an ISO 9660 image with Joliet and Rock Ridge, volume `cidata`.

use std::fs::File;

use hadris_fs::{Content, NoClock, Node, Tree};
use hadris_iso::{IsoId, IsoOptions};
use hadris_storage::host::FileDevice;

use crate::plan::seed::Seed;

/// The volume name by which the NoCloud data source finds its disk.
const VOLUME: &str = "cidata";
/// Images are a whole number of these, as KubeVirt makes them, in bytes.
const ALIGNMENT_BYTES: u64 = 1 << 20;

/// Writes the image of `seed` into the empty file `to`.
pub fn write_seed(seed: &Seed, to: &File) -> Result<(), String> {
    let mut tree = Tree::new();
    let mut files = vec![("meta-data", seed.meta_data.as_bytes()), ("user-data", seed.user_data.as_slice())];
    files.extend(seed.network_config.as_deref().map(|data| ("network-config", data)));
    for (name, data) in files {
        tree.insert(name, Node::file(Content::bytes(data))).map_err(|e| format!("{name}: {e}"))?;
    }
    let options = IsoOptions::default()
        .with_id(IsoId::Volume, VOLUME)
        .with_joliet()
        .with_rock_ridge()
        .with_time(NoClock::TIME);
    let file = to.try_clone().map_err(|e| e.to_string())?;
    let device = FileDevice::new(file).map_err(|e| e.to_string())?;
    let report = hadris_iso::sync::write(device, &tree, &options).map_err(|e| e.to_string())?;
    to.set_len(report.size().next_multiple_of(ALIGNMENT_BYTES)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    #[test]
    fn a_standard_reader_finds_the_files_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.iso");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let seed = Seed {
            meta_data: "{}".into(),
            user_data: b"#cloud-config\n".to_vec(),
            network_config: Some(b"version: 2\n".to_vec()),
        };
        write_seed(&seed, &file).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len() % ALIGNMENT_BYTES, 0);
        let isoinfo = |args: &[&str]| {
            let output = Command::new("isoinfo")
                .args(args)
                .arg("-i")
                .arg(&path)
                .output()
                .expect("isoinfo (Debian package genisoimage)");
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(isoinfo(&["-d"]).contains("Volume id: cidata"));
        for tree in ["-R", "-J"] {
            let listing = isoinfo(&[tree, "-f"]);
            for name in ["/meta-data", "/user-data", "/network-config"] {
                assert!(listing.lines().any(|line| line == name), "{name} by {tree} in {listing}");
            }
        }
        assert_eq!(isoinfo(&["-R", "-x", "/user-data"]), "#cloud-config\n");
    }
}
