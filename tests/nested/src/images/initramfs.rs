//! A guest of a few megabytes: busybox, the virtio drivers, and an init that does what it is told.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Recipe, step};
use crate::cpio::Archive;
use crate::debian::{BuildError, run};
use crate::kmod;
use crate::root::Parts;

const INIT: &str = include_str!("../../guest/init");

/// What the cloud kernel does not have built in and a guest of ours may meet. PCI, ext4 and virtio-console are in it.
const MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_scsi",
    "ahci",
    "sd_mod",
    "sr_mod",
    "isofs",
    "virtio_net",
    "virtio_balloon",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    "af_packet",
    "rtc_cmos",
    "button",
    "evdev",
    "pvpanic_mmio",
];

/// Modules that a script loads itself, since they refuse to be where their hardware or firmware is not.
const ON_DEMAND: &[&str] = &["efivarfs"];

/// The directory with `initramfs.cpio`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let guest = parts.guest();
    let recipe = Recipe::new().with(guest.as_os_str().as_encoded_bytes()).with(INIT).with(MODULES.join(" "));
    let recipe = recipe.with(ON_DEMAND.join(" "));
    cache::artifact("image-initramfs", &recipe.key(), |place| {
        step("make the initramfs of the small guest", || write(&guest, &place.join("initramfs.cpio")))
    })
}

fn write(guest: &Path, image: &Path) -> Result<(), BuildError> {
    let modules = kmod::collect(&guest.join("modules"), MODULES)?;
    let on_demand = kmod::collect(&guest.join("modules"), ON_DEMAND)?;
    let order: String = modules.iter().map(|module| format!("{}\n", module.file_name)).collect();
    let busybox = guest.join("busybox");
    let applets = run("list what busybox can do", Command::new(&busybox).arg("--list"))?;
    let busybox = fs::read(&busybox).map_err(|e| BuildError::file(&busybox, e))?;
    let pack = || {
        // Not compressed: unpacking takes the guest longer than we take to load it.
        let mut archive = Archive::new(BufWriter::new(File::create(image)?));
        for directory in ["bin", "dev", "etc", "mnt", "modules", "proc", "root", "run", "sys", "tmp"] {
            archive.directory(directory)?;
        }
        archive.device("dev/console", 5, 1)?;
        archive.file("bin/busybox", &busybox)?;
        for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
            archive.symlink(&format!("bin/{applet}"), "busybox")?;
        }
        archive.file("init", INIT.as_bytes())?;
        archive.file("modules/order", order.as_bytes())?;
        for module in modules.iter().chain(&on_demand) {
            archive.file(&format!("modules/{}", module.file_name), &module.content)?;
        }
        archive.finish().map(drop)
    };
    pack().map_err(|e| BuildError::file(image, e))
}
