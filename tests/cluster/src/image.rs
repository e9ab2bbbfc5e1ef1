//! OCI images of one layer, without a container engine.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// An image that is one program, or a few files.
#[derive(Debug, Default)]
pub struct Image {
    /// Its name with its tag, as in `orlop.test/pause:1`.
    pub name: String,
    /// What it starts.
    pub entrypoint: Vec<String>,
    /// The user that it starts it as, 0 if it is none.
    pub user: u32,
    /// Its content.
    pub entries: Vec<Entry>,
}

/// Something in an image.
#[derive(Debug)]
pub enum Entry {
    /// An executable file at this path.
    Program(String, Vec<u8>),
    /// A file at this path.
    File(String, Vec<u8>),
    /// A symbolic link at the first path to the second.
    Link(String, String),
}

impl Image {
    /// Writes it as an OCI layout in a tar archive (image-spec v1.1, `image-layout.md`), which `ctr images import` reads.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let layer = self.layer()?;
        let digest_of_layer = digest(&layer);
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Entrypoint": self.entrypoint, "User": self.user.to_string() },
            "rootfs": { "type": "layers", "diff_ids": [digest_of_layer] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut described = descriptor("manifest.v1+json", &manifest);
        described["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [described] });

        let mut archive = Builder::new(File::create(path)?);
        for blob in [&layer, &config, &manifest] {
            let name = format!("blobs/{}", digest(blob).replace(':', "/"));
            append(&mut archive, &name, 0o644, blob)?;
        }
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
        archive.into_inner()?.flush()
    }

    fn layer(&self) -> std::io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for directory in ["bin", "etc", "tmp"] {
            let mut header = header(0, if directory == "tmp" { 0o1777 } else { 0o755 });
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, directory, std::io::empty())?;
        }
        for entry in &self.entries {
            match entry {
                Entry::Program(path, bytes) => append(&mut archive, path, 0o755, bytes)?,
                Entry::File(path, bytes) => append(&mut archive, path, 0o644, bytes)?,
                Entry::Link(path, target) => {
                    let mut header = header(0, 0o777);
                    header.set_entry_type(EntryType::Symlink);
                    archive.append_link(&mut header, path.trim_start_matches('/'), target)?;
                }
            }
        }
        archive.into_inner()
    }
}

fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn append(archive: &mut Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    archive.append_data(&mut header(bytes.len() as u64, mode), path.trim_start_matches('/'), bytes)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": digest(bytes),
        "size": bytes.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_blob_is_where_its_digest_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("image.tar");
        let image = Image {
            name: "orlop.test/x:1".into(),
            entries: vec![
                Entry::Program("/bin/x".into(), b"#!".to_vec()),
                Entry::Link("/y".into(), "bin/x".into()),
            ],
            ..Image::default()
        };
        image.write(&file).unwrap();
        let mut blobs = 0;
        for entry in tar::Archive::new(File::open(file).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(name) = path.strip_prefix("blobs/") {
                assert_eq!(name.replace('/', ":"), digest(&bytes));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }
}
