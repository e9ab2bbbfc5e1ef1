//! What a guest sees of its network card, against the kernel's own tap.

mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kit::{Card, HEADER, MAC, RX, Shape, TX, bit, checksum, frame, on_wire, plain, receive, tso};
use orlop_pci::Function;
use orlop_virtio::conformance::{Descriptor, Driver};
use orlop_virtio_net::RateLimit;

const CSUM: u32 = 0;
const GUEST_TSO4: u32 = 7;
const GUEST_TSO6: u32 = 8;
const HOST_TSO4: u32 = 11;
const MRG_RXBUF: u32 = 15;
const MQ: u32 = 22;
const GUEST_USO: u64 = 3 << 54;
const LARGE: u64 = 1 << GUEST_TSO4 | 1 << GUEST_TSO6 | GUEST_USO;

/// The control queue of a card with one pair.
const CONTROL: u16 = 2;

fn card() -> Card {
    Card::start(Shape::default(), 0)
}

#[test]
fn an_unsegmented_frame_reaches_the_kernel_whole() {
    let mut card = card();
    let sent = tso(HEADER, 20_000, 1448);
    card.driver.request(TX, &sent, 0);
    let received = card.wire.receive().unwrap();
    assert!(received[10..] == sent[HEADER..], "{} bytes came", received.len());
    assert_eq!(received[..2], [1, 1]);
    assert_eq!(card.counter("tx_bytes"), 20_054);
    assert_eq!(card.counter("tx_errors"), 0);
}

#[test]
fn an_unsegmented_frame_reaches_the_guest_in_many_buffers() {
    let mut card = card();
    card.driver.settle();
    let sent = tso(10, 30_000, 1448);
    card.wire.send(&sent).unwrap();
    card.post_rx(64, 1526);
    let (header, received) = card.receive();
    assert!(received == sent[10..], "{} bytes came", received.len());
    assert_eq!(header[..2], [1, 1]);
    assert_eq!(u16::from_le_bytes([header[10], header[11]]), 20);
}

#[test]
fn a_driver_without_segmentation_gets_finished_segments() {
    let mut card = Card::start(Shape::default(), LARGE | bit(1));
    card.post_rx(32, 1526);
    card.wire.send(&tso(10, 14_480, 1448)).unwrap();
    for segment in 0..10 {
        let (header, received) = card.receive();
        assert_eq!(header[..10], [0; 10], "segment {segment}");
        assert_eq!(received.len(), 54 + 1448);
        // The kernel has filled the checksum in: over pseudo header and segment it comes out as zero.
        let pseudo = [&received[26..34], &[0, 6], &1468u16.to_be_bytes()].concat();
        assert_eq!(checksum(&[&pseudo, &received[34..]].concat()), 0);
    }
}

#[test]
fn a_frame_waits_for_the_buffers_that_it_needs() {
    let mut card = card();
    card.post_rx(3, 1526);
    let long = frame(&[7; 8900]);
    card.wire.send(&plain(10, &long)).unwrap();
    card.driver.settle();
    card.post_rx(1, 1526);
    assert!(card.driver.poll(RX).is_none());
    card.post_rx(2, 1526);
    // A frame that is spread at a pause is lost; only whole ones are shown.
    card.wire.send(&plain(10, &long)).unwrap();
    let (header, received) = card.receive();
    assert!(received == long, "{} bytes came", received.len());
    assert_eq!(header[10], 6);
}

#[test]
fn a_large_frame_is_pieced_together_from_whatever_buffers_come() {
    let mut card = card();
    card.driver.settle();
    card.post_rx(3, 1526);
    let sent = tso(10, 60_000, 1448);
    card.wire.send(&sent).unwrap();
    for (count, len) in [(1, 100), (5, 1526), (100, 12), (3, 4096), (40, 1526)] {
        card.post_rx(count, len);
    }
    let (header, received) = card.receive();
    assert!(received == sent[10..], "{} bytes came", received.len());
    assert_eq!(header[..2], [1, 1]);
    assert_eq!((card.counter("rx_errors"), card.counter("rx_drops")), (0, 0));
}

