//! Rings and descriptors that cannot be (virtio 1.3 §2.7).

use super::{BAD_ADDRESSES, settle};
use crate::Failure;
use crate::machine::Machine;
use crate::serial::say;
use crate::virtio::{self, Descriptor, Device, FEATURE_INDIRECT, Queue, common, flag};

/// Queues of a device that are attacked; the others of a device with many are alike.
const QUEUES_MAX: u16 = 3;

/// An attack on a queue that is set up and started.
struct Attack {
    name: &'static str,
    run: fn(&mut Machine, &mut Queue) -> Result<(), Failure>,
}

const ATTACKS: &[Attack] = &[
    Attack { name: "buffers at bad addresses", run: bad_buffers },
    Attack { name: "a buffer across the end of memory", run: across_the_end },
    Attack { name: "a buffer of 4 GiB", run: huge_buffer },
    Attack { name: "a chain that loops", run: looping_chain },
    Attack { name: "a chain that leaves its table", run: next_out_of_table },
    Attack { name: "empty buffers", run: empty_buffers },
    Attack { name: "what the device reads after what it writes", run: wrong_order },
    Attack { name: "heads out of range", run: heads_out_of_range },
    Attack { name: "one head many times", run: duplicate_heads },
    Attack { name: "an index that jumps", run: jumping_index },
    Attack { name: "indirect tables of bad lengths", run: indirect_lengths },
    Attack { name: "indirect tables at bad addresses", run: indirect_addresses },
    Attack { name: "an indirect table in an indirect table", run: indirect_in_indirect },
    Attack { name: "an indirect table that loops", run: indirect_loop },
    Attack { name: "an indirect table with a next", run: indirect_with_next },
    Attack { name: "a huge indirect table", run: huge_indirect },
    Attack { name: "unknown flags", run: unknown_flags },
    Attack { name: "a doorbell storm", run: doorbell_storm },
];

/// Runs every attack on the queues of every device, then attacks the places of the rings themselves.
pub fn run(machine: &mut Machine) -> Result<(), Failure> {
    for attack in ATTACKS {
        super::on_every_device(machine, attack.name, |machine, device| {
            for index in 0..device.queues().min(QUEUES_MAX) {
                machine.free_all();
                let mut queue = start(machine, device, index)?;
                (attack.run)(machine, &mut queue)?;
                queue.kick();
                settle(machine, device);
                device.reset(machine)?;
            }
            Ok(())
        })?;
        say!("survived {}", attack.name);
    }
    super::on_every_device(machine, "rings at bad addresses", bad_rings)?;
    say!("survived rings at bad addresses");
    Ok(())
}

/// Starts the device with all its queues; the one that is attacked.
fn start(machine: &mut Machine, device: &Device, attacked: u16) -> Result<Queue, Failure> {
    device.negotiate(machine, FEATURE_INDIRECT)?;
    let mut found = None;
    for index in 0..device.queues() {
        let queue = device.queue(machine, index)?;
        if index == attacked {
            found = Some(queue);
        }
    }
    device.start()?;
    found.ok_or("the queue does not exist")
}

/// A lone descriptor in both directions, published.
fn publish_both(queue: &mut Queue, address: u64, len: u32) {
    queue.describe(0, Descriptor { address, len, flags: 0, next: 0 });
    queue.describe(1, Descriptor { address, len, flags: flag::WRITE, next: 0 });
    queue.publish(0);
    queue.publish(1);
}

fn bad_buffers(_machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    for address in BAD_ADDRESSES {
        publish_both(queue, address, 4096);
        queue.kick();
    }
    Ok(())
}

fn across_the_end(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    publish_both(queue, machine.low_memory_end() - 16, 4096);
    Ok(())
}

fn huge_buffer(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let address = machine.allocate(4096, 4096)?;
    publish_both(queue, address, u32::MAX);
    Ok(())
}

fn looping_chain(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let address = machine.allocate(4096, 4096)?;
    let descriptor = Descriptor { address, len: 16, flags: flag::NEXT, next: 0 };
    queue.describe(0, Descriptor { next: 1, ..descriptor });
    queue.describe(1, descriptor);
    queue.describe(2, Descriptor { next: 2, flags: flag::NEXT | flag::WRITE, ..descriptor });
    queue.publish(0);
    queue.publish(2);
    Ok(())
}

fn next_out_of_table(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let address = machine.allocate(4096, 4096)?;
    for (index, next) in [(0, queue.size), (1, queue.size + 1), (2, u16::MAX)] {
        queue.describe(index, Descriptor { address, len: 16, flags: flag::NEXT, next });
        queue.publish(index);
    }
    Ok(())
}

fn empty_buffers(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let address = machine.allocate(4096, 4096)?;
    publish_both(queue, address, 0);
    publish_both(queue, 0, 0);
    Ok(())
}

