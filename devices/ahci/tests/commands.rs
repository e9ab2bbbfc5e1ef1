//! What a driver that keeps to the rules gets.

mod guest;

use guest::{CDROM, DATA, DISK, DISK_BYTES, Guest, TASK_FILE, cd_byte, dma, queued, ten};
use orlop_disk::EngineKind;
use orlop_pci::Function;

const ENGINES: [EngineKind; 2] = [EngineKind::Auto, EngineKind::Synchronous];

#[test]
fn it_looks_like_q35s_controller() {
    let guest = Guest::new(EngineKind::Auto);
    let mut header = [0; 4];
    guest.function.config_read(0, &mut header);
    assert_eq!(header, [0x86, 0x80, 0x22, 0x29]);
    guest.function.config_read(8, &mut header);
    assert_eq!(header, [2, 1, 6, 1]);
    // Size probing of BAR 5 (PCI 3.0 §6.2.5.1).
    guest.function.config_write(0x24, &[0xff; 4]);
    guest.function.config_read(0x24, &mut header);
    assert_eq!(u32::from_le_bytes(header), 0xffff_f000);
    assert_eq!((guest.read(0x0c), guest.read(0x10)), (0x3f, 0x0001_0301));
    assert_eq!(guest.read(0) & 0x1f, 5);
    let ports = [(0x28, [0x133, 0x133, 0]), (0x24, [0x101, 0xeb14_0101, u32::MAX])];
    for (register, expected) in ports {
        assert_eq!([0, 1, 2].map(|port| guest.port(port, register)), expected);
    }
}

#[test]
fn sectors_go_by_dma_and_by_pio() {
    for engine in ENGINES {
        let guest = Guest::started(engine);
        let data: Vec<u8> = (0..8192_u32).map(|at| (at / 7) as u8).collect();
        guest.set_bytes(DATA, &data);
        // In pieces of odd places and lengths.
        assert_eq!(
            guest.run(DISK, &dma(0x35, 100, 16), &[(DATA, 6), (DATA + 6, 4090), (DATA + 4096, 4096)]),
            1
        );
        assert_eq!(guest.run(DISK, &dma(0xea, 0, 0), &[]), 1);
        assert_eq!(std::fs::read(&guest.image).unwrap()[51200..][..8192], data);
        for (command, interrupt) in [(0x25, 1), (0x24, 2)] {
            guest.set_bytes(DATA, &[0; 8192]);
            assert_eq!(guest.run(DISK, &dma(command, 100, 16), &[(DATA, 8192)]), interrupt);
            assert_eq!(guest.bytes(DATA, 8192), data);
            // PRDBC.
            assert_eq!(guest.bytes(guest.list(DISK) + 4, 4), 8192_u32.to_le_bytes());
        }
        assert!(guest.messages.0.load(std::sync::atomic::Ordering::SeqCst) >= 4);
    }
}

/// A sector of a cluster that is not there yet takes several steps, each of which is to be handed on.
#[test]
fn commands_of_several_steps_come_to_an_end() {
    for engine in ENGINES {
        let guest = Guest::on_an_overlay(engine);
        for turn in 0..200_u64 {
            let sector = turn * 128 + turn % 100;
            guest.set_bytes(DATA, &[turn as u8 + 1; 512]);
            assert_eq!(guest.run(DISK, &dma(0x35, sector, 1), &[(DATA, 512)]), 1);
            assert_eq!(guest.run(DISK, &dma(0x25, sector, 1), &[(DATA, 512)]), 1);
            assert_eq!(guest.bytes(DATA, 512), [turn as u8 + 1; 512]);
        }
    }
}

#[test]
fn a_disk_identifies_itself_by_size_and_serial_number() {
    let guest = Guest::started(EngineKind::Auto);
    assert_eq!(guest.run(DISK, &dma(0xec, 0, 0), &[(DATA, 512)]), 2);
    let words = guest.bytes(DATA, 512);
    assert_eq!(u64::from_le_bytes(words[200..208].try_into().unwrap()), DISK_BYTES / 512);
    let serial: Vec<u8> = words[20..40].chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    assert_eq!(serial, b"ORLOP-0001          ");
}

#[test]
fn thirty_two_queued_commands_run_together() {
    for engine in ENGINES {
        let guest = Guest::started(engine);
        let place = |slot: u64| DATA + slot * 4096;
        for (command, turn) in [(0x61, 0), (0x60, 1)] {
            for slot in 0..32 {
                let fill = if turn == 0 { slot as u8 + 1 } else { 0 };
                guest.set_bytes(place(slot), &[fill; 4096]);
                guest.fill(DISK, slot, &queued(command, slot * 80, 8, slot as u8), &[(place(slot), 4096)]);
            }
            guest.set_port(DISK, 0x34, u32::MAX);
            guest.issue(DISK, u32::MAX);
            assert_eq!(guest.end(DISK) & TASK_FILE, 0);
        }
        for slot in 0..32 {
            assert_eq!(guest.bytes(place(slot), 4096), [slot as u8 + 1; 4096], "slot {slot}");
        }
    }
}