#[test]
fn a_frame_in_too_many_pieces_is_dropped() {
    let mut card = Card::start(Shape { queue_size: 1024, ..Shape::default() }, 0);
    card.driver.settle();
    card.post_rx(1024, 12);
    card.wire.send(&tso(10, 60_000, 1448)).unwrap();
    card.driver.wait_for("the frame to be dropped", || card.counter("rx_errors") == 1);
    card.wire.send(&plain(10, &frame(&[2; 100]))).unwrap();
    assert_eq!(card.receive().1, frame(&[2; 100]));
}

#[test]
fn a_frame_longer_than_the_whole_ring_is_dropped_and_the_next_one_passes() {
    let mut card = Card::start(Shape { queue_size: 4, ..Shape::default() }, 0);
    card.post_rx(4, 1526);
    card.wire.send(&plain(10, &frame(&[1; 8900]))).unwrap();
    card.wire.send(&plain(10, &frame(&[2; 100]))).unwrap();
    assert_eq!(card.receive().1, frame(&[2; 100]));
    assert_eq!(card.counter("rx_errors"), 1);
}

#[test]
fn without_mergeable_buffers_a_frame_that_does_not_fit_is_dropped() {
    let mut card = Card::start(Shape::default(), bit(MRG_RXBUF) | LARGE);
    card.post_rx(4, 1526);
    card.wire.send(&plain(10, &frame(&[1; 3000]))).unwrap();
    card.wire.send(&plain(10, &frame(&[2; 100]))).unwrap();
    let (header, received) = card.receive();
    assert_eq!(received, frame(&[2; 100]));
    assert_eq!(header[10..], [1, 0]);
    assert_eq!(card.counter("rx_errors"), 1);
}

#[test]
fn a_header_and_a_frame_may_be_cut_anywhere() {
    let mut card = card();
    let sent = frame(&[5; 100]);
    let bytes = plain(HEADER, &sent);
    for cut in [1, 5, 11, 12, 13, 60] {
        let parts: Vec<Descriptor> = bytes
            .chunks(cut)
            .map(|piece| {
                let address = card.driver.buffer(piece);
                Descriptor { address, len: u32::try_from(piece.len()).unwrap(), ..Descriptor::default() }
            })
            .collect();
        card.driver.post_chain(TX, &parts);
        card.driver.kick(TX);
        card.driver.wait(TX);
        assert_eq!(on_wire(&card.wire), sent);
    }
}

#[test]
fn frames_wait_in_the_tap_until_there_are_buffers() {
    let mut card = card();
    for n in 0..10 {
        card.wire.send(&plain(10, &frame(&[n; 60]))).unwrap();
    }
    card.driver.settle();
    assert!(card.driver.poll(RX).is_none());
    card.post_rx(10, 1526);
    for n in 0..10 {
        assert_eq!(card.receive().1, frame(&[n; 60]));
    }
}

#[test]
fn frames_too_short_or_too_long_are_counted_and_dropped() {
    let mut card = card();
    card.driver.request(TX, &[0; HEADER + 13], 0);
    card.driver.request(TX, &[0; 5], 0);
    card.driver.request(TX, &[0; HEADER + 65_600], 0);
    card.driver.post(TX, &[], 100);
    card.driver.kick(TX);
    card.driver.wait(TX);
    assert_eq!(card.counter("tx_errors"), 4);
    // A receive buffer without room for a header comes back empty.
    card.post_rx(1, HEADER - 1);
    assert_eq!(card.driver.wait(RX).written, 0);
    assert_eq!(card.counter("rx_errors"), 1);
    card.driver.request(TX, &plain(HEADER, &frame(b"fine")), 0);
    assert_eq!(card.counter("tx_packets"), 1);
}

