//! What the transport saves, and how it judges what it is given back.

use orlop_pci::{ConfigState, MsixState};
use orlop_state::{State, StateError};
use serde::{Deserialize, Serialize};

use super::registers::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, F_VERSION_1, FAILED, FEATURES_OK, NEEDS_RESET, Registers,
};

/// The transport's state, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TransportState {
    /// Virtio device type.
    pub device_type: u16,
    /// PCI configuration space.
    pub config: ConfigState,
    /// MSI-X table and pending bits.
    pub msix: MsixState,
    /// Device status, `DEVICE_NEEDS_RESET` included.
    pub status: u8,
    /// ISR status.
    pub isr: u8,
    /// Configuration generation.
    pub generation: u8,
    /// `device_feature_select`.
    pub device_feature_select: u32,
    /// `driver_feature_select`.
    pub driver_feature_select: u32,
    /// Features that the driver wrote.
    pub driver_features: u64,
    /// `queue_select`.
    pub queue_select: u16,
    /// Vector of the configuration interrupt, 0xffff for none.
    pub config_vector: u16,
    /// By queue number.
    pub queues: Vec<QueueState>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueState {
    /// Size that the driver chose.
    pub size: u16,
    /// Whether it is enabled.
    pub ready: bool,
    /// Vector, 0xffff for none.
    pub vector: u16,
    /// Address of the descriptor table.
    pub desc: u64,
    /// Address of the available ring.
    pub avail: u64,
    /// Address of the used ring.
    pub used: u64,
    /// Next entry of the available ring.
    pub next_avail: u16,
    /// Next entry of the used ring.
    pub next_used: u16,
}

impl State for TransportState {
    const KIND: &'static str = "virtio-pci";
    const VERSION: u16 = 1;
}

/// A value that cannot be.
pub(super) fn invalid(reason: impl Into<String>) -> StateError {
    StateError::Invalid { kind: TransportState::KIND, reason: reason.into() }
}

impl TransportState {
    /// Whether the device was broken.
    pub fn broken(&self) -> bool {
        self.status & NEEDS_RESET != 0
    }

    /// The registers of a device that has `own` after power-on; everything that needs neither memory nor MSI-X is
    /// checked.
    pub fn registers(&self, own: &Registers) -> Result<Registers, StateError> {
        self.check_status(own.offered)?;
        if self.queues.len() != own.queues.len() {
            let (found, has) = (self.queues.len(), own.queues.len());
            return Err(invalid(format!("{found} queues where the device has {has}")));
        }
        let mut registers = Registers {
            status: self.status & !NEEDS_RESET,
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.driver_features,
            queue_select: self.queue_select,
            ..own.clone()
        };
        for ((to, from), number) in registers.queues.iter_mut().zip(&self.queues).zip(0..) {
            self.check_queue(number, from, to.max_size)?;
            let QueueState { size, ready, vector: _, desc, avail, used, next_avail, next_used } = *from;
            (to.size, to.ready, to.next_avail, to.next_used) = (size, ready, next_avail, next_used);
            (to.desc, to.avail, to.used) = (desc, avail, used);
        }
        Ok(registers)
    }

    fn check_status(&self, offered: u64) -> Result<(), StateError> {
        let status = self.status;
        let has = |bits: u8| status & bits == bits;
        let implied = [
            (DRIVER, ACKNOWLEDGE),
            (FEATURES_OK, ACKNOWLEDGE | DRIVER),
            (DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK),
            (NEEDS_RESET, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK),
        ];
        let known = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET | FAILED;
        if status & !known != 0 || implied.iter().any(|(bit, needs)| has(*bit) && !has(*needs)) {
            return Err(invalid(format!("status {status:#x}")));
        }
        let features = self.driver_features;
        if has(FEATURES_OK) && (features & !offered != 0 || features & F_VERSION_1 == 0) {
            return Err(invalid(format!("features {features:#x} were agreed on, offered are {offered:#x}")));
        }
        if !has(DRIVER) && features != 0 {
            return Err(invalid(format!("features {features:#x} without a driver")));
        }
        if self.isr & !3 != 0 {
            return Err(invalid(format!("ISR status {:#x}", self.isr)));
        }
        Ok(())
    }

