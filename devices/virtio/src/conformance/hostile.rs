//! A driver that lies: chains and rings that cannot be.
//!
//! Cases from the field: buffers across a region's end (CVE-2019-18960), the same head twice (CVE-2026-45782), a corrupt ring
//! index that must not be swallowed, floods.

use orlop_pci::Function;
use vm_memory::{Bytes, GuestAddress};

use super::driver::{HOLE, UPPER, UPPER_BYTES};
use super::{Bench, Descriptor, Driver, Make};

/// What a case puts into a queue.
type Case = (&'static str, fn(&mut Driver, u16));

const CASES: &[Case] = &[
    ("outside memory, readable", |d, q| chain(d, q, &[(HOLE, 512, 0)])),
    ("outside memory, writable", |d, q| chain(d, q, &[(HOLE, 512, Descriptor::WRITE)])),
    ("past the last byte", |d, q| chain(d, q, &[(UPPER + UPPER_BYTES, 1, 0)])),
    ("across the end of a region, readable", |d, q| chain(d, q, &[(HOLE - 8, 64, 0)])),
    ("across the end of a region, writable", |d, q| chain(d, q, &[(HOLE - 8, 64, Descriptor::WRITE)])),
    ("longer than memory", |d, q| chain(d, q, &[(0, u32::MAX, Descriptor::WRITE)])),
    ("wraps around the address space", |d, q| chain(d, q, &[(u64::MAX - 7, 64, 0)])),
    ("a good head, a bad tail", |d, q| chain(d, q, &[(0x2000, 16, 0), (HOLE, 1, Descriptor::WRITE)])),
    ("zero length", |d, q| chain(d, q, &[(0x2000, 0, 0), (0x2000, 0, Descriptor::WRITE)])),
    ("zero length, outside memory", |d, q| chain(d, q, &[(HOLE, 0, 0)])),
    ("readable after writable", |d, q| chain(d, q, &[(0x2000, 64, Descriptor::WRITE), (0x3000, 64, 0)])),
    ("only readable", |d, q| chain(d, q, &[(0x2000, 64, 0)])),
    ("only writable", |d, q| chain(d, q, &[(0x2000, 64, Descriptor::WRITE)])),
    ("a single byte each way", |d, q| chain(d, q, &[(0x2000, 1, 0), (0x3000, 1, Descriptor::WRITE)])),
    ("a loop", |d, q| {
        let (ring, ram) = d.ring(q);
        let last = ring.size - 1;
        ring.write_entry(ram, last, &entry(0x2000, 1, Descriptor::NEXT, last));
        ring.offer(ram, last);
    }),
    ("the next entry is outside the table", |d, q| {
        let (ring, ram) = d.ring(q);
        let last = ring.size - 1;
        ring.write_entry(ram, last, &entry(0x2000, 1, Descriptor::NEXT, ring.size));
        ring.offer(ram, last);
    }),
    ("a head outside the table", |d, q| {
        let (ring, ram) = d.ring(q);
        let head = ring.size;
        ring.offer(ram, head);
    }),
    ("the largest head", |d, q| {
        let (ring, ram) = d.ring(q);
        ring.offer(ram, u16::MAX);
    }),
    ("the same head twice", |d, q| {
        let head = d.post(q, &[0; 64], 64);
        let (ring, ram) = d.ring(q);
        ring.offer(ram, head);
        ring.offer(ram, head);
    }),
    ("an available index that jumps", |d, q| {
        let (ring, ram) = d.ring(q);
        let size = ring.size;
        ring.jump(ram, size.wrapping_add(1));
    }),
    ("an available index that goes back", |d, q| {
        let (ring, ram) = d.ring(q);
        ring.jump(ram, u16::MAX);
    }),
    ("a full ring of zeroes", |d, q| {
        let (ring, ram) = d.ring(q);
        let size = ring.size;
        ring.jump(ram, size);
    }),
    ("indirect in indirect", |d, q| {
        let table = d.buffer(&[0; 64]);
        indirect(d, q, table, 32, &[entry(table, 32, Descriptor::INDIRECT, 0)]);
    }),
    ("an indirect table that is outside memory", |d, q| indirect(d, q, HOLE, 32, &[])),
    ("an indirect table that crosses the end of a region", |d, q| indirect(d, q, HOLE - 16, 32, &[])),
    ("an indirect table of odd length", |d, q| indirect(d, q, 0x2000, 17, &[])),
    ("an empty indirect table", |d, q| indirect(d, q, 0x2000, 0, &[])),
    ("a huge indirect table", |d, q| indirect(d, q, 0, 16 << 20, &[])),
    ("an indirect table whose chain leaves it", |d, q| {
        let table = d.buffer(&[0; 64]);
        indirect(d, q, table, 16, &[entry(0x2000, 1, Descriptor::NEXT, 1)]);
    }),
    ("an indirect table that loops", |d, q| {
        let table = d.buffer(&[0; 64]);
        indirect(d, q, table, 16, &[entry(0x2000, 1, Descriptor::NEXT, 0)]);
    }),
];

fn entry(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { address, len, flags, next }
}

fn chain(driver: &mut Driver, queue: u16, parts: &[(u64, u32, u16)]) {
    let parts: Vec<Descriptor> =
        parts.iter().map(|(address, len, flags)| entry(*address, *len, *flags, 0)).collect();
    driver.post_chain(queue, &parts);
}

/// A chain that is one indirect table at `table` of `len` bytes, which starts with `entries`.
fn indirect(driver: &mut Driver, queue: u16, table: u64, len: u32, entries: &[Descriptor]) {
    let bytes: Vec<u8> = entries.iter().flat_map(Descriptor::bytes).collect();
    driver.ram.write_slice(&bytes, GuestAddress(table)).unwrap_or_default();
    driver.post_chain(queue, &[entry(table, len, Descriptor::INDIRECT, 0)]);
}

/// Every lie, on every kind of queue: the device survives it, answers it with a fault or with a failed request where
/// it looked at it at all, and works after a reset.
pub fn hostile_chains_are_survived_and_a_reset_mends(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    // Queues repeat their kinds: the first few and the last one show them all.
    let count = bench.driver.queue_count();
    let queues = (0..count).filter(|queue| *queue < 6 || *queue + 1 == count);
    for queue in queues {
        for (name, lie) in CASES {
            bench.start();
            let at = usize::from(queue);
            // Whatever lay there before is no longer lent: the lie has the queue for itself.
            let before = bench.driver.function.inspect().queues[at].clone();
            lie(&mut bench.driver, queue);
            bench.driver.kick(queue);
            bench.driver.settle();
            // Paused, a device has put back what it keeps for later: receive buffers, for example.
            bench.driver.function.pause();
            let now = bench.driver.function.inspect();
            let looked = now.queues[at].requests > before.requests;
            let answered = now.queues[at].next_used != before.next_used;
            let held = now.queues[at].next_avail == now.queues[at].next_used;
            assert!(
                !looked || answered || bench.driver.is_broken() || held,
                "'{name}' on queue {queue} was taken and never answered: {now:?}"
            );
            assert_eq!(now.fault.is_some(), bench.driver.is_broken(), "'{name}' on queue {queue}");
            bench.driver.function.resume();
        }
        bench.works();
    }
}

/// Rings outside memory, across a region's end or misaligned: the driver is told that a reset is needed.
pub fn rings_that_cannot_be_need_a_reset(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let bad = [
        (0x20, HOLE),
        (0x20, !15),
        (0x20, HOLE - 16),
        (0x20, 0x10008),
        (0x28, HOLE - 2),
        (0x28, 0x10001),
        (0x30, UPPER + UPPER_BYTES - 4),
        (0x30, 0x10002),
    ];
    for (field, address) in bad {
        bench.driver.reset();
        bench.driver.agree(bench.driver.offered());
        bench.driver.set_common(0x10, &0u16.to_le_bytes());
        bench.driver.select(0);
        for (ring, place) in [(0x20, 0x10000u64), (0x28, 0x9_0000), (0x30, 0xb_0000)] {
            let place = if ring == field { address } else { place };
            bench.driver.set_common(ring, &place.to_le_bytes());
        }
        bench.driver.set_common(0x1c, &1u16.to_le_bytes());
        let interrupts = bench.driver.messages.count(0);
        assert_eq!(bench.driver.set_status(0xf), 0x4f, "field {field:#x} at {address:#x}");
        assert_eq!(bench.driver.messages.count(0), interrupts + 1, "no configuration interrupt");
        bench.driver.kick(0);
        bench.driver.settle();
    }
    bench.works();
}

/// A used ring that overlaps the available ring makes the device feed itself: it must still hear a stop.
pub fn rings_that_overlap_do_not_keep_the_thread(make: Make<'_>) {
    let mut bench = Bench::power_on(make);
    let all = bench.driver.offered();
    for features in [all, all & !(1 << 29)] {
        for avail in [OVERLAP, OVERLAP + 2] {
            for used in (OVERLAP - 32..OVERLAP + 32).step_by(4) {
                bench.driver.reset();
                bench.driver.agree(features);
                overlap(&bench.driver, avail, used);
                bench.driver.set_status(0xf);
                let function = bench.driver.function.clone();
                let (done, is_done) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    function.pause();
                    function.resume();
                    function.pause();
                    done.send(())
                });
                let stopped = is_done.recv_timeout(std::time::Duration::from_secs(20));
                assert!(stopped.is_ok(), "the device does not stop: rings at {avail:#x} and {used:#x}");
                bench.driver.function.resume();
            }
        }
    }
    bench.works();
}

