//! An installed Debian, as somebody would have it from their distribution: systemd, cloud-init, sshd, qemu-guest-agent.

use std::fs;
use std::path::PathBuf;

use crate::cache::{self, Recipe, step};
use crate::debian::{BuildError, RootTree, find};

const PACKAGES: &[&str] = &[
    "cloud-guest-utils",
    "cloud-init",
    "curl",
    "dbus",
    "e2fsprogs",
    "ethtool",
    "fdisk",
    "iproute2",
    "iputils-ping",
    "less",
    "linux-image-cloud-amd64",
    "linux-sysctl-defaults",
    "login",
    "netbase",
    "openssh-server",
    "pciutils",
    "procps",
    "qemu-guest-agent",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "tiny-initramfs",
    "udev",
    "xz-utils",
];

/// What turns the packages into an image that boots quickly and is told who it is by cloud-init.
const SETUP: &str = include_str!("../../guest/debian-setup");

/// Sparse: what is not used costs nothing.
const SIZE: &str = "2G";

/// The directory with `debian.raw`, `debian.vmlinuz` and `debian.initrd`.
pub(super) fn build() -> Result<PathBuf, BuildError> {
    let tree = RootTree { name: "Debian guest", packages: PACKAGES, hooks: &[SETUP], initrd: true };
    let key = Recipe::new().with(tree.recipe()).with(SIZE).key();
    cache::artifact("image-debian", &key, |place| {
        let root = place.join("root");
        tree.build(&root)?;
        step("put the Debian guest on a disk", || {
            for (prefix, name) in [("vmlinuz-", "debian.vmlinuz"), ("initrd.img-", "debian.initrd")] {
                let from = find(&root.join("boot"), prefix, |_| true)?;
                fs::copy(&from, place.join(name)).map_err(|e| BuildError::file(&from, e))?;
            }
            super::ext4(&place.join("debian.raw"), "root", Some(&root), SIZE, "has_journal")
        })?;
        fs::remove_dir_all(&root).map_err(|e| BuildError::file(&root, e))
    })
}
