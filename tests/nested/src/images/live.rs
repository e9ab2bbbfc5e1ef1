//! A live system on an ISO image that boots by BIOS and by UEFI, from a CD-ROM drive and from a disk: kernel, initramfs and
//! GRUB's menu are files of the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::gpt;
use super::hybrid::{MENU, bytes};
use crate::cache::{self, Recipe, step};
use crate::debian::{BuildError, MTOOLS, XORRISO, require, run};
use crate::root::{Parts, copy};

/// The directory with `live.iso`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let grub = parts.grub();
    let initramfs = super::initramfs::build(parts)?.join("initramfs.cpio");
    let kernel = super::kernel::build(parts)?.join("bzImage");
    let recipe =
        [&grub, &initramfs, &kernel].iter().fold(Recipe::new(), |recipe, path| recipe.with(bytes(path)));
    let key = recipe.with(MENU).with("1").key();
    cache::artifact("image-live", &key, |place| {
        require(&[XORRISO, MTOOLS])?;
        step("make a live system on an ISO image", || {
            let tree = place.join("tree");
            fs::create_dir(&tree).map_err(|e| BuildError::file(&tree, e))?;
            copy(&kernel, &tree.join("bzImage"))?;
            copy(&initramfs, &tree.join("initramfs.cpio"))?;
            copy(&grub.join("eltorito.img"), &tree.join("eltorito.img"))?;
            let menu = tree.join("grub.cfg");
            fs::write(&menu, MENU).map_err(|e| BuildError::file(&menu, e))?;
            let efi = grub.join("grub.efi");
            gpt::fat(&tree.join("efi.img"), 0, &[(efi.as_path(), "EFI/BOOT/BOOTX64.EFI")])?;
            record(&tree, &grub.join("boot_hybrid.img"), &place.join("live.iso"))?;
            fs::remove_dir_all(&tree).map_err(|e| BuildError::file(&tree, e))
        })
    })
}

/// The image with two El Torito entries, and a master boot record that starts the BIOS's from a disk: what
/// grub-mkrescue(1) asks of xorriso.
fn record(tree: &Path, boot_record: &Path, image: &Path) -> Result<(), BuildError> {
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-V", "ORLOP"]);
    xorriso.args(["-b", "eltorito.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    xorriso.args(["--grub2-boot-info", "--grub2-mbr"]).arg(boot_record);
    xorriso.args(["--efi-boot", "efi.img", "-efi-boot-part", "--efi-boot-image"]);
    run("make an ISO image", xorriso.arg("-o").arg(image).arg(tree)).map(drop)
}
