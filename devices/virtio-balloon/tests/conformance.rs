//! The balloon as a guest and a host see it.

use orlop_pci::Function;
use orlop_virtio::Parts;
use orlop_virtio::conformance::{Descriptor, Driver, Fixture};
use orlop_virtio_balloon::{Config, Handle, PAGE_BYTES, Statistics, build};
use vm_memory::{Bytes, GuestAddress};

/// A page of the driver's upper region.
const PAGE: u64 = 36 << 20;
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
const REPORTING: u16 = 3;

fn balloon(free_page_reporting: bool) -> (Parts, Handle) {
    let name = "balloon0".into();
    build(Config { name, target_bytes: 1 << 20, deflate_on_oom: true, free_page_reporting }).unwrap()
}

/// A driver that is ready, and the host's handle.
fn ready() -> (Driver, Handle) {
    let (parts, handle) = balloon(true);
    let mut driver = Driver::new(parts);
    driver.start();
    (driver, handle)
}

fn pfn(address: u64) -> [u8; 4] {
    u32::try_from(address / PAGE_BYTES).unwrap().to_le_bytes()
}

fn fill(driver: &Driver, address: u64, pages: usize) {
    driver.ram.write_slice(&vec![0xaa; pages * PAGE_BYTES as usize], GuestAddress(address)).unwrap();
}

/// The first byte of the page at `address`.
fn byte(driver: &Driver, address: u64) -> u8 {
    driver.ram.read_obj(GuestAddress(address)).unwrap()
}

fn counter(driver: &Driver, name: &str) -> u64 {
    let counters = driver.function.inspect().counters;
    counters.iter().find(|(n, _)| *n == name).unwrap().1
}

fn io(driver: &mut Driver) {
    fill(driver, PAGE, 1);
    driver.request(INFLATE, &pfn(PAGE), 0);
    assert_eq!(byte(driver, PAGE), 0, "the page is still there");
    driver.request(DEFLATE, &pfn(PAGE), 0);
}

orlop_virtio::conformance_suite!(|| Fixture::new(balloon(true).0, io));

mod with_statistics_held {
    use super::*;

    fn offer_statistics(driver: &mut Driver) {
        driver.post(STATS, &[0; 20], 0);
        driver.kick(STATS);
    }

    orlop_virtio::conformance_suite!(|| Fixture::new(balloon(false).0, io).with_setup(offer_statistics));
}

#[test]
fn the_offered_features_follow_the_configuration() {
    for (oom, reporting, bits) in [(false, false, 0b10), (true, false, 0b110), (true, true, 0b100110)] {
        let config =
            Config { name: "b".into(), target_bytes: 0, deflate_on_oom: oom, free_page_reporting: reporting };
        let driver = Driver::new(build(config).unwrap().0);
        assert_eq!(driver.offered() & 0xff_ffff, bits);
        assert_eq!(driver.queue_count(), 3 + u16::from(reporting));
    }
}

#[test]
fn the_guest_is_told_of_a_new_target() {
    let (driver, handle) = ready();
    assert_eq!(driver.device_config::<4>(0), 256u32.to_le_bytes());
    driver.settle();
    let (told, generation) = (driver.messages.count(0), driver.common::<1>(0x15));
    handle.set_target_bytes((4 << 20) + 4095).unwrap();
    driver.wait_for("the configuration interrupt", || driver.messages.count(0) > told);
    assert_eq!(driver.device_config::<4>(0), 1024u32.to_le_bytes());
    assert_ne!(driver.common::<1>(0x15), generation);
    assert_eq!(handle.target_bytes(), 4 << 20);
    assert_eq!(handle.actual_bytes(), 0);
    driver.set_device_config(4, &1000u32.to_le_bytes());
    assert_eq!(handle.actual_bytes(), 1000 * PAGE_BYTES);
    assert!(handle.set_target_bytes(u64::MAX).is_err());
    assert_eq!(handle.target_bytes(), 4 << 20);
}

