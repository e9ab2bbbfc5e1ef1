//! The suite that every virtio device passes.

mod peer;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use orlop_virtio::conformance::Fixture;
use orlop_virtio_vsock::{VsockConfig, build};
use peer::{CID, Packet, REQUEST, RESPONSE, RST, RW, SHUTDOWN, receive_on, send};

const PORT: u32 = 1000;

/// One connection from the guest: opened, used both ways, closed.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v");
    let listener = UnixListener::bind(dir.path().join(format!("v_{PORT}"))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let parts = build(VsockConfig { name: "vsock0".to_owned(), guest_cid: CID, socket }).unwrap();
    let mut port = 0;
    Fixture::new(parts, move |driver| {
        let _here = &dir;
        port += 1;
        send(driver, &Packet::new(port, PORT, REQUEST));
        let (mut stream, _) = listener.accept().expect("the device has connected");
        assert_eq!(receive_on(driver, port, PORT).op, RESPONSE);
        send(driver, &Packet::new(port, PORT, RW).with_data(b"from the guest"));
        let mut data = [0; 14];
        stream.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"from the guest");
        stream.write_all(b"to the guest").unwrap();
        let packet = receive_on(driver, port, PORT);
        assert_eq!((packet.op, packet.data.as_slice()), (RW, b"to the guest".as_slice()));
        send(driver, &Packet { flags: 3, ..Packet::new(port, PORT, SHUTDOWN) });
        assert_eq!(receive_on(driver, port, PORT).op, RST);
        assert_eq!(stream.read(&mut data).unwrap(), 0);
    })
}

orlop_virtio::conformance_suite!(fixture);
