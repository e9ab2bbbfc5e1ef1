//! The interrupts that the device sent, as the guest's interrupt controller would see them.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use orlop_pci::MsiSink;

/// Counts messages by their data; [`super::Driver`] programs the vector's number as data.
#[derive(Default)]
pub struct Messages {
    counts: Mutex<HashMap<u32, u64>>,
    arrived: Condvar,
}

impl Messages {
    /// How many messages vector `vector` has sent.
    pub fn count(&self, vector: u16) -> u64 {
        self.counts.lock().unwrap().get(&u32::from(vector)).copied().unwrap_or(0)
    }

    /// How many messages have been sent.
    pub fn total(&self) -> u64 {
        self.counts.lock().unwrap().values().sum()
    }

    /// Waits a moment for another message: a message ends the wait early.
    pub(super) fn nap(&self) {
        let counts = self.counts.lock().unwrap();
        drop(self.arrived.wait_timeout(counts, Duration::from_millis(1)).unwrap());
    }
}

impl MsiSink for Messages {
    fn signal(&self, address: u64, data: u32) {
        // What a hostile driver programmed goes elsewhere; it is a message all the same.
        let data = if address == super::driver::MSI_ADDRESS { data } else { u32::MAX };
        *self.counts.lock().unwrap().entry(data).or_default() += 1;
        self.arrived.notify_all();
    }
}