#[test]
fn the_target_cannot_be_written_by_the_guest() {
    let (driver, handle) = ready();
    driver.set_device_config(0, &[0; 4]);
    driver.set_device_config(0, &[0; 8]);
    driver.set_device_config(2, &[0xff; 4]);
    assert_eq!((handle.target_bytes(), handle.actual_bytes()), (1 << 20, 0));
}

#[test]
fn a_target_set_while_nobody_listens_is_told_once_a_driver_is_ready() {
    let (parts, handle) = balloon(true);
    let mut driver = Driver::new(parts);
    handle.set_target_bytes(8 << 20).unwrap();
    driver.start();
    driver.wait_for("the configuration interrupt", || driver.messages.count(0) > 0);
    assert_eq!(driver.device_config::<4>(0), 2048u32.to_le_bytes());
}

#[test]
fn many_pages_in_any_order_go_back_and_no_others() {
    let (mut driver, _) = ready();
    fill(&driver, PAGE - PAGE_BYTES, 302);
    let numbers: Vec<u8> = (0..300).rev().flat_map(|page| pfn(PAGE + page * PAGE_BYTES)).collect();
    // A buffer in pieces that cut page numbers in two.
    let address = driver.buffer(&numbers);
    let cuts = [0, 1, 402, 1200];
    let parts: Vec<Descriptor> = cuts
        .windows(2)
        .map(|cut| Descriptor {
            address: address + cut[0],
            len: (cut[1] - cut[0]) as u32,
            ..Default::default()
        })
        .collect();
    driver.post_chain(INFLATE, &parts);
    driver.kick(INFLATE);
    driver.wait(INFLATE);
    assert_eq!(counter(&driver, "inflated_pages"), 300);
    assert!((0..300).all(|page| byte(&driver, PAGE + page * PAGE_BYTES) == 0));
    assert_eq!(byte(&driver, PAGE - 1), 0xaa);
    assert_eq!(byte(&driver, PAGE + 300 * PAGE_BYTES), 0xaa);
}

#[test]
fn page_numbers_outside_memory_are_counted_and_harmless() {
    let (mut driver, _) = ready();
    fill(&driver, PAGE, 1);
    let bad: Vec<u8> = [u64::from(u32::MAX), (20 << 20) / PAGE_BYTES, PAGE / PAGE_BYTES]
        .iter()
        .flat_map(|pfn| (*pfn as u32).to_le_bytes())
        .chain([1, 2, 3])
        .collect();
    driver.request(INFLATE, &bad, 0);
    assert_eq!((counter(&driver, "bad_pages"), counter(&driver, "inflated_pages")), (2, 1));
    assert!(!driver.is_broken());
}

#[test]
fn the_rings_of_the_balloon_itself_can_be_given_away() {
    let (mut driver, _) = ready();
    // The guest's own rings lie in the first MiB; they become zero and the guest sees what it asked for.
    let all: Vec<u8> = (0..256u32).flat_map(u32::to_le_bytes).collect();
    driver.post(INFLATE, &all, 0);
    driver.kick(INFLATE);
    driver.settle();
    driver.reset();
    driver.start();
    io(&mut driver);
}

#[test]
fn a_request_of_too_many_pages_is_cut() {
    let (mut driver, _) = ready();
    let many: Vec<u8> = (0..70_000u32).flat_map(|_| pfn(PAGE)).collect();
    driver.request(INFLATE, &many, 0);
    assert_eq!(counter(&driver, "bad_pages"), 70_000 - 65_536);
}

fn statistics(free_bytes: u64, oom_kills: u64) -> Vec<u8> {
    let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    [entry(4, free_bytes), entry(10, oom_kills), entry(999, 1)].concat()
}

