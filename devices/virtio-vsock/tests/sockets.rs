//! What a guest and its host see of the socket device, over real unix sockets.

mod peer;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use orlop_pci::Function;
use orlop_virtio::conformance::{Descriptor, Driver};
use orlop_virtio_vsock::{VsockConfig, build};
use peer::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

const PORT: u32 = 1000;
const DEADLINE: Duration = Duration::from_secs(20);

struct Guest {
    driver: Driver,
    dir: TempDir,
    listener: UnixListener,
}

fn config(dir: &TempDir) -> VsockConfig {
    VsockConfig { name: "vsock0".to_owned(), guest_cid: CID, socket: dir.path().join("v") }
}

impl Guest {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(format!("v_{PORT}"))).unwrap();
        let mut driver = Driver::new(build(config(&dir)).unwrap());
        driver.start();
        Self { driver, dir, listener }
    }

    fn send(&mut self, packet: &Packet) {
        send(&mut self.driver, packet);
    }

    fn receive(&mut self) -> Packet {
        receive(&mut self.driver)
    }

    /// A connection from the guest's `port` to [`PORT`], open.
    fn connect(&mut self, port: u32) -> UnixStream {
        self.send(&Packet::new(port, PORT, REQUEST));
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let response = self.receive();
        assert_eq!((response.op, response.src_port, response.dst_port), (RESPONSE, PORT, port));
        assert!(response.buf_alloc > 0);
        stream
    }

    /// A peer of the host's that has said `line`.
    fn dial(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.dir.path().join("v")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream
    }

    fn counter(&self, name: &str) -> u64 {
        let inspection = self.driver.function.inspect();
        inspection.counters.iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// The peer neither sends nor receives any more; it may say so in one step or in two.
    fn expect_end(&mut self) {
        loop {
            let shutdown = self.receive();
            assert_eq!(shutdown.op, SHUTDOWN);
            if shutdown.flags == 3 {
                return;
            }
        }
    }

    /// Nothing is on its way to the guest.
    fn expect_silence(&mut self) {
        let before = self.counter("rx_packets");
        self.driver.settle();
        assert_eq!(self.counter("rx_packets"), before);
    }
}

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn a_peer_of_the_host_reaches_a_port_of_the_guest() {
    let mut guest = Guest::start();
    let mut stream = guest.dial("CONNECT 52\nfirst words");
    let request = guest.receive();
    assert_eq!((request.op, request.dst_port), (REQUEST, 52));
    let host = request.src_port;
    guest.send(&Packet::new(52, host, RESPONSE));
    assert_eq!(read_line(&mut stream), format!("OK {host}"));
    let data = guest.receive();
    assert_eq!((data.op, data.data.as_slice()), (RW, b"first words".as_slice()));
    guest.send(&Packet::new(52, host, RW).with_data(b"an answer\n"));
    assert_eq!(read_line(&mut stream), "an answer");
    assert_eq!(guest.counter("host_connections"), 1);
}

#[test]
fn a_guest_that_refuses_closes_the_peer_without_a_word() {
    let mut guest = Guest::start();
    let mut stream = guest.dial("CONNECT 52\n");
    let host = guest.receive().src_port;
    guest.send(&Packet::new(52, host, RST));
    assert_eq!(read_line(&mut stream), "");
    guest.expect_silence();
}

#[test]
fn what_is_no_handshake_is_closed() {
    let guest = Guest::start();
    for line in ["GET / HTTP/1.1\n", "CONNECT x\n", "CONNECT 4294967296\n", "\n"] {
        assert_eq!(read_line(&mut guest.dial(line)), "", "{line}");
    }
    assert_eq!(guest.counter("refused_connections"), 4);
}

#[test]
fn a_handshake_that_takes_too_long_is_closed() {
    let guest = Guest::start();
    let start = Instant::now();
    assert_eq!(read_line(&mut guest.dial("CONNEC")), "");
    assert!(start.elapsed() >= Duration::from_secs(4));
}

#[test]
fn handshakes_are_bounded() {
    let mut guest = Guest::start();
    let _waiting: Vec<_> = (0..64).map(|_| guest.dial("C")).collect();
    guest.driver.settle();
    let driver = &guest.driver;
    driver.wait_for("one more to be closed", || {
        let mut stream = guest.dial("");
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        matches!(stream.read(&mut [0]), Ok(0))
    });
    // Connections that are there go on.
    guest.connect(7);
}

