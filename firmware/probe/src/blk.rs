//! The block device, driven well (virtio 1.3 §5.2).

use crate::Failure;
use crate::machine::Machine;
use crate::serial::say;
use crate::virtio::{self, Descriptor, Device, Queue, flag, kind};

/// Request types.
pub mod request {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Flush.
    pub const FLUSH: u32 = 4;
    /// Read the serial number.
    pub const GET_ID: u32 = 8;
}

/// Status byte of a request that went well.
pub const STATUS_OK: u8 = 0;
/// What the status byte holds before the device writes it.
pub const STATUS_UNTOUCHED: u8 = 0xAA;
/// Length of a sector and of a request's header.
pub const SECTOR_BYTES: u32 = 512;
/// Length of a request's header: type, reserved, sector.
pub const HEADER_BYTES: u32 = 16;

/// Buffers of one request.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The header.
    pub header: u64,
    /// The data: one sector.
    pub data: u64,
    /// The status byte.
    pub status: u64,
}

impl Request {
    /// Buffers for a request of type `kind` at `sector`.
    pub fn new(machine: &mut Machine, kind: u32, sector: u64) -> Result<Self, Failure> {
        let header = machine.allocate(HEADER_BYTES.into(), 8)?;
        let data = machine.allocate(SECTOR_BYTES.into(), 512)?;
        let status = machine.allocate(1, 1)?;
        machine.memory.write32(header, kind);
        machine.memory.write64(header + 8, sector);
        machine.memory.write8(status, STATUS_UNTOUCHED);
        Ok(Self { header, data, status })
    }

    /// The three descriptors of a read.
    pub fn read_chain(&self) -> [Descriptor; 3] {
        [
            Descriptor { address: self.header, len: HEADER_BYTES, flags: flag::NEXT, next: 1 },
            Descriptor { address: self.data, len: SECTOR_BYTES, flags: flag::NEXT | flag::WRITE, next: 2 },
            Descriptor { address: self.status, len: 1, flags: flag::WRITE, next: 0 },
        ]
    }
}

/// Puts `chain` into the first entries of the table.
pub fn describe(queue: &Queue, chain: &[Descriptor]) {
    for (index, descriptor) in (0..).zip(chain) {
        queue.describe(index, *descriptor);
    }
}

/// Starts the device afresh and reads one sector; a checksum of it.
pub fn read_sector(machine: &mut Machine, device: &Device, sector: u64) -> Result<u32, Failure> {
    device.negotiate(machine, 0)?;
    let mut queue = device.queue(machine, 0)?;
    device.start()?;
    let request = Request::new(machine, request::IN, sector)?;
    describe(&queue, &request.read_chain());
    queue.publish(0);
    queue.kick();
    let written = queue.wait_used(machine, 1)?;
    if machine.memory.read8(request.status) != STATUS_OK {
        return Err("a read of the first sector fails");
    }
    if written != SECTOR_BYTES + 1 {
        return Err("a read says that it wrote something else than a sector and a status");
    }
    let words = (0..u64::from(SECTOR_BYTES) / 4).map(|i| machine.memory.read32(request.data + i * 4));
    Ok(words.fold(0, |sum: u32, word| sum.rotate_left(1) ^ word))
}

/// Reads the first sector of every block device twice.
pub fn check_all(machine: &mut Machine) -> Result<(), Failure> {
    let count = virtio::each(machine, |machine, device| {
        if device.kind != kind::BLOCK {
            return Ok(());
        }
        machine.free_all();
        let first = read_sector(machine, device, 0)?;
        if read_sector(machine, device, 0)? != first {
            return Err("the same sector reads differently");
        }
        say!("blk {device} sector 0 sums to {first:08x}");
        Ok(())
    })?;
    if count == 0 { Err("there is no virtio device") } else { Ok(()) }
}
