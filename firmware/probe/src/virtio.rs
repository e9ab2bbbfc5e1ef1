//! A virtio driver by hand: modern PCI transport (virtio 1.3 §4.1) and split queues (§2.7), polled.

use crate::Failure;
use crate::machine::{Machine, Physical};
use crate::pci::{self, Function};
use crate::serial::say;

/// Vendor of every virtio device, and the first device id of modern ones: id minus this is the device type.
const VENDOR: u16 = 0x1af4;
const MODERN_START: u16 = 0x1040;
const MODERN_END: u16 = 0x107f;
/// PCI's vendor-specific capability, and its kinds (§4.1.4).
const VENDOR_CAPABILITY: u8 = 0x09;
const KIND_COMMON: u8 = 1;
const KIND_NOTIFY: u8 = 2;
const KIND_ISR: u8 = 3;
const KIND_DEVICE: u8 = 4;

/// Device types.
pub mod kind {
    /// Network card.
    pub const NET: u16 = 1;
    /// Block device.
    pub const BLOCK: u16 = 2;
    /// Source of entropy.
    pub const ENTROPY: u16 = 4;
}

/// Offsets in the common configuration (§4.1.4.3).
pub mod common {
    /// Which word of the device's features shows.
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    /// The device's features.
    pub const DEVICE_FEATURE: u64 = 4;
    /// Which word of the driver's features shows.
    pub const DRIVER_FEATURE_SELECT: u64 = 8;
    /// The driver's features.
    pub const DRIVER_FEATURE: u64 = 12;
    /// MSI-X vector of configuration changes.
    pub const CONFIG_VECTOR: u64 = 16;
    /// Number of queues.
    pub const NUM_QUEUES: u64 = 18;
    /// Device status.
    pub const STATUS: u64 = 20;
    /// Which queue shows in what follows.
    pub const QUEUE_SELECT: u64 = 22;
    /// Size of the queue.
    pub const QUEUE_SIZE: u64 = 24;
    /// MSI-X vector of the queue.
    pub const QUEUE_VECTOR: u64 = 26;
    /// Whether the queue is enabled.
    pub const QUEUE_ENABLE: u64 = 28;
    /// Where the queue's doorbell is.
    pub const QUEUE_NOTIFY_OFF: u64 = 30;
    /// Descriptor table.
    pub const QUEUE_DESCRIPTORS: u64 = 32;
    /// Available ring.
    pub const QUEUE_AVAILABLE: u64 = 40;
    /// Used ring.
    pub const QUEUE_USED: u64 = 48;
    /// Length of the structure without what later versions add.
    pub const LEN: u64 = 56;
}

/// Device status bits (§2.1).
pub mod status {
    /// The driver has seen the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver can drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed.
    pub const FEATURES_OK: u8 = 8;
    /// The device must be reset.
    pub const NEEDS_RESET: u8 = 64;
}

/// Features of all devices (§6): indirect descriptors, and "version 1".
pub const FEATURE_INDIRECT: u64 = 1 << 28;
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Descriptor flags (§2.7.5).
pub mod flag {
    /// Another descriptor follows.
    pub const NEXT: u16 = 1;
    /// The device writes.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// How long a device may take for a reset or a request, in milliseconds.
const PATIENCE_MS: u32 = 2300;
/// Largest queue that the probe sets up.
pub const QUEUE_SIZE: u16 = 16;

/// A virtio device.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    /// Where it is on the bus.
    pub function: Function,
    /// Its type.
    pub kind: u16,
    /// Address of the common configuration.
    pub common: u64,
    /// Address of the interrupt status.
    pub isr: u64,
    /// Address of the device's own configuration.
    pub config: u64,
    notify: u64,
    notify_multiplier: u64,
    memory: Physical,
}

impl core::fmt::Display for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} type {}", self.function, self.kind)
    }
}

