//! The cells that both firmwares have: a distribution's disk image to its login on every bus, and a live system's ISO image
//! to its shell wherever such is put.

use std::path::{Path, PathBuf};

use orlop_api::config::{DiskBus, ImageFormat, VmConfig};
use orlop_kit::{Exit, FirmwareKind, Guest, PATIENCE, Tap, Vm, host, image, path, scratch};
use tempfile::TempDir;

/// What the boot loader of our own images says first.
const LOADER: &str = "orlop-grub: starting";
/// What the small guest says when it takes commands.
const SHELL: &str = "orlop-init: commands";

/// A directory on the node that ends with the test.
fn directory() -> TempDir {
    tempfile::tempdir_in(scratch()).expect("a directory")
}

/// A seed for cloud-init (NoCloud): the host's name, a password, and an address, so that nothing waits for one.
async fn seed(directory: &Path, name: &str) -> PathBuf {
    let directory = directory.display();
    host(&format!(
        "cd {directory} && mkdir seed && cat >seed/meta-data <<'END'\ninstance-id: {name}\nlocal-hostname: {name}\nEND\n\
         cat >seed/user-data <<'END'\n#cloud-config\npassword: orlop\nchpasswd: {{expire: false}}\nEND\n\
         cat >seed/network-config <<'END'\nversion: 2\nethernets: {{card: {{match: {{name: \"e*\"}}, addresses: [10.9.0.2/24]}}}}\nEND\n\
         xorriso -as mkisofs -quiet -R -J -V cidata -o seed.iso seed"
    ))
    .await;
    PathBuf::from(format!("{directory}/seed.iso"))
}

/// Debian's image on `bus`, an overlay over the image that all cells share, boots by `kind` through its own boot loader, is
/// told who it is by cloud-init, takes a login on its console, and powers off.
pub async fn debian_logs_in(kind: FirmwareKind, bus: DiskBus, cpus: u32) {
    let name = format!("deck-{cpus}");
    let place = directory();
    let overlay = place.path().join("debian.qcow2");
    let seed = seed(place.path(), &name).await;
    let tap = Tap::new("matrix", "10.9.0.1/24", "").await;
    let mut guest =
        Guest::firmware(kind).memory_mib(512).cpus(1, cpus, 1).disk_on(bus, "root", image("debian.qcow2"));
    let root = guest.config.disks.last_mut().expect("the disk");
    (root.format, root.overlay) = (ImageFormat::Qcow2, Some(path(&overlay)));
    guest = guest.disk_on(bus, "seed", seed).with(read_only).net("card", tap.name());
    guest.firmware_config().boot_order = vec!["root".into()];
    let mut vm = Vm::boot(&guest).await;
    vm.expect(LOADER).await;
    // Eight vCPUs of an emulated processor that others use too are slow: all of this took 301 s there once.
    vm.console().expect(&format!("{name} login: "), PATIENCE * 2).await;
    vm.console().send("debian\n").await;
    vm.expect("Password: ").await;
    vm.console().send("orlop\n").await;
    vm.expect("debian@").await;
    // The terminal echoes what is typed: what is waited for is not in it.
    let firmware = match kind {
        FirmwareKind::Bios => "test ! -d /sys/firmware/efi",
        FirmwareKind::Uefi | FirmwareKind::SecureUefi => "test -d /sys/firmware/efi",
    };
    vm.console().send(&format!("{firmware} && echo \"by $(nproc) on $(findmnt -no SOURCE /)\"\n")).await;
    // Two disks of one bus are named in the order in which they are found.
    let disk = if bus == DiskBus::Virtio { "vd" } else { "sd" };
    vm.expect(&format!("by {cpus} on /dev/{disk}")).await;
    vm.console().send("sudo systemctl poweroff\n").await;
    ended_well(vm.exit().await);
    let check = host(&format!("qemu-img check -q {0} && echo whole", overlay.display())).await;
    assert_eq!(check, "whole");
}

fn read_only(config: &mut VmConfig) {
    config.disks.last_mut().expect("the disk").read_only = true;
}

/// The live system boots by `kind` from `bus`, as CD-ROM or as disk, and reads its medium through a driver of its own.
pub async fn a_live_system_boots(kind: FirmwareKind, bus: DiskBus) {
    let guest = Guest::firmware(kind);
    let mut guest = match bus {
        DiskBus::Virtio => guest.disk_on(bus, "live", image("live.iso")).with(read_only),
        DiskBus::Scsi | DiskBus::Sata => guest.cdrom_on(bus, "live", image("live.iso")),
    };
    guest.firmware_config().boot_order = vec!["live".into()];
    let mut vm = Vm::boot(&guest).await;
    vm.expect(LOADER).await;
    vm.expect(SHELL).await;
    let device = if bus == DiskBus::Virtio { "/dev/vda" } else { "/dev/sr0" };
    let sum = vm.run(&format!("mount -r -t iso9660 {device} /mnt && sha256sum </mnt/bzImage")).await;
    assert_eq!(sum, host(&format!("sha256sum <{}", image("bzImage").display())).await);
    let (_, code) = vm.try_run("test -d /sys/firmware/efi").await;
    assert_eq!(code == 0, kind == FirmwareKind::Uefi);
    vm.console().send("poweroff -f\n").await;
    ended_well(vm.exit().await);
}

/// A medium that a package carries boots by `kind` in a CD-ROM drive on `bus`, and says `word`.
pub async fn a_medium_says(kind: FirmwareKind, bus: DiskBus, medium: &str, word: &str) {
    let mut guest = Guest::firmware(kind).cdrom_on(bus, "medium", image(medium));
    guest.firmware_config().boot_order = vec!["medium".into()];
    let mut vm = Vm::boot(&guest).await;
    vm.expect(word).await;
    assert_eq!(vm.counter("platform", "pci_windows_refused").await, 0);
}

/// A guest that powered itself off.
fn ended_well(exit: Exit) {
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}
