//! Message-signalled interrupts with one vector (PCI 3.0 §6.8.1), for functions that drivers know from before MSI-X.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};

use crate::{ConfigSpace, LayoutError, MsiSink};

const CAPABILITY_ID: u8 = 0x05;
/// Message control: the guest enabled MSI.
const CONTROL_ENABLE: u16 = 1;
/// Message control: addresses have 64 bits.
const CONTROL_64_BIT: u16 = 1 << 7;

/// The one vector of a function. What the guest programs is in its configuration space; this is what it came to, to be
/// signalled from any thread without a lock.
pub struct Msi {
    enabled: AtomicBool,
    low: AtomicU32,
    high: AtomicU32,
    data: AtomicU32,
    sink: Arc<dyn MsiSink>,
}

impl Msi {
    /// A vector that is not enabled.
    pub fn new(sink: Arc<dyn MsiSink>) -> Self {
        let (low, high, data) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        Self { enabled: AtomicBool::new(false), low, high, data, sink }
    }

    /// Adds the capability to `config`; returns its offset, which [`Self::update`] wants.
    pub fn add_capability(config: &mut ConfigSpace) -> Result<u16, LayoutError> {
        let mut body = CONTROL_64_BIT.to_le_bytes().to_vec();
        body.resize(12, 0);
        let mut writable = CONTROL_ENABLE.to_le_bytes().to_vec();
        // Message address (its two low bits are zero), upper address, data.
        writable.extend([0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        config.add_capability(CAPABILITY_ID, &body, &writable)
    }

    /// Takes over what the capability at `offset` of `config` says: to be called after every write, reset and restore.
    pub fn update(&self, config: &ConfigSpace, offset: u16) {
        let word = |at: u16| u32::from(config.register(offset.saturating_add(at)));
        self.enabled.store(false, SeqCst);
        self.low.store(word(4) | word(6) << 16, SeqCst);
        self.high.store(word(8) | word(10) << 16, SeqCst);
        self.data.store(word(12), SeqCst);
        self.enabled.store(word(2) & u32::from(CONTROL_ENABLE) != 0, SeqCst);
    }

    /// Sends the message, if the guest enabled it.
    pub fn signal(&self) {
        if self.enabled.load(SeqCst) {
            let address = u64::from(self.high.load(SeqCst)) << 32 | u64::from(self.low.load(SeqCst));
            self.sink.signal(address, self.data.load(SeqCst));
        }
    }
}
