//! Every request, good and bad, on real images.

mod guest;

use std::collections::HashMap;

use guest::*;
use orlop_disk::{Disk, EngineKind, ErrorHandling, Options};
use orlop_pci::Function;
use orlop_virtio::conformance::Descriptor;
use orlop_virtio_blk::{Config, Limits, build};

const READ_ONLY: Options = Options { read_only: true, direct: false, shared: false };

#[test]
fn a_disk_is_written_flushed_and_read() {
    for engine in [EngineKind::Auto, EngineKind::Synchronous] {
        let mut guest = Guest::new(Setup { engine, ..SETUP });
        let data = pattern(8, 8192, 1);
        assert_eq!(guest.write(8, &data), OK);
        assert_eq!(guest.command(FLUSH, 0, &[]), OK);
        assert_eq!(guest.read(8, 8192), (OK, data.clone()));
        assert!(std::fs::read(&guest.path).unwrap()[4096..][..8192] == data);
        let counts = ["read_requests", "read_bytes", "write_requests", "write_bytes", "flush_requests"];
        assert_eq!(counts.map(|name| guest.counter(name)), [1, 8192, 1, 8192, 1]);
    }
}

#[test]
fn the_serial_number_is_filled_up_with_zeroes() {
    let mut guest = Guest::new(SETUP);
    let used = guest.driver.request(0, &header(GET_ID, 0), 21);
    assert_eq!(status(&used), OK);
    assert_eq!(&used.data[..20], b"ORLOP-0001\0\0\0\0\0\0\0\0\0\0");
    let short = guest.driver.request(0, &header(GET_ID, 0), 20);
    assert_eq!(status(&short), IOERR);
}

#[test]
fn a_request_beyond_the_end_is_refused_and_counted() {
    let mut guest = Guest::new(SETUP);
    let last = SETUP.size_bytes / 512 - 1;
    assert_eq!(guest.read(last, 512).0, OK);
    for sector in [last + 1, u64::MAX, u64::MAX / 512, 1 << 55] {
        assert_eq!(guest.read(sector, 512).0, IOERR);
        assert_eq!(guest.write(sector, &[1; 512]), IOERR);
    }
    assert_eq!(guest.read(last, 1024).0, IOERR);
    assert_eq!(guest.write(last, &[1; 1024]), IOERR);
    assert_eq!(guest.counter("invalid_requests"), 10);
    assert_eq!(std::fs::metadata(&guest.path).unwrap().len(), SETUP.size_bytes);
}

#[test]
fn a_request_that_is_no_request_is_refused() {
    let mut guest = Guest::new(SETUP);
    for len in 0..16 {
        let used = guest.driver.request(0, &header(IN, 0)[..len], 513);
        assert_eq!(status(&used), IOERR, "a header of {len} bytes");
        assert_eq!(used.written, 0, "data that was not read counts as written");
    }
    assert_eq!(guest.read(0, 100).0, IOERR);
    assert_eq!(guest.read(0, 0).0, IOERR);
    assert_eq!(guest.write(0, &[0; 513]), IOERR);
    assert_eq!(guest.write(0, &[]), IOERR);
    // No room for a status: there is nobody to tell.
    let before = guest.counter("invalid_requests");
    let used = guest.driver.request(0, &header(FLUSH, 0), 0);
    assert_eq!((used.written, used.data.len()), (0, 0));
    assert_eq!(guest.counter("invalid_requests"), before + 1);
    assert_eq!(guest.read(0, 512).0, OK);
}

#[test]
fn there_is_no_scsi_passthrough_and_no_unknown_request() {
    // CVE-2026-48914
    let mut guest = Guest::new(SETUP);
    for kind in [2, 3, 5, 7, 9, 10, 14, 15, 16, 24, 1 << 31, u32::MAX] {
        assert_eq!(guest.command(kind, 0, &[0; 512]), UNSUPP, "type {kind}");
    }
    assert_eq!(guest.counter("unsupported_requests"), 12);
    let offered = guest.driver.offered();
    assert_eq!(offered & (1 << 7 | 1 << 14 | 1 << 16 | 1 << 17), 1 << 14, "only write zeroes of these");
}

