//! Registers of the virtio transport, written whenever they should not be (virtio 1.3 §4.1.4.3).

use super::{BAD_ADDRESSES, read_everywhere, settle, write_everywhere};
use crate::Failure;
use crate::machine::Machine;
use crate::serial::say;
use crate::virtio::{Device, Queue, common, status};

/// How much of the device's own configuration is swept, in bytes.
const CONFIG_BYTES: u64 = 96;
/// How much of the doorbells is swept, in bytes.
const DOORBELL_BYTES: u64 = 64;
const PATTERNS: [u64; 4] = [0, u64::MAX, 0x5555_5555_5555_5555, 0x0001_0002_0003_0004];

/// An attack on a device.
struct Attack {
    name: &'static str,
    run: fn(&mut Machine, &Device) -> Result<(), Failure>,
}

const ATTACKS: &[Attack] = &[
    Attack { name: "reads of all sizes everywhere", run: reads },
    Attack { name: "writes of all sizes everywhere", run: writes },
    Attack { name: "queue fields that change after the start", run: fields_after_start },
    Attack { name: "queues that do not exist", run: absent_queues },
    Attack { name: "queue sizes that cannot be", run: queue_sizes },
    Attack { name: "a status out of order", run: status_out_of_order },
    Attack { name: "features that were not offered", run: features },
    Attack { name: "a queue enabled without rings", run: enabled_without_rings },
    Attack { name: "doorbells before the start", run: doorbells_too_early },
    Attack { name: "resets in the middle of work", run: reset_storm },
];

/// Runs every attack on every device.
pub fn run(machine: &mut Machine) -> Result<(), Failure> {
    for attack in ATTACKS {
        super::on_every_device(machine, attack.name, attack.run)?;
        say!("survived {}", attack.name);
    }
    Ok(())
}

/// Starts the device with its first queue.
fn started(machine: &mut Machine, device: &Device) -> Result<Queue, Failure> {
    device.negotiate(machine, 0)?;
    let queue = device.queue(machine, 0)?;
    device.start()?;
    Ok(queue)
}

fn reads(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    read_everywhere(&memory, device.common, common::LEN + 8);
    read_everywhere(&memory, device.isr, 8);
    read_everywhere(&memory, device.doorbell(0), DOORBELL_BYTES);
    if device.config != 0 {
        read_everywhere(&memory, device.config, CONFIG_BYTES);
    }
    Ok(())
}

fn writes(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    for run_first in [false, true] {
        for pattern in PATTERNS {
            machine.free_all();
            device.reset(machine)?;
            if run_first {
                started(machine, device)?;
            }
            let doorbell = device.doorbell(0);
            if device.config != 0 {
                write_everywhere(&memory, device.config, CONFIG_BYTES, pattern);
            }
            write_everywhere(&memory, device.isr, 8, pattern);
            write_everywhere(&memory, doorbell, DOORBELL_BYTES, pattern);
            write_everywhere(&memory, device.common, common::LEN + 8, pattern);
        }
    }
    Ok(())
}

fn fields_after_start(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    let mut queue = started(machine, device)?;
    let read = |field| memory.read16(device.common + field);
    memory.write16(device.common + common::QUEUE_SELECT, 0);
    let size = read(common::QUEUE_SIZE);
    for wrong in [0, 1, 3, size * 2, 0x8000, u16::MAX] {
        memory.write16(device.common + common::QUEUE_SIZE, wrong);
        if read(common::QUEUE_SIZE) != size {
            return Err("the size of a running queue changes");
        }
    }
    for address in BAD_ADDRESSES {
        for ring in [common::QUEUE_DESCRIPTORS, common::QUEUE_AVAILABLE, common::QUEUE_USED] {
            memory.write64(device.common + ring, address);
            memory.write32(device.common + ring, address as u32);
            memory.write32(device.common + ring + 4, u32::MAX);
        }
    }
    if memory.read64(device.common + common::QUEUE_DESCRIPTORS) != queue.descriptors {
        return Err("the rings of a running queue move");
    }
    memory.write16(device.common + common::QUEUE_ENABLE, 0);
    memory.write32(device.common + common::DRIVER_FEATURE, u32::MAX);
    queue.publish(0);
    queue.kick();
    settle(machine, device);
    Ok(())
}

