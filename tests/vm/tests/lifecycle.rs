//! Pausing, resuming, resetting, ending: what is allowed when, what is lost (nothing), and how the process is confined.

use orlop_api::config::{BootConfig, FileSource, TapSource};
use orlop_api::control::{BalloonTarget, LinkState};
use orlop_api::event::{EventKind, Initiator};
use orlop_api::problem::Reason;
use orlop_api::state::VmState;
use orlop_client::{Client, Error};
use orlop_kit::{
    Guest, KernelKind, PATIENCE, Tap, Vm, ended, eventually, finished, host, host_job, image, scratch,
};

/// How many times a busy machine is paused.
const PAUSES: u32 = 50;

/// How often a machine that stands still is looked at.
const LOOKS: u32 = 50;

fn small() -> Guest {
    Guest::linux(KernelKind::BzImage)
}

#[tokio::test]
async fn a_paused_machine_stands_still_and_goes_on_where_it_was() {
    let mut vm = Vm::shell(&small()).await;
    vm.run("(i=0; while [ $i -lt 100000 ]; do echo tick-$i; i=$((i+1)); usleep 10000; done) &").await;
    vm.expect("tick-5").await;
    vm.client.pause().await.expect("it runs");
    assert_eq!(vm.client.info().await.expect("its state").state, VmState::Paused);
    let still = (vm.client.log().await.expect("the log"), vm.client.vcpus().await.expect("the vCPUs"));
    for _ in 0..LOOKS {
        assert_eq!(vm.client.log().await.expect("the log"), still.0);
        assert_eq!(vm.client.vcpus().await.expect("the vCPUs"), still.1);
    }
    vm.client.resume().await.expect("it is paused");
    let text = String::from_utf8_lossy(&still.0).into_owned();
    let last: u32 = text.rsplit("tick-").find_map(|t| t.trim_end().parse().ok()).expect("it ticked");
    // The last number may have been cut by the pause; the one after the next was not.
    vm.expect(&format!("tick-{}", last + 2)).await;
}

#[tokio::test]
async fn fifty_pauses_under_disk_and_network_load_lose_nothing() {
    let mut vm = Vm::process(&[]).await;
    vm.keep(Tap::new("orloplife0", "10.217.3.1/24", "").await);
    let disk = vm.file("disk.raw");
    host(&format!("truncate -s 64M {0}; /sbin/mkfs.ext4 -q {0}", disk.display())).await;
    vm.start(&small().disk("disk0", &disk).net("net0", "orloplife0")).await;
    vm.expect("orlop-init: commands").await;
    vm.run("ip addr add 10.217.3.2/24 dev eth0; ip link set eth0 up; mount /dev/vda /mnt").await;
    let receiver = host_job("timeout 100 socat -u TCP-LISTEN:5921,reuseaddr - | sha256sum");
    eventually("the host listens", async || !host("ss -Hltn sport = :5921").await.is_empty()).await;
    vm.run(
        "(head -c 8m /dev/urandom >/run/data; sha256sum </run/data >/run/sum; for i in 1 2 3 4; do cat /run/data >/mnt/$i; \
         sync; done; echo 3 >/proc/sys/vm/drop_caches; cat /mnt/4 | nc 10.217.3.1 5921; for i in 1 2 3 4; do \
         sha256sum </mnt/$i | cmp - /run/sum || exit; done; umount /mnt; touch /run/done) >/dev/null 2>&1 &",
    )
    .await;
    for _ in 0..PAUSES {
        vm.client.pause().await.expect("it runs");
        vm.client.resume().await.expect("it is paused");
    }
    assert_eq!(finished(receiver).await, vm.run("cat /run/sum").await);
    vm.run(
        "n=0; until [ -e /run/done ] || [ $n = 500 ]; do usleep 50000; n=$((n+1)); done; [ -e /run/done ]",
    )
    .await;
    let events = vm.client.events(0).await.expect("events");
    vm.client.shutdown().await.expect("it ends");
    let events = ended(events).await;
    assert_eq!(events.iter().filter(|e| **e == EventKind::Paused).count(), PAUSES as usize, "{events:?}");
    assert_eq!(events.iter().filter(|e| **e == EventKind::Resumed).count(), PAUSES as usize, "{events:?}");
}

#[tokio::test]
async fn a_client_resets_presses_the_power_button_and_events_come_in_order() {
    let mut vm = Vm::shell(&small()).await;
    vm.client.reset().await.expect("it runs");
    vm.expect("orlop-init: commands").await;
    vm.run("ls /dev/input/event0").await;
    vm.console().send("hexdump -n 24 /dev/input/event0 >/dev/null; poweroff -f\n").await;
    let events = vm.client.events(0).await.expect("events");
    eventually("the guest waits for its button", async || {
        vm.client.power_button().await.is_err() || vm.client.info().await.is_err()
    })
    .await;
    let (exit, events) = tokio::join!(vm.exit(), ended(events));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let (first, presses) = events.split_at(3);
    let expected = [
        EventKind::Created { name: "test".into() },
        EventKind::Booted,
        EventKind::Reset { by: Initiator::Client },
    ];
    assert_eq!(first, expected);
    let (last, presses) = presses.split_last().expect("there are more");
    assert_eq!(*last, EventKind::Shutdown { by: Initiator::Guest });
    assert!(!presses.is_empty() && presses.iter().all(|e| *e == EventKind::PowerButton), "{presses:?}");
}

