//! A driver that lies, and a machine that stops it at any moment.

mod guest;

use guest::{CDROM, DATA, DISK, DISK_BYTES, END, Guest, HOST_BUS_FATAL, TASK_FILE, dma, queued, ten};
use orlop_ahci::{ABAR, ABAR_BYTES};
use orlop_disk::EngineKind;
use orlop_pci::Function;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

/// Each lie on slot 0 of the disk's port, and how the port shows that it is one.
#[test]
fn every_lie_is_shown_and_counted_and_the_port_can_be_mended() {
    type Lie = (&'static str, u32, fn(&Guest));
    fn words(guest: &Guest, words: [u32; 4]) {
        guest.ram.write_obj(words, GuestAddress(guest.list(DISK))).unwrap();
    }
    let lies: &[Lie] = &[
        ("a table outside memory", HOST_BUS_FATAL, |g| words(g, [5 | 1 << 16, 0, END as u32, 0])),
        ("a table at the end of the address space", HOST_BUS_FATAL, |g| {
            words(g, [5 | 1 << 16, 0, u32::MAX, u32::MAX]);
        }),
        ("a packet outside memory", HOST_BUS_FATAL, |g| words(g, [5, 0, END as u32, 0])),
        ("data outside memory", HOST_BUS_FATAL, |g| g.fill(DISK, 0, &dma(0x25, 0, 1), &[(END, 512)])),
        ("data across the end of memory", HOST_BUS_FATAL, |g| {
            g.fill(DISK, 0, &dma(0x25, 0, 1), &[(END - 256, 512)]);
        }),
        ("data that wraps around", HOST_BUS_FATAL, |g| {
            g.fill(DISK, 0, &dma(0x35, 0, 1), &[(u64::MAX - 255, 512)]);
        }),
        ("no data", TASK_FILE, |g| g.fill(DISK, 0, &dma(0x25, 0, 1), &[])),
        ("less data than sectors", TASK_FILE, |g| g.fill(DISK, 0, &dma(0x25, 0, 2), &[(DATA, 512)])),
        ("a PRDT that leaves memory", HOST_BUS_FATAL, |g| {
            // Eight entries of one byte are there, and 65,527 are not.
            words(g, [5 | 0xffff << 16, 0, END as u32 - 0x100, 0]);
            let mut table = dma(0x25, 0, 8);
            table.resize(0x100, 0);
            g.set_bytes(END - 0x100, &table);
        }),
        ("another type of frame", TASK_FILE, |g| {
            let mut frame = dma(0x25, 0, 1);
            frame[0] = 0x46;
            g.fill(DISK, 0, &frame, &[(DATA, 512)]);
        }),
        ("a frame of no length", TASK_FILE, |g| {
            g.fill(DISK, 0, &dma(0x25, 0, 1), &[(DATA, 512)]);
            words(g, [1 << 16, 0, g.table(DISK, 0) as u32, 0]);
        }),
        ("a frame for a port multiplier", TASK_FILE, |g| {
            g.fill(DISK, 0, &dma(0x25, 0, 1), &[(DATA, 512)]);
            words(g, [5 | 3 << 12 | 1 << 16, 0, g.table(DISK, 0) as u32, 0]);
        }),
        ("an unknown command", TASK_FILE, |g| g.fill(DISK, 0, &dma(0xff, 0, 1), &[(DATA, 512)])),
        ("a packet for a disk", TASK_FILE, |g| g.fill(DISK, 0, &dma(0xa0, 0, 1), &[(DATA, 512)])),
        ("sectors beyond the end", TASK_FILE, |g| {
            g.fill(DISK, 0, &dma(0x25, DISK_BYTES / 512 - 1, 2), &[(DATA, 1024)]);
        }),
        ("the last sector of all", TASK_FILE, |g| {
            g.fill(DISK, 0, &dma(0x35, (1 << 48) - 1, 0), &[(DATA, 512)]);
        }),
        ("an address by cylinders", TASK_FILE, |g| {
            let mut frame = dma(0x25, 0, 1);
            frame[7] = 0;
            g.fill(DISK, 0, &frame, &[(DATA, 512)]);
        }),
        ("another slot's tag", TASK_FILE, |g| g.fill(DISK, 0, &queued(0x60, 0, 1, 9), &[(DATA, 512)])),
        ("a log that there is not", TASK_FILE, |g| g.fill(DISK, 0, &dma(0x2f, 0x42, 1), &[(DATA, 512)])),
        ("ranges beyond the end", TASK_FILE, |g| {
            g.set_bytes(DATA, &[0xff; 512]);
            let mut trim = dma(0x06, 0, 1);
            trim[3] = 1;
            g.fill(DISK, 0, &trim, &[(DATA, 512)]);
        }),
    ];
    for engine in [EngineKind::Auto, EngineKind::Synchronous] {
        let guest = Guest::started(engine);
        for (turn, (name, shown, lie)) in lies.iter().enumerate() {
            let before = guest.counter("guest_faults") + guest.counter("task_file_errors");
            lie(&guest);
            guest.issue(DISK, 1);
            assert_eq!(guest.end(DISK) & (HOST_BUS_FATAL | TASK_FILE), *shown, "{name}");
            let counted = guest.counter("guest_faults") + guest.counter("task_file_errors");
            assert_eq!(counted, before + 1, "{name}");
            guest.recover(DISK);
            guest.io(turn as u64 + 1);
        }
    }
}

#[test]
fn lists_and_frames_outside_memory_are_fatal_to_the_port_only() {
    let guest = Guest::started(EngineKind::Auto);
    for list in [END as u32, 0xffff_fc00] {
        guest.set_port(DISK, 0x00, list);
        guest.issue(DISK, 1);
        assert_ne!(guest.end(DISK) & HOST_BUS_FATAL, 0);
        guest.recover(DISK);
    }
    guest.set_port(DISK, 0x0c, u32::MAX);
    guest.fill(DISK, 0, &dma(0x25, 0, 1), &[(DATA, 512)]);
    guest.issue(DISK, 1);
    assert_ne!(guest.end(DISK) & HOST_BUS_FATAL, 0);
    guest.packet(&ten(0x28, 0, 1), &[(DATA, 2048)]);
    guest.recover(DISK);
    guest.io(1);
}

#[test]
fn packets_that_cannot_be_are_check_conditions() {
    let guest = Guest::started(EngineKind::Auto);
    guest.packet(&[0; 6], &[]);
    let all = (0..=255_u8)
        .map(|operation| [operation, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    for packet in all {
        // Locks and trays are put back below.
        let memory = [(DATA, 2), (DATA + 0x101, 7), (DATA + 0x1000, 0x40_0000)];
        let end = guest.try_packet(&packet, &memory);
        assert!(end & (TASK_FILE | 1) != 0 && end & HOST_BUS_FATAL == 0, "{packet:x?}: {end:x}");
        guest.recover(CDROM);
    }
    guest.packet(&[0x1e, 0, 0, 0, 0, 0], &[]);
    guest.packet(&[0x1b, 0, 0, 0, 3, 0], &[]);
    guest.io(1);
}

#[test]
fn accesses_of_any_size_and_place_are_survived() {
    let guest = Guest::started(EngineKind::Auto);
    for len in 0..=8 {
        for offset in (0..ABAR_BYTES + 8).chain([u64::MAX - 8, u64::MAX]) {
            let mut data = vec![0xaa; len];
            guest.function.bar_read(ABAR, offset, &mut data);
            if offset > ABAR_BYTES {
                assert_eq!(data, vec![0; len]);
            }
        }
    }
    for len in 0..=8 {
        for offset in (0..ABAR_BYTES + 8).chain([u64::MAX - 8, u64::MAX]) {
            for fill in [0xff, 0x00, 0x5a] {
                guest.function.bar_write(ABAR, offset, &vec![fill; len]);
                guest.function.bar_write(3, offset, &vec![fill; len]);
            }
        }
    }
    guest.function.reset();
    guest.start();
    guest.io(1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Registers and tables are filled at random, and issued; a reset mends everything.
    #[test]
    fn random_programming_is_survived(
        writes in prop::collection::vec((0u64..0x400, any::<u32>()), 1..80),
        junk in prop::collection::vec(any::<u8>(), 0x2000),
        slots: u32,
    ) {
        let guest = Guest::started(EngineKind::Auto);
        for at in [guest.list(DISK), guest.table(DISK, 0), guest.table(DISK, 3), guest.list(CDROM), guest.table(CDROM, 0)] {
            guest.set_bytes(at, &junk);
        }
        for (port, slot) in [(DISK, 0), (DISK, 1), (CDROM, 0)] {
            // Something that gets further: a good header before a bad table.
            let words = [5 | u32::from(junk[3]) << 16, 0, guest.table(port, slot) as u32, 0];
            guest.ram.write_obj(words, GuestAddress(guest.list(port) + 32 * slot)).unwrap();
            guest.set_bytes(guest.table(port, slot), &[0x27, 0x80]);
        }
        guest.issue(DISK, slots);
        guest.issue(CDROM, slots);
        for (offset, value) in writes {
            guest.write(offset & !3, value);
        }
        guest.function.pause();
        guest.function.resume();
        guest.function.pause();
        guest.function.reset();
        guest.start();
        guest.packet(&[0x1e, 0, 0, 0, 0, 0], &[]);
        guest.packet(&[0x1b, 0, 0, 0, 3, 0], &[]);
        guest.io(1);
    }
}

#[test]
fn a_pause_drains_and_a_resume_loses_nothing() {
    for engine in [EngineKind::Auto, EngineKind::Synchronous] {
        let guest = Guest::started(engine);
        let slots: u32 = u32::MAX;
        for slot in 0..32 {
            guest.set_bytes(DATA + slot * 0x1_0000, &vec![slot as u8 + 1; 0x1_0000]);
            let frame = queued(0x61, slot * 128, 128, slot as u8);
            guest.fill(DISK, slot, &frame, &[(DATA + slot * 0x1_0000, 0x1_0000)]);
        }
        guest.set_port(DISK, 0x34, slots);
        guest.issue(DISK, slots);
        guest.function.pause();
        let (issued, active) = (guest.port(DISK, 0x38), guest.port(DISK, 0x34));
        // What was begun is done; what was not is still issued.
        assert_eq!(issued, active);
        guest.issue(CDROM, 1);
        let before = guest.bytes(0, END as usize);
        (0..200).for_each(|_| std::thread::yield_now());
        assert!(before == guest.bytes(0, END as usize), "memory changed after the pause");
        assert_eq!(guest.port(DISK, 0x38), issued);
        guest.function.resume();
        assert_eq!(guest.end(DISK) & TASK_FILE, 0);
        let image = std::fs::read(&guest.image).unwrap();
        for slot in 0..32_usize {
            assert!(image[slot << 16..][..0x1_0000].iter().all(|byte| usize::from(*byte) == slot + 1));
        }
    }
}

#[test]
fn a_port_that_is_stopped_touches_memory_no_more() {
    let guest = Guest::started(EngineKind::Auto);
    for turn in 0..20_u64 {
        for slot in 0..32 {
            let frame = queued(0x60, slot * 64, 64, slot as u8);
            guest.fill(DISK, slot, &frame, &[(DATA + slot * 0x8000, 0x8000)]);
        }
        guest.set_port(DISK, 0x34, u32::MAX);
        guest.issue(DISK, u32::MAX);
        guest.set_port(DISK, 0x18, 1 << 4);
        guest.wait("the port to stop", || guest.port(DISK, 0x18) & 1 << 15 == 0);
        assert_eq!((guest.port(DISK, 0x34), guest.port(DISK, 0x38)), (0, 0));
        guest.set_bytes(DATA, &vec![turn as u8; 0x10_0000]);
        (0..50).for_each(|_| std::thread::yield_now());
        assert!(guest.bytes(DATA, 0x10_0000).iter().all(|byte| *byte == turn as u8));
        guest.start_port(DISK);
        guest.io(turn + 1);
    }
}

#[test]
fn save_restore_save_gives_the_same_bytes_and_io_goes_on() {
    let mut guest = Guest::started(EngineKind::Auto);
    for turn in 1..4 {
        guest.io(turn);
        assert!(guest.function.save().is_err(), "a controller was saved while it works");
        guest.function.pause();
        // One that waits goes with the machine.
        guest.fill(DISK, 4, &dma(0x25, 0, 1), &[(DATA, 512)]);
        guest.issue(DISK, 1 << 4);
        let saved = guest.function.save().unwrap();
        assert_eq!(saved, guest.function.save().unwrap());
        guest = guest.replug(EngineKind::Auto);
        guest.function.restore(&saved).unwrap();
        assert_eq!(saved, guest.function.save().unwrap());
        guest.function.resume();
        assert_eq!(guest.end(DISK) & TASK_FILE, 0);
        guest.io(turn + 10);
    }
}

#[test]
fn a_mutated_state_is_refused_or_gives_a_working_controller() {
    let guest = Guest::started(EngineKind::Synchronous);
    guest.io(1);
    guest.function.pause();
    let saved = guest.function.save().unwrap();
    for at in 0..saved[0].body.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut records = saved.clone();
            records[0].body[at] ^= flip;
            if guest.function.restore(&records).is_ok() {
                guest.function.resume();
                guest.function.pause();
                guest.function.save().unwrap();
            }
        }
    }
    for len in 0..saved[0].body.len() {
        let mut records = saved.clone();
        records[0].body.truncate(len);
        assert!(guest.function.restore(&records).is_err(), "a state cut to {len} bytes was taken");
    }
    assert!(guest.function.restore(&[]).is_err());
    assert!(guest.function.restore(&[saved.clone(), saved.clone()].concat()).is_err());
    guest.function.restore(&saved).unwrap();
    guest.function.resume();
    guest.io(2);
}