#[test]
fn either_side_may_stop_sending_first() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    guest.send(&Packet::new(7, PORT, RW).with_data(b"the end"));
    guest.send(&Packet { flags: 2, ..Packet::new(7, PORT, SHUTDOWN) });
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "the end");
    stream.write_all(b"still here").unwrap();
    assert_eq!(guest.receive().data, b"still here");
    stream.shutdown(Shutdown::Write).unwrap();
    // Now that neither sends, the connection is over.
    guest.expect_end();
    guest.send(&Packet::new(7, PORT, RST));

    let mut stream = guest.connect(8);
    stream.write_all(b"bye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive().data, b"bye");
    let shutdown = guest.receive();
    assert_eq!((shutdown.op, shutdown.flags), (SHUTDOWN, 2));
    guest.send(&Packet::new(8, PORT, RW).with_data(b"good bye\n"));
    assert_eq!(read_line(&mut stream), "good bye");
}

#[test]
fn a_peer_that_goes_away_is_told_after_its_last_words() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    stream.write_all(b"last words").unwrap();
    drop(stream);
    assert_eq!(guest.receive().data, b"last words");
    guest.expect_end();
    guest.send(&Packet::new(7, PORT, RST));
    guest.expect_silence();
    // The port is free again.
    guest.connect(7);
}

#[test]
fn a_guest_that_does_not_confirm_the_end_is_reset_after_a_while() {
    let mut guest = Guest::start();
    drop(guest.connect(7));
    guest.expect_end();
    let start = Instant::now();
    assert_eq!(guest.receive().op, RST);
    assert!(start.elapsed() >= Duration::from_secs(7));
}

#[test]
fn what_nobody_knows_is_reset_and_a_reset_is_not_answered() {
    let mut guest = Guest::start();
    for op in [RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 0, 8, u16::MAX] {
        guest.send(&Packet::new(9, PORT, op));
        let packet = guest.receive();
        assert_eq!((packet.op, packet.src_port, packet.dst_port), (RST, PORT, 9), "{op}");
    }
    guest.send(&Packet::new(9, 4321, REQUEST));
    assert_eq!(guest.receive().op, RST);
    guest.send(&Packet::new(9, PORT, RST));
    guest.expect_silence();
    // The same port twice: neither goes on.
    let mut stream = guest.connect(9);
    guest.send(&Packet::new(9, PORT, REQUEST));
    assert_eq!(guest.receive().op, RST);
    assert_eq!(read_line(&mut stream), "");
}

#[test]
fn addresses_and_types_that_are_not_ours_go_nowhere() {
    let mut guest = Guest::start();
    guest.send(&Packet { src_cid: 3, ..Packet::new(9, PORT, REQUEST) });
    guest.send(&Packet { src_cid: u64::from(CID) | 1 << 32, ..Packet::new(9, PORT, REQUEST) });
    guest.expect_silence();
    let raw = |guest: &mut Guest, packet: &Packet| {
        guest.send(packet);
        guest.driver.post(RX, &[], 4096);
        guest.driver.kick(RX);
        let used = guest.driver.wait(RX);
        assert_eq!(used.written, HEADER);
        used.data
    };
    let other_host = raw(&mut guest, &Packet { dst_cid: 77, ..Packet::new(9, PORT, REQUEST) });
    assert_eq!((other_host[0], other_host[30]), (77, 3));
    let datagram = raw(&mut guest, &Packet { kind: 3, ..Packet::new(9, PORT, REQUEST) });
    assert_eq!((datagram[28], datagram[30]), (3, 3));
    guest.listener.set_nonblocking(true).unwrap();
    assert_eq!(guest.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(guest.counter("malformed_packets"), 4);
}

#[test]
fn a_length_beyond_the_buffer_resets_the_connection() {
    // CVE-2019-18960: the length in the header and that of the buffers are two things.
    let mut guest = Guest::start();
    for len in [5, 4096, 65_536, 65_537, u32::MAX] {
        let mut stream = guest.connect(7);
        guest.send(&Packet { len, data: b"four".to_vec(), ..Packet::new(7, PORT, RW) });
        assert_eq!(guest.receive().op, RST);
        assert_eq!(read_line(&mut stream), "");
    }
    guest.driver.request(TX, &[0; HEADER - 1], 0);
    guest.driver.post(TX, &[], 100);
    guest.driver.kick(TX);
    guest.driver.wait(TX);
    assert_eq!(guest.counter("malformed_packets"), 7);
    // Too small for a header, on the other side.
    guest.driver.post(RX, &[], HEADER - 1);
    guest.driver.kick(RX);
    guest.send(&Packet::new(7, PORT, CREDIT_REQUEST));
    assert_eq!(guest.driver.wait(RX).written, 0);
    assert_eq!(guest.receive().op, RST);
}

#[test]
fn headers_and_data_may_be_cut_anywhere() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    let bytes = Packet::new(7, PORT, RW).with_data(b"a line that is cut into pieces\n").bytes();
    for cut in [1, 7, 43, 44, 45, 60] {
        let parts: Vec<Descriptor> = bytes
            .chunks(cut)
            .map(|piece| {
                let address = guest.driver.buffer(piece);
                Descriptor { address, len: u32::try_from(piece.len()).unwrap(), ..Descriptor::default() }
            })
            .collect();
        guest.driver.post_chain(TX, &parts);
        guest.driver.kick(TX);
        guest.driver.wait(TX);
        assert_eq!(read_line(&mut stream), "a line that is cut into pieces");
    }
}

