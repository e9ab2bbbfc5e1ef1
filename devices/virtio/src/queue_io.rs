//! The queues of one worker while the driver is ready, as a backend uses them.

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};

use crate::{Buffers, ChainError, Fault, Ram};

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

struct Slot {
    queue: Queue,
    number: u16,
    /// Heads that the device holds, by descriptor index.
    held: Vec<bool>,
    held_count: usize,
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
    /// `queues` are the set's queues with their numbers on the device, ready and checked against `ram`.
    pub(crate) fn new(
        ram: Arc<Ram>,
        queues: Vec<(u16, Queue)>,
        interrupt: Arc<dyn Interrupt>,
        features: u64,
    ) -> Self {
        let slots = queues
            .into_iter()
            .map(|(number, queue)| {
                let held = vec![false; usize::from(queue.max_size())];
                Slot { queue, number, held, held_count: 0 }
            })
            .collect();
        Self { ram, slots, interrupt, features }
    }

    /// The queues back, where the next start continues.
    pub(crate) fn into_queues(self) -> Vec<(u16, Queue)> {
        self.slots.into_iter().map(|slot| (slot.number, slot.queue)).collect()
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
    pub fn pop(&mut self, queue: usize) -> Result<Option<Request>, Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        if !slot.queue.ready() {
            return Ok(None);
        }
        let mut available =
            slot.queue.iter(&*self.ram).map_err(|_| Fault("the available index is out of range"))?;
        let Some(chain) = available.next() else { return Ok(None) };
        let head = chain.head_index();
        match slot.held.get_mut(usize::from(head)) {
            Some(held) if !*held => *held = true,
            Some(_) => return Err(Fault("a descriptor that is in flight was made available again")),
            None => return Err(Fault("an available ring entry is out of range")),
        }
        slot.held_count = slot.held_count.saturating_add(1);
        let (readable, writable) = Buffers::of_chain(&self.ram, chain).map_err(|error| match error {
            ChainError::OutsideMemory => Fault("a descriptor points outside guest memory"),
            ChainError::Order => Fault("a readable descriptor follows a writable one"),
            ChainError::TooLong => Fault("a descriptor chain is too long"),
            ChainError::TooShort => Fault("a descriptor chain is too short"),
        })?;
        Ok(Some(Request { head, readable, writable }))
    }

    /// Puts the request that was popped last back, as if it had never been popped.
    pub fn undo_pop(&mut self, queue: usize, request: &Request) {
        if let Some(slot) = self.slots.get_mut(queue) {
            Self::release(slot, request.head);
            let previous = slot.queue.next_avail().wrapping_sub(1);
            slot.queue.set_next_avail(previous);
        }
    }

    /// Returns the request with `head` to the driver; `written` bytes of its writable part were filled.
    pub fn push(&mut self, queue: usize, head: u16, written: usize) -> Result<(), Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        let written = u32::try_from(written).map_err(|_| Fault("a used length is out of range"))?;
        Self::release(slot, head);
        slot.queue.add_used(&*self.ram, head, written).map_err(|_| Fault("the used ring cannot be written"))
    }

    /// Interrupts the driver if it wants to know about what was pushed since the last call.
    pub fn notify(&mut self, queue: usize) -> Result<(), Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        if slot
            .queue
            .needs_notification(&*self.ram)
            .map_err(|_| Fault("the available ring cannot be read"))?
        {
            self.interrupt.queue(slot.number);
        }
        Ok(())
    }

    /// Asks the driver for notifications again; true when requests arrived meanwhile and must be looked at now.
    pub fn enable_notification(&mut self, queue: usize) -> Result<bool, Fault> {
        let slot = self.slots.get_mut(queue).ok_or(NO_QUEUE)?;
        if !slot.queue.ready() {
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

    fn release(slot: &mut Slot, head: u16) {
        if let Some(held) = slot.held.get_mut(usize::from(head))
            && std::mem::take(held)
        {
            slot.held_count = slot.held_count.saturating_sub(1);
        }
    }
}
