//! What a guest writes is on the host, what it frees is freed there, and what goes wrong there is an error here.

use std::path::Path;
use std::time::{Duration, Instant};

use orlop_api::config::RateLimit;
use orlop_api::problem::Reason;
use orlop_kit::{Guest, KernelKind, Shared, Vm, host, scratch, tools_disk};

/// How many bytes per second the slow disk lets through.
const SLOW_BYTES_PER_SECOND: u64 = 256 << 10;
/// How many bytes it lets through at once.
const SLOW_BURST_BYTES: u64 = 64 << 10;

/// A guest with a disk of each kind: `vda` plain, `vdb` O_DIRECT, `vdc` read-only, `vdd` slow, `vde` with programs.
static DISKS: Shared = Shared::new(|| {
    Box::pin(async {
        let mut vm = Vm::process(&[]).await;
        let [plain, direct, fixed, slow, tools] =
            ["plain", "direct", "fixed", "slow", "tools"].map(|name| vm.file(name));
        for (disk, size) in [(&plain, "64M"), (&direct, "64M"), (&slow, "16M")] {
            host(&format!("truncate -s {size} {}", disk.display())).await;
        }
        host(&format!("head -c 1m /dev/urandom >{}", fixed.display())).await;
        tools_disk(&["blkdiscard"], &tools).await;
        let guest = Guest::linux(KernelKind::BzImage)
            .disk("plain", plain)
            .disk("direct", direct)
            .disk("fixed", fixed)
            .disk("slow", slow)
            .disk("tools", tools)
            .with(|config| {
                config.disks[0].serial = Some("ORLOP-0123456789-XYZ".into());
                config.disks[1].direct = true;
                config.disks[2].read_only = true;
                config.disks[3].bandwidth_limit =
                    Some(RateLimit { per_second: SLOW_BYTES_PER_SECOND, burst: Some(SLOW_BURST_BYTES) });
                config.disks[4].read_only = true;
            });
        vm.start(&guest).await;
        vm.expect("orlop-init: commands").await;
        vm.run("mount -t ext4 -o ro /dev/vde /mnt").await;
        vm
    })
});

async fn empty_file(file: &Path, size: &str) {
    host(&format!("truncate -s {size} {}", file.display())).await;
}

async fn sum(file: &Path) -> String {
    host(&format!("sha256sum <{}", file.display())).await
}

/// How much of a file takes room, in KiB.
async fn allocated_kib(file: &Path) -> u64 {
    host(&format!("sync {0}; du -k {0} | cut -f1", file.display())).await.parse().expect("a number")
}

#[tokio::test]
async fn a_file_system_written_by_the_guest_is_whole_on_the_host() {
    let mut vm = Vm::process(&[]).await;
    let disk = vm.file("disk.raw");
    empty_file(&disk, "128M").await;
    host(&format!("/sbin/mkfs.ext4 -q {}", disk.display())).await;
    vm.start(&Guest::linux(KernelKind::BzImage).disk("disk0", &disk)).await;
    vm.expect("orlop-init: commands").await;
    let seen = vm
        .run(
            "mount /dev/vda /mnt && head -c 24m /dev/urandom >/mnt/data && for i in $(seq 50); do mkdir /mnt/d$i; \
             echo $i >/mnt/d$i/f; done && sync && echo 3 >/proc/sys/vm/drop_caches && sha256sum </mnt/data",
        )
        .await;
    vm.run("umount /mnt").await;
    let written = vm.counter("disk0", "write_bytes").await;
    assert!(written >= 24 << 20, "{written} bytes written");
    assert!(vm.counter("disk0", "read_bytes").await >= 24 << 20);
    // Out of the VM's directory, which goes with the process.
    let kept = tempfile::NamedTempFile::new_in(scratch()).expect("a file");
    host(&format!("ln -f {} {}", disk.display(), kept.path().display())).await;
    vm.console().send("poweroff -f\n").await;
    assert_eq!(vm.exit().await.code, Some(0));
    let disk = kept.path().display();
    host(&format!("/sbin/e2fsck -fn {disk}")).await;
    assert_eq!(host(&format!("/sbin/debugfs -R 'cat /data' {disk} 2>/dev/null | sha256sum")).await, seen);
    assert_eq!(host(&format!("/sbin/debugfs -R 'cat /d50/f' {disk} 2>/dev/null")).await, "50");
}