fn wrong_order(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let address = machine.allocate(4096, 4096)?;
    queue.describe(0, Descriptor { address, len: 512, flags: flag::WRITE | flag::NEXT, next: 1 });
    queue.describe(1, Descriptor { address, len: 16, flags: flag::NEXT, next: 2 });
    queue.describe(2, Descriptor { address, len: 1, flags: flag::WRITE, next: 0 });
    queue.publish(0);
    Ok(())
}

fn heads_out_of_range(_machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    for head in [queue.size, queue.size + 1, 0x7fff, u16::MAX] {
        queue.publish(head);
    }
    Ok(())
}

fn duplicate_heads(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let request = crate::blk::Request::new(machine, crate::blk::request::IN, 0)?;
    crate::blk::describe(queue, &request.read_chain());
    for _ in 0..queue.size {
        queue.publish(0);
    }
    queue.kick();
    for _ in 0..queue.size {
        queue.publish(0);
        queue.kick();
    }
    Ok(())
}

fn jumping_index(_machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    for index in [queue.size + 1, u16::MAX, 0x8000, 0] {
        queue.publish_index(index);
        queue.kick();
    }
    Ok(())
}

fn indirect(queue: &mut Queue, index: u16, address: u64, len: u32) {
    queue.describe(index, Descriptor { address, len, flags: flag::INDIRECT, next: 0 });
    queue.publish(index);
}

fn indirect_lengths(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let table = machine.allocate(4096, 4096)?;
    for (index, len) in (0..).zip([0, 1, 15, 17, 4095, u32::MAX, u32::MAX - 15]) {
        indirect(queue, index, table, len);
    }
    Ok(())
}

fn indirect_addresses(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let end = machine.low_memory_end();
    for (index, address) in (0..).zip(BAD_ADDRESSES.into_iter().chain([end - 16, 3])) {
        indirect(queue, index, address, 64);
    }
    Ok(())
}

fn indirect_in_indirect(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let table = machine.allocate(4096, 4096)?;
    let descriptor = Descriptor { address: table, len: 4096, flags: flag::INDIRECT, next: 0 };
    queue.describe_at(table, 0, descriptor);
    queue.describe(0, descriptor);
    queue.publish(0);
    Ok(())
}

fn indirect_loop(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let table = machine.allocate(4096, 4096)?;
    let looping = Descriptor { address: table, len: 16, flags: flag::NEXT, next: 0 };
    queue.describe_at(table, 0, looping);
    indirect(queue, 0, table, 4096);
    Ok(())
}

fn indirect_with_next(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let table = machine.allocate(4096, 4096)?;
    let data = Descriptor { address: table, len: 16, flags: 0, next: 0 };
    queue.describe_at(table, 0, data);
    queue.describe(0, Descriptor { flags: flag::INDIRECT | flag::NEXT, next: 1, ..data });
    queue.describe(1, data);
    queue.publish(0);
    Ok(())
}

fn huge_indirect(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    const ENTRIES: u16 = 4096;
    let table = machine.allocate(16 * u64::from(ENTRIES), 4096)?;
    let data = machine.allocate(4096, 4096)?;
    for index in 0..ENTRIES {
        let flags = if index + 1 < ENTRIES { flag::NEXT } else { 0 };
        queue.describe_at(table, index, Descriptor { address: data, len: 4096, flags, next: index + 1 });
    }
    indirect(queue, 0, table, 16 * u32::from(ENTRIES));
    Ok(())
}

fn unknown_flags(machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    let address = machine.allocate(4096, 4096)?;
    queue.describe(0, Descriptor { address, len: 4096, flags: 0xfff8, next: 0xffff });
    queue.publish(0);
    // The ring's own flags.
    machine.memory.write16(queue.available, 0xffff);
    Ok(())
}

fn doorbell_storm(_machine: &mut Machine, queue: &mut Queue) -> Result<(), Failure> {
    for _ in 0..1000 {
        queue.kick();
    }
    Ok(())
}

/// Rings where no memory is, on one another, and misaligned: refused at the start, or harmless.
fn bad_rings(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    let memory = machine.memory;
    let good = machine.allocate(4096, 4096)?;
    let end = machine.low_memory_end();
    let places = BAD_ADDRESSES.into_iter().chain([end - 8, good + 1, good + 3, 0]);
    for place in places {
        for field in [common::QUEUE_DESCRIPTORS, common::QUEUE_AVAILABLE, common::QUEUE_USED] {
            device.negotiate(machine, 0)?;
            memory.write16(device.common + common::QUEUE_SELECT, 0);
            for ring in [common::QUEUE_DESCRIPTORS, common::QUEUE_AVAILABLE, common::QUEUE_USED] {
                memory.write64(device.common + ring, if ring == field { place } else { good });
            }
            memory.write16(device.common + common::QUEUE_ENABLE, 1);
            device.set_status(device.status() | virtio::status::DRIVER_OK);
            memory.write16(device.doorbell(0), 0);
            device.reset(machine)?;
        }
    }
    Ok(())
}
