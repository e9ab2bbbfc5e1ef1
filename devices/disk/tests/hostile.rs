//! An image may say anything: what contradicts itself is refused, or an error for the request that meets it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orlop_disk::kit::{Content, Shape, fuzz, run};
use orlop_disk::{Chain, Disk, Engine, EngineKind, Format, Image, OpenError, Operation, Options, Source};

const CLUSTER: u64 = 4096;

fn chain(path: &Path, format: Option<Format>, options: Options) -> Chain {
    let image = Image { source: Source::Path(path.into()), format };
    Chain { images: vec![image], overlay: None, options, holder: "test".into() }
}

fn shape() -> Shape {
    use Content::{Compressed, Data, Unallocated};
    Shape { cluster_bits: 12, contents: vec![Data, Data, Compressed, Unallocated, Data], ..Shape::default() }
}

fn number(image: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(image[at as usize..at as usize + 8].try_into().unwrap())
}

/// An image in which the number at the place that `place` finds is `value`.
fn spoilt(dir: &Path, place: impl Fn(&[u8]) -> u64, value: u64) -> PathBuf {
    let mut image = shape().image();
    let at = place(&image) as usize;
    image[at..at + 8].copy_from_slice(&value.to_be_bytes());
    let path = dir.join("disk.qcow2");
    std::fs::write(&path, image).unwrap();
    path
}

fn l2(image: &[u8]) -> u64 {
    number(image, number(image, 40)) & 0x00ff_ffff_ffff_fe00
}

struct Opened {
    disk: Arc<Disk>,
    engine: Box<dyn Engine<Vec<u8>>>,
}

fn open(path: &Path) -> Opened {
    let disk = Disk::open_chain(chain(path, Some(Format::Qcow2), Options::default())).unwrap();
    let disk = Arc::new(disk);
    let (engine, _) = orlop_disk::open_engine(&disk, 8, EngineKind::Auto);
    Opened { disk, engine }
}

impl Opened {
    fn read(&mut self, cluster: u64) -> Result<Vec<u8>, String> {
        let read = Operation::Read { offset: cluster * CLUSTER, to: vec![0xaa; 512] };
        let done = run(&mut *self.engine, read);
        done.result.map(|()| done.memory.unwrap()).map_err(|error| error.to_string())
    }

    fn write(&mut self, cluster: u64) -> Result<(), String> {
        let write = Operation::Write { offset: cluster * CLUSTER, from: vec![0x5a; 512] };
        run(&mut *self.engine, write).result.map_err(|error| error.to_string())
    }
}

fn is_marked(path: &Path) -> bool {
    std::fs::read(path).unwrap()[79] & 2 != 0
}

#[test]
fn a_spoilt_entry_is_an_error_for_its_cluster_and_marks_the_image() {
    let entry = |image: &[u8]| l2(image);
    let l1 = |image: &[u8]| number(image, 40);
    const COPIED: u64 = 1 << 63;
    type Place<'a> = &'a dyn Fn(&[u8]) -> u64;
    let good = shape().image();
    let cases: [(Place<'_>, u64, &str); 9] = [
        (&entry, COPIED | 1 << 50, "beyond the end"),
        (&entry, COPIED | number(&good, 40), "refers to a table"),
        (&entry, COPIED | l2(&good), "refers to a table"),
        (&entry, COPIED | number(&good, 48), "refers to a table"),
        (&entry, COPIED | 0x1200, "not aligned"),
        (&entry, 1 << 62 | 1 << 45, "beyond the end"),
        (&l1, COPIED | number(&good, 40), "no L2 table"),
        (&l1, COPIED | 1 << 50, "no L2 table"),
        (&l1, 1 << 60 | l2(&good), "reserved bits"),
    ];
    for (place, value, said) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = spoilt(dir.path(), place, value);
        let mut opened = open(&path);
        let error = opened.read(0).unwrap_err();
        assert!(error.contains(said), "{value:#x}: {error}");
        assert!(opened.write(0).is_err(), "{value:#x}");
        assert!(opened.disk.corruptions() >= 2 && is_marked(&path), "{value:#x}");
        // The guest goes on where the image is whole: with what it has, not with more.
        if number(&good, 40) != place(&good) {
            assert_eq!(opened.read(1).unwrap()[..9], *b"<0000001>", "{value:#x}");
            opened.write(1).unwrap();
        }
        assert!(opened.write(3).is_err(), "nothing is allocated in a corrupt image");
        drop(opened);
        let again = Disk::open_chain(chain(&path, Some(Format::Qcow2), Options::default())).unwrap_err();
        assert!(again.to_string().contains("marked as corrupt"), "{again}");
        let read_only = Options { read_only: true, direct: false, shared: false };
        Disk::open_chain(chain(&path, Some(Format::Qcow2), read_only)).unwrap();
    }
}

