//! Power-on, negotiation, serving, pausing, interrupts.

use orlop_pci::Function;
use vm_memory::{Bytes, GuestAddress};

use super::{Bench, Driver, Make};
use crate::layout;

/// Everything of the common configuration that the driver can see, queue by queue.
fn picture(driver: &Driver) -> Vec<[u8; 64]> {
    driver.set_common(0, &[0; 4]);
    driver.set_common(8, &[0; 4]);
    let queues = 0..driver.queue_count();
    let all = queues.map(|queue| {
        driver.select(queue);
        let mut image: [u8; 64] = driver.common(0);
        image[0x15] = 0; // the generation goes on across resets
        image
    });
    all.collect()
}

/// Writing status zero gives the state after power-on, wherever the driver was.
pub fn reset_gives_the_power_on_state(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let before = (picture(&bench.driver), bench.driver.device_config::<64>(0));
    bench.works();
    bench.driver.reset();
    let after = (picture(&bench.driver), bench.driver.device_config::<64>(0));
    assert_eq!(before, after);
    bench.works();
}

/// A machine reset does the same and more: configuration space and MSI-X are as after power-on.
pub fn a_machine_reset_gives_the_power_on_state(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let space = |driver: &Driver| (driver.config::<256>(0), driver.bar::<64>(layout::TABLE));
    let before = (picture(&bench.driver), space(&bench.driver));
    bench.works();
    bench.driver.function.pause();
    bench.driver.function.reset();
    assert_eq!(before, (picture(&bench.driver), space(&bench.driver)));
    bench.works();
}

/// Vendor, device id, revision, one capability of each kind, structures inside the BAR and apart from each other.
pub fn it_looks_like_a_modern_device(make: Make<'_>) {
    let driver = Bench::power_on(make).driver;
    let device_type = driver.function.inspect().device_type as u16;
    assert_eq!(driver.config::<2>(0), 0x1af4u16.to_le_bytes());
    assert_eq!(driver.config::<2>(2), (0x1040 + device_type).to_le_bytes());
    assert!(driver.config::<1>(8)[0] >= 1, "a transitional revision");
    assert_eq!(driver.config::<1>(0x3d), [0], "an interrupt pin, but interrupts are messages");
    let mut places: Vec<(u64, u64)> = [1, 2, 3, 4]
        .map(|kind| driver.structure(kind))
        .map(|(offset, len)| (offset, offset + u64::from(len)))
        .to_vec();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "structures overlap: {places:x?}");
    assert!(places.iter().all(|(_, end)| *end <= layout::BAR_BYTES));
    assert!(driver.capability(|id, body| id == 9 && body[3] == 5).is_some(), "no access capability");
    // Size probing (PCI 3.0 §6.2.5.1).
    let address: [u8; 8] = driver.config(0x10);
    driver.set_config(0x10, &[0xff; 4]);
    driver.set_config(0x14, &[0xff; 4]);
    assert_eq!(u64::from_le_bytes(driver.config(0x10)), !(layout::BAR_BYTES - 1) | 4);
    driver.set_config(0x10, &address);
    assert_eq!(driver.config::<8>(0x10), address);
}

/// Features can be written from DRIVER to FEATURES_OK only.
pub fn features_are_agreed_on_once(make: Make<'_>) {
    let driver = Bench::power_on(make).driver;
    let offered = driver.offered();
    let accepted = |driver: &Driver| {
        driver.set_common(8, &1u32.to_le_bytes());
        u32::from_le_bytes(driver.common(0xc))
    };
    driver.set_features(offered);
    assert_eq!(accepted(&driver), 0, "features were taken before there was a driver");
    driver.set_status(1);
    driver.set_status(3);
    driver.set_features(offered);
    assert_eq!(driver.set_status(0xb), 0xb);
    driver.set_features(0);
    assert_eq!(accepted(&driver), (offered >> 32) as u32, "features changed after they were agreed on");
    assert_eq!(driver.function.inspect().features, offered);
}

/// A bit that was not offered, or VERSION_1 missing: FEATURES_OK does not stick, and a second try can.
pub fn features_that_are_not_offered_are_refused(make: Make<'_>) {
    let driver = Bench::power_on(make).driver;
    let offered = driver.offered();
    assert_ne!(offered & 1 << 32, 0, "VERSION_1 is not offered");
    driver.set_status(1);
    driver.set_status(3);
    for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
        driver.set_features(offered | 1 << bit);
        assert_eq!(driver.set_status(0xb), 3, "feature {bit} is not offered");
    }
    driver.set_features(offered & !(1 << 32));
    assert_eq!(driver.set_status(0xb), 3, "a driver without VERSION_1");
    assert_eq!(driver.set_status(0xf), 3, "DRIVER_OK without FEATURES_OK");
    driver.set_features(1 << 32);
    assert_eq!(driver.set_status(0xb), 0xb, "a driver that wants nothing else");
}

