//! Entry points for fuzzing what reads images, and inputs to begin with.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use tar::EntryType;

use super::{Layer, Packing, TestImage, pack};
use crate::layer::{Sink, Spent, unpack};
use crate::limits::Limits;
use crate::local::Local;
use crate::manifest::{self, Saved, sha256};
use crate::source::Source;
use crate::staging::Space;
use crate::tree::{Content, Tree};

/// Small ones, so that what goes beyond them is met.
fn limits() -> Limits {
    Limits {
        document_bytes: 64 << 10,
        layers: 8,
        entries: 500,
        names_bytes: 64 << 10,
        header_bytes: 16 << 10,
        unpacked_bytes: 4 << 20,
        reserve_bytes: 0,
        ..Limits::default()
    }
}

/// Counts what a layer's files hold.
struct Counting(u64);

impl Sink for Counting {
    fn keep(&mut self, content: &mut dyn Read) -> io::Result<Content> {
        let len_bytes = io::copy(content, &mut io::sink())?;
        self.0 += len_bytes;
        Ok(Content { sha256: "0".repeat(64), len_bytes })
    }
}

/// Treats `bytes` as a layer, applies it twice, and looks for a disk. What its files hold stays within the limits.
pub fn layer(bytes: &[u8]) {
    let (mut tree, mut sink, mut spent) = (Tree::default(), Counting(0), Spent::default());
    let limits = limits();
    for number in 0..2 {
        if unpack(bytes, number, &mut tree, &mut sink, &mut spent, &limits).is_err() {
            break;
        }
    }
    assert!(sink.0 <= 2 * limits.unpacked_bytes, "files of {} bytes", sink.0);
    assert!(tree.nodes().count() <= limits.entries, "more paths than entries");
    let _ = tree.disk(None);
    let paths: Vec<String> = tree.nodes().map(|(path, _)| path.to_owned()).collect();
    for path in paths {
        assert!(!path.split('/').any(|name| name == ".." || name.is_empty()), "'{path}' climbs");
        let _ = tree.file(&path);
    }
}

/// Treats `bytes` as an archive of a layout or of `docker save`: reads its members and documents.
pub fn archive(bytes: &[u8]) {
    let limits = limits();
    let Ok(path) = memory_file(bytes) else { return };
    let (Ok(scratch), Ok(space)) = (memory_file(&[]), Space::of(Path::new("/"), 0)) else { return };
    let Ok(local) = Local::archive(&path.1, scratch.0, &space, &limits) else { return };
    for name in ["index.json", "manifest.json", "oci-layout"] {
        let Ok(document) = local.document(name, &limits) else { continue };
        assert!(document.len() as u64 <= limits.document_bytes);
        documents(&document);
    }
}

/// Treats `bytes` as every kind of document that images have, and as an image's name.
pub fn documents(bytes: &[u8]) {
    let limits = limits();
    for name in [None, Some("a:latest")] {
        let _ = manifest::read(bytes, name, &limits);
        if let Ok(saved) = Saved::read(bytes, name, &limits) {
            let _ = saved.config_sha256();
        }
    }
    for layers in 0..3 {
        let _ = manifest::diff_ids(bytes, layers);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Source>();
    }
}

/// A file that is nowhere but in memory, and a path that leads to it.
fn memory_file(bytes: &[u8]) -> io::Result<(File, PathBuf)> {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    Ok((file, path))
}

/// Layers to begin with.
pub fn layer_corpus() -> Vec<(String, Vec<u8>)> {
    use EntryType::{
        Block, Char, Directory, Fifo, GNULongLink, GNULongName, GNUSparse, Link, Symlink, XHeader,
    };
    let disk = Layer::default().file("disk/disk.img", &[0x5a; 700]).bytes();
    let mut corpus = vec![
        ("plain".to_owned(), disk.clone()),
        ("gzip".to_owned(), pack(&disk, Packing::Gzip)),
        ("zstd".to_owned(), pack(&disk, Packing::Zstd)),
        ("cut-off".to_owned(), disk[..800].to_vec()),
    ];
    for (name, kind, path, target, bytes) in [
        ("climbs", EntryType::Regular, "../../etc/shadow", "", &b"x"[..]),
        ("absolute", EntryType::Regular, "/etc/shadow", "", b"x"),
        ("symlink", Symlink, "disk/a", "/etc/shadow", b""),
        ("symlink-loop", Symlink, "disk", "disk", b""),
        ("hard-link", Link, "disk/b", "disk/disk.img", b""),
        ("hard-link-out", Link, "disk/b", "../../etc/shadow", b""),
        ("whiteout", EntryType::Regular, "disk/.wh.disk.img", "", b""),
        ("opaque", EntryType::Regular, "disk/.wh..wh..opq", "", b""),
        ("device", Block, "disk/c", "", b""),
        ("character", Char, "disk/d", "", b""),
        ("fifo", Fifo, "disk/e", "", b""),
        ("over-a-file", Directory, "disk/disk.img", "", b""),
        ("long-name", GNULongName, "././@LongLink", "", b"disk/a-name-that-goes-on\0"),
        ("long-link", GNULongLink, "././@LongLink", "", b"/a/target/that/goes/on\0"),
        ("sparse", GNUSparse, "disk/f", "", b"data"),
        ("pax", XHeader, "x", "", b"20 path=disk/pax-12\n"),
        ("pax-sparse", XHeader, "x", "", b"22 GNU.sparse.major=1\n"),
        ("pax-size", XHeader, "x", "", b"19 size=9999999999\n"),
    ] {
        let layer = Layer::default().file("disk/disk.img", b"disk").entry(kind, path, target, bytes);
        corpus.push((name.to_owned(), layer.file("after", b"x").bytes()));
    }
    corpus
}

/// Archives to begin with.
pub fn archive_corpus() -> Vec<(String, Vec<u8>)> {
    let image = TestImage::disk(b"disk", Packing::Plain);
    let mut layout = Layer::default();
    for (path, bytes) in image.layout("a:latest") {
        layout = layout.file(&path, &bytes);
    }
    let layout = layout.bytes();
    let linked = Layer::default()
        .entry(EntryType::Symlink, "index.json", "manifest.json", b"")
        .entry(EntryType::Symlink, "manifest.json", "index.json", b"")
        .bytes();
    vec![
        ("layout".to_owned(), layout.clone()),
        ("gzip".to_owned(), pack(&layout, Packing::Gzip)),
        ("zstd".to_owned(), pack(&layout, Packing::Zstd)),
        ("docker".to_owned(), image.docker_archive("a:latest")),
        ("links-in-a-circle".to_owned(), linked),
    ]
}

/// Documents to begin with.
pub fn documents_corpus() -> Vec<(String, Vec<u8>)> {
    let image = TestImage::disk(b"disk", Packing::Plain);
    let mut corpus: Vec<_> = image.layout("a:latest").into_iter().collect();
    corpus.retain(|(_, bytes)| bytes.first() == Some(&b'{'));
    corpus.push((
        "docker".to_owned(),
        format!(r#"[{{"Config":"{}.json","RepoTags":["a:latest"],"Layers":["l/layer.tar"]}}]"#, image.config)
            .into(),
    ));
    corpus.push(("reference".to_owned(), b"registry.example:5000/a/b:c@sha256:0".to_vec()));
    corpus.push(("oci".to_owned(), b"oci-archive:/a/b.tar:name".to_vec()));
    corpus.into_iter().map(|(_, bytes)| (sha256(&bytes), bytes)).collect()
}
