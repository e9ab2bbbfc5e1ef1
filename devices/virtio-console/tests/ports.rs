//! Named ports on real unix sockets: data, peers that come and go, peers and guests that do not read, nonsense.

mod guest;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use guest::*;
use orlop_pci::Function;
use orlop_virtio_console::{BuildError, Config, ListenError, PortConfig, Socket, build};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways_and_ports_are_apart() {
    let mut guest = Guest::new();
    let mut peers = [guest.connect(1), guest.connect(2)];
    for (id, peer) in (1..).zip(&mut peers) {
        let text = format!("hello from port {id}");
        guest.send(id, text.as_bytes());
        assert_eq!(read(peer, text.len()), text.as_bytes());
        peer.write_all(b"hello guest").unwrap();
        assert_eq!(guest.receive(id, 11, 4), b"hello guest");
    }
    assert_eq!(guest.counter("rx_bytes"), 22);
    assert_eq!(guest.counter("tx_bytes"), 34);
}

#[test]
fn much_data_arrives_whole_in_both_directions() {
    let mut guest = Guest::new();
    let mut peer = guest.connect(1);
    let data = pattern(3 << 20);
    let reader = {
        let (mut peer, len) = (peer.try_clone().unwrap(), data.len());
        std::thread::spawn(move || read(&mut peer, len))
    };
    for chunk in data.chunks(300_000) {
        guest.send(1, chunk);
    }
    assert!(reader.join().unwrap() == data);
    let writer = {
        let data = data.clone();
        std::thread::spawn(move || peer.write_all(&data).map(|()| peer).unwrap())
    };
    assert!(guest.receive(1, data.len(), 50_000) == data);
    drop(writer.join().unwrap());
}

#[test]
fn the_guest_hears_of_peers_that_come_and_go() {
    let mut guest = Guest::new();
    for _ in 0..3 {
        let peer = guest.connect(2);
        assert!(guest.handle.ports()[1].connected);
        drop(peer);
        // What cannot be read any more ends when the guest finds out.
        guest.driver.post(receive_queue(2), &[], 16);
        guest.driver.kick(receive_queue(2));
        assert_eq!(hear(&mut guest.driver), (2, PORT_OPEN, 0, String::new()));
        assert!(!guest.handle.ports()[1].connected);
    }
    assert_eq!(guest.counter("peers"), 3);
}

#[test]
fn a_peer_may_be_there_before_the_guest() {
    let mut guest = Guest::power_on();
    let mut peer = guest.connect_silently(1);
    peer.write_all(b"early").unwrap();
    guest.driver.start();
    assert_eq!(handshake(&mut guest.driver), [1]);
    assert_eq!(guest.receive(1, 5, 64), b"early");
}

#[test]
fn what_a_peer_sent_before_it_left_still_arrives() {
    let mut guest = Guest::new();
    let mut peer = guest.connect(1);
    peer.write_all(&pattern(100_000)).unwrap();
    drop(peer);
    assert!(guest.receive(1, 100_000, 8192) == pattern(100_000));
    guest.driver.post(receive_queue(1), &[], 16);
    guest.driver.kick(receive_queue(1));
    assert_eq!(hear(&mut guest.driver), (1, PORT_OPEN, 0, String::new()));
}

#[test]
fn a_peer_that_only_stops_sending_still_gets_answers() {
    let mut guest = Guest::new();
    let mut peer = guest.connect(1);
    peer.write_all(b"question").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(guest.receive(1, 8, 64), b"question");
    guest.driver.settle();
    guest.send(1, b"answer");
    assert_eq!(read(&mut peer, 6), b"answer");
}

#[test]
fn a_second_peer_is_told_and_sent_away() {
    let mut guest = Guest::new();
    let mut first = guest.connect(1);
    let mut answer = String::new();
    guest.connect_silently(1).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "port org.qemu.guest_agent.0 has another peer\n");
    assert_eq!(guest.counter("peers_refused"), 1);
    guest.send(1, b"still here");
    assert_eq!(read(&mut first, 10), b"still here");
}