#[test]
fn a_header_that_was_not_negotiated_is_counted_and_dropped() {
    let mut card = Card::start(Shape::default(), bit(CSUM) | bit(HOST_TSO4));
    card.driver.request(TX, &tso(HEADER, 3000, 1448), 0);
    assert_eq!(card.counter("tx_errors"), 1);
    let mut lies = tso(HEADER, 3000, 1448);
    lies[1] = 0;
    card.driver.request(TX, &lies, 0);
    assert_eq!(card.counter("tx_errors"), 2);
}

#[test]
fn an_ingress_flood_stalls_neither_the_other_direction_nor_a_stop() {
    // CVE-2020-16843: the receive path stalled for good under a flood.
    let mut card = card();
    let enough = Arc::new(AtomicBool::new(false));
    let wire = card.net.wire("tap0").unwrap();
    let flood = std::thread::spawn({
        let enough = Arc::clone(&enough);
        move || {
            while !enough.load(Relaxed) {
                // A full queue is what a flood is about.
                let _ = wire.send(&plain(10, &frame(&[9; 60])));
            }
        }
    });
    card.post_rx(100, 1526);
    for round in 0..50u8 {
        for _ in 0..10 {
            receive(&mut card.driver, RX);
            card.post_rx(1, 1526);
        }
        let sent = frame(&[round; 80]);
        card.driver.request(TX, &plain(HEADER, &sent), 0);
        while on_wire(&card.wire) != sent {}
        card.driver.function.pause();
        card.driver.function.resume();
    }
    enough.store(true, Relaxed);
    flood.join().unwrap();
    assert!(!card.driver.is_broken());
    assert_eq!(card.counter("rx_errors"), 0);
}

#[test]
fn a_cable_that_is_out_stops_frames_both_ways_and_the_guest_sees_it() {
    let mut card = card();
    card.post_rx(4, 1526);
    assert_eq!(card.driver.device_config::<1>(6), [1]);
    let interrupts = card.driver.function.inspect().config_interrupts;
    card.handle.set_link(false);
    let driver = &card.driver;
    driver.wait_for("the guest to hear of its link", || {
        driver.function.inspect().config_interrupts > interrupts
    });
    assert_eq!(card.driver.device_config::<1>(6), [0]);
    assert!(!card.handle.is_link_up());
    card.driver.request(TX, &plain(HEADER, &frame(&[1; 60])), 0);
    card.wire.send(&plain(10, &frame(&[1; 60]))).unwrap();
    card.driver.wait_for("both frames to be dropped", || {
        card.counter("tx_drops") == 1 && card.counter("rx_drops") == 1
    });
    card.handle.set_link(true);
    card.wire.send(&plain(10, &frame(&[2; 60]))).unwrap();
    assert_eq!(card.receive().1, frame(&[2; 60]));
    card.driver.request(TX, &plain(HEADER, &frame(&[3; 60])), 0);
    assert_eq!(on_wire(&card.wire), frame(&[3; 60]));
    assert_eq!(card.driver.device_config::<1>(6), [1]);
}

#[test]
fn a_tap_that_vanishes_takes_the_link_down_and_the_guest_goes_on() {
    let mut card = card();
    card.post_rx(4, 1526);
    card.net.delete("tap0").unwrap();
    card.driver.wait_for("the link to go down", || !card.handle.is_link_up());
    assert_eq!(card.driver.device_config::<1>(6), [0]);
    card.driver.request(TX, &plain(HEADER, &frame(&[1; 60])), 0);
    assert_eq!(card.counter("tx_drops"), 1);
    card.handle.set_link(true);
    assert!(!card.handle.is_link_up());
    card.driver.settle();
    assert!(!card.driver.is_broken());
}

