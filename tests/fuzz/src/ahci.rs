//! An AHCI driver that lies: registers, command lists, frames, packets, tables.

use std::cell::RefCell;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_ahci::{ABAR, ABAR_BYTES, Ahci, Config, Platform, Ram, build};
use orlop_disk::{EngineKind, ErrorHandling};
use orlop_pci::{Function, MsiSink};
use orlop_scsi::{DiskConfig, DriveConfig, DriveKind};
use vm_memory::{Bytes, GuestAddress};

use crate::input::Input;
use crate::media;

const MEMORY_BYTES: usize = 1 << 20;
const DATA: u64 = 0x4_0000;
/// Registers of a port (AHCI 1.3.1 §3.3).
const PORTS: u64 = 0x100;
const PORT_BYTES: u64 = 0x80;
const COMMAND: u64 = 0x18;
const ISSUE: u64 = 0x38;
const DEADLINE: Duration = Duration::from_secs(20);

/// Operation codes that CD-ROM drives and disks know.
pub const PACKETS: &[u8] = &[
    0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a, 0x2b, 0x2e, 0x2f, 0x35,
    0x41, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x55, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa,
    0xad, 0xbd,
];
/// ATA commands that the disk knows.
const COMMANDS: &[u8] = &[
    0x06, 0x20, 0x24, 0x25, 0x29, 0x2f, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x60, 0x61, 0xa0, 0xa1, 0xc4,
    0xc5, 0xc8, 0xca, 0xe0, 0xe1, 0xe5, 0xe7, 0xea, 0xec, 0xef, 0xf5,
];

struct Silence;

impl MsiSink for Silence {
    fn signal(&self, _: u64, _: u32) {}
}

struct Machine {
    function: Arc<Ahci>,
    ram: Arc<Ram>,
    images: [File; 2],
}

thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::new(Machine::new());
}

impl Machine {
    fn new() -> Self {
        let engine = EngineKind::Synchronous;
        let (disk, disk_image) = media::image(false);
        let (medium, cd_image) = media::image(true);
        let drives = vec![
            DriveConfig {
                kind: DriveKind::Disk(DiskConfig {
                    disk,
                    write_through: false,
                    errors: ErrorHandling::REPORT,
                }),
                serial: "FUZZ".into(),
                engine,
            },
            DriveConfig {
                kind: DriveKind::Cdrom { medium: Some(medium), open: false },
                serial: "CD".into(),
                engine,
            },
        ];
        let controller = build(Config { name: "sata".into(), drives }).expect("a controller");
        let ram = Arc::new(Ram::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).expect("memory"));
        let platform = Platform {
            ram: Arc::clone(&ram),
            msi: Arc::new(Silence),
            hook: Arc::new(|_| ()),
            bar_address: 0xc000_0000,
        };
        let function = Ahci::new(controller, platform).expect("a function");
        Self { function, ram, images: [disk_image, cd_image] }
    }

    fn write(&self, offset: u64, value: u32) {
        self.function.bar_write(ABAR, offset, &value.to_le_bytes());
    }

    fn port(&self, port: u64, register: u64) -> u32 {
        let mut value = [0; 4];
        self.function.bar_read(ABAR, PORTS + PORT_BYTES * port + register, &mut value);
        u32::from_le_bytes(value)
    }

    fn set_port(&self, port: u64, register: u64, value: u32) {
        self.write(PORTS + PORT_BYTES * port + register, value);
    }

    fn list(port: u64) -> u64 {
        0x1_0000 + 0x1000 * port
    }

    fn table(port: u64, slot: u64) -> u64 {
        0x2_0000 + 0x1_0000 * port + 0x400 * slot
    }

    /// From power-on to ports that run.
    fn start(&self) {
        self.function.reset();
        self.function.config_write(4, &[6, 4]);
        for port in 0..2 {
            self.start_port(port);
        }
    }

    fn start_port(&self, port: u64) {
        let list = u32::try_from(Self::list(port)).unwrap_or(0);
        for (register, value) in [(0, list), (4, 0), (8, list + 0x800), (12, 0), (0x30, u32::MAX)] {
            self.set_port(port, register, value);
        }
        self.set_port(port, COMMAND, 1 << 4);
        self.set_port(port, COMMAND, 1 << 4 | 1);
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(at)).expect("it is inside memory");
    }

    /// Fills a slot: header flags beside the number of entries, a frame, a packet, entries.
    fn fill(&self, port: u64, slot: u64, flags: u16, frame: &[u8], entries: &[(u64, u32)]) {
        let table = Self::table(port, slot);
        let header = [u32::from(flags) | (entries.len() as u32) << 16, 0, table as u32, 0];
        let header: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
        self.put(Self::list(port) + 32 * slot, &header);
        let mut bytes = frame[..frame.len().min(0x50)].to_vec();
        bytes.resize(0x80, 0);
        for (address, count) in entries {
            bytes.extend(address.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(count.to_le_bytes());
        }
        self.put(table, &bytes);
    }

    /// Runs slot 0; whether it ended well.
    fn run(&self, port: u64, frame: &[u8], len: u32) -> bool {
        self.fill(port, 0, 5, frame, &[(DATA, len - 1)]);
        self.set_port(port, ISSUE, 1);
        let began = Instant::now();
        while self.port(port, ISSUE) != 0 {
            if self.port(port, 0x10) & (1 << 30) != 0 {
                self.set_port(port, COMMAND, 1 << 4);
                while self.port(port, COMMAND) & 1 << 15 != 0 {
                    std::thread::yield_now();
                }
                self.set_port(port, 0x10, u32::MAX);
                self.start_port(port);
                return false;
            }
            assert!(began.elapsed() < DEADLINE, "port {port} never ends its command");
            std::thread::yield_now();
        }
        true
    }
}