/// Near where the rings overlap.
const OVERLAP: u64 = 0x1_0000;

/// Enables every queue with 8 entries, its rings at `avail` and `used`, and one request available. Whatever head the
/// rings show by accident is a request, too.
fn overlap(driver: &Driver, avail: u64, used: u64) {
    for head in 0..0x800u64 {
        let flags = if head & 1 == 0 { Descriptor::NEXT } else { Descriptor::WRITE };
        let request = entry(0x2_0000, 64, flags, head as u16 | 1);
        driver.ram.write_slice(&request.bytes(), GuestAddress(head * 16)).unwrap();
    }
    driver.ram.write_slice(&[0; 0x1000], GuestAddress(OVERLAP - 0x800)).unwrap();
    driver.ram.write_obj(1u16, GuestAddress(avail + 2)).unwrap();
    for queue in 0..driver.queue_count() {
        driver.select(queue);
        for (field, value) in [(0x18, 8), (0x20, 0), (0x28, avail), (0x30, used), (0x1c, 1)] {
            let width = if field < 0x20 { 2 } else { 8 };
            driver.set_common(field, &value.to_le_bytes()[..width]);
        }
    }
}

/// A device that needs a reset ignores kicks, pauses, resumes, saves and restores, until the reset comes.
pub fn a_broken_device_stays_broken_until_reset(make: Make<'_>) {
    let mut bench = Bench::ready(make);
    let queues = 0..bench.driver.queue_count();
    for queue in queues.clone() {
        let (ring, ram) = bench.driver.ring(queue);
        let size = ring.size;
        ring.jump(ram, size.wrapping_add(1));
        bench.driver.kick(queue);
    }
    bench.driver.settle();
    assert!(bench.driver.is_broken(), "a ring that is ahead of itself was swallowed");
    let faults = bench.driver.function.inspect().faults;
    for queue in queues {
        bench.driver.kick(queue);
    }
    bench.driver.settle();
    assert!(bench.driver.is_broken());
    bench.driver.function.pause();
    let records = bench.driver.function.save().unwrap();
    bench.driver.function.restore(&records).unwrap();
    bench.driver.function.resume();
    assert!(bench.driver.is_broken(), "a restore mended a broken device");
    assert_eq!(bench.driver.function.inspect().faults, faults, "a broken device found more faults");
    bench.works();
}