#[test]
fn a_header_that_changes_while_it_is_read_counts_as_it_was_read() {
    // Reading the length twice from guest memory was a vulnerability elsewhere.
    let mut guest = Guest::start();
    let len = u32::try_from(HEADER + 4000).unwrap();
    let address = guest.driver.buffer(&Packet::new(7, PORT, RW).with_data(&[0xab; 4000]).bytes());
    let stop = Arc::new(AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let (ram, stop) = (Arc::clone(&guest.driver.ram), Arc::clone(&stop));
        move || {
            while !stop.load(Relaxed) {
                for len in [4000u32, 60_000] {
                    ram.write_obj(len.to_le(), GuestAddress(address + 24)).unwrap();
                }
            }
        }
    });
    for _ in 0..300 {
        let mut stream = guest.connect(7);
        guest.driver.post_chain(TX, &[Descriptor { address, len, ..Descriptor::default() }]);
        guest.driver.kick(TX);
        guest.driver.wait(TX);
        guest.send(&Packet { flags: 3, ..Packet::new(7, PORT, SHUTDOWN) });
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        assert!(data.is_empty() || data == [0xab; 4000], "{} bytes", data.len());
        // One reset for a length that is too much, one for the shutdown.
        for _ in 0..if data.is_empty() { 2 } else { 1 } {
            assert_eq!(guest.receive().op, RST);
        }
    }
    stop.store(true, Relaxed);
    attacker.join().unwrap();
    assert!(!guest.driver.is_broken());
}

#[test]
fn a_guest_that_exceeds_its_credit_is_reset() {
    let mut guest = Guest::start();
    let _never_read = guest.connect(7);
    let data = Packet::new(7, PORT, RW).with_data(&[1; 16 << 10]);
    // The socket's own buffer takes some; then ours is full, and no credit is left.
    let driver = &mut guest.driver;
    for _ in 0..1000 {
        send(driver, &data);
        driver.settle();
        if driver.function.inspect().counters.contains(&("resets", 1)) {
            break;
        }
    }
    assert_eq!(guest.counter("resets"), 1);
    while guest.receive().op != RST {}
}

/// Sends all of `data` on the connection as credit allows, and returns how much it was told about meanwhile.
fn send_with_credit(guest: &mut Guest, port: u32, data: &[u8]) {
    let (mut sent, mut forwarded, mut room) = (0u32, 0u32, 64 << 10);
    let mut rest = data;
    while !rest.is_empty() {
        let free = room - (sent - forwarded);
        if free == 0 {
            let packet = guest.receive();
            assert_eq!(packet.op, CREDIT_UPDATE);
            (room, forwarded) = (packet.buf_alloc, packet.fwd_cnt);
            continue;
        }
        let (now, later) = rest.split_at(rest.len().min(free as usize).min(50_000));
        guest.send(&Packet::new(port, PORT, RW).with_data(now));
        sent += u32::try_from(now.len()).unwrap();
        rest = later;
    }
}

#[test]
fn a_slow_reader_gets_everything_that_the_guest_sends() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    let data: Vec<u8> = (0..2_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let reader = std::thread::spawn(move || {
        let mut all: Vec<u8> = Vec::new();
        let mut piece = [0; 3000];
        loop {
            match stream.read(&mut piece).unwrap() {
                0 => return all,
                n => all.extend(&piece[..n]),
            }
            std::thread::yield_now();
        }
    });
    send_with_credit(&mut guest, 7, &data);
    guest.send(&Packet { flags: 3, ..Packet::new(7, PORT, SHUTDOWN) });
    assert!(reader.join().unwrap() == data);
}

#[test]
fn the_guest_is_sent_no_more_than_it_has_room_for() {
    let mut guest = Guest::start();
    let mut stream = guest.dial("CONNECT 52\n");
    stream.write_all(&[7; 1000]).unwrap();
    let host = guest.receive().src_port;
    let with_room = |op, buf_alloc, fwd_cnt| Packet { buf_alloc, fwd_cnt, ..Packet::new(52, host, op) };
    guest.send(&with_room(RESPONSE, 100, 0));
    assert_eq!(guest.receive().data.len(), 100);
    assert_eq!(guest.receive().op, CREDIT_REQUEST);
    guest.expect_silence();
    guest.send(&with_room(CREDIT_UPDATE, 100, 60));
    assert_eq!(guest.receive().data.len(), 60);
    assert_eq!(guest.receive().op, CREDIT_REQUEST);
    // A smaller buffer than what is in flight, and a count that runs ahead: no room, no harm.
    guest.send(&with_room(CREDIT_UPDATE, 10, 60));
    guest.send(&with_room(CREDIT_UPDATE, 1000, 5000));
    guest.expect_silence();
    guest.send(&with_room(CREDIT_UPDATE, 10_000, 160));
    assert_eq!(guest.receive().data.len(), 840);
}