#[test]
fn nothing_is_allocated_over_a_table() {
    // The block of reference counts says that everything is free, tables as well.
    let dir = tempfile::tempdir().unwrap();
    let block = |image: &[u8]| number(image, number(image, 48));
    let path = spoilt(dir.path(), block, 0);
    let mut opened = open(&path);
    assert!(opened.write(3).unwrap_err().contains("no reference"));
    assert!(is_marked(&path));
    let before = shape().image();
    let after = std::fs::read(&path).unwrap();
    assert_eq!(before[4096..8192], after[4096..8192], "the L1 table was written to");
}

#[test]
fn refcount_tables_that_lead_nowhere_stop_allocation_only() {
    let good = shape().image();
    for value in [1 << 50, l2(&good), 0x1200, number(&good, 48)] {
        let dir = tempfile::tempdir().unwrap();
        let path = spoilt(dir.path(), |image| number(image, 48), value);
        let mut opened = open(&path);
        opened.write(0).unwrap();
        assert!(opened.write(3).is_err(), "{value:#x}");
        assert!(opened.read(3).is_ok() && is_marked(&path), "{value:#x}");
    }
}

#[test]
fn a_compressed_cluster_that_does_not_decompress_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let image = shape().image();
    let at = number(&image, l2(&image) + 16) & ((1 << 58) - 1);
    let path = spoilt(dir.path(), |_| at, u64::MAX);
    let mut opened = open(&path);
    assert!(opened.read(2).unwrap_err().contains("cannot be decompressed"));
    assert!(is_marked(&path) && opened.read(1).is_ok());
}

#[test]
fn a_truncated_image_is_refused_or_an_error() {
    let image = shape().image();
    for len in (0..image.len()).step_by(1500).chain([71, 103, image.len() - 1]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.qcow2");
        std::fs::write(&path, &image[..len]).unwrap();
        let Ok(disk) = Disk::open_chain(chain(&path, Some(Format::Qcow2), Options::default())) else {
            continue;
        };
        let disk = Arc::new(disk);
        let (engine, _) = orlop_disk::open_engine(&disk, 8, EngineKind::Auto);
        let mut opened = Opened { disk, engine };
        for cluster in 0..6 {
            // Either what was there, or an error; never a panic, and never something else.
            if let Ok(read) = opened.read(cluster) {
                let text = format!("<{cluster:07}>");
                assert!(read.starts_with(text.as_bytes()) || read == [0; 512], "{len}: {cluster}");
            }
            let _ = opened.write(cluster);
        }
    }
}

#[test]
fn the_name_of_a_backing_image_is_never_opened() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["/etc/shadow", "/etc/passwd", "disk.qcow2", "json:{\"driver\":\"file\"}", "nbd://10.0.0.1"] {
        let path = dir.path().join("disk.qcow2");
        let shape = Shape { backing: Some(name.into()), ..shape() };
        std::fs::write(&path, shape.image()).unwrap();
        let refused = Disk::open_chain(chain(&path, Some(Format::Qcow2), Options::default())).unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains(name) && said.contains("opened only where the configuration names it"),
            "{said}"
        );
        assert!(matches!(refused, OpenError::Format { .. }));
        // Nor where the format was not said.
        let refused = Disk::open_chain(chain(&path, None, Options::default())).unwrap_err();
        assert!(refused.to_string().contains("names it"), "{refused}");
    }
}

#[test]
fn a_raw_disk_stays_raw_whatever_its_guest_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let disk = Disk::open_chain(chain(&path, None, Options::default())).unwrap();
    assert_eq!(disk.format(), Format::Raw);
    let header = Shape { backing: Some("/etc/shadow".into()), ..shape() }.image();
    let disk = Arc::new(disk);
    let (mut engine, _) = orlop_disk::open_engine::<Vec<u8>>(&disk, 8, EngineKind::Auto);
    run(&mut *engine, Operation::Write { offset: 0, from: header[..8192].to_vec() }).result.unwrap();
    drop((engine, disk));
    let disk = Disk::open_chain(chain(&path, Some(Format::Raw), Options::default())).unwrap();
    assert_eq!((disk.format(), disk.size_bytes()), (Format::Raw, 1 << 20));
    drop(disk);
    // Whoever guesses again is told, and nothing else is opened.
    let refused = Disk::open_chain(chain(&path, None, Options::default())).unwrap_err();
    assert!(refused.to_string().contains("names it"), "{refused}");
}

#[test]
fn every_image_of_the_corpus_ends_well() {
    for (name, bytes) in fuzz::corpus() {
        fuzz::qcow2(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn images_with_any_byte_changed_end_well() {
    // A short run of what the fuzzer does, the same each time.
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance
    };
    let corpus = fuzz::corpus();
    for round in 0..1500 {
        let mut bytes = corpus[round % corpus.len()].1.clone();
        for _ in 0..1 + next() % 4 {
            // Mostly in the header and at the start of tables, where it matters.
            let len = bytes.len().max(1) as u64;
            let at = match next() % 3 {
                0 => next() % 120,
                1 => next() % len / 4096 * 4096 + next() % 64,
                _ => next() % len,
            };
            if let Some(byte) = bytes.get_mut(at as usize) {
                *byte = (next() % 256) as u8;
            }
        }
        fuzz::qcow2(&bytes).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}
