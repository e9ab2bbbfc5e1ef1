//! The common configuration (virtio 1.3 §4.1.4.3) as plain data: which write is allowed when, and what follows from
//! it. No memory, no threads, no interrupts.

use orlop_bus::value;

/// The guest has noticed the device (virtio 1.3 §2.1).
pub(super) const ACKNOWLEDGE: u8 = 1;
/// The guest has a driver for it.
pub(super) const DRIVER: u8 = 2;
/// The driver is ready.
pub(super) const DRIVER_OK: u8 = 4;
/// The features are agreed on.
pub(super) const FEATURES_OK: u8 = 8;
/// Only a reset mends the device.
pub(super) const NEEDS_RESET: u8 = 64;
/// The driver gave up.
pub(super) const FAILED: u8 = 128;

/// Complies with virtio 1.0 or later (virtio 1.3 §6).
pub(super) const F_VERSION_1: u64 = 1 << 32;

/// One queue as the driver set it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueueRegisters {
    pub max_size: u16,
    pub size: u16,
    pub ready: bool,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    /// Where the next start continues; valid while nobody serves the queue.
    pub next_avail: u16,
    /// Where the next start continues; valid while nobody serves the queue.
    pub next_used: u16,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            ready: false,
            desc: 0,
            avail: 0,
            used: 0,
            next_avail: 0,
            next_used: 0,
        }
    }
}

/// What follows from a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Nothing,
    /// The driver wrote status zero: back to power-on.
    Reset,
    /// The status gained bits: features were agreed on, the driver became ready, or both.
    Status { negotiated: bool, ready: bool },
    /// The vector of the configuration interrupt is to be this.
    ConfigVector(u16),
    /// The vector of a queue's interrupt is to be this.
    QueueVector { queue: u16, vector: u16 },
}

/// What the registers show but do not hold.
pub(super) struct Shown {
    pub config_vector: u16,
    pub queue_vector: u16,
    pub needs_reset: bool,
    pub generation: u8,
}

/// The registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registers {
    /// Features that the device offers.
    pub offered: u64,
    /// Without [`NEEDS_RESET`], which whoever finds a fault sets elsewhere.
    pub status: u8,
    pub device_feature_select: u32,
    pub driver_feature_select: u32,
    pub driver_features: u64,
    pub queue_select: u16,
    pub queues: Vec<QueueRegisters>,
}

impl Registers {
    pub fn new(offered: u64, queue_max_sizes: &[u16]) -> Self {
        Self {
            offered,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: queue_max_sizes.iter().map(|max| QueueRegisters::new(*max)).collect(),
        }
    }

