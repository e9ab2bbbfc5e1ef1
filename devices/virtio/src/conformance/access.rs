//! Accesses that no driver makes: odd sizes and places, numbers out of range, the wrong time.
//!
//! Cases from the field: CVE-2026-5747 (queue registers writable after activation), unchecked queue and vector numbers, odd-size
//! and misaligned accesses.

use std::panic::AssertUnwindSafe;

use orlop_pci::Function;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Bench, Driver, Make};
use crate::layout;

/// Reads and writes of 1 to 8 bytes at every offset of configuration space and BAR, with any status.
pub fn accesses_of_any_size_and_place_are_survived(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    let function = bench.driver.function.clone();
    let mut data = [0u8; 8];
    for size in 1..=8 {
        for offset in 0..layout::BAR_BYTES + 16 {
            function.bar_read(layout::BAR, offset, &mut data[..size]);
        }
        for bar in [1, 5, 6, 255] {
            function.bar_read(bar, 0, &mut data[..size]);
            function.bar_write(bar, 0, &data[..size]);
        }
        for offset in (0..4096).chain([4096, u16::MAX]) {
            function.config_read(offset, &mut data[..size]);
        }
    }
    for pattern in [0u8, 0xff, 0x5a, 0x01] {
        for size in 1..=8 {
            for offset in 0..layout::BAR_BYTES + 16 {
                function.bar_write(layout::BAR, offset, &[pattern; 8][..size]);
            }
            for offset in (0..4096).chain([4096, u16::MAX]) {
                function.config_write(offset, &[pattern; 8][..size]);
            }
        }
    }
    for offset in [u64::MAX, u64::MAX - 7, 1 << 63, u64::from(u32::MAX)] {
        function.bar_read(layout::BAR, offset, &mut data);
        function.bar_write(layout::BAR, offset, &data);
    }
    function.reset();
    bench.works();
}

/// Size, addresses and enable bit of every queue.
fn queues(driver: &Driver) -> Vec<([u8; 2], [u8; 2], [u8; 24])> {
    let all = (0..driver.queue_count()).map(|queue| {
        driver.select(queue);
        (driver.common(0x18), driver.common(0x1c), driver.common(0x20))
    });
    all.collect()
}

/// Writes something else into every register of every queue, in every width.
fn scribble(driver: &Driver) {
    for queue in 0..driver.queue_count() {
        driver.select(queue);
        for offset in 0x18..0x3c {
            for (size, value) in [(1, 1u64), (2, 2), (2, 0), (4, 0x7fff_0000), (8, u64::MAX), (2, 0xffff)] {
                if !(0x1a..0x1c).contains(&offset) {
                    driver.set_common(offset, &value.to_le_bytes()[..size]);
                }
            }
        }
    }
}

/// Queue registers change between FEATURES_OK and DRIVER_OK, until the queue is enabled, and at no other time.
pub fn queues_change_only_while_they_are_set_up(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let features = bench.driver.offered();
    let unchanged = |driver: &Driver| {
        let before = queues(driver);
        scribble(driver);
        assert_eq!(before, queues(driver), "status {:#x}", driver.status());
    };
    for status in [0, 1, 3, 0x83] {
        bench.driver.set_status(status);
        unchanged(&bench.driver);
    }
    bench.driver.reset();
    bench.driver.agree(features);
    for size in [0u16, 3, 0x8001, u16::MAX] {
        let before = bench.driver.select(0);
        bench.driver.set_common(0x18, &size.to_le_bytes());
        assert_eq!(bench.driver.select(0), before, "size {size} was taken");
    }
    let largest = bench.driver.select(0);
    if largest < 0x8000 {
        bench.driver.set_common(0x18, &(largest * 2).to_le_bytes());
        assert_eq!(bench.driver.select(0), largest, "a size above the largest was taken");
    }
    bench.driver.set_up_queues();
    unchanged(&bench.driver);
    bench.driver.set_status(0xf);
    unchanged(&bench.driver);
    (bench.setup)(&mut bench.driver);
    bench.io();
    unchanged(&bench.driver);
    bench.driver.set_status(0x8f);
    unchanged(&bench.driver);
    bench.works();
}

/// Queue numbers and vectors that do not exist read as nothing, and using them does nothing.
pub fn queue_and_vector_numbers_out_of_range_are_harmless(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    let count = bench.driver.queue_count();
    for queue in [count, count + 1, 0x7fff, u16::MAX] {
        assert_eq!(bench.driver.select(queue), 0, "queue {queue} has a size");
        scribble(&bench.driver);
        bench.driver.select(queue);
        assert_eq!(bench.driver.common::<2>(0x1c), [0; 2]);
        bench.driver.set_common(0x1a, &0u16.to_le_bytes());
        assert_eq!(bench.driver.common::<2>(0x1a), [0xff; 2], "queue {queue} has a vector");
        let place = layout::NOTIFY + u64::from(queue) * u64::from(layout::NOTIFY_MULTIPLIER);
        bench.driver.set_bar(place, &[0; 2]);
    }
    for vector in [count + 1, 0x7ff, 0x800, 0xfffe, u16::MAX] {
        bench.driver.set_common(0x10, &vector.to_le_bytes());
        assert_eq!(bench.driver.common::<2>(0x10), [0xff; 2], "vector {vector} was taken");
        for queue in 0..count {
            bench.driver.select(queue);
            bench.driver.set_common(0x1a, &vector.to_le_bytes());
            assert_eq!(bench.driver.common::<2>(0x1a), [0xff; 2], "vector {vector} was taken");
        }
    }
    // Without any vector requests are served all the same.
    bench.io();
    bench.works();
}

