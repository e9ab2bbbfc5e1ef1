//! A guest's console driver with two named ports, and host peers on real unix sockets.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orlop_virtio::Parts;
use orlop_virtio::conformance::Driver;
use orlop_virtio_console::{Config, Handle, PortConfig, Socket, build};
use tempfile::TempDir;

pub const CONTROL_RECEIVE: u16 = 2;
pub const CONTROL_TRANSMIT: u16 = 3;
pub const MULTIPORT: u64 = 1 << 1;

pub const DEVICE_READY: u16 = 0;
pub const PORT_ADD: u16 = 1;
pub const PORT_READY: u16 = 3;
pub const PORT_OPEN: u16 = 6;
pub const PORT_NAME: u16 = 7;

pub const NAMES: [&str; 2] = ["org.qemu.guest_agent.0", "second"];

/// The queue on which port `id` receives; the next one transmits.
pub fn receive_queue(id: u32) -> u16 {
    2 + 2 * id as u16
}

pub fn transmit_queue(id: u32) -> u16 {
    receive_queue(id) + 1
}

pub fn parts(dir: &Path) -> (Parts, Handle) {
    let port = |name: &&str| {
        let socket = Socket::Path(dir.join(name));
        PortConfig { name: (*name).to_owned(), socket }
    };
    build(Config { name: "console0".into(), ports: NAMES.iter().map(port).collect() }).unwrap()
}

pub fn message(id: u32, event: u16, value: u16) -> Vec<u8> {
    [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// Says something to the device.
pub fn say(driver: &mut Driver, id: u32, event: u16, value: u16) {
    driver.request(CONTROL_TRANSMIT, &message(id, event, value), 0);
}

/// The next thing that the device says, which must be about `id`; gives another buffer for it.
pub fn hear(driver: &mut Driver) -> (u32, u16, u16, String) {
    let used = driver.wait(CONTROL_RECEIVE);
    driver.post(CONTROL_RECEIVE, &[], 128);
    driver.kick(CONTROL_RECEIVE);
    let u16_at = |at: usize| u16::from_le_bytes(used.data[at..at + 2].try_into().unwrap());
    let id = u32::from_le_bytes(used.data[..4].try_into().unwrap());
    let name = String::from_utf8(used.data[8..used.written].to_vec()).unwrap();
    (id, u16_at(4), u16_at(6), name)
}

/// The handshake of a driver that knows named ports (virtio 1.3 §5.3.5): all ports found, set up and opened. Returns
/// the ports that it was told to have a host peer meanwhile.
pub fn handshake(driver: &mut Driver) -> Vec<u32> {
    let mut connected = Vec::new();
    for _ in 0..16 {
        driver.post(CONTROL_RECEIVE, &[], 128);
    }
    driver.kick(CONTROL_RECEIVE);
    say(driver, 0, DEVICE_READY, 1);
    for _ in NAMES {
        let (id, event, value, _) = hear(driver);
        assert_eq!((event, value), (PORT_ADD, 1));
        assert!((1..=NAMES.len() as u32).contains(&id));
    }
    for (id, expected) in (1..).zip(NAMES) {
        say(driver, id, PORT_READY, 1);
        let name = loop {
            match hear(driver) {
                (id, PORT_OPEN, 1, _) => connected.push(id),
                other => break other,
            }
        };
        assert_eq!(name, (id, PORT_NAME, 1, expected.to_owned()));
        say(driver, id, PORT_OPEN, 1);
    }
    connected
}

/// The same where no peer is there.
pub fn set_up(driver: &mut Driver) {
    handshake(driver);
}

/// A machine whose driver has set all ports up.
pub struct Guest {
    pub driver: Driver,
    pub handle: Handle,
    pub dir: TempDir,
}

impl Guest {
    pub fn new() -> Self {
        let mut guest = Self::power_on();
        guest.driver.start();
        set_up(&mut guest.driver);
        guest
    }

    pub fn power_on() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (parts, handle) = parts(dir.path());
        Self { driver: Driver::new(parts), handle, dir }
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.handle.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    pub fn path(&self, id: u32) -> PathBuf {
        self.dir.path().join(NAMES[id as usize - 1])
    }

    /// A host peer of port `id`, after the driver has heard of it.
    pub fn connect(&mut self, id: u32) -> UnixStream {
        let peer = self.connect_silently(id);
        let (about, event, value, _) = hear(&mut self.driver);
        assert_eq!((about, event, value), (id, PORT_OPEN, 1));
        peer
    }

    pub fn connect_silently(&self, id: u32) -> UnixStream {
        let peer = UnixStream::connect(self.path(id)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        peer
    }

    /// The guest's program writes `data` and waits until it is gone.
    pub fn send(&mut self, id: u32, data: &[u8]) {
        self.driver.request(transmit_queue(id), data, 0);
    }

    /// The guest's program reads `len` bytes, `room` at a time.
    pub fn receive(&mut self, id: u32, len: usize, room: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < len {
            let used = self.driver.request(receive_queue(id), &[], room);
            data.extend_from_slice(&used.data[..used.written]);
        }
        data
    }
}

/// Reads exactly `len` bytes.
pub fn read(peer: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    peer.read_exact(&mut data).unwrap();
    data
}

/// Writes until the socket is full; how much it took.
pub fn fill(peer: &mut UnixStream) -> usize {
    peer.set_nonblocking(true).unwrap();
    let mut total = 0;
    while let Ok(count) = peer.write(&[b'x'; 4096]) {
        total += count;
    }
    peer.set_nonblocking(false).unwrap();
    total
}
