//! Kernels start, see the machine that was asked for, and end it in every way a guest can.

use std::time::{SystemTime, UNIX_EPOCH};

use orlop_api::config::{BalloonConfig, ClockConfig, RngConfig};
use orlop_api::device::DeviceKind;
use orlop_api::event::{EventKind, Initiator};
use orlop_kit::{Guest, KernelKind, PATIENCE, Shared, Vm, ended, host, probe};

/// How far the guest's real-time clock is put ahead.
const CLOCK_OFFSET_SECONDS: i64 = 3 * 86_400;

/// A guest of 6 GiB, most of which nobody touches, with one device of most kinds.
static LARGE: Shared = Shared::new(|| {
    Box::pin(async {
        let vm = Vm::process(&[]).await;
        let disk = vm.file("disk.raw");
        host(&format!("truncate -s 16M {}", disk.display())).await;
        let guest = Guest::linux(KernelKind::Pvh)
            .memory_mib(6 << 10)
            .disk("disk0", disk)
            .disk("disk1", vm.file("disk1.raw"))
            .port("org.orlop.test", vm.file("port.sock"))
            .vsock(7, vm.file("vsock.sock"))
            .argument("orlop.word=arrives")
            .with(|config| {
                config.rng = Some(RngConfig::default());
                config.balloon = Some(BalloonConfig::default());
                config.clock = ClockConfig { offset_seconds: CLOCK_OFFSET_SECONDS };
            });
        host(&format!("truncate -s 16M {}", vm.file("disk1.raw").display())).await;
        let mut vm = vm;
        vm.start(&guest).await;
        vm.expect("orlop-init: commands").await;
        vm
    })
});

/// `MemTotal` of the small guest in MiB.
async fn memory_mib(vm: &mut Vm) -> u64 {
    let kib = vm.run("awk '/MemTotal/ {print $2}' /proc/meminfo").await;
    kib.parse::<u64>().expect("a number") >> 10
}

