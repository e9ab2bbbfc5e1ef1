//! The suite that every virtio device passes, on cards with one pair of queues and with two.

mod kit;

use kit::{HEADER, RX, Shape, TX, frame, on_wire, plain, plug, receive};
use orlop_virtio::conformance::Fixture;

/// One frame each way.
fn fixture(pairs: usize) -> Fixture {
    let (_net, wire, parts, _handle) = plug(Shape { pairs, ..Shape::default() });
    let mut count = 0u32;
    Fixture::new(parts, move |driver| {
        count += 1;
        let sent = frame(format!("{count:>60} from the guest").as_bytes());
        driver.request(TX, &plain(HEADER, &sent), 0);
        // Hostile requests may have left frames on the wire.
        while on_wire(&wire) != sent {}

        let sent = frame(format!("{count:>60} to the guest").as_bytes());
        wire.send(&plain(10, &sent)).unwrap();
        loop {
            driver.post(RX, &[], 2048);
            driver.kick(RX);
            if receive(driver, RX).1 == sent {
                break;
            }
        }
    })
}

orlop_virtio::conformance_suite!(|| fixture(1));

mod with_two_pairs {
    use super::*;

    orlop_virtio::conformance_suite!(|| fixture(2));
}
