//! The frame under its own conformance kit: a device that answers every request with its bytes inverted.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use orlop_pci::Function;
use orlop_state::{Record, State, StateError};
use orlop_virtio::conformance::{Descriptor, Driver, Fixture};
use orlop_virtio::{
    Backend, BuildError, Device, DeviceType, Fault, Parts, Platform, QueueIo, QueueSet, Ram, VirtioPci,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct EchoState {
    register: u32,
}

impl State for EchoState {
    const KIND: &'static str = "echo";
    const VERSION: u16 = 1;
}

#[derive(Default)]
struct Echo {
    register: u32,
    answered: Arc<AtomicU64>,
}

impl Device for Echo {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }
    fn features(&self) -> u64 {
        1 << 3 | 1 << 40 // the second is not a device's to offer
    }
    fn queue_max_sizes(&self) -> Vec<u16> {
        vec![8, 256, 32768]
    }
    fn negotiated(&mut self, features: u64) {
        assert_ne!(features & 1 << 32, 0);
    }
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        orlop_bus::read_from(&self.register.to_le_bytes(), offset, data);
    }
    fn config_write(&mut self, offset: u64, data: &[u8]) {
        if offset == 0 && data.len() == 4 {
            self.register = orlop_bus::value(data) as u32;
        }
    }
    fn reset(&mut self) {
        self.register = 0;
    }
    fn save(&self) -> Result<Record, StateError> {
        Record::write("", &EchoState { register: self.register })
    }
    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        self.register = record.read::<EchoState>()?.register;
        Ok(())
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("answered_requests", self.answered.load(SeqCst))]
    }
}

struct Inverter(Arc<AtomicU64>);

impl Backend for Inverter {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        Vec::new()
    }
    fn start(&mut self, _: &mut QueueIo) -> Result<(), Fault> {
        Ok(())
    }
    fn kick(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        loop {
            io.disable_notification(queue)?;
            let mut batch = Vec::new();
            while let Some(request) = io.pop(queue)? {
                batch.push(request);
            }
            for request in batch {
                let len = request.readable.len().min(request.writable.len());
                let mut bytes = vec![0; len];
                request.readable.copy_to(&mut bytes).map_err(|_| Fault("unreadable"))?;
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
                request.writable.copy_from(&bytes).map_err(|_| Fault("unwritable"))?;
                io.push(queue, request.head, len)?;
                self.0.fetch_add(1, SeqCst);
            }
            io.notify(queue)?;
            if !io.enable_notification(queue)? {
                return Ok(());
            }
        }
    }
    fn ready(&mut self, _: &mut QueueIo, _: u32) -> Result<(), Fault> {
        Ok(())
    }
    fn drain(&mut self, _: &mut QueueIo) {}
}

fn parts() -> Parts {
    let device = Echo::default();
    let set = |name: &str, queues| {
        let backend = Box::new(Inverter(Arc::clone(&device.answered)));
        QueueSet { name: name.into(), queues, backend }
    };
    let sets = vec![set("echo-a", vec![2, 0]), set("echo-b", vec![1])];
    Parts { device: Box::new(device), sets }
}

fn io(driver: &mut Driver) {
    for queue in 0..3 {
        let used = driver.request(queue, &[1, 2, 3], 3);
        assert_eq!((used.written, &used.data[..]), (3, &[!1, !2, !3][..]));
    }
}

orlop_virtio::conformance_suite!(|| Fixture::new(parts(), io));

#[test]
fn features_of_the_frame_are_not_a_devices_to_offer() {
    let driver = Driver::new(parts());
    assert_eq!(driver.offered(), 1 << 3 | 1 << 28 | 1 << 29 | 1 << 32);
}