#[test]
fn a_read_only_disk_is_never_written() {
    let mut guest = Guest::new(Setup { options: READ_ONLY, ..SETUP });
    assert_ne!(guest.driver.offered() & 1 << 5, 0);
    assert_eq!(guest.write(0, &[1; 512]), IOERR);
    assert_eq!(guest.command(DISCARD, 0, &segment(0, 8, 0)), UNSUPP);
    assert_eq!(guest.command(WRITE_ZEROES, 0, &segment(0, 8, 0)), UNSUPP);
    assert_eq!(guest.read(0, 512), (OK, vec![0; 512]));
    assert_eq!(guest.command(FLUSH, 0, &[]), OK);
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let mut guest = Guest::new(SETUP);
    assert_eq!(guest.write(0, &[0xff; 64 << 10]), OK);
    for (sector, flags) in [(8, 0), (16, 1)] {
        assert_eq!(guest.command(WRITE_ZEROES, 0, &segment(sector, 8, flags)), OK);
    }
    let segments = [segment(32, 8, 0), segment(48, 8, 0)].concat();
    assert_eq!(guest.command(DISCARD, 0, &segments), OK);
    let (_, data) = guest.read(0, 64 << 10);
    let zero: Vec<bool> = data.chunks(4096).map(|chunk| chunk.iter().all(|&b| b == 0)).collect();
    assert_eq!(zero[..8], [false, true, true, false, true, false, true, false]);
    assert_eq!(guest.counter("discard_bytes"), 8192);
    assert_eq!(guest.counter("write_zeroes_bytes"), 8192);
}

#[test]
fn segments_are_bounded() {
    let mut guest = Guest::new(SETUP);
    let end = u32::try_from(SETUP.size_bytes / 512).unwrap();
    for (kind, data, expected) in [
        (DISCARD, segment(0, end, 0), OK),
        (DISCARD, segment(0, end + 1, 0), IOERR),
        (DISCARD, segment(u64::MAX - 3, 8, 0), IOERR),
        (DISCARD, segment(0, u32::MAX, 0), IOERR),
        (DISCARD, segment(0, 0, 0), IOERR),
        (DISCARD, segment(0, 8, 1), UNSUPP),
        (DISCARD, segment(0, 8, 2), UNSUPP),
        (DISCARD, segment(0, 8, 0).repeat(32), OK),
        (DISCARD, segment(0, 8, 0).repeat(33), IOERR),
        (DISCARD, segment(0, 8, 0)[..15].to_vec(), IOERR),
        (DISCARD, vec![], IOERR),
        (WRITE_ZEROES, segment(0, 8, 2), UNSUPP),
        (WRITE_ZEROES, segment(0, 8, 0).repeat(2), IOERR),
        (WRITE_ZEROES, segment(0, (1 << 17) + 1, 0), IOERR),
    ] {
        assert_eq!(guest.command(kind, 0, &data), expected, "{kind} {data:?}");
    }
    let good_then_bad = [segment(0, 8, 0), segment(u64::from(end), 8, 0)].concat();
    assert_eq!(guest.command(DISCARD, 0, &good_then_bad), IOERR);
}

#[test]
fn several_queues_at_once_keep_their_data_apart() {
    for direct in [false, true] {
        let options = Options { read_only: false, direct, shared: false };
        let mut guest = Guest::new(Setup { queues: 4, options, ..SETUP });
        let driver = &mut guest.driver;
        // Each queue writes every fourth block, all in flight; then another queue reads them.
        for round in 0..4_u64 {
            let blocks = |queue: u16| (0..16).map(move |i| (round * 64 + i * 4 + u64::from(queue)) * 8);
            for queue in 0..4 {
                for sector in blocks(queue) {
                    let data = pattern(sector, 4096, round);
                    driver.post(queue, &[&header(OUT, sector)[..], &data].concat(), 1);
                }
            }
            (0..4).for_each(|queue| driver.kick(queue));
            for queue in 0..4 {
                (0..16).for_each(|_| assert_eq!(status(&driver.wait(queue)), OK));
            }
            for queue in 0..4 {
                let mut asked = HashMap::new();
                for sector in blocks((queue + 1) % 4) {
                    asked.insert(driver.post(queue, &header(IN, sector), 4097), sector);
                }
                driver.kick(queue);
                for _ in 0..16 {
                    let used = driver.wait(queue);
                    let sector = asked.remove(&used.head).unwrap();
                    assert_eq!(status(&used), OK);
                    assert!(used.data[..4096] == pattern(sector, 4096, round), "sector {sector}");
                }
            }
        }
        assert_eq!(guest.counter("write_bytes"), 4 * 64 * 4096);
        let stored = std::fs::read(&guest.path).unwrap();
        for (sector, block) in (0..256 * 8).step_by(8).zip(stored.chunks(4096)) {
            assert!(block == pattern(sector, 4096, sector / 512), "sector {sector} on the host");
        }
    }
}

