//! Trouble on the host, for real: a full file system, an image cut short, limits.

mod guest;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use guest::*;
use orlop_disk::kit::{on_a_small_tmpfs, small_tmpfs};
use orlop_disk::{EngineKind, ErrorPolicy};
use orlop_pci::Function;
use orlop_virtio_blk::{Limits, RateLimit};

fn go_on_when_full(test: &str, engine: EngineKind) {
    let Some(dir) = small_tmpfs() else {
        on_a_small_tmpfs(test, tempfile::tempdir().unwrap().path()).expect("it passes there");
        return;
    };
    let setup = Setup { engine, ..SETUP };
    let mut guest = Guest::at(&image(&dir, setup.size_bytes), setup);
    // A mebibyte of file system holds some of these 16.
    let results: Vec<u8> = (0..16).map(|i| guest.write(i * 256, &pattern(i * 256, 128 << 10, 0))).collect();
    let failed = results.iter().filter(|&&status| status == IOERR).count();
    assert!(failed >= 8 && results[0] == OK, "{results:?}");
    assert_eq!(guest.counter("write_errors"), failed as u64);
    assert!(!guest.driver.is_broken(), "a full disk is not the guest's fault");
    for i in (0..16).filter(|&i| results[i] == OK) {
        let sector = i as u64 * 256;
        assert!(guest.read(sector, 128 << 10) == (OK, pattern(sector, 128 << 10, 0)));
    }
    // Space that is given back can be written again.
    assert_eq!(guest.command(DISCARD, 0, &segment(0, 256, 0)), OK);
    assert_eq!(guest.write(256 * 15, &[1; 64 << 10]), OK);
}

#[test]
fn a_full_disk_is_an_io_error_with_io_uring_and_the_guest_goes_on() {
    go_on_when_full("a_full_disk_is_an_io_error_with_io_uring_and_the_guest_goes_on", EngineKind::Auto);
}

#[test]
fn a_full_disk_is_an_io_error_with_plain_calls_and_the_guest_goes_on() {
    let name = "a_full_disk_is_an_io_error_with_plain_calls_and_the_guest_goes_on";
    go_on_when_full(name, EngineKind::Synchronous);
}

#[test]
fn an_image_that_shrinks_is_an_io_error_and_the_guest_goes_on() {
    let mut guest = Guest::new(SETUP);
    let file = std::fs::OpenOptions::new().write(true).open(&guest.path).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(guest.read(8, 4096).0, IOERR);
    assert_eq!(guest.counter("read_errors"), 1);
    assert_eq!(guest.read(0, 4096).0, OK);
    assert_eq!(guest.write(8, &[7; 4096]), OK);
    assert_eq!(guest.read(8, 4096), (OK, vec![7; 4096]));
}

#[test]
fn a_request_that_the_host_cannot_carry_out_waits_for_the_machine_to_go_on() {
    for engine in [EngineKind::Auto, EngineKind::Synchronous] {
        let setup = Setup { engine, policy: ErrorPolicy::Stop, ..SETUP };
        let mut guest = Guest::new(setup);
        let file = std::fs::OpenOptions::new().write(true).open(&guest.path).unwrap();
        file.set_len(4096).unwrap();
        let before = STOPS.load(SeqCst);
        let head = guest.driver.post(0, &header(IN, 8), 513);
        guest.driver.kick(0);
        guest.driver.wait_for("the disk to want a stop", || STOPS.load(SeqCst) == before + 1);
        guest.driver.function.pause();
        let refused = guest.driver.function.save().unwrap_err().to_string();
        assert!(refused.contains("1 requests wait for the machine to go on"), "{refused}");
        guest.driver.function.resume();
        guest.driver.wait_for("the disk to want a stop again", || STOPS.load(SeqCst) == before + 2);
        assert!(guest.driver.poll(0).is_none(), "the guest was told");
        guest.driver.function.pause();
        file.set_len(setup.size_bytes).unwrap();
        guest.driver.function.resume();
        let done = guest.driver.wait(0);
        assert_eq!((done.head, status(&done)), (head, OK));
        assert_eq!(guest.counter("read_errors"), 0);
        // A reset forgets what is held.
        file.set_len(4096).unwrap();
        guest.driver.post(0, &header(IN, 8), 513);
        guest.driver.kick(0);
        guest.driver.wait_for("the disk to want a stop", || STOPS.load(SeqCst) == before + 3);
        guest.driver.reset();
        file.set_len(setup.size_bytes).unwrap();
        guest.driver.start();
        assert_eq!(guest.read(8, 512).0, OK);
        guest.driver.function.pause();
        guest.driver.function.save().unwrap();
    }
}

#[test]
fn a_limit_holds_over_all_queues_and_loses_nothing() {
    let operations = Some(RateLimit { per_second: 100, burst: Some(10) });
    let limits = Limits { bytes: None, operations };
    let mut guest = Guest::new(Setup { queues: 2, limits, ..SETUP });
    let start = Instant::now();
    for i in 0..15 {
        for queue in 0..2 {
            guest.driver.post(queue, &header(IN, i), 513);
        }
    }
    guest.driver.kick(0);
    guest.driver.kick(1);
    for queue in 0..2 {
        for _ in 0..15 {
            assert_eq!(status(&guest.driver.wait(queue)), OK);
        }
    }
    // 30 requests, 10 of them at once: the other 20 take 200 ms.
    assert!(start.elapsed() >= Duration::from_millis(195), "{:?}", start.elapsed());
    assert!(guest.counter("throttled_events") > 0);
}

#[test]
fn a_throttled_queue_can_be_paused_reset_and_used_again() {
    let bytes = Some(RateLimit { per_second: 64 << 10, burst: Some(4096) });
    let limits = Limits { bytes, operations: None };
    let mut guest = Guest::new(Setup { limits, ..SETUP });
    for i in 0..8 {
        guest.driver.post(0, &header(IN, i * 8), 4097);
    }
    guest.driver.kick(0);
    let start = Instant::now();
    guest.driver.function.pause();
    assert!(start.elapsed() < Duration::from_secs(1), "a pause waited for the limit");
    guest.driver.function.resume();
    for _ in 0..8 {
        assert_eq!(status(&guest.driver.wait(0)), OK);
    }
    guest.driver.post(0, &header(IN, 0), (1 << 20) + 1);
    guest.driver.post(0, &header(IN, 0), 4097);
    guest.driver.kick(0);
    assert_eq!(status(&guest.driver.wait(0)), OK, "a large request goes into debt");
    guest.driver.reset();
    guest.driver.start();
    assert!(!guest.driver.is_broken());
}
