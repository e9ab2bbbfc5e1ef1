//! A guest's SCSI driver, on a controller with real images.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};

use orlop_disk::{Chain, Disk, EngineKind, ErrorHandling, Format, Image, Options, Source};
use orlop_scsi::{DiskConfig, DriveConfig, DriveKind};
use orlop_virtio::Parts;
use orlop_virtio::conformance::{Driver, Used};
use orlop_virtio_scsi::{Config, Handle, build};

pub const DISK: u8 = 0;
pub const CDROM: u8 = 1;
pub const QUEUE: u16 = 2;
pub const RESPONSE_BYTES: usize = 108;
pub const DISK_BYTES: u64 = 16 << 20;
pub const CDROM_BYTES: u64 = 1 << 20;
/// The name of an overlay over the disk.
pub const OVERLAY: &str = "overlay.qcow2";

pub fn image(dir: &Path, name: &str, size_bytes: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(size_bytes).unwrap();
    path
}

/// A controller with a disk as target 0 and a CD-ROM drive as target 1.
pub fn parts(dir: &Path, engine: EngineKind, queues: u16) -> (Parts, Handle) {
    let disk = disk(dir);
    let medium = cd(dir, "cd.iso", 7);
    let units = vec![
        DriveConfig {
            kind: DriveKind::Disk(DiskConfig { disk, write_through: false, errors: ErrorHandling::REPORT }),
            serial: "ORLOP-0001".into(),
            engine,
        },
        DriveConfig {
            kind: DriveKind::Cdrom { medium: Some(medium), open: false },
            serial: "CD".into(),
            engine,
        },
    ];
    build(Config { name: "scsi".into(), units, queues, queue_size: 64 }).unwrap()
}

/// The disk on a raw image, or on an overlay over it where there is a file for one.
fn disk(dir: &Path) -> Disk {
    let (base, overlay) = (image(dir, "disk.raw", DISK_BYTES), dir.join(OVERLAY));
    if !overlay.exists() {
        return Disk::open(&base, Options::default()).unwrap();
    }
    let images = vec![Image { source: Source::Path(base), format: Some(Format::Raw) }];
    let overlay = Some(Source::Path(overlay));
    Disk::open_chain(Chain { images, overlay, options: Options::default(), holder: "test".into() }).unwrap()
}

/// A medium whose every byte is `fill`.
pub fn cd(dir: &Path, name: &str, fill: u8) -> Disk {
    let path = dir.join(name);
    std::fs::write(&path, vec![fill; CDROM_BYTES as usize]).unwrap();
    Disk::open(&path, Options { read_only: true, direct: false, shared: false }).unwrap()
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub response: u8,
    pub status: u8,
    /// Key, code and qualifier.
    pub sense: Option<(u8, u8, u8)>,
    pub residual: u32,
    pub data: Vec<u8>,
}

impl Answer {
    pub fn of(used: &Used) -> Self {
        let (head, data) = used.data.split_at(RESPONSE_BYTES);
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let sense = (word(0) > 0).then(|| (head[12 + 2] & 0xf, head[12 + 12], head[12 + 13]));
        Self { response: head[11], status: head[10], sense, residual: word(4), data: data.to_vec() }
    }

    pub fn is_good(&self) -> bool {
        self.response == 0 && self.status == 0
    }
}

pub fn lun(target: u8, unit: u8) -> [u8; 8] {
    [1, target, 0x40, unit, 0, 0, 0, 0]
}

pub fn header(lun: [u8; 8], cdb: &[u8]) -> Vec<u8> {
    let mut header = lun.to_vec();
    header.extend([0; 11]);
    header.extend(cdb);
    header.resize(19 + 32, 0);
    header
}

/// One command, as it is.
pub fn once(driver: &mut Driver, queue: u16, target: u8, cdb: &[u8], out: &[u8], len: usize) -> Answer {
    let request = [&header(lun(target, 0), cdb)[..], out].concat();
    Answer::of(&driver.request(queue, &request, RESPONSE_BYTES + len))
}

/// One command, again after a unit attention.
pub fn command(driver: &mut Driver, queue: u16, target: u8, cdb: &[u8], out: &[u8], len: usize) -> Answer {
    for _ in 0..3 {
        let answer = once(driver, queue, target, cdb, out, len);
        if answer.sense.is_none_or(|(key, _, _)| key != 6) {
            return answer;
        }
    }
    panic!("unit attention without end");
}

/// A 10-byte command on `blocks` from `first` on.
pub fn ten(operation: u8, first: u32, blocks: u16) -> [u8; 10] {
    let [a, b, c, d] = first.to_be_bytes();
    let [high, low] = blocks.to_be_bytes();
    [operation, 0, a, b, c, d, 0, high, low, 0]
}
