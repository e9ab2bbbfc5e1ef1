//! Message-signalled interrupts to nowhere (PCI 3.0 §6.8.2).

use super::{read_everywhere, settle, write_everywhere};
use crate::Failure;
use crate::machine::Machine;
use crate::pci::Function;
use crate::serial::say;
use crate::virtio::{self, Device, common};

const CAPABILITY: u8 = 0x11;
/// Message control, in the upper half of the capability's first word: enable, mask all, table size less one.
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;
const ENTRY_BYTES: u64 = 16;
/// What reads back from a vector register that takes none.
const NO_VECTOR: u16 = 0xffff;

/// Messages that go wrong for different reasons: no memory, guest memory, the middle of an interrupt controller,
/// reserved delivery modes.
const MESSAGES: [(u64, u32); 6] = [
    (0, 0),
    (!3, u32::MAX),
    (0x10_0000, 0x41),
    (0xFEE0_0000, 0xFFFF_FFFF),
    (0xFEEF_FFFC, 0x0000_0700),
    (0x1_FEE0_0000, 0x0000_4041),
];

struct Msix {
    function: Function,
    at: u8,
    table: u64,
    pending: u64,
    entries: u64,
}

impl Msix {
    fn find(machine: &Machine, function: Function) -> Option<Self> {
        let at = function.capabilities(CAPABILITY).next()?;
        let place = |register| {
            let word = function.read(register);
            let bar = function.bar((word & 7) as u8)?;
            Some(bar + u64::from(word & !7))
        };
        let entries = u64::from(function.read(at) >> 16 & 0x7ff) + 1;
        let (table, pending) = (place(at + 4)?, place(at + 8)?);
        let reachable = machine.memory.is_writable(table, entries * ENTRY_BYTES + 64)
            && machine.memory.is_writable(pending, 64);
        reachable.then_some(Self { function, at, table, pending, entries })
    }

    fn control(&self, bits: u32) {
        let word = self.function.read(self.at) & !(ENABLE | MASK_ALL);
        self.function.write(self.at, word | bits);
    }
}

/// Programs vectors wildly and makes every device use them.
pub fn run(machine: &mut Machine) -> Result<(), Failure> {
    super::on_every_device(machine, "wild vectors", |machine, device| {
        let msix = Msix::find(machine, device.function).ok_or("the device has no MSI-X within reach")?;
        let outcome = wild_messages(machine, device, &msix)
            .and_then(|()| wild_vectors(machine, device, &msix))
            .and_then(|()| odd_accesses(machine, &msix));
        msix.control(0);
        outcome
    })?;
    say!("survived wild vectors");
    Ok(())
}

/// Every entry holds every message once, masked and unmasked, while the device works with it.
fn wild_messages(machine: &mut Machine, device: &Device, msix: &Msix) -> Result<(), Failure> {
    let memory = machine.memory;
    for (address, data) in MESSAGES {
        msix.control(ENABLE);
        for entry in 0..msix.entries {
            let at = msix.table + entry * ENTRY_BYTES;
            memory.write32(at, address as u32);
            memory.write32(at + 4, (address >> 32) as u32);
            memory.write32(at + 8, data);
            for mask in [1, 0, 1, 0] {
                memory.write32(at + 12, mask);
            }
        }
        work_with_vectors(machine, device)?;
        msix.control(ENABLE | MASK_ALL);
        work_with_vectors(machine, device)?;
        msix.control(ENABLE);
        settle(machine, device);
    }
    Ok(())
}

/// One request with every queue's vector set.
fn work_with_vectors(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    machine.free_all();
    device.negotiate(machine, 0)?;
    memory.write16(device.common + common::CONFIG_VECTOR, 0);
    for index in 0..device.queues() {
        memory.write16(device.common + common::QUEUE_SELECT, index);
        memory.write16(device.common + common::QUEUE_VECTOR, 0);
    }
    let mut queue = device.queue(machine, 0)?;
    device.start()?;
    let request = crate::blk::Request::new(machine, crate::blk::request::IN, 0)?;
    crate::blk::describe(&queue, &request.read_chain());
    queue.publish(0);
    queue.kick();
    if device.kind == virtio::kind::BLOCK {
        queue.wait_used(machine, 1)?;
    }
    Ok(())
}

/// Vectors that do not exist are not taken.
fn wild_vectors(machine: &mut Machine, device: &Device, msix: &Msix) -> Result<(), Failure> {
    let memory = machine.memory;
    device.negotiate(machine, 0)?;
    memory.write16(device.common + common::QUEUE_SELECT, 0);
    let beyond = u16::try_from(msix.entries).unwrap_or(u16::MAX);
    for vector in [beyond, beyond + 1, 0x7ff, 0x800, 0xfffe] {
        for register in [common::CONFIG_VECTOR, common::QUEUE_VECTOR] {
            memory.write16(device.common + register, vector);
            let taken = memory.read16(device.common + register);
            if taken != NO_VECTOR && u64::from(taken) >= msix.entries {
                return Err("a vector that does not exist is taken");
            }
        }
    }
    Ok(())
}

fn odd_accesses(machine: &mut Machine, msix: &Msix) -> Result<(), Failure> {
    let memory = machine.memory;
    let table_bytes = (msix.entries * ENTRY_BYTES).min(64);
    msix.control(MASK_ALL);
    for pattern in [u64::MAX, 0] {
        write_everywhere(&memory, msix.table, table_bytes, pattern);
        write_everywhere(&memory, msix.pending, 8, pattern);
    }
    read_everywhere(&memory, msix.table, table_bytes);
    read_everywhere(&memory, msix.pending, 16);
    // Past the last entry, and into the capability's read-only fields.
    write_everywhere(&memory, msix.table + msix.entries * ENTRY_BYTES, 32, u64::MAX);
    for register in [msix.at, msix.at + 4, msix.at + 8] {
        msix.function.write(register, u32::MAX);
    }
    Ok(())
}