#[test]
fn a_credit_request_is_answered() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    guest.send(&Packet::new(7, PORT, RW).with_data(b"12345\n"));
    assert_eq!(read_line(&mut stream), "12345");
    guest.send(&Packet::new(7, PORT, CREDIT_REQUEST));
    let update = guest.receive();
    assert_eq!((update.op, update.fwd_cnt), (CREDIT_UPDATE, 6));
}

#[test]
fn a_connection_that_sends_much_does_not_keep_others_waiting() {
    let mut guest = Guest::start();
    let mut loud = guest.connect(7);
    let mut quiet = guest.connect(8);
    loud.set_nonblocking(true).unwrap();
    while loud.write(&[0; 65_536]).is_ok() {}
    assert_eq!(guest.receive().dst_port, 7);
    quiet.write_all(b"me too").unwrap();
    let loud_packets = (0..).take_while(|_| guest.receive().dst_port == 7).count();
    assert!(loud_packets < 4, "{loud_packets} packets came first");
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to() {
    let mut guest = Guest::start();
    let mut refused = 0;
    for _ in 0..2 {
        for port in 0..200 {
            guest.driver.post(TX, &Packet::new(port, 4321, REQUEST).bytes(), 0);
        }
        guest.driver.kick(TX);
        guest.driver.settle();
        while guest.driver.poll(TX).is_some() {
            refused += 1;
        }
    }
    assert_eq!(refused, 256);
    for _ in 0..400 {
        assert_eq!(guest.receive().op, RST);
    }
    while refused < 400 {
        guest.driver.wait(TX);
        refused += 1;
    }
}

#[test]
fn a_restored_guest_hears_that_its_connections_are_gone() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    guest.driver.function.pause();
    let saved = guest.driver.function.save().unwrap();
    let Guest { driver, dir, listener } = guest;
    let elsewhere = tempfile::tempdir().unwrap();
    let driver = driver.replug(build(config(&elsewhere)).unwrap());
    assert_eq!(read_line(&mut stream), "");
    driver.function.restore(&saved).unwrap();
    driver.function.resume();
    let mut guest = Guest { driver, dir, listener };
    guest.driver.post(EVENT, &[], 4);
    guest.driver.kick(EVENT);
    let event = guest.driver.wait(EVENT);
    assert_eq!((event.written, event.data), (4, vec![0; 4]));
    guest.send(&Packet::new(7, PORT, RW).with_data(b"anybody there?"));
    assert_eq!(guest.receive().op, RST);
    // Once is enough.
    guest.driver.post(EVENT, &[], 4);
    guest.driver.kick(EVENT);
    guest.driver.settle();
    assert!(guest.driver.poll(EVENT).is_none());
}

#[test]
fn pauses_under_load_lose_no_byte_and_no_notification() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    let data: Vec<u8> = (0..500_000u32).map(|i| ((i * 13) >> 2) as u8).collect();
    let writer = std::thread::spawn({
        let data = data.clone();
        move || stream.write_all(&data).map(|()| stream)
    });
    let mut all = Vec::new();
    while all.len() < data.len() {
        for _ in 0..16 {
            guest.driver.post(RX, &[], 4096);
        }
        guest.driver.kick(RX);
        guest.driver.function.pause();
        guest.driver.function.resume();
        for _ in 0..16 {
            let used = guest.driver.wait(RX);
            all.extend(Packet::parse(&used.data[..used.written]).data);
            if all.len() == data.len() {
                break;
            }
        }
        let taken = u32::try_from(all.len()).unwrap();
        guest.send(&Packet { fwd_cnt: taken, ..Packet::new(7, PORT, CREDIT_UPDATE) });
    }
    assert!(all == data);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_reset_closes_what_the_host_has_open() {
    let mut guest = Guest::start();
    let mut stream = guest.connect(7);
    let mut waiting = guest.dial("CONNECT 52\n");
    guest.receive();
    guest.driver.reset();
    assert_eq!(read_line(&mut stream), "");
    assert_eq!(read_line(&mut waiting), "");
    guest.driver.start();
    guest.connect(7);
}

#[test]
fn a_bad_identifier_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for guest_cid in [0, 1, 2, u32::MAX] {
        let error = build(VsockConfig { guest_cid, ..config(&dir) }).err().unwrap();
        assert!(error.to_string().contains("must be 3 to 4294967294"), "{error}");
    }
    assert!(!dir.path().join("v").exists());
}