#[tokio::test]
async fn a_machine_ends_at_once_when_a_client_or_a_signal_says_so() {
    for (signal, by) in
        [(None, Initiator::Client), (Some("TERM"), Initiator::Signal), (Some("INT"), Initiator::Signal)]
    {
        let mut vm = Vm::boot(&small()).await;
        vm.expect("orlop-init: ready").await;
        let events = vm.client.events(0).await.expect("events");
        match signal {
            None => vm.client.shutdown().await.expect("it ends"),
            Some(signal) => drop(host(&format!("kill -{signal} {}", vm.pid())).await),
        }
        let (exit, events) = tokio::join!(vm.exit(), ended(events));
        assert_eq!(exit.code, Some(20), "{}", exit.stderr);
        assert_eq!(events.last(), Some(&EventKind::Shutdown { by }));
    }
}

/// A request that changes the machine.
type Request = (&'static str, fn(Client) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>>>>);

const REQUESTS: [Request; 7] = [
    ("boot", |c| Box::pin(async move { c.boot().await })),
    ("pause", |c| Box::pin(async move { c.pause().await })),
    ("resume", |c| Box::pin(async move { c.resume().await })),
    ("power button", |c| Box::pin(async move { c.power_button().await })),
    ("reset", |c| Box::pin(async move { c.reset().await })),
    ("balloon", |c| Box::pin(async move { c.set_balloon(BalloonTarget { target_bytes: 0 }).await })),
    ("link", |c| Box::pin(async move { c.set_link("net0", LinkState { up: true }).await })),
];

/// Sends every request that `state` does not allow: each is refused by it, and the state stays.
async fn refuses(vm: &Vm, state: VmState, allowed: &[&str]) {
    assert_eq!(vm.client.info().await.expect("its state").state, state);
    for (name, request) in REQUESTS.iter().filter(|(name, _)| !allowed.contains(name)) {
        let refused = request(vm.client.clone()).await.expect_err("it is not allowed");
        let problem = refused.problem().unwrap_or_else(|| panic!("{name}: {refused}"));
        assert_eq!(
            (problem.reason, problem.state),
            (Reason::NotInThisState, Some(state)),
            "{name}: {problem}"
        );
        assert_eq!(problem.status, 409);
        assert!(problem.detail.contains(state.name()) && problem.detail.contains(name), "{problem}");
    }
    assert_eq!(vm.client.info().await.expect("its state").state, state);
}

#[tokio::test]
async fn what_a_state_does_not_allow_is_refused_naming_it() {
    let vm = Vm::process(&[]).await;
    refuses(&vm, VmState::NotCreated, &[]).await;
    vm.client.create(&small().config, false).await.expect("it is built");
    refuses(&vm, VmState::Created, &["boot", "balloon", "link"]).await;
    let again = vm.client.create(&small().config, false).await.expect_err("there is one already");
    assert_eq!(again.problem().expect("a problem").state, Some(VmState::Created));
    vm.client.boot().await.expect("it is built");
    refuses(&vm, VmState::Running, &["pause", "power button", "reset", "balloon", "link"]).await;
    vm.client.pause().await.expect("it runs");
    refuses(&vm, VmState::Paused, &["resume", "reset", "balloon", "link"]).await;
    // There is neither of these devices.
    let no_card = vm.client.set_link("net0", LinkState { up: true }).await.expect_err("no card");
    assert_eq!(no_card.problem().expect("a problem").reason, Reason::NoSuchDevice);
    let no_balloon = vm.client.set_balloon(BalloonTarget { target_bytes: 0 }).await.expect_err("no balloon");
    assert_eq!(no_balloon.problem().expect("a problem").reason, Reason::NoSuchDevice);
    vm.client.shutdown().await.expect("always allowed");
    assert_eq!(vm.exit().await.code, Some(20));
}

/// SIGHUP, SIGINT and SIGTERM in a mask (proc_pid_status(5): signal n is bit n - 1). They are for the main thread alone.
const END_SIGNALS: u64 = 1 | 1 << 1 | 1 << 14;

#[tokio::test]
async fn every_thread_is_confined_while_the_guest_runs() {
    let mut vm = Vm::process(&[]).await;
    vm.keep(Tap::new("orloplife1", "10.217.4.1/24", "").await);
    let disk = vm.file("disk.raw");
    host(&format!("truncate -s 16M {}", disk.display())).await;
    let guest = small()
        .disk("disk0", &disk)
        .net("net0", "orloplife1")
        .port("org.orlop.test", vm.file("port.sock"))
        .vsock(7, vm.file("vsock"))
        .with(|config| {
            config.rng = Some(Default::default());
            config.balloon = Some(Default::default());
        });
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    let threads = host(&format!(
        "for t in /proc/{}/task/*; do echo $(basename $t) $(awk '/^SigBlk:/ {{print $2}}' $t/status) $(cat $t/comm) \
         $(awk '/^(NoNewPrivs|Seccomp):/ {{print $2}}' $t/status); done",
        vm.pid()
    ))
    .await;
    assert!(threads.lines().count() >= 8, "a main thread, a vCPU, six devices:\n{threads}");
    for thread in threads.lines() {
        assert!(thread.ends_with(" 1 2"), "not confined: {thread}\n{threads}");
        let (id, rest) = thread.split_once(' ').expect("words");
        let blocked = u64::from_str_radix(rest.split(' ').next().unwrap_or_default(), 16).expect("a mask");
        let is_main = id == vm.pid().to_string();
        assert!(is_main || blocked & END_SIGNALS == END_SIGNALS, "ended by a signal: {thread}\n{threads}");
    }
}

/// Opens a tap as whoever prepares a machine does (TUNSETIFF: a tap without packet information, with a virtio header),
/// and becomes its arguments with the tap as descriptor 9.
const WITH_TAP: &str = "import fcntl, os, struct, sys\n\
    tun = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)\n\
    fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x5002))\n\
    os.dup2(tun, 9)\n\
    os.execvp(sys.argv[2], sys.argv[2:])";

#[tokio::test]
async fn a_process_without_privileges_runs_a_machine_on_descriptors() {
    let directory = tempfile::tempdir_in(scratch()).expect("a directory");
    let place = directory.path().display().to_string();
    let tap = Tap::new("orloplife2", "10.217.5.1/24", "").await;
    host(&format!("truncate -s 16M {place}/disk; chown 107:107 {place}")).await;
    let open = format!(
        "exec 5<{} 6<{} 7<>{place}/disk 8<>/dev/kvm; exec setpriv --reuid=107 --regid=107 --clear-groups \
         --bounding-set=-all --inh-caps=-all --no-new-privs \"$@\"",
        image("bzImage").display(),
        image("initramfs.cpio").display(),
    );
    let starter = ["python3", "-c", WITH_TAP, tap.name(), "sh", "-c", &open, "sh"];
    let arguments =
        ["--fd", "kernel=5", "--fd", "initramfs=6", "--fd", "disk=7", "--fd", "kvm=8", "--fd", "tap=9"];
    let mut vm = Vm::process_in(directory, &starter, &arguments).await;
    let guest = small().disk("disk0", "").net("net0", "").with(|config| {
        let BootConfig::Kernel(kernel) = &mut config.boot else { panic!("a kernel") };
        kernel.kernel = FileSource::Fd("kernel".into());
        kernel.initramfs = Some(FileSource::Fd("initramfs".into()));
        config.disks[0].source = Some(FileSource::Fd("disk".into()));
        config.nets[0].tap = TapSource::Fds(vec!["tap".into()]);
    });
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    let status = host(&format!("grep -E '^(Uid|CapEff|CapPrm|CapBnd):' /proc/{}/status", vm.pid())).await;
    assert!(status.contains("Uid:\t107\t107\t107\t107"), "{status}");
    assert_eq!(status.matches("0000000000000000").count(), 3, "{status}");
    vm.run("ip addr add 10.217.5.2/24 dev eth0; ip link set eth0 up; ping -c 1 -W 10 10.217.5.1").await;
    vm.run("echo by descriptor | dd of=/dev/vda conv=fsync 2>/dev/null").await;
    assert_eq!(host(&format!("head -c 13 {place}/disk")).await, "by descriptor");
    vm.console().send("reboot -f\n").await;
    vm.expect("orlop-init: commands").await;
    vm.console().send("poweroff -f\n").await;
    assert_eq!(vm.exit().await.code, Some(0));
    drop(tap);
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_in_the_way_of_the_next() {
    let first = Vm::process(&[]).await;
    let sockets = |vm: &Vm| small().port("org.orlop.test", vm.file("port.sock")).vsock(7, vm.file("vsock"));
    let guest = sockets(&first);
    let mut first = first;
    first.start(&guest).await;
    first.console().expect("orlop-init: ready", PATIENCE).await;
    let directory = first.kill().await;
    let mut second = Vm::process_in(directory, &[], &[]).await;
    second.start(&guest).await;
    second.console().expect("orlop-init: ready", PATIENCE).await;
    second.client.shutdown().await.expect("it ends");
    assert_eq!(second.exit().await.code, Some(20));
}
