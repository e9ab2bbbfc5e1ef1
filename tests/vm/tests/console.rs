//! The serial console with all its readers, and the devices beside disk and network: named ports, sockets, entropy, balloon.

use orlop_api::config::{BalloonConfig, RngConfig, SerialConfig};
use orlop_api::control::BalloonTarget;
use orlop_kit::{Guest, KernelKind, PATIENCE, Shared, Transcript, Vm, eventually, host, tools_disk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// The smallest backlog there can be.
const BACKLOG_BYTES: u32 = 4096;

/// A guest with a named port, a socket device, entropy, a balloon, and socat.
static GUEST: Shared = Shared::new(|| {
    Box::pin(async {
        let mut vm = Vm::process(&[]).await;
        let tools = vm.file("tools");
        tools_disk(&["socat"], &tools).await;
        let guest = Guest::linux(KernelKind::BzImage)
            .disk("tools", tools)
            .port("org.orlop.test", vm.file("port.sock"))
            .port("org.orlop.other", vm.file("other.sock"))
            .vsock(7, vm.file("vsock"))
            .with(|config| {
                config.disks[0].read_only = true;
                config.rng = Some(RngConfig::default());
                config.balloon = Some(BalloonConfig::default());
                config.serial = SerialConfig { backlog_bytes: BACKLOG_BYTES, ..SerialConfig::default() };
            });
        vm.start(&guest).await;
        vm.expect("orlop-init: commands").await;
        vm.run("mount -t ext4 -o ro /dev/vda /mnt").await;
        vm
    })
});

/// The device file of the named port, as udev would link it.
const PORT: &str = "for p in /sys/class/virtio-ports/*; do [ \"$(cat $p/name)\" = org.orlop.test ] && port=/dev/${p##*/}; done; ";

async fn connect(vm: &Vm, socket: &str) -> UnixStream {
    UnixStream::connect(vm.file(socket)).await.expect("the VMM listens")
}

/// Reads one line, without what ends it.
async fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let reading = async {
        loop {
            match stream.read_u8().await.expect("the connection goes on") {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a line comes");
    String::from_utf8(line).expect("text")
}

#[test]
fn who_comes_back_to_the_console_sees_what_was_missed() {
    GUEST.with(async |vm| {
        vm.run("echo before-$((40+2))").await;
        vm.attach().await;
        vm.expect("before-42").await;
        vm.expect("orlop-init: exit 0").await;
        assert_eq!(vm.run("echo after").await, "after");
        let log = vm.client.log().await.expect("the log");
        assert!(String::from_utf8_lossy(&log).contains("before-42"));
    });
}

#[test]
fn all_readers_of_the_console_see_the_same() {
    GUEST.with(async |vm| {
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(Transcript::new(vm.client.console().await.expect("a console")));
        }
        vm.run("echo seen-by-all-$((1+1)); echo end-$((1+2))").await;
        for other in &mut others {
            other.expect("seen-by-all-2", PATIENCE).await;
            assert_eq!(other.expect("end-3", PATIENCE).await, "\r\n");
        }
    });
}

#[test]
fn readers_that_never_read_cost_the_guest_nothing() {
    GUEST.with(async |vm| {
        let silent = [vm.client.console().await, vm.client.console().await];
        let reader = vm.client.events(0).await;
        // Far more than the backlog; a socket that takes a byte at a time is full after some hundred.
        vm.run("i=0; while [ $i -lt 60 ]; do printf '%0640d' $i; i=$((i+1)); done").await;
        let log = vm.client.log().await.expect("the log");
        assert!(log.len() <= BACKLOG_BYTES as usize, "{} bytes are kept", log.len());
        assert_eq!(vm.run("echo alive").await, "alive");
        drop((silent, reader));
    });
}

#[test]
fn a_pasted_line_arrives_whole() {
    GUEST.with(async |vm| {
        let pasted = "0123456789abcdef".repeat(200);
        let sum = format!("printf %s {pasted} | sha256sum");
        assert_eq!(vm.run(&sum).await, host(&sum).await);
    });
}

#[test]
fn a_named_port_carries_bytes_both_ways() {
    GUEST.with(async |vm| {
        let mut host_end = connect(vm, "port.sock").await;
        vm.run(&format!("{PORT} (exec 3<>$port; read -r line <&3; echo \"guest got $line\" >&3) &")).await;
        host_end.write_all(b"hello\n").await.expect("it takes bytes");
        assert_eq!(line(&mut host_end).await, "guest got hello");
        drop(host_end);
        // Another peer finds the port free.
        let mut host_end = connect(vm, "port.sock").await;
        vm.run("head -c 1m /dev/urandom >/run/port").await;
        vm.console().send(&format!("{PORT} cat /run/port >$port; sha256sum </run/port\n")).await;
        let mut received = vec![0; 1 << 20];
        let read = tokio::time::timeout(PATIENCE, host_end.read_exact(&mut received)).await;
        read.expect("it comes").expect("the connection goes on");
        let file = vm.file("received");
        std::fs::write(&file, &received).expect("a file");
        let sum = host(&format!("sha256sum <{}", file.display())).await;
        vm.expect(&sum).await;
        vm.expect("orlop-init: exit 0").await;
    });
}

#[test]
fn a_guest_reaches_a_listener_on_the_host_through_a_socket_device() {
    GUEST.with(async |vm| {
        let listener = UnixListener::bind(vm.file("vsock_5000")).expect("a listener");
        vm.run("(echo from the guest | /mnt/socat - VSOCK-CONNECT:2:5000 >/run/answer) &").await;
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (mut host_end, _) = accepted.expect("the guest connects").expect("a connection");
        assert_eq!(line(&mut host_end).await, "from the guest");
        host_end.write_all(b"from the host\n").await.expect("it takes bytes");
        drop(host_end);
        vm.run("n=0; until grep -q host /run/answer || [ $n = 500 ]; do usleep 20000; n=$((n+1)); done")
            .await;
        assert_eq!(vm.run("cat /run/answer").await, "from the host");
        let (_, code) = vm.try_run("/mnt/socat - VSOCK-CONNECT:2:5001 </dev/null 2>/dev/null").await;
        assert_ne!(code, 0, "nobody listens there");
    });
}

#[test]
fn the_host_reaches_a_listener_in_the_guest_through_a_socket_device() {
    GUEST.with(async |vm| {
        vm.run("(/mnt/socat VSOCK-LISTEN:6000,fork EXEC:cat) >/dev/null 2>&1 &").await;
        let answer = async |mut host_end: UnixStream| {
            host_end.write_all(b"CONNECT 6000\n").await.expect("it takes bytes");
            let mut first = [0];
            let read = tokio::time::timeout(PATIENCE, host_end.read(&mut first)).await;
            (read.expect("an answer").is_ok_and(|len| len == 1), host_end)
        };
        let mut accepted = None;
        eventually("the guest listens", async || {
            let (open, stream) = answer(connect(vm, "vsock").await).await;
            if open {
                accepted = Some(stream);
            }
            open
        })
        .await;
        let mut host_end = accepted.expect("it was accepted");
        assert!(line(&mut host_end).await.starts_with("K "), "the answer is 'OK' and a port");
        let sent: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut from, mut to) = host_end.split();
        let mut echoed = vec![0; sent.len()];
        let both = async { tokio::join!(to.write_all(&sent), from.read_exact(&mut echoed)) };
        let (written, read) = tokio::time::timeout(PATIENCE, both).await.expect("bytes flow both ways");
        written.expect("it takes bytes");
        read.expect("they come back");
        assert!(echoed == sent, "other bytes came back");
        assert_eq!(vm.counter("vsock", "malformed_packets").await, 0);
        vm.run("killall socat ld-linux-x86-64.so.2 2>/dev/null; true").await;
    });
}

#[test]
fn entropy_comes_from_the_host() {
    GUEST.with(async |vm| {
        assert_eq!(vm.run("cat /sys/class/misc/hw_random/rng_current").await, "virtio_rng.0");
        let read = "dd if=/dev/hwrng bs=64 count=8 2>/dev/null | sha256sum";
        let before = vm.counter("rng", "entropy_bytes").await;
        let (first, second) = (vm.run(read).await, vm.run(read).await);
        assert_ne!(first, second);
        assert!(vm.counter("rng", "entropy_bytes").await > before);
    });
}

/// `MemAvailable` of the guest in MiB.
async fn available_mib(vm: &mut Vm) -> u64 {
    let kib = vm.run("awk '/MemAvailable/ {print $2}' /proc/meminfo").await;
    kib.parse::<u64>().expect("a number") >> 10
}

/// Resident memory of the VMM in MiB, guest memory included.
async fn resident_mib(vm: &Vm) -> u64 {
    let kib = host(&format!("awk '/^Rss/ {{print $2}}' /proc/{}/smaps_rollup", vm.pid())).await;
    kib.parse::<u64>().expect("a number") >> 10
}

#[test]
fn a_balloon_takes_memory_and_gives_it_back() {
    GUEST.with(async |vm| {
        let before = available_mib(vm).await;
        for target in [64 << 20, 0] {
            vm.client.set_balloon(BalloonTarget { target_bytes: target }).await.expect("there is one");
            let size_pages = async || {
                vm.counter("balloon", "inflated_pages").await - vm.counter("balloon", "deflated_pages").await
            };
            eventually("the balloon has its size", async || size_pages().await << 12 == target).await;
            // Pages that are being reported as free are nobody's for a moment.
            eventually("the guest has so much less, or as much again", async || {
                let now = available_mib(vm).await;
                if target == 0 { now + 16 > before } else { now + 56 < before }
            })
            .await;
        }
    });
}

#[test]
fn memory_that_the_guest_frees_goes_back_to_the_host() {
    GUEST.with(async |vm| {
        vm.run("mkdir -p /run/m; mount -t tmpfs -o size=100% tmpfs /run/m; head -c 80m /dev/urandom >/run/m/large").await;
        let full = resident_mib(vm).await;
        vm.run("umount /run/m; echo 3 >/proc/sys/vm/drop_caches").await;
        eventually("60 MiB come back", async || resident_mib(vm).await + 60 < full).await;
    });
}
