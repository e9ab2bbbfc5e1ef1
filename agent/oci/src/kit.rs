//! Images for tests, good and bad ones, made in memory.

pub mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::manifest::sha256;

/// How the layers of a test image are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

/// A layer under construction: a tar archive.
pub struct Layer(Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    /// Adds a regular file.
    pub fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", bytes)
    }

    /// Adds an entry of any kind; names are put down as they are, however bad.
    pub fn entry(mut self, kind: EntryType, path: &str, target: &str, bytes: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        for (place, text) in [(0, path), (157, target)] {
            let len = text.len().min(100);
            header.as_mut_bytes()[place..place + len].copy_from_slice(&text.as_bytes()[..len]);
        }
        header.set_cksum();
        // A vector takes everything.
        drop(self.0.append(&header, bytes));
        self
    }

    /// The archive.
    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap_or_default()
    }
}

/// An image: layers, a configuration, a manifest.
pub struct TestImage {
    /// Every blob by its SHA-256, the manifest too.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// SHA-256 of the manifest.
    pub manifest: String,
    /// SHA-256 of the configuration.
    pub config: String,
    /// The layers as tar archives.
    pub layers: Vec<Vec<u8>>,
}

impl TestImage {
    /// Of these layers, lowest first.
    pub fn new(layers: Vec<Vec<u8>>, packing: Packing) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let packed = layers.iter().map(|layer| pack(layer, packing)).collect();
        Self::with(layers, packed, &diff_ids)
    }

    /// Of layers that are packed already.
    pub fn with(layers: Vec<Vec<u8>>, packed: Vec<Vec<u8>>, diff_ids: &[String]) -> Self {
        let mut blobs = BTreeMap::new();
        let mut add = |kind: &str, bytes: Vec<u8>| {
            let sha256 = sha256(&bytes);
            let descriptor = descriptor(kind, &sha256, bytes.len());
            blobs.insert(sha256.clone(), bytes);
            (sha256, descriptor)
        };
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let (config, config_descriptor) =
            add("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let descriptors: Vec<Value> = packed.into_iter().map(|bytes| add(kind, bytes).1).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config_descriptor,
            "layers": descriptors,
        });
        let (manifest, _) = add("", manifest.to_string().into_bytes());
        Self { blobs, manifest, config, layers }
    }

    /// A container disk with this disk.
    pub fn disk(bytes: &[u8], packing: Packing) -> Self {
        Self::new(vec![Layer::default().file("disk/disk.img", bytes).bytes()], packing)
    }

    /// Writes an OCI image layout with the image under `name`.
    pub fn write_layout(&self, directory: &Path, name: &str) -> io::Result<()> {
        for (path, bytes) in self.layout(name) {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap_or(directory))?;
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Writes the same as a tar file.
    pub fn write_oci_archive(&self, path: &Path, name: &str, packing: Packing) -> io::Result<()> {
        let mut archive = Layer::default();
        for (path, bytes) in self.layout(name) {
            archive = archive.file(&path, &bytes);
        }
        fs::write(path, pack(&archive.bytes(), packing))
    }

    /// Writes what `docker save` writes.
    pub fn write_docker_archive(&self, path: &Path, name: &str) -> io::Result<()> {
        fs::write(path, self.docker_archive(name))
    }

    fn docker_archive(&self, name: &str) -> Vec<u8> {
        let config = format!("{}.json", self.config);
        let names: Vec<String> = (0..self.layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
        let manifest = json!([{"Config": config, "RepoTags": [name], "Layers": names}]);
        let mut archive = Layer::default()
            .file("manifest.json", manifest.to_string().as_bytes())
            .file(&config, &self.blobs[&self.config]);
        for (name, layer) in names.iter().zip(&self.layers) {
            archive = archive.file(name, layer);
        }
        archive.bytes()
    }

    fn layout(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let mut descriptor = descriptor(kind, &self.manifest, self.blobs[&self.manifest].len());
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        files.extend(
            self.blobs.iter().map(|(sha256, bytes)| (format!("blobs/sha256/{sha256}"), bytes.clone())),
        );
        files
    }
}

fn descriptor(kind: &str, sha256: &str, len: usize) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{sha256}"), "size": len})
}

/// Compresses.
pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            // A vector takes everything.
            drop(encoder.write_all(bytes));
            encoder.finish().unwrap_or_default()
        }
        Packing::Zstd => {
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
        }
    }
}
