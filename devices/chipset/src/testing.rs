//! What the tests of every device share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orlop_bus::BusDevice;
use orlop_state::{Record, StateError};

use crate::{Clock, PowerEvent, PowerSink};

/// Collects power events.
#[derive(Default)]
pub struct Events(Arc<Mutex<Vec<PowerEvent>>>);

impl Events {
    pub fn sink(&self) -> PowerSink {
        let events = Arc::clone(&self.0);
        Arc::new(move |event| events.lock().unwrap().push(event))
    }

    pub fn take(&self) -> Vec<PowerEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A clock that is set by hand; wall and monotonic time move together.
pub struct TestClock {
    now_ns: AtomicU64,
}

impl TestClock {
    pub fn at(now: Duration) -> Arc<Self> {
        Arc::new(Self { now_ns: AtomicU64::new(now.as_nanos() as u64) })
    }

    pub fn advance(&self, by: Duration) {
        self.now_ns.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.wall()
    }
}

pub fn read_byte(device: &dyn BusDevice, offset: u64) -> u8 {
    let mut byte = [0];
    device.read(offset, &mut byte);
    byte[0]
}

/// Reads and writes of 1 to 8 bytes at every offset around the device: none may panic.
pub fn survives_every_access(device: &dyn BusDevice) {
    for len in 1..=8 {
        for offset in (0..20).chain([0xff, 0x100, u64::MAX - 8, u64::MAX - 1, u64::MAX]) {
            for value in [0x00, 0x01, 0x55, 0x80, 0xff] {
                device.write(offset, &vec![value; len]);
                device.read(offset, &mut vec![0; len]);
            }
        }
    }
}

/// Every change of one byte and every truncation: an error or a state that can be, never a panic.
pub fn survives_every_mutation(record: &Record, restore: impl Fn(&Record) -> Result<(), StateError>) {
    for position in 0..record.body.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff] {
            let mut record = record.clone();
            record.body[position] = value;
            let _outcome = restore(&record);
        }
        let mut record = record.clone();
        record.body.truncate(position);
        assert!(restore(&record).is_err(), "a body cut to {position} bytes was accepted");
    }
    let mut other = record.clone();
    other.kind = "something-else".to_owned();
    assert!(restore(&other).is_err());
    let mut other = record.clone();
    other.version += 1;
    assert!(restore(&other).is_err());
}
