//! Requests good and bad, task management, trays.

mod guest;

use guest::{
    Answer, CDROM, DISK, OVERLAY, QUEUE, RESPONSE_BYTES, cd, command, header, lun, once, parts, ten,
};
use orlop_disk::EngineKind;
use orlop_virtio::conformance::Driver;
use orlop_virtio_scsi::Handle;
use tempfile::TempDir;

struct Machine {
    driver: Driver,
    handle: Handle,
    dir: TempDir,
}

fn machine(engine: EngineKind) -> Machine {
    machine_in(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), engine)
}

fn machine_in(dir: TempDir, engine: EngineKind) -> Machine {
    let (parts, handle) = parts(dir.path(), engine, 1);
    let mut driver = Driver::new(parts);
    driver.start();
    Machine { driver, handle, dir }
}

fn counter(machine: &Machine, name: &str) -> u64 {
    let counters = machine.driver.function.inspect().counters;
    counters.into_iter().find(|(n, _)| *n == name).unwrap().1
}

#[test]
fn what_is_written_is_on_the_host() {
    for engine in [EngineKind::Auto, EngineKind::Synchronous] {
        let mut m = machine(engine);
        let data = vec![0x5a; 8192];
        assert!(command(&mut m.driver, QUEUE, DISK, &ten(0x2a, 64, 16), &data, 0).is_good());
        assert!(command(&mut m.driver, QUEUE, DISK, &ten(0x35, 0, 0), &[], 0).is_good());
        assert_eq!(std::fs::read(m.dir.path().join("disk.raw")).unwrap()[32768..][..8192], data);
        let counters = m.handle.counters(0);
        assert!(counters.contains(&("write_bytes", 8192)) && counters.contains(&("flush_requests", 1)));
    }
}

/// A block of a cluster that is not there yet takes several steps, each of which is to be handed on.
#[test]
fn requests_of_several_steps_come_to_an_end() {
    for engine in [EngineKind::Auto, EngineKind::Synchronous] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(dir.path().join(OVERLAY), []).unwrap();
        let mut m = machine_in(dir, engine);
        for turn in 0..200_u32 {
            let (block, data) = (turn * 128 + turn % 100, vec![turn as u8 + 1; 512]);
            assert!(command(&mut m.driver, QUEUE, DISK, &ten(0x2a, block, 1), &data, 0).is_good());
            let answer = command(&mut m.driver, QUEUE, DISK, &ten(0x28, block, 1), &[], 512);
            assert!(answer.is_good() && answer.data == data);
        }
    }
}

#[test]
fn too_little_room_is_an_overrun_and_too_much_a_residual() {
    let mut m = machine(EngineKind::Auto);
    command(&mut m.driver, QUEUE, DISK, &[0; 6], &[], 0);
    let short = once(&mut m.driver, QUEUE, DISK, &ten(0x28, 0, 2), &[], 1023);
    assert_eq!(short.response, 1);
    let short = once(&mut m.driver, QUEUE, DISK, &ten(0x2a, 0, 2), &[0; 1023], 0);
    assert_eq!(short.response, 1);
    assert_eq!(counter(&m, "overrun_requests"), 2);
    let long = once(&mut m.driver, QUEUE, DISK, &ten(0x28, 0, 2), &[], 2000);
    assert!(long.is_good() && long.residual == 976);
    let long = once(&mut m.driver, QUEUE, DISK, &[0x12, 0, 0, 0, 96, 0], &[], 96);
    assert!(long.is_good() && long.residual == 60);
}