#[tokio::test]
async fn what_was_flushed_survives_a_killed_vmm() {
    let mut vm = Vm::process(&[]).await;
    let disk = vm.file("disk.raw");
    empty_file(&disk, "64M").await;
    host(&format!("/sbin/mkfs.ext4 -q {}", disk.display())).await;
    vm.start(&Guest::linux(KernelKind::BzImage).disk("disk0", &disk)).await;
    vm.expect("orlop-init: commands").await;
    let seen = vm
        .run("mount /dev/vda /mnt && head -c 4m /dev/urandom >/mnt/data && sha256sum </mnt/data && sync")
        .await;
    assert!(vm.counter("disk0", "flush_requests").await > 0, "sync did not reach the disk");
    let directory = vm.kill().await;
    // The journal is replayed, as the next mount would.
    host(&format!("/sbin/e2fsck -p {0} || [ $? = 1 ]; /sbin/e2fsck -fn {0}", disk.display())).await;
    let read =
        host(&format!("/sbin/debugfs -R 'cat /data' {} 2>/dev/null | sha256sum", disk.display())).await;
    assert_eq!(read, seen);
    drop(directory);
}

#[tokio::test]
async fn a_full_host_is_an_io_error_in_the_guest_which_goes_on() {
    let mut vm = Vm::process(&[]).await;
    let place = vm.file("full");
    let place = place.display();
    host(&format!("mkdir {place}; mount -t tmpfs -o size=16M tmpfs {place}; truncate -s 64M {place}/disk"))
        .await;
    host(&format!("head -c 8m /dev/zero >{place}/filler")).await;
    vm.keep(Unmount(place.to_string()));
    vm.start(&Guest::linux(KernelKind::BzImage).disk("disk0", format!("{place}/disk"))).await;
    vm.expect("orlop-init: commands").await;
    let (output, code) = vm.try_run("dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync").await;
    assert_ne!(code, 0, "32 MiB went into 8 MiB:\n{output}");
    assert!(vm.counter("disk0", "write_errors").await > 0);
    // Room again: the same guest writes on.
    host(&format!("rm {place}/filler")).await;
    vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=4 seek=32 conv=fsync").await;
    assert_eq!(vm.run("echo alive").await, "alive");
}

/// Takes a mount away when dropped.
struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        // The VMM may still hold it; it goes with the VMM then.
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[tokio::test]
async fn two_machines_do_not_write_to_one_image_but_may_read_one() {
    let first = Vm::process(&[]).await;
    let disk = first.file("disk.raw");
    empty_file(&disk, "1M").await;
    let writer = Guest::linux(KernelKind::BzImage).disk("disk0", &disk);
    let reader = writer.clone().with(|config| config.disks[0].read_only = true);
    first.client.create(&writer.config, false).await.expect("the first may");
    let second = Vm::process(&[]).await;
    for guest in [&writer, &reader] {
        let refused = second.client.create(&guest.config, false).await.expect_err("the image is taken");
        let problem = refused.problem().expect("a problem").clone();
        assert_eq!(problem.reason, Reason::HostFailure);
        assert_eq!(problem.field.as_deref(), Some("disks[0]"));
        assert!(problem.detail.contains(&disk.display().to_string()), "{}", problem.detail);
        let holder = format!("in use by '{}'", writer.config.name);
        assert!(problem.detail.contains(&holder), "{}", problem.detail);
    }
    // The lock goes with its owner, however that ends.
    let directory = first.kill().await;
    second.client.create(&reader.config, false).await.expect("nobody writes any more");
    let third = Vm::process(&[]).await;
    third.client.create(&reader.config, false).await.expect("readers do not mind each other");
    drop(directory);
}