#[test]
fn a_peer_that_does_not_read_stalls_its_port_and_nothing_else() {
    let mut guest = Guest::new();
    let mut deaf = guest.connect(1);
    let mut other = guest.connect(2);
    // More than its socket holds: requests stay with the guest's queue.
    let data = pattern(64 << 10);
    for _ in 0..64 {
        guest.driver.post(transmit_queue(1), &data, 0);
    }
    guest.driver.kick(transmit_queue(1));
    for i in 0..100 {
        let text = format!("turn {i}");
        guest.send(2, text.as_bytes());
        assert_eq!(read(&mut other, text.len()), text.as_bytes());
        other.write_all(b"back").unwrap();
        assert_eq!(guest.receive(2, 4, 16), b"back");
    }
    let queue = usize::from(transmit_queue(1));
    let held = |guest: &Guest| {
        let queue = &guest.driver.function.inspect().queues[queue];
        64 - queue.next_used
    };
    assert!(held(&guest) > 32, "somebody took what nobody reads");
    // A pause puts back what is half sent, and a resume goes on in the middle of it.
    for _ in 0..5 {
        guest.driver.function.pause();
        guest.driver.function.resume();
        assert!(read(&mut deaf, 1000).len() == 1000);
    }
    let rest = read(&mut deaf, 64 * data.len() - 5000);
    let whole = data.repeat(64);
    assert!(rest == whole[5000..], "bytes were lost or sent twice");
    guest.driver.wait_for("the last request", || held(&guest) == 0);
}

#[test]
fn a_guest_that_does_not_read_stalls_its_peer_and_nothing_else() {
    let mut guest = Guest::new();
    let mut loud = guest.connect(1);
    let taken = fill(&mut loud);
    assert!(taken < 4 << 20, "{taken} bytes were buffered for a guest that does not read");
    let mut other = guest.connect(2);
    other.write_all(b"hello").unwrap();
    assert_eq!(guest.receive(2, 5, 16), b"hello");
    assert_eq!(guest.counter("rx_bytes"), 5);
    assert_eq!(guest.receive(1, taken, 60_000).len(), taken);
}

#[test]
fn a_port_that_no_program_has_open_takes_nothing_from_its_peer() {
    let mut guest = Guest::new();
    say(&mut guest.driver, 1, PORT_OPEN, 0);
    assert!(!guest.handle.ports()[0].guest_open);
    let mut peer = guest.connect(1);
    peer.write_all(b"wait").unwrap();
    guest.driver.post(receive_queue(1), &[], 64);
    guest.driver.kick(receive_queue(1));
    guest.driver.settle();
    assert_eq!(guest.counter("rx_bytes"), 0);
    say(&mut guest.driver, 1, PORT_OPEN, 1);
    let used = guest.driver.wait(receive_queue(1));
    assert_eq!(&used.data[..used.written], b"wait");
}

#[test]
fn what_nobody_listens_to_is_dropped_and_counted() {
    let mut guest = Guest::new();
    guest.send(1, &[0; 1000]);
    let peer = guest.connect(1);
    drop(peer);
    guest.driver.wait_for("the peer to be gone", || !guest.handle.ports()[0].connected);
    guest.send(1, &[0; 500]);
    assert_eq!(guest.counter("tx_dropped_bytes"), 1500);
}

#[test]
fn hostile_control_messages_are_counted_and_survived() {
    let mut guest = Guest::new();
    let before = guest.counter("invalid_requests");
    let bad: Vec<Vec<u8>> = vec![
        vec![0],
        message(1, PORT_OPEN, 1)[..7].to_vec(),
        message(0, PORT_OPEN, 1),
        message(3, PORT_OPEN, 1),
        message(u32::MAX, PORT_READY, 1),
        message(u32::MAX, PORT_OPEN, 0),
        message(1, PORT_ADD, 1),
        message(1, 2, 1),
        message(1, u16::MAX, u16::MAX),
    ];
    for message in &bad {
        guest.driver.request(CONTROL_TRANSMIT, message, 0);
    }
    assert_eq!(guest.counter("invalid_requests") - before, bad.len() as u64);
    // A longer one is fine; a driver that only gives a buffer says nothing.
    guest.driver.request(CONTROL_TRANSMIT, &[message(1, PORT_OPEN, 1), vec![0; 100]].concat(), 0);
    guest.driver.request(CONTROL_TRANSMIT, &[], 8);
    // A buffer too small for a message is returned empty, and the message is lost.
    while guest.driver.poll(CONTROL_RECEIVE).is_some() {}
    assert!(!guest.driver.is_broken());
    guest.driver.reset();
    guest.driver.start();
    for _ in 0..2 {
        guest.driver.post(CONTROL_RECEIVE, &[], 7);
    }
    guest.driver.kick(CONTROL_RECEIVE);
    say(&mut guest.driver, 0, DEVICE_READY, 1);
    for _ in 0..2 {
        assert_eq!(guest.driver.wait(CONTROL_RECEIVE).written, 0);
    }
    assert!(!guest.driver.is_broken());
}