impl Device {
    /// The device behind `function`, if it is a modern virtio device whose structures can be reached.
    pub fn find(machine: &Machine, function: Function) -> Option<Self> {
        let (vendor, id) = function.ids();
        if vendor != VENDOR || !(MODERN_START..=MODERN_END).contains(&id) {
            return None;
        }
        function.enable();
        let structure = |kind| {
            let at =
                function.capabilities(VENDOR_CAPABILITY).find(|&at| function.read_byte(at + 3) == kind)?;
            let bar = function.bar(function.read_byte(at + 4))?;
            let address = bar.checked_add(function.read(at + 8).into())?;
            machine.memory.is_writable(address, 4096).then_some((at, address))
        };
        let (notify_capability, notify) = structure(KIND_NOTIFY)?;
        Some(Self {
            function,
            kind: id - MODERN_START,
            common: structure(KIND_COMMON)?.1,
            isr: structure(KIND_ISR)?.1,
            // A device without configuration of its own has no such structure.
            config: structure(KIND_DEVICE).map_or(0, |(_, address)| address),
            notify,
            notify_multiplier: function.read(notify_capability + 16).into(),
            memory: machine.memory,
        })
    }

    /// Device status.
    pub fn status(&self) -> u8 {
        self.memory.read8(self.common + common::STATUS)
    }

    /// Sets the device status.
    pub fn set_status(&self, status: u8) {
        self.memory.write8(self.common + common::STATUS, status);
    }

    /// Number of queues.
    pub fn queues(&self) -> u16 {
        self.memory.read16(self.common + common::NUM_QUEUES)
    }

    /// Resets the device and waits until it says that it has.
    pub fn reset(&self, machine: &Machine) -> Result<(), Failure> {
        self.set_status(0);
        let done = machine.wait(PATIENCE_MS, || self.status() == 0);
        if done { Ok(()) } else { Err("the device does not finish its reset") }
    }

    /// The device's features.
    pub fn features(&self) -> u64 {
        let word = |select: u32| {
            self.memory.write32(self.common + common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.memory.read32(self.common + common::DEVICE_FEATURE))
        };
        word(0) | word(1) << 32
    }

    /// Resets the device and agrees on features: "version 1", and what of `wanted` there is.
    pub fn negotiate(&self, machine: &Machine, wanted: u64) -> Result<u64, Failure> {
        self.reset(machine)?;
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let agreed = self.features() & (wanted | FEATURE_VERSION_1);
        for (select, word) in [(0, agreed as u32), (1, (agreed >> 32) as u32)] {
            self.memory.write32(self.common + common::DRIVER_FEATURE_SELECT, select);
            self.memory.write32(self.common + common::DRIVER_FEATURE, word);
        }
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        if self.status() & status::FEATURES_OK == 0 {
            return Err("the device refuses its own features");
        }
        Ok(agreed)
    }

    /// Sets queue `index` up and enables it.
    pub fn queue(&self, machine: &mut Machine, index: u16) -> Result<Queue, Failure> {
        self.memory.write16(self.common + common::QUEUE_SELECT, index);
        let size = self.memory.read16(self.common + common::QUEUE_SIZE).min(QUEUE_SIZE);
        if size == 0 {
            return Err("the queue does not exist");
        }
        let queue = Queue::allocate(machine, self, index, size)?;
        self.memory.write16(self.common + common::QUEUE_SIZE, size);
        self.memory.write64(self.common + common::QUEUE_DESCRIPTORS, queue.descriptors);
        self.memory.write64(self.common + common::QUEUE_AVAILABLE, queue.available);
        self.memory.write64(self.common + common::QUEUE_USED, queue.used);
        self.memory.write16(self.common + common::QUEUE_ENABLE, 1);
        Ok(queue)
    }

    /// Says that the driver is ready.
    pub fn start(&self) -> Result<(), Failure> {
        self.set_status(self.status() | status::DRIVER_OK);
        if self.status() & status::NEEDS_RESET == 0 { Ok(()) } else { Err("the device cannot be started") }
    }

    /// Address of the doorbell of queue `index`.
    pub fn doorbell(&self, index: u16) -> u64 {
        self.memory.write16(self.common + common::QUEUE_SELECT, index);
        let offset = self.memory.read16(self.common + common::QUEUE_NOTIFY_OFF);
        self.notify + u64::from(offset) * self.notify_multiplier
    }
}