#[test]
fn an_interface_that_is_down_drops_frames_and_goes_on_when_it_is_up() {
    let mut card = card();
    card.net.set_up("tap0", false).unwrap();
    card.driver.request(TX, &plain(HEADER, &frame(&[1; 60])), 0);
    assert_eq!(card.counter("tx_drops"), 1);
    assert!(card.handle.is_link_up());
    card.net.set_up("tap0", true).unwrap();
    card.driver.request(TX, &plain(HEADER, &frame(&[2; 60])), 0);
    assert_eq!(card.counter("tx_packets"), 1);
}

#[test]
fn the_guest_may_change_its_address_until_reset() {
    let mut card = card();
    let other = [0x52, 0x54, 0, 1, 2, 3];
    assert_eq!(card.driver.device_config::<6>(0), MAC);
    assert_eq!(card.control(CONTROL, 1, 1, &other), 0);
    assert_eq!(card.driver.device_config::<6>(0), other);
    for bad in [&[1, 0, 0, 0, 0, 1][..], &[0; 6], &[2; 5], &[2; 7]] {
        assert_eq!(card.control(CONTROL, 1, 1, bad), 1, "{bad:?}");
    }
    card.driver.set_device_config(0, &[2; 6]);
    assert_eq!(card.driver.device_config::<6>(0), other);
    card.driver.reset();
    assert_eq!(card.driver.device_config::<6>(0), MAC);
}

#[test]
fn control_commands_are_carried_out_or_refused() {
    let mut card = card();
    let table = |stations: u32, bytes: usize| [&stations.to_le_bytes()[..], &vec![2; bytes]].concat();
    let tables = [table(1, 6), table(2, 12)].concat();
    let offered = card.driver.offered();
    let all = offered & (bit(1) | bit(7) | bit(8) | bit(9) | GUEST_USO);
    for (class, command, data, answer) in [
        (0, 0, vec![1], 0),      // promiscuous
        (0, 1, vec![0], 0),      // all multicast
        (0, 1, vec![2], 1),      // neither on nor off
        (0, 4, vec![1], 1),      // CTRL_RX_EXTRA is not offered
        (1, 0, tables, 0),       // address tables
        (1, 0, table(9, 12), 1), // shorter than they say
        (2, 0, vec![1, 0], 1),   // VLAN filter
        (3, 0, vec![], 1),       // announce
        (4, 0, vec![1, 0], 1),   // multi-queue, with one pair
        (5, 0, all.to_le_bytes().to_vec(), 0),
        (5, 0, 0u64.to_le_bytes().to_vec(), 0),
        (5, 0, u64::MAX.to_le_bytes().to_vec(), 1),
        (6, 0, vec![0; 8], 1), // notification coalescing
        (200, 200, vec![], 1),
        (1, 0, vec![0xff; 5000], 1),
    ] {
        assert_eq!(card.control(CONTROL, class, command, &data), answer, "{class} {command} {data:?}");
    }
    // Nothing to read, and nowhere to answer.
    assert_eq!(card.driver.request(CONTROL, &[], 1).data, [1]);
    assert_eq!(card.driver.request(CONTROL, &[0, 0, 1], 0).written, 0);
}

#[test]
fn offloads_that_are_switched_off_are_left_to_the_kernel() {
    let mut card = card();
    card.post_rx(64, 1526);
    assert_eq!(card.control(CONTROL, 5, 0, &0u64.to_le_bytes()), 0);
    card.wire.send(&tso(10, 2896, 1448)).unwrap();
    for _ in 0..2 {
        let (header, received) = card.receive();
        assert_eq!((header[0], received.len()), (0, 54 + 1448));
    }
}

#[test]
fn a_frame_from_before_a_reset_that_the_new_driver_cannot_finish_is_dropped() {
    let mut card = card();
    card.driver.settle();
    card.wire.send(&tso(10, 2896, 1448)).unwrap();
    card.driver.reset();
    let features = card.driver.offered() & !LARGE & !bit(1);
    card.driver.start_with(features);
    card.wire.send(&plain(10, &frame(&[2; 100]))).unwrap();
    card.post_rx(4, 1526);
    assert_eq!(card.receive().1, frame(&[2; 100]));
    assert_eq!(card.counter("rx_drops"), 1);
}