#[test]
fn a_driver_that_is_ready_again_and_again_costs_nothing() {
    let mut guest = Guest::new();
    while guest.driver.poll(CONTROL_RECEIVE).is_some() {}
    for _ in 0..10_000 {
        say(&mut guest.driver, 0, DEVICE_READY, 1);
        say(&mut guest.driver, 1, PORT_READY, 1);
    }
    guest.driver.settle();
    // However often it asked: no more answers than it gave buffers for, and nothing piles up behind them.
    let heard = std::iter::from_fn(|| guest.driver.poll(CONTROL_RECEIVE)).count();
    assert!(heard <= 16, "{heard} messages");
    for _ in 0..16 {
        guest.driver.post(CONTROL_RECEIVE, &[], 128);
    }
    guest.driver.kick(CONTROL_RECEIVE);
    guest.driver.settle();
    let due = std::iter::from_fn(|| guest.driver.poll(CONTROL_RECEIVE)).count();
    assert!(due <= 3, "two ports and a name were due, not {due} messages");
}

#[test]
fn a_driver_without_named_ports_does_not_wait_for_ever() {
    let mut guest = Guest::power_on();
    guest.driver.start_with(guest.driver.offered() & !MULTIPORT);
    guest.driver.request(1, b"to the console that is none", 0);
    assert_eq!(guest.counter("tx_dropped_bytes"), 27);
    guest.driver.post(CONTROL_RECEIVE, &[], 64);
    say(&mut guest.driver, 0, DEVICE_READY, 1);
    guest.driver.settle();
    assert!(guest.driver.poll(CONTROL_RECEIVE).is_none(), "control messages that were not agreed on");
}

#[test]
fn the_driver_is_told_how_many_ports_there_are() {
    let guest = Guest::power_on();
    assert_eq!(guest.driver.device_config::<12>(0), [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.driver.queue_count(), 8);
}

#[test]
fn a_restored_guest_keeps_its_ports_and_hears_that_peers_are_gone() {
    let mut guest = Guest::new();
    let mut peer = guest.connect(1);
    guest.send(1, b"before");
    assert_eq!(read(&mut peer, 6), b"before");
    guest.driver.function.pause();
    let saved = guest.driver.function.save().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (parts, handle) = parts(dir.path());
    let mut guest = Guest { driver: guest.driver.replug(parts), handle, dir };
    guest.driver.function.restore(&saved).unwrap();
    guest.driver.function.resume();
    assert_eq!(hear(&mut guest.driver), (1, PORT_OPEN, 0, String::new()));
    let mut peer = guest.connect(1);
    assert!(guest.handle.ports()[0].guest_open);
    peer.write_all(b"after").unwrap();
    assert_eq!(guest.receive(1, 5, 64), b"after");
}

#[test]
fn a_guest_reset_keeps_the_peer_and_forgets_the_rest() {
    let mut guest = Guest::new();
    let mut peer = guest.connect(1);
    guest.driver.reset();
    assert!(!guest.handle.ports()[0].guest_open);
    guest.driver.start();
    assert_eq!(handshake(&mut guest.driver), [1]);
    guest.send(1, b"again");
    assert_eq!(read(&mut peer, 5), b"again");
}

#[test]
fn what_cannot_be_built_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let ports = |names: &[&str]| {
        let port = |(index, name): (usize, &&str)| PortConfig {
            name: (*name).to_owned(),
            socket: Socket::Path(dir.path().join(index.to_string())),
        };
        build(Config { name: "console0".into(), ports: names.iter().enumerate().map(port).collect() })
            .map(drop)
            .unwrap_err()
    };
    assert!(matches!(ports(&[]), BuildError::Ports(0)));
    assert!(matches!(ports(&["x"; 32]), BuildError::Ports(32)));
    assert!(matches!(ports(&["a", "b", "a"]), BuildError::Twice(_)));
    let long = "x".repeat(65);
    for name in ["", "a b", "a/b", "a\nb", &long] {
        assert!(matches!(ports(&[name]), BuildError::PortName(_)), "{name:?}");
    }
    let _theirs = UnixListener::bind(dir.path().join("0")).unwrap();
    let error = ports(&["a"]);
    assert!(matches!(error, BuildError::Listen { source: ListenError::InUse(_), .. }), "{error}");
    assert!(error.to_string().starts_with("port 'a': another process listens on "), "{error}");
}

#[test]
fn a_listener_can_be_handed_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs");
    let listener = UnixListener::bind(&path).unwrap();
    let port = PortConfig { name: "x".into(), socket: Socket::Listener(listener) };
    let (parts, _) = build(Config { name: "console0".into(), ports: vec![port] }).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(parts);
    assert!(path.exists());
}