#[test]
fn data_may_be_cut_into_odd_pieces() {
    for direct in [false, true] {
        let mut guest =
            Guest::new(Setup { options: Options { read_only: false, direct, shared: false }, ..SETUP });
        let data = pattern(0, 4096, 5);
        let mut all = header(OUT, 0).to_vec();
        all.extend(&data);
        // The header itself is cut, and so is the data, at odd addresses.
        let mut parts = Vec::new();
        for piece in [&all[..3], &all[3..17], &all[17..700], &all[700..]] {
            let address = guest.driver.buffer(&[&[0], piece].concat()) + 1;
            parts.push(Descriptor { address, len: piece.len() as u32, ..Descriptor::default() });
        }
        let address = guest.driver.buffer(&[9]);
        parts.push(Descriptor { address, len: 1, flags: Descriptor::WRITE, next: 0 });
        guest.driver.post_chain(0, &parts);
        guest.driver.kick(0);
        assert_eq!(status(&guest.driver.wait(0)), OK);
        assert_eq!(guest.read(0, 4096), (OK, data));
    }
}

#[test]
fn a_head_that_is_made_available_twice_breaks_the_device_and_not_the_host() {
    // CVE-2026-45782: the first completion must not free what the kernel still uses.
    let mut guest =
        Guest::new(Setup { options: Options { read_only: false, direct: true, shared: false }, ..SETUP });
    for turn in 0..20 {
        let data = pattern(0, 64 << 10, turn);
        let address = guest.driver.buffer(&[&[0], &data[..]].concat()) + 1;
        let first = guest.driver.buffer(&header(OUT, 0));
        let last = guest.driver.buffer(&[9]);
        let chain = [
            Descriptor { address: first, len: 16, flags: 0, next: 0 },
            Descriptor { address, len: 64 << 10, flags: 0, next: 0 },
            Descriptor { address: last, len: 1, flags: Descriptor::WRITE, next: 0 },
        ];
        let head = guest.driver.post_chain(0, &chain);
        // The same head again, in the next place of the available ring.
        offer_again(&mut guest, head);
        guest.driver.kick(0);
        guest.driver.wait_for("the fault", || guest.driver.is_broken());
        guest.driver.reset();
        guest.driver.start();
        let (status, stored) = guest.read(0, 64 << 10);
        assert_eq!(status, OK);
        assert!(stored == data, "the first request was drained by the reset");
    }
}

/// Puts `head` into the available ring once more, where the driver would put its second request.
fn offer_again(guest: &mut Guest, head: u16) {
    use vm_memory::{Bytes, GuestAddress};
    let driver = &guest.driver;
    driver.select(0);
    let ring = u64::from_le_bytes(driver.common(0x28));
    let index: u16 = driver.ram.read_obj(GuestAddress(ring + 2)).unwrap();
    driver.ram.write_obj(head, GuestAddress(ring + 4 + 2 * u64::from(index % 64))).unwrap();
    driver.ram.write_obj(index + 1, GuestAddress(ring + 2)).unwrap();
}

#[test]
fn a_pause_waits_for_what_is_in_flight() {
    let mut guest =
        Guest::new(Setup { options: Options { read_only: false, direct: true, shared: false }, ..SETUP });
    for turn in 0..20 {
        for i in 0..30 {
            let data = pattern(i * 64, 32 << 10, turn);
            guest.driver.post(0, &[&header(OUT, i * 64)[..], &data].concat(), 1);
        }
        guest.driver.kick(0);
        guest.driver.function.pause();
        let queue = &guest.driver.function.inspect().queues[0];
        assert_eq!(queue.next_avail, queue.next_used, "something is in flight while paused");
        let before = std::fs::read(&guest.path).unwrap();
        let done = std::iter::from_fn(|| guest.driver.poll(0)).count();
        let counted = guest.counter("write_requests");
        assert_eq!(counted, turn * 30 + done as u64);
        assert!(before == std::fs::read(&guest.path).unwrap(), "the image changed while paused");
        guest.driver.function.resume();
        (done..30).for_each(|_| assert_eq!(status(&guest.driver.wait(0)), OK));
    }
}

