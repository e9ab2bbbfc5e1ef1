//! From the registers of a queue to the queue that a worker serves, and back.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::registers::QueueRegisters;
use crate::counters::QueueCounters;
use crate::queue_io::Handover;
use crate::{Fault, Ram};

/// The queue as `registers` describe it. An enabled one whose rings are misaligned or outside guest memory is a fault
/// of the guest (virtio 1.3 §2.7).
pub(super) fn handover(
    number: u16,
    registers: Option<&QueueRegisters>,
    counters: Option<&Arc<QueueCounters>>,
    ram: &Ram,
    event_idx: bool,
) -> Result<Handover, Fault> {
    let absent = Fault("a queue that does not exist was started");
    let registers = registers.ok_or(absent)?;
    let mut queue = Queue::new(registers.max_size).map_err(|_| absent)?;
    if registers.ready {
        set_up(&mut queue, registers).map_err(|_| Fault("a ring is not aligned"))?;
        queue.set_event_idx(event_idx);
        if !queue.is_valid(ram) {
            return Err(Fault("a ring is outside guest memory"));
        }
    }
    Ok(Handover { number, queue, counters: counters.cloned().unwrap_or_default() })
}

fn set_up(queue: &mut Queue, registers: &QueueRegisters) -> Result<(), virtio_queue::Error> {
    queue.try_set_size(registers.size)?;
    queue.try_set_desc_table_address(GuestAddress(registers.desc))?;
    queue.try_set_avail_ring_address(GuestAddress(registers.avail))?;
    queue.try_set_used_ring_address(GuestAddress(registers.used))?;
    queue.set_next_avail(registers.next_avail);
    queue.set_next_used(registers.next_used);
    queue.set_ready(true);
    Ok(())
}

/// Notes where the worker left off.
pub(super) fn take_back(registers: &mut QueueRegisters, queue: &Queue) {
    if registers.ready {
        registers.next_avail = queue.next_avail();
        registers.next_used = queue.next_used();
    }
}
