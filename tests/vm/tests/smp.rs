//! Guests with several vCPUs, on a host with two processors.

use std::time::Duration;

use orlop_kit::{Guest, KernelKind, Shared, Tap, Vm, echo, eventually, finished, host, host_job, questions};

/// 2 sockets × 2 cores × 1 thread, with several queues for disk and network.
static FOUR: Shared = Shared::new(|| {
    Box::pin(async {
        let mut vm = Vm::process(&[]).await;
        let disk = vm.file("disk.raw");
        host(&format!("truncate -s 128M {0}; /sbin/mkfs.ext4 -q {0}", disk.display())).await;
        let guest = Guest::linux(KernelKind::BzImage)
            .cpus(2, 2, 1)
            .disk("disk0", disk)
            .net("net0", "orlopsmp0")
            .with(|config| {
                config.disks[0].queues = 4;
                config.nets[0].queue_pairs = 2;
            });
        vm.keep(Tap::new("orlopsmp0", "10.217.9.1/24", "multi_queue").await);
        vm.start(&guest).await;
        vm.expect("orlop-init: commands").await;
        vm.run("ip addr add 10.217.9.2/24 dev eth0; ip link set eth0 up").await;
        vm
    })
});

#[test]
fn four_vcpus_are_two_sockets_of_two_cores() {
    FOUR.with(async |vm| {
        assert_eq!(vm.run("nproc").await, "4");
        let topology = "for c in 0 1 2 3; do t=/sys/devices/system/cpu/cpu$c/topology; \
                        echo $(cat $t/physical_package_id $t/core_id $t/thread_siblings_list $t/core_siblings_list); done";
        let seen = vm.run(topology).await;
        let rows: Vec<Vec<&str>> = seen.lines().map(|line| line.split_whitespace().collect()).collect();
        let column = |index: usize| rows.iter().map(|row| row[index]).collect::<Vec<_>>();
        assert_eq!(column(0), ["0", "0", "1", "1"], "sockets of\n{seen}");
        assert_eq!(column(2), ["0", "1", "2", "3"], "threads of\n{seen}");
        assert_eq!(column(3), ["0-1", "0-1", "2-3", "2-3"], "cores of\n{seen}");
        assert_ne!(rows[0][1], rows[1][1], "core numbers of\n{seen}");
        assert_eq!(vm.run("grep -c 'cpu cores.*: 2' /proc/cpuinfo").await, "4");
        assert_eq!(vm.run("grep -c 'siblings.*: 2' /proc/cpuinfo").await, "4");
    });
}

#[test]
fn every_vcpu_runs() {
    FOUR.with(async |vm| {
        let before = vm.client.vcpus().await.expect("the vCPUs");
        // Configuration space is answered by the VMM, on the thread of the vCPU that reads it.
        let config = "/sys/bus/pci/devices/0000:00:00.0/config";
        vm.run(&format!("for c in 0 1 2 3; do taskset -c $c cat {config} >/dev/null & done; wait")).await;
        let after = vm.client.vcpus().await.expect("the vCPUs");
        assert_eq!(after.len(), 4);
        for (before, after) in before.iter().zip(&after) {
            assert!(after.exits_total() > before.exits_total(), "vCPU {} did nothing", after.index);
        }
        let mut threads: Vec<_> = after.iter().filter_map(|vcpu| vcpu.thread_id).collect();
        threads.dedup();
        assert_eq!(threads.len(), 4, "threads of their own: {after:?}");
    });
}

#[test]
fn vcpus_write_to_one_disk_through_queues_of_their_own() {
    FOUR.with(async |vm| {
        assert_eq!(vm.run("ls /sys/block/vda/mq | wc -l").await, "4");
        vm.run(
            "mount /dev/vda /mnt && for c in 0 1 2 3; do (head -c 8m /dev/urandom >/run/$c; \
             taskset -c $c dd if=/run/$c of=/mnt/$c bs=64k conv=fsync 2>/dev/null) & done; wait; \
             cd /run && sha256sum 0 1 2 3 >/run/sums && umount /mnt && mount /dev/vda /mnt && cd /mnt && \
             sha256sum -c -s /run/sums && cd / && umount /mnt && rm /run/0 /run/1 /run/2 /run/3",
        )
        .await;
        let queues = vm.device("disk0").await.virtio.expect("it is virtio").queues;
        assert_eq!(queues.iter().filter(|queue| queue.ready).count(), 4);
        let busy = queues.iter().filter(|queue| queue.next_avail.is_some_and(|next| next > 0)).count();
        assert!(busy >= 2, "one queue did all: {queues:?}");
    });
}

#[test]
fn a_card_with_two_queue_pairs_uses_both() {
    FOUR.with(async |vm| {
        vm.run("for c in 0 1 2 3; do taskset -c $c ping -c 3 -W 10 10.217.9.1 & done; wait").await;
        let queues = vm.device("net0").await.virtio.expect("it is virtio").queues;
        // Two pairs and the control queue (virtio 1.3 §5.1.2).
        assert_eq!(queues.iter().filter(|queue| queue.ready).count(), 5, "{queues:?}");
        let sent = |index: usize| queues[index].next_avail.is_some_and(|next| next > 0);
        assert!(sent(1) && sent(3), "one pair did all: {queues:?}");
    });
}

#[test]
fn questions_from_several_sides_are_each_answered_by_several_vcpus() {
    FOUR.with(async |vm| {
        for port in [5921, 5922, 5923] {
            echo(vm, port).await;
        }
        let flood = host_job("ping -f -q -s 1300 10.217.9.2 >/dev/null");
        let patience = Duration::from_secs(60);
        tokio::join!(
            questions("10.217.9.2:5921", 1500, patience),
            questions("10.217.9.2:5922", 1500, patience),
            questions("10.217.9.2:5923", 1500, patience),
        );
        drop(flood);
    });
}

#[test]
fn pausing_and_resuming_four_busy_vcpus_loses_nothing() {
    FOUR.with(async |vm| {
        let receiver = host_job("timeout 100 socat -u TCP-LISTEN:5901,reuseaddr - | sha256sum");
        eventually("the host listens", async || host("ss -Hltn sport = :5901").await.contains("5901")).await;
        vm.run(
            "rm -f /run/done; (mount /dev/vda /mnt; head -c 24m /dev/urandom >/mnt/big; sync; sha256sum </mnt/big \
             >/run/sum; nc 10.217.9.1 5901 </mnt/big; sha256sum </mnt/big | cmp /run/sum && touch /run/done; \
             umount /mnt) >/dev/null 2>&1 &",
        )
        .await;
        for _ in 0..20 {
            vm.client.pause().await.expect("it runs");
            vm.client.resume().await.expect("it is paused");
        }
        let received = finished(receiver).await;
        assert_eq!(received, vm.run("cat /run/sum").await);
        vm.run("n=0; until [ -e /run/done ] || [ $n = 300 ]; do usleep 100000; n=$((n+1)); done; [ -e /run/done ]")
            .await;
    });
}
