//! Generated disks as ISO 9660 images with Joliet and Rock Ridge.

use std::fs::File;

use hadris_fs::{Content, NoClock, Node, Tree};
use hadris_iso::{IsoId, IsoOptions};
use hadris_storage::host::FileDevice;

use crate::plan::Generated;

/// Images are a whole number of these, as KubeVirt makes them, in bytes.
const ALIGNMENT_BYTES: u64 = 1 << 20;

/// Writes the image of `disk` into the empty file `to`.
pub fn write(disk: &Generated, to: &File) -> Result<(), String> {
    let mut tree = Tree::new();
    for (name, data) in &disk.files {
        tree.insert(name, Node::file(Content::bytes(data.as_slice()))).map_err(|e| format!("{name}: {e}"))?;
    }
    let options = IsoOptions::default()
        .with_id(IsoId::Volume, &disk.label)
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
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    fn made(label: &str, files: &[(&str, Vec<u8>)], path: &Path) -> Generated {
        let files: BTreeMap<_, _> =
            files.iter().map(|(name, data)| ((*name).to_owned(), data.clone())).collect();
        let disk = Generated { label: label.to_owned(), files };
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        write(&disk, &file).unwrap();
        assert_eq!(fs::metadata(path).unwrap().len() % ALIGNMENT_BYTES, 0);
        disk
    }

    fn isoinfo(path: &Path, args: &[&str]) -> Vec<u8> {
        let output = Command::new("isoinfo").args(args).arg("-i").arg(path).output();
        output.expect("isoinfo (Debian package genisoimage)").stdout
    }

    #[test]
    fn a_standard_reader_finds_the_files_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.iso");
        let long = format!("{}.long.name", "x".repeat(90));
        let block: Vec<u8> = (0..2048_u32).flat_map(u32::to_le_bytes).collect();
        let mut files = vec![
            ("meta-data", b"{}".to_vec()),
            ("user-data", b"#cloud-config\n".to_vec()),
            ("openstack/latest/meta_data.json", b"{}".to_vec()),
            ("UPPER", b"u".to_vec()),
            ("upper", b"l".to_vec()),
            ("a.b.c_d-e", b"dots".to_vec()),
            (long.as_str(), b"long".to_vec()),
            ("empty", Vec::new()),
        ];
        let names: Vec<String> = (0..300).map(|n| format!("key-{n}")).collect();
        files.extend(names.iter().map(|name| (name.as_str(), name.clone().into_bytes())));
        let sizes = [1, 2047, 2048, 2049, 4096, 8192].map(|len| (format!("size-{len}"), len));
        files.extend(sizes.iter().map(|(name, len)| (name.as_str(), block[..*len].to_vec())));
        let disk = made("cidata", &files, &path);
        assert!(String::from_utf8_lossy(&isoinfo(&path, &["-d"])).contains("Volume id: cidata"));
        for tree in ["-R", "-J"] {
            let listing = String::from_utf8(isoinfo(&path, &[tree, "-f"])).unwrap();
            for name in disk.files.keys().filter(|name| tree == "-R" || name.len() <= 64) {
                assert!(
                    listing.lines().any(|line| line == format!("/{name}")),
                    "{name} by {tree} in {listing}"
                );
            }
        }
        for (name, data) in &disk.files {
            assert_eq!(&isoinfo(&path, &["-R", "-x", &format!("/{name}")]), data, "{name}");
        }
        let copy = directory.path().join("copy");
        let mut xorriso = Command::new("xorriso");
        xorriso.args(["-no_rc", "-abort_on", "FAILURE", "-osirrox", "on", "-indev"]).arg(&path);
        let output = xorriso.args(["-extract", "/"]).arg(&copy).output();
        let output = output.expect("xorriso (Debian package xorriso)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (name, data) in &disk.files {
            assert_eq!(&fs::read(copy.join(name)).unwrap(), data, "{name} by xorriso");
        }
    }

    #[test]
    fn a_disk_without_files_is_one_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.iso");
        made("A label of 32 characters, all in", &[], &path);
        let text = String::from_utf8_lossy(&isoinfo(&path, &["-d"])).into_owned();
        assert!(text.contains("Volume id: A label of 32 characters, all in"), "{text}");
    }
}