/// Boots `kind` with `mib` of memory to its commands; powers it off from inside.
async fn boots_and_powers_off(kind: KernelKind, mib: u64) {
    let mut vm = Vm::shell(&Guest::linux(kind).memory_mib(mib)).await;
    // The kernel keeps some for itself: its image, its tables, the initramfs.
    let seen = memory_mib(&mut vm).await;
    assert!((mib * 3 / 5..mib).contains(&seen), "{seen} MiB of {mib}");
    let events = vm.client.events(0).await.expect("events");
    vm.console().send("poweroff -f\n").await;
    let (exit, events) = tokio::join!(vm.exit(), ended(events));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let expected = [
        EventKind::Created { name: "test".into() },
        EventKind::Booted,
        EventKind::Shutdown { by: Initiator::Guest },
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_bz_image_boots_with_128_mib_and_powers_off() {
    boots_and_powers_off(KernelKind::BzImage, 128).await;
}

#[tokio::test]
async fn an_elf_kernel_boots_by_the_64_bit_protocol_with_1_gib_and_powers_off() {
    boots_and_powers_off(KernelKind::Elf, 1 << 10).await;
}

#[tokio::test]
async fn an_elf_kernel_boots_by_its_pvh_note_and_powers_off() {
    boots_and_powers_off(KernelKind::Pvh, 256).await;
}

#[tokio::test]
async fn sixty_four_vcpus_come_up() {
    let mut vm = Vm::shell(&Guest::linux(KernelKind::Elf).memory_mib(512).cpus(2, 16, 2)).await;
    assert_eq!(vm.run("nproc").await, "64");
    assert_eq!(vm.run("cat /sys/devices/system/cpu/online").await, "0-63");
}

#[tokio::test]
async fn a_small_kernel_needs_no_more_than_2_mib() {
    let vm = Vm::boot(&Guest::kernel(probe(), "probe=memory").memory_mib(2)).await;
    let exit = vm.exit().await;
    assert!(exit.console.contains("probe: done 0"), "{}", exit.console);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[test]
fn a_guest_of_6_gib_sees_and_uses_memory_beyond_the_pci_hole() {
    LARGE.with(async |vm| {
        let seen = memory_mib(vm).await;
        assert!((5 << 10..6 << 10).contains(&seen), "{seen} MiB of 6 GiB");
        let ranges = vm.run("grep 'System RAM' /proc/iomem").await;
        assert!(ranges.lines().any(|line| line.starts_with("100000000-")), "nothing at 4 GiB:\n{ranges}");
        let zone = "awk '/zone +Normal/ {n=1} n && /free/ {f=$NF} n && /managed/ {print $2-f0; exit} \
                    n && /pages free/ {f0=$3}' /proc/zoneinfo";
        let used_pages: u64 = vm.run(zone).await.parse().expect("a number");
        assert!(used_pages > 0, "nothing beyond 4 GiB is used");
        vm.run(
            "dd if=/dev/urandom of=/run/large bs=1M count=64 2>/dev/null && sha256sum /run/large >/run/sum \
             && sha256sum -c -s /run/sum && rm /run/large",
        )
        .await;
    });
}

#[test]
fn the_command_line_arrives() {
    LARGE.with(async |vm| {
        let line = vm.run("cat /proc/cmdline").await;
        assert!(line.contains("console=ttyS0 quiet orlop.word=arrives"), "{line}");
    });
}

#[test]
fn time_comes_from_kvm_clock_and_from_a_real_time_clock_with_its_offset() {
    LARGE.with(async |vm| {
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        assert_eq!(vm.run(&format!("cat {source}")).await, "kvm-clock");
        let seen: i64 = vm.run("cat /sys/class/rtc/rtc0/since_epoch").await.parse().expect("seconds");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
        let ahead = seen - now;
        assert!(
            (ahead - CLOCK_OFFSET_SECONDS).abs() <= 5,
            "{ahead} s ahead instead of {CLOCK_OFFSET_SECONDS}"
        );
    });
}

#[test]
fn the_acpi_tables_of_a_hardware_reduced_machine_are_there() {
    LARGE.with(async |vm| {
        let tables = vm.run("ls /sys/firmware/acpi/tables").await;
        for table in ["APIC", "DSDT", "FACP", "MCFG"] {
            assert!(tables.split_whitespace().any(|found| found == table), "no {table} among {tables}");
        }
        let complaints = vm.run("dmesg | grep -iE 'ACPI (BIOS )?(Error|Exception)' || true").await;
        assert_eq!(complaints, "");
    });
}

#[test]
fn the_guest_finds_exactly_the_devices_that_the_api_shows() {
    LARGE.with(async |vm| {
        let list = "for d in /sys/bus/pci/devices/*; do echo ${d##*/} $(cat $d/vendor $d/device); done";
        let list = vm.run(list).await;
        let functions: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        let mut seen: Vec<(String, u16)> = Vec::new();
        for function in &functions {
            let [address, "0x1af4", device] = function[..] else { continue };
            seen.push((address.into(), u16::from_str_radix(&device[2..], 16).expect("a device")));
        }
        let devices = vm.client.devices().await.expect("the devices");
        let shown: Vec<(String, u16)> =
            devices.iter().filter_map(|d| Some((d.pci_address.clone()?, pci_device(d.kind)?))).collect();
        assert_eq!(seen, shown);
        assert_eq!(seen.len(), 6, "{seen:?}");
        for address in ["0000:00:00.0", "0000:00:1f.0"] {
            assert!(functions.iter().any(|f| f[0] == address), "no bridge at {address}: {list}");
        }
    });
}

/// The PCI device of a modern virtio device (virtio 1.3 §4.1.2.1).
fn pci_device(kind: DeviceKind) -> Option<u16> {
    Some(match kind {
        DeviceKind::Net => 0x1041,
        DeviceKind::Block => 0x1042,
        DeviceKind::Console => 0x1043,
        DeviceKind::Rng => 0x1044,
        DeviceKind::Balloon => 0x1045,
        DeviceKind::Vsock => 0x1053,
        DeviceKind::Scsi => 0x1048,
        DeviceKind::Ahci | DeviceKind::Disk | DeviceKind::Cdrom | DeviceKind::Platform => return None,
    })
}

#[test]
fn every_driver_got_its_device_going() {
    LARGE.with(async |vm| {
        for device in vm.client.devices().await.expect("the devices") {
            let Some(virtio) = device.virtio else { continue };
            assert_eq!(virtio.status, 15, "{}: {virtio:?}", device.id);
            assert!(virtio.queues.iter().any(|queue| queue.ready), "{}: {virtio:?}", device.id);
            assert!(virtio.queues.iter().any(|queue| queue.ready && queue.vector.is_some()), "{virtio:?}");
            // VIRTIO_F_VERSION_1 (virtio 1.3 §6).
            assert!(virtio.features_accepted.contains(&32), "{}: {virtio:?}", device.id);
            assert!(
                virtio.features_accepted.iter().all(|bit| virtio.features_offered.contains(bit)),
                "{virtio:?}"
            );
        }
    });
}

#[test]
fn configuration_space_is_reached_through_ecam() {
    LARGE.with(async |vm| {
        let window = vm.run("grep -E 'PCI (ECAM|MMCONFIG) 0000' /proc/iomem").await;
        assert!(window.contains("[bus 00-"), "{window}");
        // Without ECAM the kernel sees 256 bytes.
        assert_eq!(vm.run("stat -c %s /sys/bus/pci/devices/0000:00:00.0/config").await, "4096");
    });
}

#[test]
fn exits_by_reason_grow_by_what_the_guest_does() {
    LARGE.with(async |vm| {
        let before = vm.client.vcpus().await.expect("the vCPUs");
        vm.run("printf %01000d 7").await;
        let after = vm.client.vcpus().await.expect("the vCPUs");
        let writes = |vcpus: &[orlop_api::vcpu::VcpuInfo]| vcpus[0].exits.get("io_out").copied().unwrap_or(0);
        let grown = writes(&after) - writes(&before);
        assert!(grown >= 1000, "1000 bytes on the serial port took {grown} writes");
        assert!(after[0].exits_total() >= before[0].exits_total() + grown);
        let metrics = vm.client.metrics().await.expect("metrics");
        let line = r#"orlop_vcpu_exits_total{vcpu="0",reason="io_out"} "#;
        let metric =
            metrics.lines().find_map(|l| l.strip_prefix(line)).expect("a series for writes to ports");
        assert!(metric.parse::<u64>().expect("a number") >= writes(&after));
    });
}

#[tokio::test]
async fn every_way_to_reboot_resets_in_place_and_a_triple_fault_is_told_apart() {
    let mut vm = Vm::process(&[]).await;
    let disk = vm.file("disk.raw");
    host(&format!("truncate -s 16M {}", disk.display())).await;
    let pid = vm.pid();
    vm.start(&Guest::linux(KernelKind::BzImage).disk("disk0", disk)).await;
    vm.expect("orlop-init: commands").await;
    vm.run("echo kept over resets | dd of=/dev/vda conv=fsync 2>/dev/null; touch /run/lost").await;
    for (count, way) in (1..).zip(["acpi", "kbd", "pci"]) {
        vm.run(&format!("echo {way} >/sys/kernel/reboot/type")).await;
        vm.console().send("reboot -f\n").await;
        vm.wait_event(|e| e.what == EventKind::Reset { by: Initiator::Guest } && e.seq >= count + 2).await;
        vm.expect("orlop-init: commands").await;
        let info = vm.client.info().await.expect("its state");
        assert_eq!((info.resets, info.process_id), (count, pid), "after {way}");
        assert_eq!(vm.run("head -c 16 /dev/vda; ls /run").await, "kept over resets", "after {way}");
    }
    let events = vm.client.events(0).await.expect("events");
    vm.run("echo triple >/sys/kernel/reboot/type").await;
    vm.console().send("reboot -f\n").await;
    let (exit, events) = tokio::join!(vm.exit(), ended(events));
    assert_eq!(exit.code, Some(11), "{}", exit.stderr);
    assert!(exit.stderr.contains("triple fault"), "{}", exit.stderr);
    let reset = EventKind::Reset { by: Initiator::Guest };
    let expected = [
        EventKind::Created { name: "test".into() },
        EventKind::Booted,
        reset.clone(),
        reset.clone(),
        reset,
        EventKind::TripleFault { vcpu: 0 },
        EventKind::Shutdown { by: Initiator::Vmm },
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_reboot_ends_a_process_that_was_told_not_to_reboot() {
    let mut vm = Vm::process(&["--no-reboot"]).await;
    vm.start(&Guest::linux(KernelKind::BzImage).script("reboot -f")).await;
    assert_eq!(vm.exit().await.code, Some(10));
}

#[tokio::test]
async fn a_kernel_panic_is_an_event_and_the_machine_is_left_to_its_owner() {
    let guest = Guest::linux(KernelKind::BzImage).with(|config| config.panic = true).argument("panic=0");
    let mut vm = Vm::shell(&guest).await;
    vm.console().send("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger\n").await;
    vm.wait_event(|event| matches!(event.what, EventKind::Panic { .. })).await;
    vm.console().expect("Kernel panic", PATIENCE).await;
    vm.client.shutdown().await.expect("it can be ended");
    assert_eq!(vm.exit().await.code, Some(20));
}