#[test]
fn statistics_come_when_the_host_asks() {
    let (mut driver, handle) = ready();
    assert_eq!(handle.stats(), None);
    driver.post(STATS, &statistics(1 << 30, 0), 0);
    driver.kick(STATS);
    driver.wait_for("the first statistics", || handle.stats().is_some());
    driver.settle();
    assert!(driver.poll(STATS).is_none(), "the buffer came back though nobody asked");
    handle.request_stats();
    driver.wait(STATS);
    let before = handle.stats().unwrap();
    driver.post(STATS, &statistics(5, 7), 0);
    driver.kick(STATS);
    driver.wait_for("new statistics", || handle.stats().unwrap().update > before.update);
    let update = handle.stats().unwrap().update;
    let expected = Statistics { update, free_bytes: Some(5), oom_kills: Some(7), ..Statistics::default() };
    assert_eq!(handle.stats(), Some(expected));
}

#[test]
fn a_wish_for_statistics_waits_for_a_driver() {
    let (parts, handle) = balloon(false);
    let mut driver = Driver::new(parts);
    handle.request_stats();
    driver.start();
    driver.post(STATS, &statistics(1, 2), 0);
    driver.kick(STATS);
    driver.wait(STATS);
    assert_eq!(handle.stats().unwrap().free_bytes, Some(1));
    driver.reset();
    assert_eq!(handle.stats(), None, "statistics of a driver that is gone");
}

#[test]
fn the_statistics_buffer_survives_a_snapshot() {
    let (mut driver, _) = ready();
    driver.post(STATS, &statistics(1, 2), 0);
    driver.kick(STATS);
    driver.settle();
    driver.function.pause();
    let saved = driver.function.save().unwrap();
    let (parts, handle) = balloon(true);
    let mut driver = driver.replug(parts);
    driver.function.restore(&saved).unwrap();
    handle.request_stats();
    driver.function.resume();
    driver.wait(STATS);
    assert_eq!(handle.stats().unwrap().free_bytes, Some(1));
    assert_eq!(handle.target_bytes(), 1 << 20);
}

fn report(driver: &mut Driver, queue: u16, ranges: &[(u64, u32)]) {
    let parts: Vec<Descriptor> = ranges
        .iter()
        .map(|(address, len)| Descriptor { address: *address, len: *len, flags: Descriptor::WRITE, next: 0 })
        .collect();
    driver.post_chain(queue, &parts);
    driver.kick(queue);
    assert_eq!(driver.wait(queue).written, 0);
}

#[test]
fn reported_free_pages_go_back_to_the_host() {
    let (mut driver, _) = ready();
    fill(&driver, 32 << 20, 2048);
    report(&mut driver, REPORTING, &[(32 << 20, 2 << 20), (34 << 20, 4096), ((37 << 20) + 1, 8191)]);
    assert_eq!(counter(&driver, "reported_bytes"), (2 << 20) + 4096 + 4096);
    assert_eq!([32 << 20, 33 << 20, 34 << 20, (37 << 20) + 4096].map(|at| byte(&driver, at)), [0; 4]);
    // A page that was not reported, one that was not whole, and the one behind it.
    let kept = [(34 << 20) + 4096, 37 << 20, (37 << 20) + 8192];
    assert_eq!(kept.map(|at| byte(&driver, at)), [0xaa; 3]);
    assert!(!driver.is_broken());
}

#[test]
fn a_report_may_name_more_than_a_request_may_move() {
    let (mut driver, _) = ready();
    report(&mut driver, REPORTING, &[(32 << 20, 4 << 20); 32]);
    assert_eq!(counter(&driver, "reported_bytes"), 128 << 20);
}

#[test]
fn optional_queues_are_numbered_by_what_was_agreed_on() {
    let (parts, _) = balloon(true);
    let mut driver = Driver::new(parts);
    driver.start_with(driver.offered() & !0b10);
    fill(&driver, PAGE - (1 << 20), 1);
    report(&mut driver, 2, &[(PAGE - (1 << 20), 4096)]);
    assert_eq!(counter(&driver, "reported_bytes"), 4096);
}
