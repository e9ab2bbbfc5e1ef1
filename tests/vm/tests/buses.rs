//! Disks and CD-ROM drives on every bus: what a Linux guest finds, reads, writes and takes out.

use orlop_api::config::DiskBus;
use orlop_kit::{Guest, KernelKind, Vm, host};

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
        let read = format!("mount -t iso9660 /dev/{drive} /mnt && sha256sum </mnt/data; umount /mnt");
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
