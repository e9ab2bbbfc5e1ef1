//! Disks and CD-ROM drives on every bus: what a Linux guest finds, reads, writes and takes out.

use std::path::Path;

use orlop_api::config::DiskBus;
use orlop_api::control::Medium;
use orlop_api::device::TrayInfo;
use orlop_api::event::EventKind;
use orlop_api::problem::Reason;
use orlop_kit::{Guest, KernelKind, Vm, eventually, host, scratch};

/// How the small guest names the first disk and the first drive of a bus, none on virtio, which has no drives.
fn names(bus: DiskBus) -> (&'static str, Option<&'static str>) {
    match bus {
        DiskBus::Virtio => ("vda", None),
        DiskBus::Scsi | DiskBus::Sata => ("sda", Some("sr0")),
    }
}

/// A guest with a disk `disk`, and a drive `cd` where the bus has such, in which there is an ISO image.
async fn machine(bus: DiskBus) -> Vm {
    let mut vm = Vm::process(&[]).await;
    let (disk, iso) = (vm.file("disk.raw"), vm.file("cd.iso"));
    host(&format!("truncate -s 64M {}", disk.display())).await;
    let mut guest = Guest::linux(KernelKind::BzImage).disk_on(bus, "disk", &disk);
    if names(bus).1.is_some() {
        host(&format!(
            "t=$(mktemp -d {0}.XXXXXX) && head -c 3m /dev/urandom >$t/data && xorriso -as mkisofs -quiet -R -V ORLOP \
             -o {0} $t && cp $t/data {0}.data && rm -r $t",
            iso.display()
        ))
        .await;
        guest = guest.cdrom_on(bus, "cd", &iso);
    }
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    vm
}

/// A file system on the disk, checked from the host; a file on the medium, checked in the guest.
async fn disk_and_drive_work_on(bus: DiskBus) {
    let mut vm = machine(bus).await;
    let (disk, drive) = names(bus);
    let image = vm.file("disk.raw");
    assert_eq!(vm.run(&format!("cat /sys/block/{disk}/size")).await, "131072");
    let seen = vm
        .run(&format!(
            "head -c 24m /dev/urandom >/run/data && dd if=/run/data of=/dev/{disk} bs=1M seek=8 conv=fsync 2>/dev/null && \
             echo 3 >/proc/sys/vm/drop_caches && sha256sum </run/data && rm /run/data"
        ))
        .await;
    let read = format!("dd if=/dev/{disk} bs=64k skip=128 count=384 2>/dev/null | sha256sum");
    assert_eq!(vm.run(&read).await, seen);
    assert_eq!(host(&read.replace(&format!("/dev/{disk}"), &image.display().to_string())).await, seen);
    assert!(vm.counter("disk", "write_bytes").await >= 24 << 20);
    assert!(vm.counter("disk", "read_bytes").await >= 24 << 20);
    assert!(vm.counter("disk", "flush_requests").await > 0, "fsync did not reach the disk");
    if let Some(drive) = drive {
        let data = vm.file("cd.iso.data");
        let expected = host(&format!("sha256sum <{}", data.display())).await;
        let read = format!("mount -r -t iso9660 /dev/{drive} /mnt && sha256sum </mnt/data; umount /mnt");
        assert_eq!(vm.run(&read).await, expected);
        let (output, code) = vm.try_run(&format!("dd if=/dev/zero of=/dev/{drive} bs=2k count=1")).await;
        assert_ne!(code, 0, "a CD-ROM could be written to:\n{output}");
    }
}

#[tokio::test]
async fn a_disk_on_virtio_holds_what_the_guest_writes() {
    disk_and_drive_work_on(DiskBus::Virtio).await;
}

#[tokio::test]
async fn disk_and_drive_on_scsi_hold_what_the_guest_writes() {
    disk_and_drive_work_on(DiskBus::Scsi).await;
}

#[tokio::test]
async fn disk_and_drive_on_sata_hold_what_the_guest_writes() {
    disk_and_drive_work_on(DiskBus::Sata).await;
}

/// An ISO image at `file` with `content` in its file `data`.
async fn iso(file: &Path, content: &str) {
    let file = file.display();
    host(&format!(
        "t=$(mktemp -d {file}.XXXXXX) && echo {content} >$t/data && xorriso -as mkisofs -quiet -R -V ORLOP -o {file} $t \
         && rm -r $t"
    ))
    .await;
}

