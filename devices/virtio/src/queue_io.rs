//! The queues of one worker while the driver is ready, as a backend uses them.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::counters::QueueCounters;
use crate::{Buffers, CHAIN_MAX_BYTES, Fault, Ram};

/// The driver does not want to be interrupted (virtio 1.3 §2.7.6, `VIRTQ_AVAIL_F_NO_INTERRUPT`).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// How often a backend may look at one queue before the worker hears other events and messages: a driver that is
/// faster than the device, or whose used ring overlaps its available ring, must not keep the thread for itself.
const TURN_LOOKS: u32 = 2048;

/// How a device reaches the driver (virtio 1.3 §2.3).
pub trait Interrupt: Send + Sync {
    /// The used ring of the device's queue `number` has news.
    fn queue(&self, number: u16);
    /// The device-specific configuration changed.
    fn config(&self);
    /// Sets `DEVICE_NEEDS_RESET` and says so to the driver (virtio 1.3 §2.1.2).
    fn needs_reset(&self, fault: Fault);
}

/// One request: a descriptor chain that was walked and checked once.
#[derive(Debug)]
pub struct Request {
    /// What identifies it until it is returned with [`QueueIo::push`].
    pub head: u16,
    /// What the driver wrote for the device.
    pub readable: Buffers,
    /// What the device may write for the driver.
    pub writable: Buffers,
}

/// One queue as it is handed to a worker and back.
pub(crate) struct Handover {
    /// Its number on the device.
    pub number: u16,
    /// The rings, checked against guest memory if the queue is ready.
    pub queue: Queue,
    /// What is counted about it.
    pub counters: Arc<QueueCounters>,
}

struct Slot {
    queue: Queue,
    number: u16,
    counters: Arc<QueueCounters>,
    /// Heads that the device holds, by descriptor index.
    held: Vec<bool>,
    held_count: usize,
    /// Requests returned since the driver was last considered for an interrupt.
    returned: u16,
    /// How often the backend may still look at the available ring in this turn.
    looks: u32,
}

impl Slot {
    /// Uses up one look at the available ring; false when there was none left.
    fn look(&mut self) -> bool {
        let left = self.looks.checked_sub(1);
        self.looks = left.unwrap_or(0);
        left.is_some()
    }
}

/// The queues of one [`crate::QueueSet`] while they are served. Queues are named by position within the set.
pub struct QueueIo {
    ram: Arc<Ram>,
    slots: Vec<Slot>,
    interrupt: Arc<dyn Interrupt>,
    features: u64,
}

const NO_QUEUE: Fault = Fault("a queue that does not exist was used");

impl QueueIo {
    /// `queues` are the set's queues, ready ones checked against `ram`.
    pub(crate) fn new(
        ram: Arc<Ram>,
        queues: Vec<Handover>,
        interrupt: Arc<dyn Interrupt>,
        features: u64,
    ) -> Self {
        let slots = queues
            .into_iter()
            .map(|Handover { number, queue, counters }| {
                let held = vec![false; usize::from(queue.max_size())];
                Slot { queue, number, counters, held, held_count: 0, returned: 0, looks: 0 }
            })
            .collect();
        Self { ram, slots, interrupt, features }
    }

    /// The queues back, where the next start continues.
    pub(crate) fn into_queues(self) -> Vec<(u16, Queue)> {
        self.slots.into_iter().map(|slot| (slot.number, slot.queue)).collect()
    }

    /// Says that the guest broke the contract.
    pub(crate) fn needs_reset(&self, fault: Fault) {
        self.interrupt.needs_reset(fault);
    }