#[test]
fn the_serial_number_is_what_was_configured() {
    DISKS.with(async |vm| {
        assert_eq!(vm.run("cat /sys/block/vda/serial").await, "ORLOP-0123456789-XYZ");
    });
}

#[test]
fn a_read_only_disk_refuses_writes_and_stays_as_it_was() {
    DISKS.with(async |vm| {
        let before = sum(&vm.file("fixed")).await;
        assert_eq!(vm.run("cat /sys/block/vdc/ro").await, "1");
        let (output, code) = vm.try_run("dd if=/dev/zero of=/dev/vdc bs=4k count=1").await;
        assert_ne!(code, 0, "it could be written to:\n{output}");
        assert_eq!(vm.run("sha256sum </dev/vdc").await, before);
        assert_eq!(sum(&vm.file("fixed")).await, before);
    });
}

#[test]
fn a_disk_around_the_page_cache_holds_the_same_bytes() {
    DISKS.with(async |vm| {
        let file = vm.file("direct");
        // O_DIRECT in open(2)'s flags, as fdinfo shows them in octal.
        let flags = format!(
            "for f in /proc/{0}/fd/*; do [ \"$(readlink $f)\" = {1} ] && grep flags /proc/{0}/fdinfo/${{f##*/}}; done",
            vm.pid(),
            file.display()
        );
        let flags = host(&format!("{flags}; true")).await;
        let flags = flags.split_whitespace().nth(1).expect("the VMM has it open");
        assert_ne!(u32::from_str_radix(flags, 8).expect("octal") & 0o40000, 0, "{flags}");
        let seen = vm
            .run("dd if=/dev/urandom of=/run/data bs=1M count=8 2>/dev/null; dd if=/run/data of=/dev/vdb bs=1M conv=fsync \
                  2>/dev/null; sha256sum </run/data; rm /run/data")
            .await;
        assert_eq!(host(&format!("head -c 8m {} | sha256sum", file.display())).await, seen);
    });
}

#[test]
fn discarded_blocks_are_free_on_the_host() {
    DISKS.with(async |vm| {
        let file = vm.file("plain");
        vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=16 seek=16 conv=fsync 2>/dev/null").await;
        let before = allocated_kib(&file).await;
        vm.run("blkdiscard -o 16777216 -l 16777216 /dev/vda").await;
        let after = allocated_kib(&file).await;
        assert!(after + (15 << 10) <= before, "{before} KiB before, {after} KiB after");
        assert!(vm.counter("plain", "discard_bytes").await >= 16 << 20);
    });
}

#[test]
fn zeroes_are_written_without_sending_them() {
    DISKS.with(async |vm| {
        vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=8 seek=48 conv=fsync 2>/dev/null").await;
        let sent = vm.counter("plain", "write_bytes").await;
        vm.run("/mnt/blkdiscard -z -o 50331648 -l 8388608 /dev/vda").await;
        assert!(vm.counter("plain", "write_zeroes_bytes").await >= 8 << 20);
        assert_eq!(vm.counter("plain", "write_bytes").await, sent);
        let plain = vm.file("plain");
        let others =
            format!("dd if={} bs=1M skip=48 count=8 2>/dev/null | tr -d '\\0' | wc -c", plain.display());
        assert_eq!(host(&others).await, "0");
    });
}

#[test]
fn a_slow_disk_is_as_slow_as_it_was_asked_to_be() {
    DISKS.with(async |vm| {
        let start = Instant::now();
        vm.run("dd if=/dev/zero of=/dev/vdd bs=64k count=8 conv=fsync 2>/dev/null").await;
        let bytes = 8 * (64 << 10) - SLOW_BURST_BYTES;
        let least = Duration::from_secs_f64(bytes as f64 / SLOW_BYTES_PER_SECOND as f64);
        assert!(start.elapsed() >= least, "{:?} instead of {least:?} or more", start.elapsed());
        assert!(vm.counter("slow", "throttled_events").await > 0);
        assert_eq!(vm.counter("slow", "write_bytes").await, 8 * (64 << 10));
    });
}
