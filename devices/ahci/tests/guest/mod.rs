//! A guest's AHCI driver, on a controller with a real disk on port 0 and a CD-ROM drive on port 1.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use orlop_ahci::{ABAR, Ahci, Config, Platform, Ram, build};
use orlop_disk::{Chain, Disk, EngineKind, ErrorHandling, Format, Image, Options, Source};
use orlop_pci::{Function, MsiSink};
use orlop_scsi::{DiskConfig, DriveConfig, DriveKind};
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

pub const DISK: u64 = 0;
pub const CDROM: u64 = 1;
pub const DISK_BYTES: u64 = 16 << 20;
pub const CDROM_BYTES: usize = 1 << 20;
/// Guest memory ends here.
pub const END: u64 = 16 << 20;
/// Where tests put their data.
pub const DATA: u64 = 0x10_0000;

pub const HOST_BUS_FATAL: u32 = 1 << 29;
pub const TASK_FILE: u32 = 1 << 30;

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Messages(pub AtomicU64);

impl MsiSink for Messages {
    fn signal(&self, address: u64, data: u32) {
        assert_eq!((address, data), (0xfee0_0000, 0x41));
        self.0.fetch_add(1, SeqCst);
    }
}

pub struct Guest {
    pub function: Arc<Ahci>,
    pub ram: Arc<Ram>,
    pub messages: Arc<Messages>,
    pub image: PathBuf,
    _dir: Arc<TempDir>,
}

fn controller(dir: &Path, engine: EngineKind) -> orlop_ahci::Controller {
    let disk = disk(dir);
    let cd =
        Disk::open(&dir.join("cd.iso"), Options { read_only: true, direct: false, shared: false }).unwrap();
    let drives = vec![
        DriveConfig {
            kind: DriveKind::Disk(DiskConfig { disk, write_through: false, errors: ErrorHandling::REPORT }),
            serial: "ORLOP-0001".into(),
            engine,
        },
        DriveConfig { kind: DriveKind::Cdrom { medium: Some(cd), open: false }, serial: "CD".into(), engine },
    ];
    build(Config { name: "sata".into(), drives }).unwrap()
}

/// The disk on `disk.raw`, or on an overlay over it where there is one.
fn disk(dir: &Path) -> Disk {
    let (base, overlay) = (dir.join("disk.raw"), dir.join("overlay.qcow2"));
    if !overlay.exists() {
        return Disk::open(&base, Options::default()).unwrap();
    }
    let images = vec![Image { source: Source::Path(base), format: Some(Format::Raw) }];
    let overlay = Some(Source::Path(overlay));
    Disk::open_chain(Chain { images, overlay, options: Options::default(), holder: "test".into() }).unwrap()
}

/// Byte `at` of the CD-ROM.
pub fn cd_byte(at: usize) -> u8 {
    (at / 2048) as u8 ^ at as u8
}

