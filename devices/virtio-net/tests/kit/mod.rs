//! A card on a real tap, with a driver on one side and a packet socket on the other.
#![allow(dead_code, reason = "each test file uses a part of it")]

use orlop_net::Tap;
use orlop_net::kit::{Namespace, Wire};
use orlop_virtio::Parts;
use orlop_virtio::conformance::{Driver, Used};
use orlop_virtio_net::{NetConfig, NetHandle, RateLimit, build};

pub const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
pub const RX: u16 = 0;
pub const TX: u16 = 1;
/// Length of the header before each frame.
pub const HEADER: usize = 12;
/// The ethertype for local experiments: no kernel looks at it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Feature bits by number.
pub fn bit(number: u32) -> u64 {
    1 << number
}

/// What a test may want to be different.
#[derive(Clone, Copy)]
pub struct Shape {
    pub pairs: usize,
    pub queue_size: u16,
    pub rx_limit: Option<RateLimit>,
    pub tx_limit: Option<RateLimit>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { pairs: 1, queue_size: 256, rx_limit: None, tx_limit: None }
    }
}

/// A new network namespace with `tap0`, a card on it, and the tap's other end.
pub fn plug(shape: Shape) -> (Namespace, Wire, Parts, NetHandle) {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", libc::IFF_MULTI_QUEUE).unwrap();
    net.set_mtu("tap0", 9000).unwrap();
    // Opened first: an interface that finds its carrier later takes no frames until the kernel has noticed.
    let tap = Tap::open_named("tap0", shape.pairs).unwrap();
    net.set_up("tap0", true).unwrap();
    let wire = net.wire("tap0").unwrap();
    let config = NetConfig {
        name: "net0".to_owned(),
        tap,
        mac: MAC,
        link_up: true,
        mtu: Some(1500),
        queue_size: shape.queue_size,
        rx_limit: shape.rx_limit,
        tx_limit: shape.tx_limit,
    };
    let (parts, handle) = build(config).unwrap();
    (net, wire, parts, handle)
}

/// A card whose driver is ready.
pub struct Card {
    pub net: Namespace,
    pub wire: Wire,
    pub driver: Driver,
    pub handle: NetHandle,
}

impl Card {
    /// With everything negotiated that is offered, less `without`.
    pub fn start(shape: Shape, without: u64) -> Self {
        let (net, wire, parts, handle) = plug(shape);
        let mut driver = Driver::new(parts);
        let features = driver.offered() & !without;
        driver.start_with(features);
        Self { net, wire, driver, handle }
    }

    pub fn counter(&self, name: &str) -> u64 {
        let inspection = self.driver.function.inspect();
        inspection.counters.iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Posts `count` receive buffers of `len` bytes and says so.
    pub fn post_rx(&mut self, count: usize, len: usize) {
        for _ in 0..count {
            self.driver.post(RX, &[], len);
        }
        self.driver.kick(RX);
    }

    /// Waits for a frame, which may fill several buffers; returns its header and itself.
    pub fn receive(&mut self) -> (Vec<u8>, Vec<u8>) {
        receive(&mut self.driver, RX)
    }

    /// A control command; returns the answer's byte.
    pub fn control(&mut self, queue: u16, class: u8, command: u8, data: &[u8]) -> u8 {
        let used = self.driver.request(queue, &[&[class, command], data].concat(), 1);
        assert_eq!(used.written, 1);
        used.data[0]
    }
}

/// Waits for a frame on `queue`; returns its header and itself.
pub fn receive(driver: &mut Driver, queue: u16) -> (Vec<u8>, Vec<u8>) {
    let take = |used: Used| used.data[..used.written].to_vec();
    let mut bytes = take(driver.wait(queue));
    let buffers = u16::from_le_bytes([bytes[10], bytes[11]]);
    assert_ne!(buffers, 0);
    for _ in 1..buffers {
        // All of a frame is there at once.
        bytes.extend(take(driver.poll(queue).expect("the rest of the frame")));
    }
    let frame = bytes.split_off(HEADER);
    (bytes, frame)
}

/// A frame between two stations, without header.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0x02, 0, 0, 0, 0, 2], MAC.as_slice(), &ETHERTYPE, payload].concat()
}

/// `frame` behind a header that asks for nothing, of the length that the card or the wire wants.
pub fn plain(header: usize, frame: &[u8]) -> Vec<u8> {
    [vec![0; header].as_slice(), frame].concat()
}

/// The next frame on the wire that is one of ours, without header.
pub fn on_wire(wire: &Wire) -> Vec<u8> {
    loop {
        let bytes = wire.receive().expect("a frame on the wire");
        if bytes.get(10 + 12..10 + 14) == Some(&ETHERTYPE) {
            return bytes[10..].to_vec();
        }
    }
}

/// An unsegmented TCP segment over IPv4 of `payload` bytes, behind a header of `header` bytes that says so.
pub fn tso(header: usize, payload: usize, segment: u16) -> Vec<u8> {
    let mut bytes = vec![0; header];
    bytes[0] = 1; // needs a checksum
    bytes[1] = 1; // TCP over IPv4
    bytes[2..4].copy_from_slice(&54u16.to_le_bytes());
    bytes[4..6].copy_from_slice(&segment.to_le_bytes());
    bytes[6..8].copy_from_slice(&34u16.to_le_bytes());
    bytes[8..10].copy_from_slice(&16u16.to_le_bytes());
    bytes.extend([0x02, 0, 0, 0, 0, 2]);
    bytes.extend(MAC);
    bytes.extend([0x08, 0x00]);
    let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(&ip);
    // The checksum field holds the pseudo header's sum, not inverted.
    let length = u16::try_from(20 + payload).unwrap().to_be_bytes();
    let pseudo = [&ip[12..20], &[0, 6, length[0], length[1]]].concat();
    let partial = (!checksum(&pseudo)).to_be_bytes();
    bytes.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, partial[0], partial[1]]);
    bytes.extend([0, 0]);
    bytes.extend((0..payload).map(|i| u8::try_from(i % 251).unwrap()));
    bytes
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}