/// Requests are served, with event indices and indirect descriptors agreed on and without.
pub fn requests_are_served(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    (0..20).for_each(|_| bench.io());
    let without = bench.driver.offered() & !(1 << 28 | 1 << 29);
    bench.driver.reset();
    bench.driver.start_with(without);
    (bench.setup)(&mut bench.driver);
    (0..20).for_each(|_| bench.io());
    assert_eq!(bench.driver.function.inspect().faults, 0);
}

/// The whole of guest memory.
fn memory(driver: &Driver) -> Vec<u8> {
    let mut all = vec![0; (super::driver::HOLE + super::driver::UPPER_BYTES) as usize];
    let (lower, upper) = all.split_at_mut(super::driver::HOLE as usize);
    driver.ram.read_slice(lower, GuestAddress(0)).unwrap();
    driver.ram.read_slice(upper, GuestAddress(super::driver::UPPER)).unwrap();
    all
}

/// After a pause, and after a reset, guest memory stays as it is, whatever is kicked.
pub fn stop_returns_the_queues_and_nothing_touches_memory_afterwards(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    bench.io();
    let untouched = |driver: &Driver, when: &str| {
        let (before, interrupts) = (memory(driver), driver.messages.total());
        for _ in 0..200 {
            (0..driver.queue_count()).for_each(|queue| driver.kick(queue));
            std::thread::yield_now();
        }
        assert!(before == memory(driver), "memory changed after the {when}");
        assert_eq!(interrupts, driver.messages.total(), "an interrupt came after the {when}");
    };
    bench.driver.function.pause();
    assert!(bench.driver.function.inspect().queues.iter().all(|q| q.next_avail == q.next_used));
    untouched(&bench.driver, "pause");
    bench.driver.function.resume();
    bench.io();
    bench.driver.set_status(0);
    untouched(&bench.driver, "reset");
    bench.works();
}

/// Pausing and resuming at any moment, again and again, loses nothing.
pub fn pause_and_resume_lose_no_request(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    let function = bench.driver.function.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pauses = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                function.pause();
                function.resume();
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..100).for_each(|_| bench.io());
        }));
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        pauses.join().unwrap();
        if let Err(verdict) = result {
            std::panic::resume_unwind(verdict);
        }
    });
    assert_eq!(bench.driver.function.inspect().faults, 0);
}

/// A notification that a pause swallows is made up for: a resume looks at every queue.
pub fn a_resume_looks_at_every_queue(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    bench.io();
    for _ in 0..3 {
        let function = bench.driver.function.clone();
        function.pause();
        let swallowed = bench.driver.intercept_kick();
        let resumed = std::thread::spawn(move || {
            // A request may begin with something that only a running device does.
            let _ = swallowed.recv_timeout(std::time::Duration::from_secs(1));
            drop(swallowed);
            function.resume();
        });
        bench.io();
        resumed.join().unwrap();
    }
}

/// A driver, or several vCPUs, that notify without end do not keep the device from its work.
pub fn a_flood_of_kicks_leaves_the_device_alive(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    let function = bench.driver.function.clone();
    let queues = u64::from(bench.driver.queue_count());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                for queue in 0..queues {
                    let place = layout::NOTIFY + queue * u64::from(layout::NOTIFY_MULTIPLIER);
                    function.bar_write(layout::BAR, place, &[0, 0]);
                }
                std::thread::yield_now();
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..50).for_each(|_| bench.io());
        }));
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        flood.join().unwrap();
        if let Err(verdict) = result {
            std::panic::resume_unwind(verdict);
        }
    });
}

/// What is signalled while everything is masked waits as a pending bit and goes out on unmasking, once.
pub fn unmasking_replays_what_is_pending(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    bench.io();
    bench.driver.settle();
    bench.driver.set_msix_control(1 << 15 | 1 << 14);
    let before = bench.driver.messages.total();
    bench.io();
    bench.driver.settle();
    assert_eq!(bench.driver.messages.total(), before, "a masked vector sent a message");
    let pending =
        |driver: &Driver| -> u32 { driver.bar::<64>(layout::PBA).iter().map(|byte| byte.count_ones()).sum() };
    let waiting = pending(&bench.driver);
    assert!(waiting > 0, "nothing is pending after a request");
    bench.driver.set_msix_control(1 << 15);
    assert_eq!(bench.driver.messages.total(), before + u64::from(waiting));
    assert_eq!(pending(&bench.driver), 0);
    bench.io();
}