/// The access capability reaches aligned 1, 2 or 4 bytes inside the BAR, and nothing else (virtio 1.3 §4.1.4.9).
pub fn the_access_capability_reaches_only_the_bar(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let driver = &bench.driver;
    let at = driver.capability(|id, body| id == 9 && body[3] == 5).unwrap();
    let point = |bar: u8, offset: u32, len: u32| {
        driver.set_config(at + 4, &[bar]);
        driver.set_config(at + 8, &offset.to_le_bytes());
        driver.set_config(at + 12, &len.to_le_bytes());
    };
    let (common, _) = driver.structure(1);
    point(0, common as u32 + 0x12, 2);
    let queues: [u8; 2] = driver.config(at + 16);
    assert_eq!(u16::from_le_bytes(queues), driver.queue_count());
    point(0, common as u32 + 0x14, 1);
    driver.set_config(at + 16, &[1]);
    assert_eq!(driver.status(), 1);
    // What it must not reach, each time with the status register in reach.
    let status = common as u32 + 0x14;
    for (bar, offset, len) in [
        (1, status, 1),
        (255, status, 1),
        (0, status - 1, 2),
        (0, status - 2, 4),
        (0, status, 3),
        (0, status, 8),
    ] {
        point(bar, offset, len);
        driver.set_config(at + 16, &[0; 4]);
        assert_eq!(driver.status(), 1, "{len} bytes at {offset:#x} of BAR {bar}");
    }
    let end = layout::BAR_BYTES as u32;
    let bars = [0, 1, 5, 255];
    let offsets = [0, 1, 2, 3, 0x14, end - 1, end - 2, end - 4, end, u32::MAX, u32::MAX - 3];
    for (bar, offset, len) in bars.iter().flat_map(|bar| {
        offsets.iter().flat_map(move |offset| {
            [0, 1, 2, 3, 4, 5, 8, 0x8000, u32::MAX].map(move |len| (*bar, *offset, len))
        })
    }) {
        point(bar, offset, len);
        for within in 0..4 {
            driver.set_config(at + 16 + within, &[0x0b; 4]);
            let _: [u8; 4] = driver.config(at + 16 + within);
        }
    }
    bench.works();
}

/// One thing that a guest does.
#[derive(Debug, Clone)]
enum Deed {
    Common(u64, Vec<u8>),
    Bar(u64, Vec<u8>),
    Config(u16, Vec<u8>),
    Kick(u16),
    Status(u8),
    Pause,
}

fn deed() -> impl Strategy<Value = Deed> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..=8);
    let statuses = prop::sample::select(vec![0, 1, 3, 0xb, 0xf, 0xf, 0x8f, 0x4f]);
    prop_oneof![
        6 => (0u64..0x40, bytes()).prop_map(|(at, data)| Deed::Common(at, data)),
        2 => (0..layout::BAR_BYTES, bytes()).prop_map(|(at, data)| Deed::Bar(at, data)),
        1 => (0u16..256, bytes()).prop_map(|(at, data)| Deed::Config(at, data)),
        2 => any::<u16>().prop_map(Deed::Kick),
        3 => statuses.prop_map(Deed::Status),
        1 => Just(Deed::Pause),
    ]
}

/// Any sequence of writes, kicks, status changes and pauses leaves a device that a reset makes work.
pub fn random_programming_is_survived(make: Make<'_>) {
    let bench = std::cell::RefCell::new(Bench::ready(make));
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let sequences = prop::collection::vec(deed(), 1..60);
    let verdict = TestRunner::new(config).run(&sequences, |deeds| {
        let mut bench = bench.borrow_mut();
        for deed in deeds {
            let driver = &bench.driver;
            match deed {
                Deed::Common(at, data) => driver.set_common(at, &data),
                Deed::Bar(at, data) => driver.set_bar(at, &data),
                Deed::Config(at, data) => driver.set_config(at, &data),
                Deed::Kick(queue) => driver.set_bar(layout::NOTIFY + u64::from(queue) * 4, &[0]),
                Deed::Status(status) => driver.set_common(0x14, &[status]),
                Deed::Pause => driver.settle(),
            }
        }
        bench.driver.function.reset();
        std::panic::catch_unwind(AssertUnwindSafe(|| bench.works()))
            .map_err(|_| TestCaseError::fail("the device does not work after a reset"))
    });
    verdict.unwrap();
}