fn packet(cdb: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x27, 0x80, 0xa0, 1];
    frame.resize(0x40, 0);
    frame.extend(cdb);
    frame
}

/// One step of the driver.
fn step(machine: &Machine, input: &mut Input<'_>) {
    let (what, place) = (input.u8(), input.u8());
    let (port, slot) = (u64::from(place & 1), u64::from(place >> 1 & 0x1f));
    let entry = |input: &mut Input<'_>| match input.u8() % 4 {
        0 => (DATA + u64::from(input.u16()), u32::from(input.u16())),
        1 => (DATA, 512 * u32::from(input.u8()) + 511),
        2 => (MEMORY_BYTES as u64 - u64::from(input.u8()), u32::from(input.u16())),
        _ => (input.u64(), input.u32()),
    };
    match what % 6 {
        0 => machine.write((u64::from(input.u16()) % ABAR_BYTES) & !3, input.u32()),
        1 => machine.set_port(port, u64::from(input.u8()) & 0x7c, input.u32()),
        2 => machine.put(Machine::table(0, 0) + u64::from(input.u16()), input.bytes()),
        // Anything as data; a slot of any bytes.
        3 => machine.put(DATA + u64::from(input.u8()), input.bytes()),
        4 => {
            let frame = packet(input.take(16));
            let entries: Vec<_> = (0..what >> 4 & 3).map(|_| entry(input)).collect();
            machine.fill(port, slot, 5 | 1 << 5, &frame, &entries);
            machine.set_port(port, ISSUE, 1 << slot);
        }
        _ => {
            let mut frame = vec![0x27, 0x80];
            frame.extend(input.take(14));
            let entries: Vec<_> = (0..what >> 4 & 3).map(|_| entry(input)).collect();
            machine.fill(port, slot, 5, &frame, &entries);
            if matches!(frame.get(2), Some(0x60 | 0x61)) {
                machine.set_port(port, 0x34, 1 << slot);
            }
            machine.set_port(port, ISSUE, 1 << slot);
        }
    }
}

/// Whatever it is told, the controller works after a reset, and the images keep their lengths.
pub fn run(bytes: &[u8]) {
    MACHINE.with_borrow(|machine| {
        machine.start();
        let mut input = Input(bytes);
        for _ in 0..16 {
            if input.is_empty() {
                break;
            }
            step(machine, &mut input);
        }
        machine.function.pause();
        machine.images.iter().for_each(media::check);
        machine.start();
        machine.function.resume();
        let read = [0x27, 0x80, 0x25, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0];
        assert!(machine.run(0, &read, 512), "the disk does not read any more");
        let load = [0x1b, 0, 0, 0, 3, 0];
        let cd = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        // A unit attention for the reset, and one for the medium.
        assert!((0..3).any(|_| machine.run(1, &packet(&load), 2048)), "the tray does not move any more");
        assert!((0..3).any(|_| machine.run(1, &packet(&cd), 2048)), "the CD-ROM does not read any more");
    });
}

/// Every command that the disk knows and every packet that a drive knows.
pub fn corpus() -> crate::Corpus {
    let mut corpus = crate::Corpus::new();
    for command in COMMANDS {
        let frame = [*command, 1, 1, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0];
        let step = [&[0x15, 0][..], &frame, &[1, 0]].concat();
        corpus.push((format!("ata-{command:02x}"), step.repeat(2)));
    }
    for code in PACKETS {
        let mut cdb = [0; 16];
        (cdb[0], cdb[4], cdb[8]) = (*code, 36, 1);
        let step = [&[0x10, 1][..], &cdb, &[1, 7]].concat();
        corpus.push((format!("packet-{code:02x}"), step.repeat(2)));
    }
    corpus.push(("registers".into(), vec![0, 0, 4, 0, 1, 0, 0, 0x80, 1, 0, 0x38, 0xff, 0xff, 0xff, 0xff]));
    corpus
}
