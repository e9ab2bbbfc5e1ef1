//! Packets both ways, offloads, the cable, floods, questions and answers without end, and a tap that goes away.

use std::time::Duration;

use orlop_api::control::LinkState;
use orlop_api::event::EventKind;
use orlop_kit::{
    Guest, KernelKind, Shared, Tap, Vm, echo, eventually, finished, host, host_job, questions, try_host,
};

/// A guest with a card and a disk; the host is 10.217.1.1, the guest 10.217.1.2.
static NET: Shared = Shared::new(|| {
    Box::pin(async {
        let mut vm = Vm::process(&[]).await;
        vm.keep(Tap::new("orlopnet0", "10.217.1.1/24", "").await);
        let disk = vm.file("disk.raw");
        host(&format!("truncate -s 64M {}", disk.display())).await;
        let guest =
            Guest::linux(KernelKind::BzImage).disk("disk0", disk).net("net0", "orlopnet0").with(|config| {
                config.nets[0].mac = Some("52:54:00:0a:0b:0c".into());
                config.nets[0].mtu = Some(1400);
            });
        vm.start(&guest).await;
        vm.expect("orlop-init: commands").await;
        // The host's end has the same MTU, as whoever makes the tap sees to.
        host("ip link set orlopnet0 mtu 1400").await;
        vm.run("ip addr add 10.217.1.2/24 dev eth0 && ip link set eth0 up").await;
        vm
    })
});

/// Waits until somebody on the host listens on TCP `port`.
async fn host_listens(port: u16) {
    eventually("the host listens", async || !host(&format!("ss -Hltn sport = :{port}")).await.is_empty())
        .await;
}

/// Has the guest wait until its card's carrier is `value`, and say what it is.
fn carrier_becomes(value: &str) -> String {
    format!(
        "n=0; until [ \"$(cat /sys/class/net/eth0/carrier)\" = {value} ] || [ $n = 500 ]; do usleep 20000; \
         n=$((n+1)); done; cat /sys/class/net/eth0/carrier"
    )
}

#[test]
fn guest_and_host_reach_each_other() {
    NET.with(async |vm| {
        vm.run("ping -c 3 -W 10 10.217.1.1").await;
        host("ping -c 3 -i 0.2 -W 10 10.217.1.2").await;
        assert!(vm.counter("net0", "tx_packets").await >= 6);
        assert!(vm.counter("net0", "rx_packets").await >= 6);
    });
}

#[test]
fn mac_address_and_mtu_are_what_was_configured() {
    NET.with(async |vm| {
        let seen = vm.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu").await;
        assert_eq!(seen, "52:54:00:0a:0b:0c\n1400");
    });
}

#[test]
fn the_guest_sends_a_large_file_in_segments_larger_than_the_mtu() {
    NET.with(async |vm| {
        let receiver = host_job("timeout 100 socat -u TCP-LISTEN:5911,reuseaddr - | sha256sum");
        host_listens(5911).await;
        let before = (vm.counter("net0", "tx_bytes").await, vm.counter("net0", "tx_packets").await);
        let sent = vm
            .run("head -c 16m /dev/urandom >/run/out; nc 10.217.1.1 5911 </run/out >/dev/null; sha256sum </run/out; rm /run/out")
            .await;
        assert_eq!(finished(receiver).await, sent);
        let bytes = vm.counter("net0", "tx_bytes").await - before.0;
        let packets = vm.counter("net0", "tx_packets").await - before.1;
        assert!(bytes >= 16 << 20, "{bytes} bytes");
        assert!(bytes / packets > 2 * 1400, "{bytes} bytes in {packets} packets: no segmentation offload");
    });
}