#[test]
fn a_queued_command_that_fails_is_in_the_log() {
    let guest = Guest::started(EngineKind::Auto);
    guest.fill(DISK, 7, &queued(0x60, DISK_BYTES / 512, 1, 7), &[(DATA, 512)]);
    guest.set_port(DISK, 0x34, 1 << 7);
    guest.issue(DISK, 1 << 7);
    assert_ne!(guest.end(DISK) & TASK_FILE, 0);
    assert_eq!(guest.port(DISK, 0x34), 1 << 7, "a queued command that failed is still active");
    guest.recover(DISK);
    let log = vec![0x27, 0x80, 0x2f, 0, 0x10, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(guest.run(DISK, &log, &[(DATA, 512)]), 2);
    let log = guest.bytes(DATA, 512);
    assert_eq!((log[0], log[2], log[3]), (7, 0x51, 0x10));
    assert_eq!(log.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

#[test]
fn trimmed_sectors_are_free_on_the_host() {
    use std::os::unix::fs::MetadataExt;
    let guest = Guest::started(EngineKind::Auto);
    guest.set_bytes(DATA, &vec![1; 1 << 20]);
    assert_eq!(guest.run(DISK, &dma(0x35, 0, 2048), &[(DATA, 1 << 20)]), 1);
    assert_eq!(guest.run(DISK, &dma(0xea, 0, 0), &[]), 1);
    let before = std::fs::metadata(&guest.image).unwrap().blocks();
    let mut ranges = (2048_u64 << 48).to_le_bytes().to_vec();
    ranges.resize(512, 0);
    guest.set_bytes(DATA, &ranges);
    let mut trim = dma(0x06, 0, 1);
    trim[3] = 1;
    assert_eq!(guest.run(DISK, &trim, &[(DATA, 512)]), 1);
    let after = std::fs::metadata(&guest.image).unwrap().blocks();
    assert!(after + 2000 <= before, "{before} blocks before, {after} after");
}

#[test]
fn a_drive_reads_its_medium_by_dma_and_by_pio() {
    let guest = Guest::started(EngineKind::Auto);
    let expected: Vec<u8> = (2048 * 3..2048 * 5).map(cd_byte).collect();
    guest.packet(&ten(0x28, 3, 2), &[(DATA, 4096)]);
    assert_eq!(guest.bytes(DATA, 4096), expected);
    guest.set_bytes(DATA, &[0; 4096]);
    let mut frame = vec![0x27, 0x80, 0xa0, 0];
    frame.resize(0x40, 0);
    frame.extend(ten(0x28, 3, 2));
    assert_eq!(guest.run(CDROM, &frame, &[(DATA, 4096)]), 3, "a setup frame, then the end");
    assert_eq!(guest.bytes(DATA, 4096), expected);
    assert_eq!(guest.run(CDROM, &dma(0xa1, 0, 0), &[(DATA, 512)]), 2);
    assert_eq!(guest.bytes(DATA, 2), [0xc0, 0x85]);
}

#[test]
fn an_open_tray_is_a_check_condition_until_it_is_closed() {
    let guest = Guest::started(EngineKind::Auto);
    guest.packet(&[0x1b, 0, 0, 0, 2, 0], &[]);
    assert_ne!(guest.try_packet(&ten(0x28, 0, 1), &[(DATA, 2048)]) & TASK_FILE, 0);
    assert_eq!(guest.port(CDROM, 0x20), 0x2051, "not ready");
    guest.recover(CDROM);
    guest.packet(&[0x03, 0, 0, 0, 18, 0], &[(DATA, 18)]);
    let sense = guest.bytes(DATA, 18);
    assert_eq!((sense[2], sense[12], sense[13]), (2, 0x3a, 2));
    guest.packet(&[0x1b, 0, 0, 0, 3, 0], &[]);
    guest.packet(&ten(0x28, 0, 1), &[(DATA, 2048)]);
}

#[test]
fn a_link_reset_brings_the_signature_back() {
    let guest = Guest::started(EngineKind::Auto);
    for (port, frame) in [(DISK, [1, 1, 0, 0]), (CDROM, [1, 1, 0x14, 0xeb])] {
        guest.recover(port);
        guest.set_port(port, 0x18, 1 << 4);
        guest.set_bytes(guest.received(port), &[0; 256]);
        guest.set_port(port, 0x2c, 0x301);
        assert_eq!(guest.port(port, 0x28), 0);
        guest.set_port(port, 0x2c, 0x300);
        guest.wait("the signature", || guest.bytes(guest.received(port) + 0x40, 1) == [0x34]);
        let received = guest.bytes(guest.received(port) + 0x40, 16);
        assert_eq!([received[12], received[4], received[5], received[6]], frame);
        assert_eq!(guest.port(port, 0x28), 0x133);
        guest.set_port(port, 0x30, u32::MAX);
        guest.start_port(port);
    }
    guest.io(1);
    // The whole controller.
    guest.write(4, 1);
    guest.wait("the reset", || guest.read(4) & 1 == 0);
    assert_eq!((guest.read(4), guest.port(DISK, 0x18) & 0x11), (1 << 31, 0));
    guest.start();
    guest.io(2);
}
