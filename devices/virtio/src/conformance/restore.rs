//! Saved state: complete, the same every time, and hostile when it is read.

use orlop_pci::Function;
use orlop_state::Record;

use super::{Bench, Fixture, Make};

/// A device that was saved continues in another one as if nothing had happened; saving it there gives the same bytes.
pub fn save_restore_save_gives_the_same_bytes_and_io_goes_on(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    for _ in 0..3 {
        (0..5).for_each(|_| bench.io());
        assert!(bench.driver.function.save().is_err(), "a device was saved while it works");
        bench.driver.function.pause();
        let saved = bench.driver.function.save().unwrap();
        assert_eq!(saved, bench.driver.function.save().unwrap(), "saving twice gives different bytes");
        let Fixture { parts, setup, io } = make();
        bench = Bench { driver: bench.driver.replug(parts), setup, io };
        bench.driver.function.restore(&saved).unwrap();
        assert_eq!(saved, bench.driver.function.save().unwrap());
        bench.driver.function.resume();
        (0..5).for_each(|_| bench.io());
    }
    assert_eq!(bench.driver.function.inspect().faults, 0);
}

/// At every step of its initialisation a device can be saved and restored.
pub fn a_state_is_saved_and_restored_in_every_status(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let features = bench.driver.offered();
    let steps: [&dyn Fn(&mut Bench); 6] = [
        &|_| (),
        &|b| assert_eq!(b.driver.set_status(1), 1),
        &|b| assert_eq!(b.driver.set_status(3), 3),
        &|b| {
            b.driver.set_features(features);
            assert_eq!(b.driver.set_status(0xb), 0xb);
        },
        &|b| b.driver.set_up_queues(),
        &|b| {
            b.driver.enable_interrupts();
            assert_eq!(b.driver.set_status(0xf), 0xf);
        },
    ];
    for step in steps {
        step(&mut bench);
        bench.driver.function.pause();
        let saved = bench.driver.function.save().unwrap();
        let Fixture { parts, setup, io } = make();
        bench = Bench { driver: bench.driver.replug(parts), setup, io };
        bench.driver.function.restore(&saved).unwrap();
        assert_eq!(saved, bench.driver.function.save().unwrap());
        bench.driver.function.resume();
    }
    (bench.setup)(&mut bench.driver);
    bench.io();
}

/// Every byte of a saved state, changed in several ways: it is refused, or what comes of it can be started, stopped
/// and reset. Records that are missing, doubled or of another device are refused.
pub fn a_mutated_state_is_refused_or_gives_a_working_device(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    bench.io();
    bench.driver.function.pause();
    let saved = bench.driver.function.save().unwrap();
    let function = bench.driver.function.clone();
    let try_out = |records: &[Record]| match function.restore(records) {
        Ok(()) => {
            function.resume();
            function.pause();
            let again = function.save().unwrap();
            assert_eq!(again.len(), records.len());
        }
        Err(_) => assert_eq!(function.inspect().status, 0, "a refused state left something behind"),
    };
    for (number, record) in saved.iter().enumerate() {
        for at in 0..record.body.len() {
            for flip in [0x01, 0x02, 0x10, 0x40, 0x80, 0xff] {
                let mut records = saved.clone();
                records[number].body[at] ^= flip;
                try_out(&records);
            }
        }
        for len in 0..record.body.len() {
            let mut records = saved.clone();
            records[number].body.truncate(len);
            assert!(function.restore(&records).is_err(), "a state cut to {len} bytes was taken");
        }
    }
    for wrong in [&saved[..0], &saved[..1], &saved[1..], &[saved.clone(), saved.clone()].concat()] {
        assert!(function.restore(wrong).is_err(), "{} records were taken", wrong.len());
    }
    let swapped: Vec<Record> = saved.iter().rev().cloned().collect();
    assert!(function.restore(&swapped).is_err(), "records in the wrong order were taken");
    function.reset();
    bench.works();
}