#[test]
fn everything_is_counted() {
    let mut driver = Driver::new(parts());
    driver.start();
    (0..5).for_each(|_| io(&mut driver));
    driver.settle();
    let seen = driver.function.inspect();
    assert_eq!(seen.counters, [("answered_requests", 15)]);
    for queue in &seen.queues {
        assert_eq!((queue.requests, queue.next_avail, queue.next_used), (5, 5, 5));
        assert!(queue.ready && (1..=5).contains(&queue.interrupts) && (1..=5).contains(&queue.kicks));
    }
    assert_eq!(seen.queues.iter().map(|queue| queue.vector).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

#[test]
fn doorbells_are_the_kicks() {
    let mut driver = Driver::new(parts());
    driver.start();
    let bells = driver.function.doorbells();
    assert_eq!(bells.iter().map(|bell| bell.offset).collect::<Vec<_>>(), [0x3000, 0x3004, 0x3008]);
    driver.post(1, &[7], 1);
    // The host's kernel rings a doorbell just so.
    let mut bell = file(&bells[1]);
    assert_eq!(std::io::Write::write(&mut bell, &1u64.to_ne_bytes()).unwrap(), 8);
    assert_eq!(driver.wait(1).data, [!7]);
}

/// A copy of the bell's event file.
#[expect(unsafe_code, reason = "a doorbell shows its descriptor as a number")]
fn file(bell: &orlop_pci::Doorbell) -> std::fs::File {
    // SAFETY: the bell holds its event file, so the descriptor is open while it is copied.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(bell.event.as_raw_fd()) };
    borrowed.try_clone_to_owned().unwrap().into()
}

#[test]
fn a_fault_is_told_to_whoever_asked() {
    let mut driver = Driver::new(parts());
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    driver.function.on_fault(Box::new(move |_| {
        count.fetch_add(1, SeqCst);
    }));
    driver.start();
    driver.post_chain(0, &[Descriptor { address: u64::MAX, len: 1, ..Default::default() }]);
    driver.kick(0);
    driver.wait_for("a fault", || told.load(SeqCst) == 1);
    assert!(driver.is_broken());
}

#[test]
fn a_head_that_is_in_flight_cannot_come_again() {
    let mut driver = Driver::new(parts());
    driver.start();
    let head = driver.post(0, &[1], 1);
    driver.offer(0, head);
    driver.kick(0);
    driver.wait_for("a fault", || driver.is_broken());
    assert!(driver.poll(0).is_none(), "the request was answered all the same");
}

#[test]
fn a_chain_without_an_end_needs_a_reset() {
    let mut driver = Driver::new(parts());
    let bad = |flags, next, len| Descriptor { address: 0x2000, len, flags, next };
    let cases = [
        ("a loop", bad(Descriptor::NEXT, 0, 1)),
        ("a next entry outside the table", bad(Descriptor::NEXT, 8, 1)),
        ("an indirect table of zeroes that ends too late", bad(Descriptor::INDIRECT, 0, 17)),
        ("an empty indirect table", bad(Descriptor::INDIRECT, 0, 0)),
        ("an indirect table in an indirect table", bad(Descriptor::INDIRECT, 0, 16)),
    ];
    for (name, last) in cases {
        driver.reset();
        driver.start();
        let inner = Descriptor { address: 0x2000, len: 16, flags: Descriptor::INDIRECT, next: 0 };
        vm_memory::Bytes::write_slice(&*driver.ram, &inner.bytes(), vm_memory::GuestAddress(0x2000)).unwrap();
        driver.post_chain(0, &[last]);
        driver.kick(0);
        driver.wait_for(name, || driver.is_broken());
    }
    driver.reset();
    driver.start();
    io(&mut driver);
}

struct Nobody;

impl orlop_pci::MsiSink for Nobody {
    fn signal(&self, _: u64, _: u32) {}
}

fn build(parts: Parts, hook: orlop_virtio::ThreadHook) -> Result<Arc<VirtioPci>, BuildError> {
    let ram = Arc::new(Ram::from_ranges(&[(vm_memory::GuestAddress(0), 4096)]).unwrap());
    VirtioPci::new(parts, Platform { ram, msi: Arc::new(Nobody), hook, bar_address: 0x10_0000 })
}

#[test]
fn sets_that_do_not_hold_each_queue_once_are_refused() {
    for (a, b) in [(vec![0, 1], vec![]), (vec![0, 1, 2], vec![2]), (vec![0, 1], vec![3])] {
        let mut parts = parts();
        parts.sets[0].queues = a;
        parts.sets[1].queues = b;
        assert!(matches!(build(parts, Arc::new(|_| ())), Err(BuildError::Queues { queues: 3 })));
    }
}

#[test]
fn a_hook_that_fails_is_an_error() {
    let hook = Arc::new(|_: &str| panic!("no filter to be had"));
    assert!(matches!(build(parts(), hook), Err(BuildError::Worker(_))));
}

#[test]
fn the_hook_runs_on_every_thread_before_the_device_exists() {
    let names = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let hook = move |kind: &str| {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        seen.lock().unwrap().push((kind.to_owned(), thread));
    };
    build(parts(), Arc::new(hook)).unwrap();
    let expected = ["echo-a", "echo-b"].map(|name| ("virtio-rng".to_owned(), name.to_owned()));
    assert_eq!(*names.lock().unwrap(), expected);
}
