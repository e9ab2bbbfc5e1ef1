//! How the device reaches the driver: ISR bits, MSI-X vectors, `DEVICE_NEEDS_RESET`. Used by every worker at once;
//! takes no lock on the way of an interrupt.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use orlop_pci::Msix;

use crate::counters::QueueCounters;
use crate::{Fault, Interrupt};

/// No vector: the driver wants no interrupt (virtio 1.3 §4.1.5.1.2, `VIRTIO_MSI_NO_VECTOR`).
pub(super) const NO_VECTOR: u16 = 0xffff;
/// A queue has news (virtio 1.3 §4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// The configuration changed.
const ISR_CONFIG: u8 = 2;

struct QueueSignal {
    vector: AtomicU16,
    counters: Arc<QueueCounters>,
}

pub(super) struct Signals {
    pub msix: Msix,
    isr: AtomicU8,
    generation: AtomicU8,
    config_vector: AtomicU16,
    queues: Vec<QueueSignal>,
    broken: AtomicBool,
    fault: Mutex<Option<&'static str>>,
    faults: AtomicU64,
    config_interrupts: AtomicU64,
    on_fault: OnceLock<Box<dyn Fn(Fault) + Send + Sync>>,
}

impl Signals {
    pub fn new(msix: Msix, queue_count: usize) -> Self {
        let queue = |_| QueueSignal { vector: AtomicU16::new(NO_VECTOR), counters: Arc::default() };
        Self {
            msix,
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queues: (0..queue_count).map(queue).collect(),
            broken: AtomicBool::new(false),
            fault: Mutex::new(None),
            faults: AtomicU64::new(0),
            config_interrupts: AtomicU64::new(0),
            on_fault: OnceLock::new(),
        }
    }

    /// Back to power-on, except the counts. No worker serves queues. The generation only ever moves on: a driver that
    /// compares it across a reset must see a change.
    pub fn reset(&self) {
        self.isr.store(0, SeqCst);
        self.generation.fetch_add(1, SeqCst);
        self.config_vector.store(NO_VECTOR, SeqCst);
        for queue in &self.queues {
            queue.vector.store(NO_VECTOR, SeqCst);
        }
        self.broken.store(false, SeqCst);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Calls `f` for every fault, on the thread that found it.
    pub fn on_fault(&self, f: Box<dyn Fn(Fault) + Send + Sync>) {
        let _ = self.on_fault.set(f);
    }

    /// The ISR status; reading clears it.
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, SeqCst)
    }

    pub fn isr(&self) -> u8 {
        self.isr.load(SeqCst)
    }

    pub fn generation(&self) -> u8 {
        self.generation.load(SeqCst)
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(SeqCst)
    }

    pub fn fault(&self) -> Option<&'static str> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    pub fn config_interrupts(&self) -> u64 {
        self.config_interrupts.load(Relaxed)
    }

    pub fn counters(&self, queue: u16) -> Option<&Arc<QueueCounters>> {
        self.queues.get(usize::from(queue)).map(|queue| &queue.counters)
    }

    /// The vector of `queue`; none where the queue does not exist.
    pub fn queue_vector(&self, queue: u16) -> u16 {
        self.queues.get(usize::from(queue)).map_or(NO_VECTOR, |queue| queue.vector.load(SeqCst))
    }

    pub fn config_vector(&self) -> u16 {
        self.config_vector.load(SeqCst)
    }

    /// Whether `vector` is one that a driver may choose.
    pub fn is_vector(&self, vector: u16) -> bool {
        vector == NO_VECTOR || usize::from(vector) < self.msix.len()
    }

    /// Takes the driver's choice; one that does not exist becomes none, which the driver reads back as refusal
    /// (virtio 1.3 §4.1.5.1.2.1).
    pub fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(queue) = self.queues.get(usize::from(queue)) {
            queue.vector.store(self.or_none(vector), SeqCst);
        }
    }

    /// As [`Self::set_queue_vector`], for the configuration interrupt.
    pub fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.or_none(vector), SeqCst);
    }

    fn or_none(&self, vector: u16) -> u16 {
        if self.is_vector(vector) { vector } else { NO_VECTOR }
    }

    /// Takes over what was saved and checked.
    pub fn restore(&self, isr: u8, generation: u8, broken: bool) {
        self.isr.store(isr & (ISR_QUEUE | ISR_CONFIG), SeqCst);
        self.generation.store(generation, SeqCst);
        self.broken.store(broken, SeqCst);
        let fault = broken.then_some("it was broken when it was saved");
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn signal_config(&self) {
        self.isr.fetch_or(ISR_CONFIG, SeqCst);
        self.config_interrupts.fetch_add(1, Relaxed);
        self.msix.signal(self.config_vector.load(SeqCst));
    }
}

impl Interrupt for Signals {
    fn queue(&self, number: u16) {
        let Some(queue) = self.queues.get(usize::from(number)) else { return };
        self.isr.fetch_or(ISR_QUEUE, SeqCst);
        queue.counters.interrupts.fetch_add(1, Relaxed);
        self.msix.signal(queue.vector.load(SeqCst));
    }

    fn config(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.signal_config();
    }

    fn needs_reset(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.0);
        self.faults.fetch_add(1, Relaxed);
        self.broken.store(true, SeqCst);
        self.signal_config();
        if let Some(f) = self.on_fault.get() {
            f(fault);
        }
    }
}