    pub fn reset(&mut self) {
        let max_sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.offered, &max_sizes);
    }

    /// All registers as the driver reads them.
    pub fn image(&self, shown: &Shown) -> Vec<u8> {
        let queue = self.queues.get(usize::from(self.queue_select));
        let needs_reset = if shown.needs_reset { NEEDS_RESET } else { 0 };
        let mut image = Vec::with_capacity(64);
        image.extend(self.device_feature_select.to_le_bytes()); // 0x00
        image.extend(feature_word(self.offered, self.device_feature_select).to_le_bytes());
        image.extend(self.driver_feature_select.to_le_bytes()); // 0x08
        image.extend(feature_word(self.driver_features, self.driver_feature_select).to_le_bytes());
        image.extend(shown.config_vector.to_le_bytes()); // 0x10
        image.extend(u16::try_from(self.queues.len()).unwrap_or(u16::MAX).to_le_bytes());
        image.extend([self.status | needs_reset, shown.generation]); // 0x14
        image.extend(self.queue_select.to_le_bytes()); // 0x16
        image.extend(queue.map_or(0, |q| q.size).to_le_bytes()); // 0x18
        image.extend(shown.queue_vector.to_le_bytes());
        image.extend(queue.map_or(0, |q| u16::from(q.ready)).to_le_bytes()); // 0x1c
        image.extend(queue.map_or(0, |_| self.queue_select).to_le_bytes()); // 0x1e queue_notify_off
        image.extend(queue.map_or(0, |q| q.desc).to_le_bytes()); // 0x20
        image.extend(queue.map_or(0, |q| q.avail).to_le_bytes()); // 0x28
        image.extend(queue.map_or(0, |q| q.used).to_le_bytes()); // 0x30
        image.extend([0; 4]); // 0x38 queue_notify_data, queue_reset: not offered
        image
    }

    /// Takes a write of the driver: the fields' own widths (virtio 1.3 §4.1.3.1), the 64-bit ones also by halves.
    /// Anything else, and what is not allowed at this time, is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        let value = value(data);
        let word = u16::try_from(value).unwrap_or(u16::MAX);
        let double = u32::try_from(value).unwrap_or(u32::MAX);
        match (offset, data.len()) {
            (0x00, 4) => self.device_feature_select = double,
            (0x08, 4) => self.driver_feature_select = double,
            (0x0c, 4) => self.accept_features(double),
            (0x10, 2) => return Action::ConfigVector(word),
            (0x14, 1) => return self.write_status(u8::try_from(value).unwrap_or(0)),
            (0x16, 2) => self.queue_select = word,
            (0x1a, 2) => return Action::QueueVector { queue: self.queue_select, vector: word },
            _ => self.write_queue(offset, data.len(), value),
        }
        Action::Nothing
    }

    fn accept_features(&mut self, word: u32) {
        if self.status & (DRIVER | FEATURES_OK) != DRIVER {
            return;
        }
        let shift = match self.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let kept = self.driver_features & !(u64::from(u32::MAX) << shift);
        self.driver_features = kept | u64::from(word) << shift;
    }

    /// Bits are gained in their order (virtio 1.3 §3.1.1) and lost only by a reset.
    fn write_status(&mut self, value: u8) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        let before = self.status;
        let acceptable = self.driver_features & !self.offered == 0 && self.driver_features & F_VERSION_1 != 0;
        let steps = [
            (ACKNOWLEDGE, 0, true),
            (DRIVER, ACKNOWLEDGE, true),
            (FEATURES_OK, DRIVER, acceptable),
            (DRIVER_OK, FEATURES_OK, true),
            (FAILED, 0, true),
        ];
        for (bit, needs, allowed) in steps {
            if value & bit != 0 && self.status & needs == needs && allowed {
                self.status |= bit;
            }
        }
        let gained = self.status & !before;
        Action::Status { negotiated: gained & FEATURES_OK != 0, ready: gained & DRIVER_OK != 0 }
    }

    /// A queue is set up after the features were agreed on, before the driver is ready, and never changes once it is
    /// enabled.
    fn write_queue(&mut self, offset: u64, len: usize, value: u64) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if self.status != ACKNOWLEDGE | DRIVER | FEATURES_OK || queue.ready {
            return;
        }
        let QueueRegisters { max_size, size, ready, desc, avail, used, .. } = queue;
        match (offset, len) {
            (0x18, 2) => {
                if let Ok(new) = u16::try_from(value)
                    && new.is_power_of_two()
                    && new <= *max_size
                {
                    *size = new;
                }
            }
            (0x1c, 2) => *ready = value == 1,
            (0x20 | 0x24, 4) | (0x20, 8) => write_address(desc, offset, len, value),
            (0x28 | 0x2c, 4) | (0x28, 8) => write_address(avail, offset, len, value),
            (0x30 | 0x34, 4) | (0x30, 8) => write_address(used, offset, len, value),
            _ => {}
        }
    }
}