    /// Starts a turn of the backend: each queue may be looked at [`TURN_LOOKS`] times.
    pub(crate) fn start_turn(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.looks = TURN_LOOKS);
    }

    /// The queues whose looks were used up in this turn: they must have another one.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = usize> + '_ {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.looks == 0).map(|(queue, _)| queue)
    }

    /// Counts a notification of `queue`.
    pub(crate) fn kicked(&self, queue: usize) {
        if let Some(slot) = self.slots.get(queue) {
            slot.counters.kicks.fetch_add(1, Relaxed);
        }
    }

    /// Guest memory.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// The features that driver and device agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// How many queues the set has.
    pub fn queue_count(&self) -> usize {
        self.slots.len()
    }

    /// How many descriptors `queue` has, as the driver chose.
    pub fn queue_size(&self, queue: usize) -> usize {
        self.slots.get(queue).map_or(0, |slot| usize::from(slot.queue.size()))
    }

    /// Whether the driver enabled `queue`; one that it did not is never popped from.
    pub fn is_ready(&self, queue: usize) -> bool {
        self.slots.get(queue).is_some_and(|slot| slot.queue.ready())
    }

    /// How many requests of `queue` were popped and not returned yet.
    pub fn in_flight(&self, queue: usize) -> usize {
        self.slots.get(queue).map_or(0, |slot| slot.held_count)
    }

    /// The next request that the driver made available on `queue`. A chain that breaks the rules of virtio 1.3 §2.7
    /// is a [`Fault`], and so is one whose head the device still holds.
    ///
    /// `None` after very many requests in one turn does not mean that there are no more: the backend is kicked again
    /// once the worker has looked after everything else.
    pub fn pop(&mut self, queue: usize) -> Result<Option<Request>, Fault> {
        self.pop_up_to(queue, CHAIN_MAX_BYTES)
    }

    /// As [`Self::pop`], for a queue whose requests only name memory and do not move it: each part of a chain may
    /// describe `max_bytes`.
    pub fn pop_up_to(&mut self, queue: usize, max_bytes: usize) -> Result<Option<Request>, Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        if !slot.queue.ready() || !slot.look() {
            return Ok(None);
        }
        let mut available =
            slot.queue.iter(&*self.ram).map_err(|_| Fault("the available index is out of range"))?;
        let Some(chain) = available.next() else { return Ok(None) };
        let head = chain.head_index();
        let taken = Self::hold(slot, head).and_then(|()| {
            Buffers::of_chain(&self.ram, chain, max_bytes).map_err(|error| Fault(error.as_fault()))
        });
        slot.counters.next_avail.store(slot.queue.next_avail(), Relaxed);
        slot.counters.requests.fetch_add(1, Relaxed);
        let (readable, writable) = taken?;
        Ok(Some(Request { head, readable, writable }))
    }

    /// Puts the request that was popped last back, as if it had never been popped.
    pub fn undo_pop(&mut self, queue: usize, request: &Request) {
        if let Some(slot) = self.slots.get_mut(queue) {
            Self::release(slot, request.head);
            let previous = slot.queue.next_avail().wrapping_sub(1);
            slot.queue.set_next_avail(previous);
            slot.counters.next_avail.store(previous, Relaxed);
        }
    }

    /// Holds the request with `head` again, which was popped from `queue` before a stop and is still to be returned.
    pub fn keep(&mut self, queue: usize, head: u16) -> Result<(), Fault> {
        Self::hold(self.slots.get_mut(queue).ok_or(NO_QUEUE)?, head)
    }

    /// Returns the request with `head` to the driver; `written` bytes of its writable part were filled.
    pub fn push(&mut self, queue: usize, head: u16, written: usize) -> Result<(), Fault> {
        self.push_all(queue, &[(head, written)])
    }

    /// Returns several requests, as `(head, written)`, at once: the driver sees all of them or none. A frame that
    /// spans buffers needs this, since the driver takes them in one go (virtio 1.3 §5.1.6.4).
    pub fn push_all(&mut self, queue: usize, done: &[(u16, usize)]) -> Result<(), Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        let Some((&(last, last_written), before)) = done.split_last() else { return Ok(()) };
        let broken = || Fault("the used ring cannot be written");
        let mut position = slot.queue.next_used();
        for &(head, written) in before {
            // struct virtq_used_elem { le32 id; le32 len; } behind le16 flags and le16 idx (virtio 1.3 §2.7.8).
            let index = position.checked_rem(slot.queue.size()).ok_or_else(broken)?;
            let address = slot.queue.used_ring().checked_add(4 + 8 * u64::from(index)).ok_or_else(broken)?;
            let element = [u32::from(head).to_le(), used_len(written)?.to_le()];
            self.ram.write_obj(element, GuestAddress(address)).map_err(|_| broken())?;
            Self::release(slot, head);
            position = position.wrapping_add(1);
        }
        // The last one goes the usual way, which publishes the index behind all of them.
        slot.queue.set_next_used(position);
        Self::release(slot, last);
        slot.queue.add_used(&*self.ram, last, used_len(last_written)?).map_err(|_| broken())?;
        slot.returned = slot.returned.saturating_add(u16::try_from(done.len()).unwrap_or(u16::MAX));
        slot.counters.next_used.store(slot.queue.next_used(), Relaxed);
        Ok(())
    }

    /// Interrupts the driver if it wants to know about what was pushed since the last call.
    pub fn notify(&mut self, queue: usize) -> Result<(), Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        let returned = std::mem::take(&mut slot.returned);
        if returned == 0 {
            return Ok(());
        }
        // The used index must be visible before the driver's wish is read (virtio 1.3 §2.7.7.2).
        fence(SeqCst);
        let read = |offset: u64| {
            let address = GuestAddress(slot.queue.avail_ring().wrapping_add(offset));
            let field = self.ram.load(address, Relaxed).map(u16::from_le);
            field.map_err(|_| Fault("the available ring cannot be read"))
        };
        let wanted = if slot.queue.event_idx_enabled() {
            // used_event is behind the ring: le16 flags, le16 idx, le16 ring[size], le16 used_event (§2.7.6).
            let used_event = read(4 + 2 * u64::from(slot.queue.size()))?;
            slot.queue.next_used().wrapping_sub(used_event).wrapping_sub(1) < returned
        } else {
            read(0)? & AVAIL_NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt.queue(slot.number);
        }
        Ok(())
    }

    /// Asks the driver for notifications again; true when requests arrived meanwhile and must be looked at now.
    pub fn enable_notification(&mut self, queue: usize) -> Result<bool, Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        if !slot.queue.ready() || !slot.look() {
            return Ok(false);
        }
        slot.queue.enable_notification(&*self.ram).map_err(|_| Fault("the available ring cannot be read"))
    }

    /// Tells the driver that it need not notify while the device is looking anyway.
    pub fn disable_notification(&mut self, queue: usize) -> Result<(), Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        if !slot.queue.ready() {
            return Ok(());
        }
        slot.queue.disable_notification(&*self.ram).map_err(|_| Fault("the used ring cannot be written"))
    }

    /// Says to the driver that the device-specific configuration changed.
    pub fn config_changed(&self) {
        self.interrupt.config();
    }

    fn hold(slot: &mut Slot, head: u16) -> Result<(), Fault> {
        match slot.held.get_mut(usize::from(head)) {
            Some(held) if !*held && head < slot.queue.size() => *held = true,
            Some(true) => return Err(Fault("a descriptor that is in flight was made available again")),
            _ => return Err(Fault("an available ring entry is out of range")),
        }
        slot.held_count = slot.held_count.saturating_add(1);
        Ok(())
    }

    fn release(slot: &mut Slot, head: u16) {
        if let Some(held) = slot.held.get_mut(usize::from(head))
            && std::mem::take(held)
        {
            slot.held_count = slot.held_count.saturating_sub(1);
        }
    }
}

fn used_len(written: usize) -> Result<u32, Fault> {
    u32::try_from(written).map_err(|_| Fault("a used length is out of range"))
}
