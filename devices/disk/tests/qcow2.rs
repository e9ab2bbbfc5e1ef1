//! A qcow2 image is a plain array to its guest, and whole afterwards, whatever its shape.

use std::path::{Path, PathBuf};

use orlop_disk::kit::{Content, Exercise, Shape, check};
use orlop_disk::{Chain, Disk, EngineKind, Format, Image, Options, Source};

fn image(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("disk.qcow2");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn chain(layers: &[(&Path, Format)], options: Options) -> Chain {
    let images = layers
        .iter()
        .map(|(path, format)| Image { source: Source::Path((*path).into()), format: Some(*format) })
        .collect();
    Chain { images, overlay: None, options, holder: "test".into() }
}

fn open(path: &Path, options: Options) -> Disk {
    Disk::open_chain(chain(&[(path, Format::Qcow2)], options)).unwrap()
}

/// Contents of every kind that the version has, without an order.
fn contents(clusters: u64, version: u32) -> Vec<Content> {
    use Content::{Compressed, Data, Unallocated, Zero, ZeroKept};
    let kinds: &[Content] = if version > 2 {
        &[Data, Unallocated, Zero, Compressed, ZeroKept, Data, Compressed]
    } else {
        &[Data, Unallocated, Compressed, Data, Data]
    };
    (0..clusters * 3 / 4).map(|i| kinds[(i * i + i / 3) as usize % kinds.len()]).collect()
}

/// Random operations on an image of `shape`, which is checked and opened again several times.
fn is_an_array(shape: &Shape, kind: EngineKind, direct: bool) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = image(dir.path(), &shape.image());
    assert_eq!(
        check(&std::fs::read(&path).unwrap()),
        Default::default(),
        "the image was wrong before: {shape:?}"
    );
    let options = Options { direct, read_only: false, shared: false };
    let mut model = shape.disk();
    for seed in 0..4 {
        let mut exercise = Exercise::new(open(&path, options), model, kind, seed);
        exercise.compare();
        for round in 0..60 {
            exercise.round();
            if round == 30 {
                exercise.flush();
                let found = check(&std::fs::read(&path).unwrap());
                assert_eq!(found.errors, [""; 0], "after a flush, {shape:?}");
            }
        }
        exercise.compare();
        assert_eq!(exercise.disk.corruptions(), 0);
        model = exercise.model.clone();
        drop(exercise);
        let found = check(&std::fs::read(&path).unwrap());
        assert_eq!(found, Default::default(), "after seed {seed}, {shape:?}");
    }
    let mut exercise = Exercise::new(open(&path, options), model, kind, 9);
    exercise.compare();
}

#[test]
fn images_of_every_cluster_size_are_plain_arrays() {
    for cluster_bits in [9, 10, 12, 16, 18, 21] {
        let clusters = if cluster_bits < 12 { 300 } else { 40 };
        let size_bytes = (clusters << cluster_bits).min(20 << 20);
        let contents = contents(size_bytes >> cluster_bits, 3);
        is_an_array(
            &Shape { cluster_bits, size_bytes, contents, ..Shape::default() },
            EngineKind::Auto,
            false,
        );
    }
}

#[test]
fn images_of_version_2_are_plain_arrays() {
    for cluster_bits in [9, 12, 16] {
        let size_bytes = 50 << cluster_bits;
        let contents = contents(50, 2);
        let shape = Shape { version: 2, cluster_bits, size_bytes, contents, ..Shape::default() };
        is_an_array(&shape, EngineKind::Auto, false);
    }
}

#[test]
fn counts_of_every_width_are_kept_right() {
    for refcount_order in 0..7 {
        let contents = contents(100, 3);
        let size_bytes = 100 << 12;
        let shape = Shape { cluster_bits: 12, refcount_order, size_bytes, contents, ..Shape::default() };
        is_an_array(&shape, EngineKind::Auto, false);
    }
}

#[test]
fn an_image_without_io_uring_is_a_plain_array() {
    let shape = Shape { contents: contents(60, 3), ..Shape::default() };
    is_an_array(&shape, EngineKind::Synchronous, false);
}

#[test]
fn an_image_around_the_page_cache_is_a_plain_array() {
    for kind in [EngineKind::Auto, EngineKind::Synchronous] {
        let shape = Shape { cluster_bits: 13, contents: contents(200, 3), ..Shape::default() };
        is_an_array(&shape, kind, true);
    }
}

#[test]
fn zstandard_clusters_are_read_and_overwritten() {
    let shape = Shape { zstd: true, contents: contents(60, 3), ..Shape::default() };
    is_an_array(&shape, EngineKind::Auto, false);
}

#[test]
fn a_disk_that_ends_within_a_cluster_is_a_plain_array() {
    let size_bytes = (30 << 16) + 3 * 512;
    is_an_array(
        &Shape { size_bytes, contents: contents(40, 3), ..Shape::default() },
        EngineKind::Auto,
        false,
    );
}

#[test]
fn a_snapshot_keeps_what_the_disk_overwrites() {
    for cluster_bits in [9, 12, 16] {
        let shape = Shape {
            cluster_bits,
            snapshot: true,
            size_bytes: 80 << cluster_bits,
            contents: contents(80, 3),
            ..Shape::default()
        };
        is_an_array(&shape, EngineKind::Auto, false);
        // The snapshot itself is read by making it the disk: its L1 table becomes the active one.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = image(dir.path(), &shape.image());
        let mut exercise = Exercise::new(open(&path, Options::default()), shape.disk(), EngineKind::Auto, 77);
        (0..40).for_each(|_| exercise.round());
        drop(exercise);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = u64::from_be_bytes(bytes[64..72].try_into().unwrap()) as usize;
        let l1: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
        bytes[40..48].copy_from_slice(&l1);
        std::fs::write(&path, bytes).unwrap();
        let read_only = Options { read_only: true, direct: false, shared: false };
        Exercise::new(open(&path, read_only), shape.disk(), EngineKind::Auto, 1).compare();
    }
}