fn feature_word(features: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn write_address(address: &mut u64, offset: u64, len: usize, value: u64) {
    let low = u64::from(u32::MAX);
    *address = match (len, offset & 4) {
        (8, _) => value,
        (_, 0) => *address & !low | value,
        _ => *address & low | value << 32,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK;

    fn registers() -> Registers {
        Registers::new(F_VERSION_1 | 0b101, &[256, 8])
    }

    fn shown() -> Shown {
        Shown { config_vector: 7, queue_vector: 9, needs_reset: true, generation: 3 }
    }

    /// After `features` were accepted.
    fn agreed(features: u64) -> Registers {
        let mut registers = registers();
        registers.write(0x14, &[ACKNOWLEDGE | DRIVER]);
        for (select, word) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            registers.write(0x08, &select.to_le_bytes());
            registers.write(0x0c, &word.to_le_bytes());
        }
        registers.write(0x14, &[READY]);
        registers
    }

    #[test]
    fn the_image_has_every_field_in_its_place() {
        let mut registers = agreed(F_VERSION_1 | 1);
        registers.write(0x16, &[1, 0]);
        registers.write(0x18, &[4, 0]);
        registers.write(0x20, &0x1122_3344_5566_7788u64.to_le_bytes());
        registers.write(0x2c, &5u32.to_le_bytes());
        registers.write(0x28, &6u32.to_le_bytes());
        registers.write(0x30, &8u64.to_le_bytes());
        registers.write(0x1c, &[1, 0]);
        let image = registers.image(&shown());
        assert_eq!(image.len(), 0x3c);
        assert_eq!(image[..4], [0; 4]);
        assert_eq!(image[4..8], 0b101u32.to_le_bytes());
        assert_eq!(image[8..16], (1u64 | 1 << 32).to_le_bytes(), "select, then the upper half");
        assert_eq!(image[16..24], [7, 0, 2, 0, READY | NEEDS_RESET, 3, 1, 0]);
        assert_eq!(image[24..32], [4, 0, 9, 0, 1, 0, 1, 0]);
        assert_eq!(image[32..40], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(image[40..48], (6u64 | 5 << 32).to_le_bytes());
        assert_eq!(image[48..56], 8u64.to_le_bytes());
    }

    #[test]
    fn bits_of_the_status_are_gained_in_their_order() {
        let mut registers = agreed(F_VERSION_1);
        let ready = Action::Status { negotiated: false, ready: true };
        assert_eq!(registers.write(0x14, &[READY | DRIVER_OK]), ready);
        assert_eq!(registers.write(0x14, &[ACKNOWLEDGE]), Action::Status { negotiated: false, ready: false });
        assert_eq!(registers.status, READY | DRIVER_OK, "bits are lost only by a reset");
        registers.write(0x14, &[NEEDS_RESET]);
        assert_eq!(registers.status & NEEDS_RESET, 0, "a driver cannot set it");
        assert_eq!(registers.write(0x14, &[0]), Action::Reset);
        let mut fresh = self::registers();
        fresh.write(0x14, &[DRIVER_OK | FEATURES_OK | DRIVER]);
        assert_eq!(fresh.status, 0, "nothing without acknowledging");
    }

    #[test]
    fn a_queue_that_is_enabled_cannot_be_disabled_or_moved() {
        let mut registers = agreed(F_VERSION_1);
        for junk in [0u16, 2, u16::MAX] {
            registers.write(0x1c, &junk.to_le_bytes());
            assert!(!registers.queues[0].ready, "only 1 enables");
        }
        registers.write(0x1c, &[1, 0]);
        let enabled = registers.clone();
        for (offset, data) in [(0x1c, &[0, 0][..]), (0x18, &[2, 0]), (0x20, &[0xff; 8]), (0x28, &[0xff; 4])] {
            registers.write(offset, data);
        }
        assert_eq!(registers, enabled);
    }

    #[test]
    fn reset_gives_what_was_there_at_first() {
        let mut registers = agreed(F_VERSION_1 | 4);
        registers.write(0x1c, &[1, 0]);
        registers.reset();
        assert_eq!(registers, self::registers());
    }
}