#[test]
fn frames_pass_on_every_pair_that_the_driver_uses() {
    let mut card = Card::start(Shape { pairs: 2, ..Shape::default() }, 0);
    let control = 4;
    assert_eq!(card.driver.device_config::<2>(8), [2, 0]);
    for queue in [0, 2] {
        for _ in 0..96 {
            card.driver.post(queue, &[], 1526);
        }
        card.driver.kick(queue);
    }
    let flow = |n: u8| plain(10, &[frame(&[0; 60]), vec![n]].concat());
    // Their answers also say that the device is at work, and the tap's second queue out of it.
    for bad in [0u16, 3, 0x8000] {
        assert_eq!(card.control(control, 4, 0, &bad.to_le_bytes()), 1);
    }
    // With one pair in use, everything arrives there.
    for n in 0..32 {
        card.wire.send(&flow(n)).unwrap();
        receive(&mut card.driver, 0);
    }
    assert_eq!(card.control(control, 4, 0, &2u16.to_le_bytes()), 0);
    // The kernel spreads flows over the queues; and what the guest sends on a pair is answered there.
    for queue in [1, 3] {
        let sent = frame(&[u8::try_from(queue).unwrap(); 60]);
        card.driver.request(queue, &plain(HEADER, &sent), 0);
        assert_eq!(on_wire(&card.wire), sent);
    }
    for port in 0..64u16 {
        let mut segment = tso(10, 100, 0);
        segment[1] = 0;
        segment[10 + 34..10 + 36].copy_from_slice(&port.to_be_bytes());
        card.wire.send(&segment).unwrap();
    }
    let mut seen = [0; 2];
    card.driver.wait_for_frames(&mut seen, 64);
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    assert_eq!(card.control(control, 4, 0, &1u16.to_le_bytes()), 0);
    assert!(!card.driver.is_broken());
}

/// Counts frames on the receive queues of two pairs.
trait WaitForFrames {
    fn wait_for_frames(&mut self, seen: &mut [usize; 2], count: usize);
}

impl WaitForFrames for Driver {
    fn wait_for_frames(&mut self, seen: &mut [usize; 2], count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while seen.iter().sum::<usize>() < count {
            assert!(Instant::now() < deadline, "only {seen:?} of {count} frames came");
            for (pair, seen) in [0, 2].into_iter().zip(seen.iter_mut()) {
                while self.poll(pair).is_some() {
                    *seen += 1;
                }
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn without_multi_queue_the_control_queue_is_number_two() {
    let mut card = Card::start(Shape { pairs: 2, ..Shape::default() }, bit(MQ));
    assert_eq!(card.control(2, 0, 0, &[1]), 0);
    assert_eq!(card.control(2, 4, 0, &[2, 0]), 1);
    let sent = frame(&[1; 60]);
    card.driver.request(TX, &plain(HEADER, &sent), 0);
    assert_eq!(on_wire(&card.wire), sent);
}

#[test]
fn a_limit_slows_frames_down_and_loses_none() {
    let limit = RateLimit { bytes_per_second: 10_000, burst_bytes: Some(1000) };
    let shape = Shape { tx_limit: Some(limit), rx_limit: Some(limit), ..Shape::default() };
    let mut card = Card::start(shape, LARGE);
    let start = Instant::now();
    for n in 0..5 {
        let sent = frame(&[n; 986]);
        card.driver.request(TX, &plain(HEADER, &sent), 0);
        assert_eq!(on_wire(&card.wire), sent);
    }
    // One burst at once, four thousand bytes at ten thousand a second.
    assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
    let start = Instant::now();
    card.post_rx(5, 1526);
    for n in 0..5 {
        card.wire.send(&plain(10, &frame(&[n; 986]))).unwrap();
    }
    for n in 0..5 {
        assert_eq!(card.receive().1, frame(&[n; 986]));
    }
    assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
}