#[test]
fn the_guest_receives_a_large_file_in_segments_larger_than_the_mtu() {
    NET.with(async |vm| {
        vm.run("(nc -l -p 5912 >/run/in </dev/null) & until netstat -ltn | grep -q 5912; do usleep 20000; done").await;
        let before = (vm.counter("net0", "rx_bytes").await, vm.counter("net0", "rx_packets").await);
        let file = vm.file("sent");
        let send = format!(
            "head -c 16m /dev/urandom >{0}; timeout 100 socat -u OPEN:{0} TCP:10.217.1.2:5912 && sha256sum <{0}",
            file.display()
        );
        let sent = host(&send).await;
        assert_eq!(vm.run("while netstat -tn | grep -q 5912.*ESTAB; do usleep 20000; done; sha256sum </run/in; rm /run/in").await, sent);
        let bytes = vm.counter("net0", "rx_bytes").await - before.0;
        let packets = vm.counter("net0", "rx_packets").await - before.1;
        assert!(bytes / packets > 2 * 1400, "{bytes} bytes in {packets} packets: no segmentation offload");
    });
}

#[test]
fn a_pulled_cable_is_seen_by_the_guest_and_so_is_one_plugged_in() {
    NET.with(async |vm| {
        for (up, carrier) in [(false, "0"), (true, "1")] {
            vm.client.set_link("net0", LinkState { up }).await.expect("there is such a card");
            assert_eq!(vm.run(&carrier_becomes(carrier)).await, carrier);
            let device = "net0".to_owned();
            vm.wait_event(|event| event.what == EventKind::Link { device: device.clone(), up }).await;
        }
        vm.run("ping -c 1 -W 10 10.217.1.1").await;
    });
}

#[test]
fn a_flood_of_packets_stalls_neither_disk_nor_console_and_ends() {
    NET.with(async |vm| {
        let before = vm.counter("net0", "rx_packets").await;
        let flood = host_job("ping -f -q -s 1300 10.217.1.2 >/dev/null");
        vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=16 conv=fsync 2>/dev/null").await;
        assert_eq!(vm.run("echo alive").await, "alive");
        drop(flood);
        assert!(vm.counter("net0", "rx_packets").await > before + 100, "there was no flood");
        vm.run("ping -c 3 -W 10 10.217.1.1").await;
    });
}

#[test]
fn thousands_of_small_questions_are_each_answered() {
    NET.with(async |vm| {
        echo(vm, 5913).await;
        questions("10.217.1.2:5913", 6000, Duration::from_secs(20)).await;
    });
}

#[test]
fn questions_are_answered_during_floods_both_ways() {
    NET.with(async |vm| {
        echo(vm, 5914).await;
        let flood = host_job("ping -f -q -s 1300 10.217.1.2 >/dev/null");
        vm.run("(ping -A -q -s 600 10.217.1.1 >/dev/null & echo $! >/run/flood)").await;
        questions("10.217.1.2:5914", 1500, Duration::from_secs(30)).await;
        vm.run("kill $(cat /run/flood)").await;
        drop(flood);
        questions("10.217.1.2:5914", 500, Duration::from_secs(20)).await;
    });
}

#[tokio::test]
async fn a_tap_that_is_deleted_leaves_the_guest_running() {
    let mut vm = Vm::process(&[]).await;
    let tap = Tap::new("orlopnet1", "10.217.2.1/24", "").await;
    vm.start(&Guest::linux(KernelKind::BzImage).net("net0", tap.name())).await;
    vm.expect("orlop-init: commands").await;
    vm.run("ip addr add 10.217.2.2/24 dev eth0 && ip link set eth0 up && ping -c 1 -W 10 10.217.2.1").await;
    drop(tap);
    let (_, code) = try_host("ip link show orlopnet1").await;
    assert_ne!(code, Some(0), "the tap is still there");
    // To the guest it is a cable that was pulled.
    assert_eq!(vm.run(&carrier_becomes("0")).await, "0");
    let (_, code) = vm.try_run("ping -c 2 -W 1 10.217.2.1 >/dev/null").await;
    assert_ne!(code, 0);
    // It does not spin on the dead descriptor either: at most half a second of processor time in two.
    let cpu = format!("awk '{{print $14+$15}}' /proc/{}/stat", vm.pid());
    let before: u64 = host(&cpu).await.parse().expect("ticks");
    vm.run("sleep 2").await;
    let ticks = host(&cpu).await.parse::<u64>().expect("ticks") - before;
    assert!(ticks < 50, "{ticks} hundredths of a second of processor time in two seconds of idling");
}