#[test]
fn targets_and_units_that_are_not_there_say_so() {
    let mut m = machine(EngineKind::Auto);
    for address in
        [lun(2, 0), lun(255, 0), [0; 8], [0xc1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0xff, 0xff, 0, 0, 0, 0]]
    {
        let answer = m.driver.request(QUEUE, &header(address, &[0x12, 0, 0, 0, 36, 0]), RESPONSE_BYTES + 36);
        assert_eq!(Answer::of(&answer).response, 3, "{address:x?}");
    }
    let inquiry = m.driver.request(QUEUE, &header(lun(0, 1), &[0x12, 0, 0, 0, 36, 0]), RESPONSE_BYTES + 36);
    assert_eq!(Answer::of(&inquiry).data[0], 0x7f);
    let read = m.driver.request(QUEUE, &header(lun(0, 1), &ten(0x28, 0, 1)), RESPONSE_BYTES + 512);
    assert_eq!(Answer::of(&read).sense, Some((5, 0x25, 0)));
}

#[test]
fn requests_without_a_header_or_room_for_a_response_are_returned_empty() {
    let mut m = machine(EngineKind::Auto);
    for (readable, writable) in [(50, RESPONSE_BYTES), (51, RESPONSE_BYTES - 1), (0, 0), (51, 0), (0, 200)] {
        if readable + writable == 0 {
            continue;
        }
        let used = m.driver.request(QUEUE, &vec![1; readable], writable);
        assert_eq!(used.written, 0, "{readable} and {writable} bytes");
    }
    assert_eq!(counter(&m, "invalid_requests"), 4);
    assert!(command(&mut m.driver, QUEUE, DISK, &ten(0x28, 0, 1), &[], 512).is_good());
}

fn task(driver: &mut Driver, function: u32, address: [u8; 8]) -> u8 {
    let request = [&0_u32.to_le_bytes()[..], &function.to_le_bytes(), &address, &[0; 8]].concat();
    driver.request(0, &request, 1).data[0]
}

#[test]
fn task_management_answers_every_function() {
    let mut m = machine(EngineKind::Auto);
    assert!(command(&mut m.driver, QUEUE, DISK, &[0; 6], &[], 0).is_good());
    for (function, expected) in
        [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (6, 0), (7, 0), (8, 11), (u32::MAX, 11)]
    {
        assert_eq!(task(&mut m.driver, function, lun(0, 0)), expected, "function {function}");
    }
    assert_eq!(task(&mut m.driver, 5, lun(0, 0)), 0);
    assert_eq!(
        once(&mut m.driver, QUEUE, DISK, &[0; 6], &[], 0).sense,
        Some((6, 0x29, 0)),
        "a reset is told"
    );
    assert_eq!(task(&mut m.driver, 5, lun(9, 0)), 3);
    assert_eq!(task(&mut m.driver, 5, lun(0, 7)), 12);
    let subscribe = [&2_u32.to_le_bytes()[..], &lun(0, 0), &0xff_u32.to_le_bytes()].concat();
    assert_eq!(m.driver.request(0, &subscribe, 5).data, [0; 5]);
    assert_eq!(m.driver.request(0, &9_u32.to_le_bytes(), 1).data, [11]);
    for (readable, writable) in [(3, 1), (23, 1), (0, 1)] {
        assert_eq!(m.driver.request(0, &vec![0; readable], writable).written, 0);
    }
}

#[test]
fn a_medium_goes_and_another_comes() {
    let mut m = machine(EngineKind::Auto);
    let tray = m.handle.tray(1).unwrap();
    assert!(m.handle.tray(0).is_none());
    assert_eq!(command(&mut m.driver, QUEUE, CDROM, &ten(0x28, 0, 1), &[], 2048).data, [7; 2048]);
    tray.eject(false).unwrap();
    let gone = command(&mut m.driver, QUEUE, CDROM, &ten(0x28, 0, 1), &[], 2048);
    assert_eq!(gone.sense, Some((2, 0x3a, 2)));
    tray.insert(cd(m.dir.path(), "other.iso", 9)).unwrap();
    let changed = once(&mut m.driver, QUEUE, CDROM, &ten(0x28, 0, 1), &[], 2048);
    assert_eq!(changed.sense, Some((6, 0x28, 0)));
    assert_eq!(once(&mut m.driver, QUEUE, CDROM, &ten(0x28, 0, 1), &[], 2048).data, [9; 2048]);
}