#[test]
fn the_cache_mode_is_the_drivers_choice() {
    let mut guest = Guest::new(SETUP);
    assert_eq!(guest.driver.device_config::<1>(32), [1]);
    guest.driver.set_device_config(32, &[0]);
    assert_eq!(guest.driver.device_config::<1>(32), [0]);
    for sector in 0..20 {
        assert_eq!(guest.write(sector, &pattern(sector, 512, 0)), OK);
    }
    assert_eq!(guest.command(WRITE_ZEROES, 0, &segment(3, 1, 0)), OK);
    assert_eq!(guest.counter("flush_requests"), 0, "the device's own flushes are not the driver's");
    guest.driver.reset();
    assert_eq!(guest.driver.device_config::<1>(32), [1]);
    // A driver that did not ask for it cannot change it.
    guest.driver.start_with(guest.driver.offered() & !(1 << 11));
    guest.driver.set_device_config(32, &[0]);
    assert_eq!(guest.driver.device_config::<1>(32), [1]);
}

#[test]
fn a_state_does_not_fit_another_disk() {
    let mut guest = Guest::new(SETUP);
    assert_eq!(guest.write(0, &[1; 512]), OK);
    guest.driver.set_device_config(32, &[0]);
    guest.driver.function.pause();
    let saved = guest.driver.function.save().unwrap();
    for setup in [
        Setup { size_bytes: SETUP.size_bytes * 2, ..SETUP },
        Setup { queue_size: 32, ..SETUP },
        Setup { queues: 2, ..SETUP },
        Setup { options: READ_ONLY, ..SETUP },
    ] {
        let other = Guest::new(setup);
        assert!(other.driver.function.restore(&saved).is_err());
    }
    let same = Guest::new(SETUP);
    same.driver.function.restore(&saved).unwrap();
    assert_eq!(same.driver.device_config::<1>(32), [0], "the cache mode is kept");
}

#[test]
fn what_cannot_be_built_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 4096);
    let try_build = |change: fn(&mut Config)| {
        let mut config = Config {
            name: "blk0".into(),
            disk: Disk::open(&path, Options::default()).unwrap(),
            serial: String::new(),
            queues: 1,
            queue_size: 128,
            engine: EngineKind::Auto,
            limits: Limits::default(),
            write_through: false,
            errors: ErrorHandling::REPORT,
        };
        change(&mut config);
        build(config).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(try_build(|_| ()), Ok(()));
    type Case = (fn(&mut Config), &'static str);
    let cases: [Case; 7] = [
        (|c| c.queues = 0, "1 to 64 queues, not 0"),
        (|c| c.queues = 65, "1 to 64 queues, not 65"),
        (|c| c.queue_size = 100, "a power of two from 4 to 1024, not 100"),
        (|c| c.queue_size = 2, "a power of two from 4 to 1024, not 2"),
        (|c| c.serial = "x".repeat(21), "printable ASCII of at most 20 bytes"),
        (|c| c.serial = "a\nb".into(), "printable ASCII of at most 20 bytes"),
        (|c| c.name = "x".repeat(12), "longer than 11 bytes"),
    ];
    for (change, text) in cases {
        let error = try_build(change).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    for format in [orlop_disk::Format::Raw, orlop_disk::Format::Qcow2] {
        let mut guest = Guest::new(Setup { format, ..SETUP });
        let end = SETUP.size_bytes / 512;
        assert_eq!(guest.read(end, 512).0, IOERR);
        let before = guest.driver.function.inspect().config_interrupts;
        guest.handle.grow(SETUP.size_bytes + (1 << 20)).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while guest.driver.function.inspect().config_interrupts == before {
            assert!(std::time::Instant::now() < deadline, "the driver was not told");
            std::thread::yield_now();
        }
        assert_eq!(guest.read(end, 512), (OK, vec![0; 512]));
        assert_eq!(guest.write(end + 2047, &[7; 512]), OK);
        assert_eq!(guest.read(end + 2047, 512), (OK, vec![7; 512]));
        assert_eq!(guest.read(end + 2048, 512).0, IOERR);
        assert!(guest.handle.grow(4096).unwrap_err().to_string().contains("cannot shrink"));
    }
}
