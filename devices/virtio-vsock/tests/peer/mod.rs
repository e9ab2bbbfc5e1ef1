//! The guest's side of a socket device: packets, by hand.
#![allow(dead_code, reason = "each test file uses a part of it")]

use orlop_virtio::conformance::Driver;

pub const RX: u16 = 0;
pub const TX: u16 = 1;
pub const EVENT: u16 = 2;

pub const CID: u32 = 52;
pub const HEADER: usize = 44;

pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RST: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const RW: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;

/// A packet, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
    pub data: Vec<u8>,
}

impl Packet {
    /// From the guest's port to the host's.
    pub fn new(guest: u32, host: u32, op: u16) -> Self {
        Self {
            src_cid: u64::from(CID),
            dst_cid: 2,
            src_port: guest,
            dst_port: host,
            len: 0,
            kind: 1,
            op,
            flags: 0,
            buf_alloc: 1 << 20,
            fwd_cnt: 0,
            data: Vec::new(),
        }
    }

    pub fn with_data(self, data: &[u8]) -> Self {
        Self { len: u32::try_from(data.len()).unwrap(), data: data.to_vec(), ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        for word in [self.src_port, self.dst_port, self.len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        for word in [self.flags, self.buf_alloc, self.fwd_cnt] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.data);
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let packet = Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
            data: bytes[HEADER..].to_vec(),
        };
        assert_eq!(packet.len as usize, packet.data.len());
        assert_eq!((packet.src_cid, packet.dst_cid, packet.kind), (2, u64::from(CID), 1));
        packet
    }
}

/// Sends a packet and waits until the device has taken it.
pub fn send(driver: &mut Driver, packet: &Packet) {
    driver.request(TX, &packet.bytes(), 0);
}

/// Posts a receive buffer and waits for the next packet.
pub fn receive(driver: &mut Driver) -> Packet {
    driver.post(RX, &[], 4096);
    driver.kick(RX);
    let used = driver.wait(RX);
    Packet::parse(&used.data[..used.written])
}

/// The next packet of the connection with these ports; all others are passed over.
pub fn receive_on(driver: &mut Driver, guest: u32, host: u32) -> Packet {
    loop {
        let packet = receive(driver);
        if (packet.dst_port, packet.src_port) == (guest, host) {
            return packet;
        }
    }
}