/// The guest reads a medium, the host takes it and gives another; a guest that holds on to its medium is asked first.
async fn media_come_and_go_on(bus: DiskBus) {
    let directory = tempfile::tempdir_in(scratch()).expect("a directory");
    let [first, second] = ["first.iso", "second.iso"].map(|name| directory.path().join(name));
    iso(&first, "first").await;
    iso(&second, "second").await;
    let path = second.display().to_string();
    let starter = ["sh", "-c", "exec 7<\"$0\"; exec \"$@\"", &path];
    let mut vm = Vm::process_in(directory, &starter, &["--fd", "second=7"]).await;
    vm.start(&Guest::linux(KernelKind::BzImage).cdrom_on(bus, "cd", &first)).await;
    vm.expect("orlop-init: commands").await;
    let read = "mount -r -t iso9660 /dev/sr0 /mnt && cat /mnt/data; umount /mnt";
    assert_eq!(vm.run(read).await, "first");
    // Mounted, the guest locks the tray.
    vm.run("mount -r -t iso9660 /dev/sr0 /mnt").await;
    let refused = vm.client.eject("cd", false).await.expect_err("the guest has locked the tray");
    assert_eq!(refused.problem().expect("a problem").reason, Reason::MediumLocked);
    assert_eq!(vm.device("cd").await.tray, Some(TrayInfo { open: false, locked: true, medium: true }));
    assert_eq!(vm.run("cat /mnt/data; umount /mnt").await, "first");
    vm.client.eject("cd", false).await.expect("the tray is not locked any more");
    assert_eq!(vm.device("cd").await.tray, Some(TrayInfo { open: true, locked: false, medium: false }));
    let (output, code) = vm.try_run("dd if=/dev/sr0 of=/dev/null bs=2k count=1").await;
    assert_ne!(code, 0, "there is nothing to read:\n{output}");
    vm.client.insert("cd", &Medium { fd: "second".into() }).await.expect("a medium to put in");
    assert_eq!(vm.run(read).await, "second");
    vm.wait_event(|event| event.what == EventKind::MediumInserted { device: "cd".into() }).await;
}

#[tokio::test]
async fn media_come_and_go_on_scsi() {
    media_come_and_go_on(DiskBus::Scsi).await;
}

#[tokio::test]
async fn media_come_and_go_on_sata() {
    media_come_and_go_on(DiskBus::Sata).await;
}

/// Virtio, scsi and sata in one machine, each with its data; pauses while it is written and made durable lose nothing.
#[tokio::test]
async fn three_buses_in_one_machine_keep_their_disks_apart() {
    let mut vm = Vm::process(&[]).await;
    let mut guest = Guest::linux(KernelKind::BzImage);
    let disks = [(DiskBus::Virtio, "a"), (DiskBus::Scsi, "b"), (DiskBus::Sata, "c")];
    for (bus, name) in disks {
        let file = vm.file(name);
        host(&format!("truncate -s 8M {}", file.display())).await;
        guest = guest.disk_on(bus, name, file);
    }
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    // sda and sdb are named in the order in which they are found, some time after their drivers are there: the serial number
    // tells them apart.
    let number = "/sys/block/$d/device/vpd_pg80";
    let by_serial = format!(
        "for d in sda sdb; do until [ -e {number} ]; do usleep 10000; done; \
         grep -q \"$(printf '\\142')\" {number} && echo $d; done; true"
    );
    let scsi = vm.run(&by_serial).await;
    let sata = if scsi == "sda" { "sdb" } else { "sda" };
    for (device, (_, name)) in ["vda", &scsi, sata].into_iter().zip(disks) {
        let flushes = vm.counter(name, "flush_requests").await;
        vm.console()
            .send(&format!("yes {name} | dd of=/dev/{device} bs=1M count=8 iflag=fullblock conv=fsync\n"))
            .await;
        let paused = async || {
            vm.client.pause().await.expect("a machine that pauses");
            vm.client.resume().await.expect("a machine that goes on");
            vm.counter(name, "flush_requests").await > flushes
        };
        eventually("what was written is made durable", paused).await;
        vm.expect("orlop-init: exit 0").await;
    }
    for (_, name) in disks {
        let file = vm.file(name);
        let expected = host(&format!("yes {name} | head -c 8M | sha256sum")).await;
        assert_eq!(host(&format!("sha256sum <{}", file.display())).await, expected, "disk {name}");
    }
}
