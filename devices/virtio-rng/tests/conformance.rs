//! The entropy device as a guest sees it.

use std::time::{Duration, Instant};

use orlop_virtio::Parts;
use orlop_virtio::conformance::{Descriptor, Driver, Fixture};
use orlop_virtio::rate::RateLimit;
use orlop_virtio_rng::{Config, REQUEST_MAX_BYTES, build};

fn parts(limit: Option<RateLimit>) -> Parts {
    build(Config { name: "rng0".into(), limit }).unwrap()
}

fn io(driver: &mut Driver) {
    let used = driver.request(0, &[], 64);
    assert_eq!(used.written, 64);
    assert_ne!(used.data, [0; 64], "64 zero bytes in a row are no accident");
}

orlop_virtio::conformance_suite!(|| Fixture::new(parts(None), io));

mod limited {
    use super::*;

    // As fast as the suite needs it, but slow enough that requests wait.
    const LIMIT: RateLimit = RateLimit { per_second: 100_000, burst: Some(64) };

    orlop_virtio::conformance_suite!(|| Fixture::new(parts(Some(LIMIT)), io));
}

fn counter(driver: &Driver, name: &str) -> u64 {
    let counters = driver.function.inspect().counters;
    counters.iter().find(|(n, _)| *n == name).unwrap().1
}

#[test]
fn bytes_differ_from_request_to_request() {
    let mut driver = Driver::new(parts(None));
    driver.start();
    let first = driver.request(0, &[], 4096).data;
    assert_ne!(first, driver.request(0, &[], 4096).data);
    assert_eq!(counter(&driver, "entropy_bytes"), 8192);
}

#[test]
fn a_huge_request_gets_a_bounded_answer() {
    let mut driver = Driver::new(parts(None));
    driver.start();
    let used = driver.request(0, &[], 1 << 20);
    assert_eq!(used.written, REQUEST_MAX_BYTES);
    assert!(used.data[REQUEST_MAX_BYTES..].iter().all(|byte| *byte == 0), "written beyond what was said");
}

#[test]
fn a_request_without_room_is_returned_and_counted() {
    let mut driver = Driver::new(parts(None));
    driver.start();
    assert_eq!(driver.request(0, &[1, 2, 3], 0).written, 0);
    assert_eq!(counter(&driver, "failed_requests"), 1);
    io(&mut driver);
}

#[test]
fn a_buffer_in_pieces_is_filled_in_all_of_them() {
    let mut driver = Driver::new(parts(None));
    driver.start();
    let pieces: Vec<Descriptor> = [1usize, 300, 7, 256]
        .map(|len| {
            let address = driver.buffer(&vec![0; len]);
            Descriptor { address, len: len as u32, flags: Descriptor::WRITE, next: 0 }
        })
        .to_vec();
    driver.post_chain(0, &pieces);
    driver.kick(0);
    let used = driver.wait(0);
    assert_eq!(used.written, 564);
    assert_ne!(used.data[564 - 32..], [0; 32]);
}

#[test]
fn the_limit_holds_and_nothing_is_lost() {
    let limit = RateLimit { per_second: 20_000, burst: Some(1000) };
    let mut driver = Driver::new(parts(Some(limit)));
    driver.start();
    let start = Instant::now();
    (0..5).for_each(|_| drop(driver.request(0, &[], 1000)));
    // 5000 bytes, of which 1000 are saved up.
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(counter(&driver, "throttled_requests") >= 4);
    assert_eq!(counter(&driver, "entropy_bytes"), 5000);
}