fn absent_queues(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    device.negotiate(machine, 0)?;
    for index in [device.queues(), device.queues() + 1, 0x7fff, u16::MAX] {
        memory.write16(device.common + common::QUEUE_SELECT, index);
        if memory.read16(device.common + common::QUEUE_SIZE) != 0 {
            return Err("a queue that does not exist has a size");
        }
        memory.write16(device.common + common::QUEUE_SIZE, 16);
        memory.write16(device.common + common::QUEUE_VECTOR, 0);
        memory.write16(device.common + common::QUEUE_ENABLE, 1);
        memory.write64(device.common + common::QUEUE_DESCRIPTORS, u64::MAX);
    }
    // Doorbells are rung with queues that do not exist, too.
    let doorbell = device.doorbell(0);
    for index in [device.queues(), u16::MAX] {
        memory.write16(doorbell, index);
    }
    Ok(())
}

fn queue_sizes(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    for size in [0, 3, 5, 0x7fff, 0x8000, u16::MAX] {
        device.negotiate(machine, 0)?;
        machine.free_all();
        let queue = device.queue(machine, 0)?;
        device.negotiate(machine, 0)?;
        memory.write16(device.common + common::QUEUE_SELECT, 0);
        memory.write16(device.common + common::QUEUE_SIZE, size);
        memory.write64(device.common + common::QUEUE_DESCRIPTORS, queue.descriptors);
        memory.write64(device.common + common::QUEUE_AVAILABLE, queue.available);
        memory.write64(device.common + common::QUEUE_USED, queue.used);
        memory.write16(device.common + common::QUEUE_ENABLE, 1);
        device.set_status(device.status() | status::DRIVER_OK);
        queue.kick();
        settle(machine, device);
    }
    Ok(())
}

fn status_out_of_order(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let orders: [&[u8]; 5] = [&[status::DRIVER_OK], &[0xff], &[0x0f], &[15, 7, 3, 1], &[64, 128, 255, 1]];
    for order in orders {
        device.reset(machine)?;
        for &value in order {
            device.set_status(value);
        }
        machine.memory.write16(device.doorbell(0), 0);
    }
    Ok(())
}

fn features(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    device.reset(machine)?;
    device.set_status(status::ACKNOWLEDGE | status::DRIVER);
    for select in [0, 1, 2, 3, u32::MAX] {
        memory.write32(device.common + common::DRIVER_FEATURE_SELECT, select);
        memory.write32(device.common + common::DRIVER_FEATURE, u32::MAX);
        memory.write32(device.common + common::DEVICE_FEATURE_SELECT, select);
        memory.read32(device.common + common::DEVICE_FEATURE);
    }
    device.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    if device.status() & status::FEATURES_OK != 0 {
        return Err("features that were not offered are agreed to");
    }
    Ok(())
}

fn enabled_without_rings(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    device.negotiate(machine, 0)?;
    for index in 0..device.queues() {
        memory.write16(device.common + common::QUEUE_SELECT, index);
        memory.write16(device.common + common::QUEUE_ENABLE, 1);
    }
    device.set_status(device.status() | status::DRIVER_OK);
    memory.write16(device.doorbell(0), 0);
    settle(machine, device);
    Ok(())
}

fn doorbells_too_early(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    device.reset(machine)?;
    let doorbell = device.doorbell(0);
    for value in [0, 1, u16::MAX] {
        memory.write16(doorbell, value);
    }
    device.negotiate(machine, 0)?;
    let queue = device.queue(machine, 0)?;
    queue.kick();
    queue.kick();
    Ok(())
}

fn reset_storm(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    for _ in 0..10 {
        machine.free_all();
        let mut queue = started(machine, device)?;
        let request = crate::blk::Request::new(machine, crate::blk::request::IN, 0)?;
        crate::blk::describe(&queue, &request.read_chain());
        queue.publish(0);
        queue.kick();
        device.reset(machine)?;
    }
    Ok(())
}