impl Guest {
    pub fn new(engine: EngineKind) -> Self {
        Self::in_directory(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), engine)
    }

    /// A guest whose disk is an overlay over an image, and whose ports run.
    pub fn on_an_overlay(engine: EngineKind) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(dir.path().join("overlay.qcow2"), []).unwrap();
        let guest = Self::in_directory(dir, engine);
        guest.start();
        guest
    }

    fn in_directory(dir: TempDir, engine: EngineKind) -> Self {
        let image = dir.path().join("disk.raw");
        std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let medium: Vec<u8> = (0..CDROM_BYTES).map(cd_byte).collect();
        std::fs::write(dir.path().join("cd.iso"), medium).unwrap();
        let ram = Arc::new(Ram::from_ranges(&[(GuestAddress(0), END as usize)]).unwrap());
        let messages = Arc::new(Messages::default());
        let function = plug(controller(dir.path(), engine), &ram, &messages);
        Self { function, ram, messages, image, _dir: Arc::new(dir) }
    }

    /// A guest whose ports run.
    pub fn started(engine: EngineKind) -> Self {
        let guest = Self::new(engine);
        guest.start();
        guest
    }

    /// The same guest with a new controller in the place of this one, as after a restore.
    pub fn replug(self, engine: EngineKind) -> Self {
        let Self { function, ram, messages, image, _dir } = self;
        // The images are locked as long as the old one is there.
        drop(function);
        let function = plug(controller(_dir.path(), engine), &ram, &messages);
        Self { function, ram, messages, image, _dir }
    }

    pub fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.bar_read(ABAR, offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&self, offset: u64, value: u32) {
        self.function.bar_write(ABAR, offset, &value.to_le_bytes());
    }

    pub fn port(&self, port: u64, register: u64) -> u32 {
        self.read(0x100 + 0x80 * port + register)
    }

    pub fn set_port(&self, port: u64, register: u64, value: u32) {
        self.write(0x100 + 0x80 * port + register, value);
    }

    /// Enables memory, MSI and interrupts, and starts both ports.
    pub fn start(&self) {
        self.function.config_write(4, &[6, 4]);
        let mut pointer = [0];
        self.function.config_read(0x34, &mut pointer);
        let at = u16::from(pointer[0]);
        for (offset, value) in [(4, 0xfee0_0000_u32), (8, 0), (12, 0x41)] {
            self.function.config_write(at + offset, &value.to_le_bytes());
        }
        self.function.config_write(at + 2, &[1, 0]);
        self.write(4, 2);
        (0..2).for_each(|port| self.start_port(port));
    }

    pub fn list(&self, port: u64) -> u64 {
        0x1_0000 + 0x1000 * port
    }

    pub fn received(&self, port: u64) -> u64 {
        0x2_0000 + 0x100 * port
    }

    pub fn table(&self, port: u64, slot: u64) -> u64 {
        0x4_0000 + 0x2_0000 * port + 0x1000 * slot
    }

    pub fn start_port(&self, port: u64) {
        self.set_port(port, 0x00, self.list(port) as u32);
        self.set_port(port, 0x04, 0);
        self.set_port(port, 0x08, self.received(port) as u32);
        self.set_port(port, 0x0c, 0);
        self.set_port(port, 0x30, u32::MAX);
        self.set_port(port, 0x10, u32::MAX);
        self.set_port(port, 0x14, u32::MAX);
        self.set_port(port, 0x18, 1 << 4);
        self.set_port(port, 0x18, 1 << 4 | 1);
    }

    /// What a driver does after an error.
    pub fn recover(&self, port: u64) {
        self.set_port(port, 0x18, 1 << 4);
        self.wait("the port to stop", || self.port(port, 0x18) & 1 << 15 == 0);
        self.start_port(port);
    }

    /// Fills a slot: a frame, and memory as `(address, bytes)`.
    pub fn fill(&self, port: u64, slot: u64, frame: &[u8], memory: &[(u64, u32)]) {
        let table = self.table(port, slot);
        let flags = 5 | (memory.len() as u32) << 16;
        let header = [flags, 0, table as u32, 0];
        self.ram.write_obj(header, GuestAddress(self.list(port) + 32 * slot)).unwrap();
        let mut bytes = frame.to_vec();
        bytes.resize(0x80, 0);
        for (address, len) in memory {
            bytes.extend(address.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(len.wrapping_sub(1).to_le_bytes());
        }
        self.ram.write_slice(&bytes, GuestAddress(table)).unwrap();
    }

    pub fn issue(&self, port: u64, slots: u32) {
        self.set_port(port, 0x38, slots);
    }

    pub fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done() {
            assert!(Instant::now() < deadline, "waited too long for {what}");
            std::thread::yield_now();
        }
    }

    /// Fills slot 0, issues it and waits for its end: PxIS as it is then, cleared.
    pub fn run(&self, port: u64, frame: &[u8], memory: &[(u64, u32)]) -> u32 {
        self.fill(port, 0, frame, memory);
        self.issue(port, 1);
        self.end(port)
    }

    /// Waits until the port has nothing issued or stopped for an error.
    pub fn end(&self, port: u64) -> u32 {
        let stopped = HOST_BUS_FATAL | TASK_FILE;
        self.wait("a command to end", || {
            self.port(port, 0x38) | self.port(port, 0x34) == 0 || self.port(port, 0x10) & stopped != 0
        });
        let interrupts = self.port(port, 0x10);
        self.set_port(port, 0x10, interrupts);
        self.write(8, 1 << port);
        interrupts
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub fn set_bytes(&self, at: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.function.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Writes and reads a sector by DMA, and reads a block of the CD-ROM.
    pub fn io(&self, turn: u64) {
        let sector = turn * 37 % 1000;
        let data: Vec<u8> = (0..512_u64).map(|at| (at * turn + 3) as u8).collect();
        self.set_bytes(DATA, &data);
        assert_eq!(self.run(DISK, &dma(0x35, sector, 1), &[(DATA, 512)]), 1);
        self.set_bytes(DATA, &[0xee; 512]);
        assert_eq!(self.run(DISK, &dma(0x25, sector, 1), &[(DATA, 512)]), 1);
        assert_eq!(self.bytes(DATA, 512), data);
        self.packet(&ten(0x28, 5, 1), &[(DATA, 2048)]);
        let expected: Vec<u8> = (5 * 2048..6 * 2048).map(cd_byte).collect();
        assert_eq!(self.bytes(DATA, 2048), expected);
    }

    /// A packet by DMA, again after a unit attention.
    pub fn packet(&self, packet: &[u8], memory: &[(u64, u32)]) {
        for _ in 0..3 {
            if self.try_packet(packet, memory) == 1 {
                return;
            }
            let error = self.port(CDROM, 0x20) >> 8;
            self.recover(CDROM);
            assert_eq!(error >> 4, 6, "the packet failed");
        }
        panic!("unit attention without end");
    }

    pub fn try_packet(&self, packet: &[u8], memory: &[(u64, u32)]) -> u32 {
        let mut frame = vec![0x27, 0x80, 0xa0, 1];
        frame.resize(0x40, 0);
        frame.extend(packet);
        self.run(CDROM, &frame, memory)
    }
}

fn plug(controller: orlop_ahci::Controller, ram: &Arc<Ram>, messages: &Arc<Messages>) -> Arc<Ahci> {
    let platform = Platform {
        ram: Arc::clone(ram),
        msi: Arc::clone(messages) as _,
        hook: Arc::new(|kind| assert_eq!(kind, "ahci")),
        bar_address: 0xc000_0000,
    };
    Ahci::new(controller, platform).unwrap()
}

/// A frame with 48-bit addresses.
pub fn dma(command: u8, sector: u64, count: u16) -> Vec<u8> {
    let [a, b, c, d, e, f, ..] = sector.to_le_bytes();
    let [low, high] = count.to_le_bytes();
    vec![0x27, 0x80, command, 0, a, b, c, 0x40, d, e, f, 0, low, high, 0, 0]
}

/// A frame of a queued command.
pub fn queued(command: u8, sector: u64, count: u16, tag: u8) -> Vec<u8> {
    let [a, b, c, d, e, f, ..] = sector.to_le_bytes();
    let [low, high] = count.to_le_bytes();
    vec![0x27, 0x80, command, low, a, b, c, 0x40, d, e, f, high, tag << 3, 0, 0, 0]
}

/// A 10-byte packet.
pub fn ten(operation: u8, first: u32, blocks: u16) -> [u8; 10] {
    let [a, b, c, d] = first.to_be_bytes();
    let [high, low] = blocks.to_be_bytes();
    [operation, 0, a, b, c, d, 0, high, low, 0]
}
