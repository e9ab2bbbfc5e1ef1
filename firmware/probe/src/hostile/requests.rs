//! Block requests that cannot be (virtio 1.3 §5.2.6).

use super::settle;
use crate::Failure;
use crate::blk::{self, Request, STATUS_OK, STATUS_UNTOUCHED, request};
use crate::machine::Machine;
use crate::serial::say;
use crate::virtio::{self, Descriptor, Device, Queue, flag, kind};

/// A malformed request: what it changes in a good read of one sector.
struct Malformed {
    name: &'static str,
    change: fn(&mut Machine, &Request, &mut [Descriptor; 3]),
    /// Whether its status byte is where a status belongs, so that an answer other than success must stand there.
    answered: bool,
}

const REQUESTS: &[Malformed] = &[
    Malformed {
        name: "an unknown type",
        change: |m, r, _| m.memory.write32(r.header, 0xdead),
        answered: true,
    },
    Malformed { name: "a sector past the end", change: |m, r, _| set_sector(m, r, 1 << 50), answered: true },
    Malformed {
        name: "the last sector there is",
        change: |m, r, _| set_sector(m, r, u64::MAX),
        answered: true,
    },
    Malformed {
        name: "a sector whose offset wraps",
        change: |m, r, _| set_sector(m, r, 1 << 55),
        answered: true,
    },
    Malformed { name: "a length that is no sector", change: |_, _, c| c[1].len = 511, answered: true },
    Malformed {
        name: "a read into memory that is not writable",
        change: |_, _, c| c[1].flags = flag::NEXT,
        answered: true,
    },
    Malformed { name: "data at no address", change: |_, _, c| c[1].address = 1 << 52, answered: true },
    Malformed { name: "data that wraps", change: |_, _, c| c[1].address = u64::MAX - 100, answered: true },
    Malformed { name: "a short header", change: |_, _, c| c[0].len = 8, answered: false },
    Malformed { name: "an empty header", change: |_, _, c| c[0].len = 0, answered: false },
    Malformed {
        name: "a header that the device writes",
        change: |_, _, c| c[0].flags |= flag::WRITE,
        answered: false,
    },
    Malformed { name: "a header at no address", change: |_, _, c| c[0].address = 1 << 52, answered: false },
    Malformed { name: "a status that is not writable", change: |_, _, c| c[2].flags = 0, answered: false },
    Malformed { name: "an empty status", change: |_, _, c| c[2].len = 0, answered: false },
    Malformed { name: "a status at no address", change: |_, _, c| c[2].address = 1 << 52, answered: false },
    Malformed { name: "no status", change: |_, _, c| c[1].flags = flag::WRITE, answered: false },
    Malformed { name: "nothing but a header", change: |_, _, c| c[0].flags = 0, answered: false },
];

fn set_sector(machine: &mut Machine, request: &Request, sector: u64) {
    machine.memory.write64(request.header + 8, sector);
}

/// Sends every malformed request to every block device.
pub fn run(machine: &mut Machine) -> Result<(), Failure> {
    let mut found = false;
    for malformed in REQUESTS {
        virtio::each(machine, |machine, device| {
            if device.kind != kind::BLOCK {
                return Ok(());
            }
            found = true;
            machine.free_all();
            send(machine, device, malformed).and_then(|()| super::recovers(machine, device))
        })
        .inspect_err(|_| say!("after {}", malformed.name))?;
        say!("survived {}", malformed.name);
    }
    if found { Ok(()) } else { Err("there is no block device to attack") }
}

fn send(machine: &mut Machine, device: &Device, malformed: &Malformed) -> Result<(), Failure> {
    device.negotiate(machine, 0)?;
    let mut queue: Queue = device.queue(machine, 0)?;
    device.start()?;
    let request = Request::new(machine, request::IN, 0)?;
    let mut chain = request.read_chain();
    (malformed.change)(machine, &request, &mut chain);
    blk::describe(&queue, &chain);
    queue.publish(0);
    queue.kick();
    if malformed.answered {
        let needs_reset = || device.status() & virtio::status::NEEDS_RESET != 0;
        machine.wait(1000, || queue.used_index() == 1 || needs_reset());
        let status = machine.memory.read8(request.status);
        if status == STATUS_OK {
            return Err("a request that cannot be succeeds");
        }
        if status == STATUS_UNTOUCHED && !needs_reset() {
            return Err("a request that cannot be is not answered");
        }
    } else {
        settle(machine, device);
        if machine.memory.read8(request.status) == STATUS_OK {
            return Err("a request that cannot be succeeds");
        }
    }
    Ok(())
}