/// Visits every virtio device of the machine; how many there are. Stops at the first failure and says where it was.
pub fn each(
    machine: &mut Machine,
    mut visit: impl FnMut(&mut Machine, &Device) -> Result<(), Failure>,
) -> Result<u32, Failure> {
    let mut count = 0;
    for function in pci::functions() {
        let Some(device) = Device::find(machine, function) else { continue };
        count += 1;
        visit(machine, &device).inspect_err(|_| say!("at {device}"))?;
    }
    Ok(count)
}

/// A descriptor as it stands in its table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptor {
    /// Address of the buffer.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// [`flag`]s.
    pub flags: u16,
    /// The next descriptor.
    pub next: u16,
}

/// A split queue.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// Number of descriptors.
    pub size: u16,
    index: u16,
    doorbell: u64,
    memory: Physical,
    next_available: u16,
}

impl Queue {
    fn allocate(machine: &mut Machine, device: &Device, index: u16, size: u16) -> Result<Self, Failure> {
        let entries = u64::from(size);
        Ok(Self {
            descriptors: machine.allocate(16 * entries, 16)?,
            available: machine.allocate(6 + 2 * entries, 2)?,
            used: machine.allocate(6 + 8 * entries, 4)?,
            size,
            index,
            doorbell: device.doorbell(index),
            memory: machine.memory,
            next_available: 0,
        })
    }

    /// Writes entry `index` of the descriptor table.
    pub fn describe(&self, index: u16, descriptor: Descriptor) {
        self.describe_at(self.descriptors, index, descriptor);
    }

    /// Writes entry `index` of a table at `table`.
    pub fn describe_at(&self, table: u64, index: u16, descriptor: Descriptor) {
        let at = table + u64::from(index) * 16;
        self.memory.write64(at, descriptor.address);
        self.memory.write32(at + 8, descriptor.len);
        self.memory.write16(at + 12, descriptor.flags);
        self.memory.write16(at + 14, descriptor.next);
    }

    /// Makes the chain at `head` available.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        self.memory.write16(self.available + 4 + slot * 2, head);
        self.next_available = self.next_available.wrapping_add(1);
        self.publish_index(self.next_available);
    }

    /// Writes the available ring's index as it is.
    pub fn publish_index(&self, index: u16) {
        self.memory.write16(self.available + 2, index);
    }

    /// Rings the doorbell.
    pub fn kick(&self) {
        self.memory.write16(self.doorbell, self.index);
    }

    /// How many chains the device has used, modulo 2^16.
    pub fn used_index(&self) -> u16 {
        self.memory.read16(self.used + 2)
    }

    /// Waits until the device has used `count` chains since the queue was set up; the bytes it wrote into the last.
    pub fn wait_used(&self, machine: &Machine, count: u16) -> Result<u32, Failure> {
        if !machine.wait(PATIENCE_MS, || self.used_index() == count) {
            return Err("the device does not answer a request");
        }
        let slot = u64::from(count.wrapping_sub(1) % self.size);
        Ok(self.memory.read32(self.used + 4 + slot * 8 + 4))
    }
}

/// Shows that a device works: a read from a block device, bytes from a source of entropy, and of every other kind
/// that it starts and stays well.
pub fn works(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    machine.free_all();
    match device.kind {
        kind::BLOCK => crate::blk::read_sector(machine, device, 0).map(drop),
        kind::ENTROPY => draws(machine, device),
        _ => {
            device.negotiate(machine, 0)?;
            for index in 0..device.queues() {
                device.queue(machine, index)?;
            }
            device.start()
        }
    }
}

fn draws(machine: &mut Machine, device: &Device) -> Result<(), Failure> {
    device.negotiate(machine, 0)?;
    let mut queue = device.queue(machine, 0)?;
    device.start()?;
    let buffer = machine.allocate(64, 8)?;
    queue.describe(0, Descriptor { address: buffer, len: 64, flags: flag::WRITE, next: 0 });
    queue.publish(0);
    queue.kick();
    match queue.wait_used(machine, 1)? {
        1..=64 => Ok(()),
        _ => Err("the source of entropy gives nothing"),
    }
}
