//! A guest's block driver, on a device with a real image.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use orlop_disk::{
    Chain, Disk, EngineKind, ErrorHandling, ErrorPolicy, Format, Image, Options, Source, Stopped,
};
use orlop_virtio::Parts;
use orlop_virtio::conformance::{Driver, Used};
use orlop_virtio_blk::{Config, Handle, Limits, build};
use tempfile::TempDir;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

/// How the device is made.
#[derive(Clone, Copy)]
pub struct Setup {
    pub size_bytes: u64,
    pub queues: u16,
    pub queue_size: u16,
    pub options: Options,
    /// The image itself, or a qcow2 overlay over it.
    pub format: Format,
    pub engine: EngineKind,
    pub limits: Limits,
    /// What becomes of the host's errors.
    pub policy: ErrorPolicy,
}

/// How often a disk wanted its machine stopped.
pub static STOPS: AtomicUsize = AtomicUsize::new(0);

pub const SETUP: Setup = Setup {
    size_bytes: 16 << 20,
    queues: 1,
    queue_size: 64,
    options: Options { read_only: false, direct: false, shared: false },
    format: Format::Raw,
    engine: EngineKind::Auto,
    limits: Limits { bytes: None, operations: None },
    policy: ErrorPolicy::Report,
};

/// An image of zeroes below `dir`.
pub fn image(dir: &Path, size_bytes: u64) -> PathBuf {
    let path = dir.join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(size_bytes).unwrap();
    path
}

pub fn parts(path: &Path, setup: Setup) -> (Parts, Handle) {
    let Setup { size_bytes: _, queues, queue_size, options, format, engine, limits, policy } = setup;
    let disk = match format {
        Format::Raw => Disk::open(path, options).unwrap(),
        Format::Qcow2 => over(path, options),
    };
    let name = "blk0".to_owned();
    let serial = "ORLOP-0001".into();
    let stop = |_: &Stopped<'_>| {
        STOPS.fetch_add(1, SeqCst);
    };
    let (write_through, errors) = (false, ErrorHandling::new(policy, Arc::new(stop)));
    build(Config { name, disk, serial, queues, queue_size, engine, limits, write_through, errors }).unwrap()
}

fn over(path: &Path, options: Options) -> Disk {
    let images = vec![Image { source: Source::Path(path.into()), format: Some(Format::Raw) }];
    let overlay = Some(Source::Path(path.with_extension("qcow2")));
    Disk::open_chain(Chain { images, overlay, options, holder: "vm".into() }).unwrap()
}

/// A machine with one disk.
pub struct Guest {
    pub driver: Driver,
    pub handle: Handle,
    pub path: PathBuf,
    _dir: Option<TempDir>,
}

impl Guest {
    pub fn new(setup: Setup) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut guest = Self::at(&image(dir.path(), setup.size_bytes), setup);
        guest._dir = Some(dir);
        guest
    }

    pub fn at(path: &Path, setup: Setup) -> Self {
        let (parts, handle) = parts(path, setup);
        let mut driver = Driver::new(parts);
        driver.start();
        Self { driver, handle, path: path.into(), _dir: None }
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.handle.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    pub fn read(&mut self, sector: u64, len: usize) -> (u8, Vec<u8>) {
        let used = self.driver.request(0, &header(IN, sector), len + 1);
        (status(&used), used.data[..len].to_vec())
    }

    pub fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.command(OUT, sector, data)
    }

    pub fn command(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        status(&self.driver.request(0, &[&header(kind, sector)[..], data].concat(), 1))
    }
}

pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

pub fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// The status byte, after checking that the used length covers it when nothing else is in doubt.
pub fn status(used: &Used) -> u8 {
    let status = *used.data.last().unwrap();
    assert!(status != OK || used.written == used.data.len(), "success without all bytes written");
    status
}

/// Bytes that tell where they belong.
pub fn pattern(sector: u64, len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64 / 8)
        .flat_map(|i| (sector * 64 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed).to_le_bytes())
        .collect()
}
