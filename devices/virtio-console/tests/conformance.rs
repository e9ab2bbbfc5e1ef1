//! The suite that every virtio device passes: data through a named port, both ways.

mod guest;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use guest::{parts, read, receive_queue, set_up, transmit_queue};
use orlop_virtio::conformance::{Driver, Fixture};

/// Which port the driver uses.
const ID: u32 = 2;

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (parts, handle) = parts(dir.path());
    let mut turn = 0_u32;
    let io = move |driver: &mut Driver| {
        turn += 1;
        // What hostile requests and earlier peers left in between belongs to another peer.
        let mut peer = UnixStream::connect(dir.path().join(guest::NAMES[ID as usize - 1])).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let connected = |handle: &orlop_virtio_console::Handle| handle.ports()[ID as usize - 1].connected;
        driver.wait_for("the peer to be let in", || connected(&handle));
        let up = format!("to the host {turn}");
        driver.request(transmit_queue(ID), up.as_bytes(), 0);
        assert_eq!(read(&mut peer, up.len()), up.as_bytes());
        let down = format!("to the guest {turn}");
        peer.write_all(down.as_bytes()).unwrap();
        let used = driver.request(receive_queue(ID), &[], 64);
        assert_eq!(&used.data[..used.written], down.as_bytes());
        drop(peer);
        driver.wait_for("the peer to be gone", || !connected(&handle));
    };
    Fixture::new(parts, io).with_setup(set_up)
}

orlop_virtio::conformance_suite!(fixture);