    fn check_queue(&self, number: u16, queue: &QueueState, max_size: u16) -> Result<(), StateError> {
        let size = queue.size;
        if !size.is_power_of_two() || size > max_size {
            return Err(invalid(format!("queue {number}: size {size}, at most {max_size}")));
        }
        if queue.ready && self.status & FEATURES_OK == 0 {
            return Err(invalid(format!("queue {number} is enabled, but no features are agreed on")));
        }
        let (avail, used) = (queue.next_avail, queue.next_used);
        let started = queue.ready && self.status & DRIVER_OK != 0;
        if !started && (avail, used) != (0, 0) {
            return Err(invalid(format!("queue {number} never ran, but is at {avail}/{used}")));
        }
        // Whoever saved had drained the queue: everything that was taken was given back.
        if avail != used && !self.broken() {
            return Err(invalid(format!("queue {number} has requests in flight: {avail}/{used}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

    fn own() -> Registers {
        Registers::new(F_VERSION_1 | 1, &[256])
    }

    /// A device that served 5 requests.
    fn state() -> TransportState {
        let queue = QueueState {
            size: 128,
            ready: true,
            vector: 1,
            desc: 0x1000,
            avail: 0x2000,
            used: 0x3000,
            next_avail: 5,
            next_used: 5,
        };
        TransportState {
            device_type: 4,
            config: ConfigState { bytes: Vec::new() },
            msix: MsixState { vectors: Vec::new() },
            status: READY,
            isr: 1,
            generation: 9,
            device_feature_select: 1,
            driver_feature_select: 1,
            driver_features: F_VERSION_1,
            queue_select: 77,
            config_vector: 0,
            queues: vec![queue],
        }
    }

    #[test]
    fn a_good_state_becomes_the_registers() {
        let registers = state().registers(&own()).unwrap();
        assert_eq!((registers.status, registers.queue_select), (READY, 77));
        let queue = &registers.queues[0];
        assert_eq!((queue.size, queue.max_size, queue.ready), (128, 256, true));
        assert_eq!((queue.desc, queue.avail, queue.used), (0x1000, 0x2000, 0x3000));
        assert_eq!((queue.next_avail, queue.next_used), (5, 5));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        type Change = fn(&mut TransportState);
        let cases: &[(&str, Change)] = &[
            ("an unknown status bit", |s| s.status |= 16),
            ("DRIVER without ACKNOWLEDGE", |s| s.status = DRIVER),
            ("DRIVER_OK without FEATURES_OK", |s| s.status = ACKNOWLEDGE | DRIVER | DRIVER_OK),
            ("broken before it was ready", |s| s.status = NEEDS_RESET | ACKNOWLEDGE),
            ("a feature that is not offered", |s| s.driver_features |= 2),
            ("no VERSION_1", |s| s.driver_features = 1),
            ("features without a driver", |s| {
                s.status = ACKNOWLEDGE;
                s.queues[0] = QueueState { ready: false, next_avail: 0, next_used: 0, ..s.queues[0].clone() };
            }),
            ("an unknown ISR bit", |s| s.isr = 4),
            ("a queue too few", |s| s.queues.clear()),
            ("a queue too many", |s| s.queues.push(s.queues[0].clone())),
            ("a size of zero", |s| s.queues[0].size = 0),
            ("an odd size", |s| s.queues[0].size = 100),
            ("a size too large", |s| s.queues[0].size = 512),
            ("an enabled queue without features", |s| {
                s.status = ACKNOWLEDGE | DRIVER;
                (s.queues[0].next_avail, s.queues[0].next_used) = (0, 0);
            }),
            ("a position in a queue that never ran", |s| s.queues[0].ready = false),
            ("requests in flight", |s| s.queues[0].next_avail = 6),
        ];
        for (name, change) in cases {
            let mut bad = state();
            change(&mut bad);
            assert!(bad.registers(&own()).is_err(), "{name} was taken");
        }
    }

    #[test]
    fn a_broken_device_may_have_requests_in_flight() {
        let mut broken = state();
        broken.status |= NEEDS_RESET;
        broken.queues[0].next_avail = 6;
        assert_eq!(broken.registers(&own()).unwrap().status, READY, "the fault is kept elsewhere");
        assert!(broken.broken());
    }
}
