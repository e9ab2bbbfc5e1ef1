//! The installed Debian as an image that one downloads: qcow2, its root file system on a partition beside GRUB for either
//! firmware.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::gpt::{self, Content};
use super::system::bytes;
use crate::cache::{self, Recipe, step};
use crate::debian::{BLKID, BuildError, require, run};
use crate::root::Parts;

/// Menu of GRUB: the kernel that is on the root file system, which is found by its UUID whatever the bus is.
const MENU: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo 'orlop-grub: starting'
search --no-floppy --set=root --fs-uuid @UUID@
linux /vmlinuz root=UUID=@UUID@ rw quiet console=ttyS0
initrd /initrd.img
boot
";

/// The directory with `debian.qcow2`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let grub = parts.grub();
    let root = super::debian::build()?.join("debian.raw");
    let key = Recipe::new().with(bytes(&grub)).with(bytes(&root)).with(MENU).with("1").key();
    cache::artifact("image-debian-disk", &key, |place| {
        require(&[BLKID])?;
        step("put the Debian guest on a disk that boots by BIOS and by UEFI", || {
            let mut blkid = Command::new("blkid");
            blkid.args(["--match-tag", "UUID", "--output", "value", "--probe"]).arg(&root);
            let uuid = run("read the UUID of a file system", &mut blkid)?;
            let menu = MENU.replace("@UUID@", String::from_utf8_lossy(&uuid).trim());
            let raw = place.join("debian.partitioned");
            gpt::disk(&raw, &Content { grub: &grub, menu: &menu, files: &[], root: Some(&root) })?;
            let mut convert = parts.qemu_img();
            convert
                .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
                .arg(&raw)
                .arg(place.join("debian.qcow2"));
            run("make a qcow2 image", &mut convert)?;
            fs::remove_file(&raw).map_err(|e| BuildError::file(&raw, e))
        })
    })
}
