//! Guests that Debian packages carry ready to boot, as they are.

use std::fs;
use std::path::PathBuf;

use crate::cache::{self, Recipe, step};
use crate::debian::{BuildError, RootTree};
use crate::root::copy;

const PACKAGES: &[&str] = &["debian-installer-13-netboot-amd64", "grub-rescue-pc", "ipxe", "memtest86+"];

/// Where the packages have them.
const SOURCES: [&str; 7] = [
    "usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/linux",
    "usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/initrd.gz",
    "usr/lib/grub-rescue/grub-rescue-cdrom.iso",
    "usr/lib/ipxe/ipxe.iso",
    "usr/lib/ipxe/ipxe.lkrn",
    "usr/lib/memtest86+/memtest86+x64.iso",
    "boot/memtest86+x64.bin",
];
/// Their names.
pub(super) const FILES: &[&str] = &[
    "installer.vmlinuz",
    "installer.initrd",
    "grub-rescue.iso",
    "ipxe.iso",
    "ipxe.lkrn",
    "memtest.iso",
    "memtest.bin",
];

/// The directory with them.
pub(super) fn build() -> Result<PathBuf, BuildError> {
    let tree = RootTree { name: "guests that packages carry", packages: PACKAGES, hooks: &[], initrd: false };
    let key = Recipe::new().with(tree.recipe()).with(format!("{SOURCES:?} {FILES:?}")).key();
    cache::artifact("image-packaged", &key, |place| {
        let root = place.join("root");
        tree.extract(&root)?;
        step("take the guests out of their packages", || {
            SOURCES.iter().zip(FILES).try_for_each(|(from, name)| copy(&root.join(from), &place.join(name)))
        })?;
        fs::remove_dir_all(&root).map_err(|e| BuildError::file(&root, e))
    })
}
