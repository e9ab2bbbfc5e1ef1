//! A SCSI driver that lies: commands of any bytes to a disk and a CD-ROM drive, in chains of any shape.

use std::cell::RefCell;
use std::fs::File;

use orlop_disk::{EngineKind, ErrorHandling};
use orlop_scsi::{DiskConfig, DriveConfig, DriveKind};
use orlop_virtio::conformance::{Driver, Used};
use orlop_virtio_scsi::{Config, build};

use crate::input::Input;
use crate::{chains, media};

/// Request header and response, in bytes, with the default sizes of commands and sense data (virtio 1.3 §5.6.6).
const HEADER_BYTES: usize = 19 + 32;
const RESPONSE_BYTES: usize = 108;
const CONTROL: u16 = 0;
const QUEUE: u16 = 2;

struct Machine {
    driver: Driver,
    images: [File; 2],
}

thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::new(machine());
}

fn machine() -> Machine {
    let engine = EngineKind::Synchronous;
    let (disk, disk_image) = media::image(false);
    let (medium, cd_image) = media::image(true);
    let units = vec![
        DriveConfig {
            kind: DriveKind::Disk(DiskConfig { disk, write_through: false, errors: ErrorHandling::REPORT }),
            serial: "FUZZ".into(),
            engine,
        },
        DriveConfig {
            kind: DriveKind::Cdrom { medium: Some(medium), open: false },
            serial: "CD".into(),
            engine,
        },
    ];
    let config = Config { name: "scsi".into(), units, queues: 1, queue_size: 64 };
    let (parts, _) = build(config).expect("a controller");
    Machine { driver: Driver::new(parts), images: [disk_image, cd_image] }
}

fn header(target: u8, unit: u8, cdb: &[u8]) -> Vec<u8> {
    let mut header = vec![1, target, 0x40, unit, 0, 0, 0, 0];
    header.extend([0; 11]);
    header.extend(&cdb[..cdb.len().min(32)]);
    header.resize(HEADER_BYTES, 0);
    header
}

/// The response of a command keeps to its own fields.
fn check(used: &Used, room: usize) {
    let word = |at: usize| u32::from_le_bytes(used.data[at..at + 4].try_into().expect("four bytes"));
    assert!(word(0) as usize <= RESPONSE_BYTES - 12, "more sense data than there is room");
    assert!(word(4) as usize <= room, "a residual of {} of {room} bytes", word(4));
}

/// Whatever it is sent, the controller works after a reset, and the images keep their lengths.
pub fn run(bytes: &[u8]) {
    MACHINE.with_borrow_mut(|Machine { driver, images }| {
        driver.reset();
        driver.start();
        let mut input = Input(bytes);
        for _ in 0..8 {
            if input.is_empty() || driver.is_broken() {
                break;
            }
            let (what, target) = (input.u8(), input.u8());
            if what % 4 == 3 {
                // From here on nobody waits for a single answer.
                let header = if what & 0x80 == 0 { header(target & 1, 0, input.bytes()) } else { Vec::new() };
                let queue = if what & 0x40 == 0 { QUEUE } else { u16::from(target % 3) };
                chains::post(driver, &mut input, 0, queue, &header);
                driver.settle();
                break;
            }
            if what % 4 == 2 {
                driver.request(CONTROL, &[&[0, 0, 0, 0], input.take(20)].concat(), 8);
                continue;
            }
            let cdb = input.bytes();
            let sent = input.bytes();
            let room = usize::from(input.u16() % 0x2000);
            let request = [&header(target & 1, target >> 1 & 1, cdb)[..], sent].concat();
            let used = driver.request(QUEUE, &request, RESPONSE_BYTES + room);
            check(&used, room + sent.len());
        }
        driver.settle();
        images.iter().for_each(media::check);
        driver.reset();
        driver.start();
        for (target, block, cdb) in [
            (0, 512, [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
            (1, 0, [0x1b, 0, 0, 0, 3, 0, 0, 0, 0, 0]),
            (1, 2048, [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
        ] {
            works(driver, target, &cdb, block);
        }
    });
}

/// The command succeeds after the unit attentions of a reset.
fn works(driver: &mut Driver, target: u8, cdb: &[u8], room: usize) {
    let good = (0..4).any(|_| {
        let used = driver.request(QUEUE, &header(target, 0, cdb), RESPONSE_BYTES + room);
        used.data[10] == 0 && used.data[11] == 0
    });
    assert!(good, "target {target} does not carry out {cdb:x?} any more");
}

/// Every operation code that a unit knows, to both, and to units that are not there.
pub fn corpus() -> crate::Corpus {
    let mut corpus = crate::Corpus::new();
    for code in crate::ahci::PACKETS {
        for target in 0..3 {
            let mut cdb = vec![0; 16];
            (cdb[0], cdb[4], cdb[8]) = (*code, 36, 1);
            let clear = [0, target, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let command = [&[0, target, 16][..], &cdb, &[32], &[0x11; 32], &[0, 16]].concat();
            corpus.push((format!("{code:02x}-{target}"), [&clear[..], &command].concat()));
        }
    }
    corpus.push(("abort".into(), [&[2, 0, 5, 0, 0, 0, 1, 0, 0x40][..], &[0; 16]].concat()));
    corpus.push(("chain".into(), [&[3, 0, 10, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], &[2; 32]].concat()));
    corpus
}
