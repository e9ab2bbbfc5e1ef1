//! A block driver that lies, in requests and in descriptors.

use std::cell::RefCell;
use std::fs::File;

use orlop_disk::{EngineKind, ErrorHandling};
use orlop_virtio::conformance::Driver;
use orlop_virtio_blk::{Config, Limits, build};

use crate::input::Input;
use crate::{chains, media};

struct Machine {
    driver: Driver,
    image: File,
}

thread_local! {
    /// One machine serves many inputs, each after a reset.
    static MACHINE: RefCell<Machine> = RefCell::new(machine());
}

fn machine() -> Machine {
    let (disk, image) = media::image(false);
    let limits = Limits { bytes: None, operations: None };
    let config = Config {
        name: "blk0".into(),
        disk,
        serial: "FUZZ".into(),
        queues: 1,
        queue_size: 64,
        engine: EngineKind::Synchronous,
        limits,
        write_through: false,
        errors: ErrorHandling::REPORT,
    };
    let (parts, _) = build(config).expect("a device");
    Machine { driver: Driver::new(parts), image }
}

/// Whatever it is sent, the device works after a reset, and the image keeps its length.
pub fn run(bytes: &[u8]) {
    MACHINE.with_borrow_mut(|Machine { driver, image }| {
        driver.reset();
        driver.start();
        let mut input = Input(bytes);
        for number in 0..8 {
            if input.is_empty() {
                break;
            }
            let header: Vec<u8> = match input.u8() % 4 {
                0 => Vec::new(),
                1 => input.take(16).to_vec(),
                _ => {
                    let (kind, sector) = (u32::from(input.u8() % 16), u64::from(input.u16()));
                    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
                }
            };
            chains::post(driver, &mut input, number, 0, &header);
        }
        driver.settle();
        media::check(image);
        driver.reset();
        driver.start();
        let read = driver.request(0, &[0; 16], 513);
        assert_eq!(read.data.last(), Some(&0), "the device does not read any more");
    });
}

/// Requests of every kind, good and bad.
pub fn corpus() -> crate::Corpus {
    let mut corpus: crate::Corpus = [0, 1, 4, 8, 11, 13, 15]
        .map(|kind| {
            // A request of 512 bytes with its status byte.
            let parts = [1, 0x12, 0, 0, 0, 1, 0, 0x02, 0, 0x10, 0, 1, 0, 16];
            let request = [&[2, kind, 3, 0][..], &parts, &[1; 16]].concat();
            (format!("kind-{kind}"), request.repeat(2))
        })
        .into();
    corpus.push(("no-header".into(), vec![0, 0, 0x02, 0, 0, 0, 16, 0, 0]));
    corpus.push(("indirect".into(), vec![2, 0, 0, 0, 0x81, 0x12, 0, 0, 0, 1, 0, 2, 0, 0x10, 0, 1, 0]));
    corpus.push(("outside".into(), vec![2, 1, 0, 0, 1, 0x12, 1, 0, 5, 1, 0, 2, 0, 0, 6, 1, 0]));
    corpus.push(("endless".into(), vec![1; 64]));
    corpus
}
