//! A live system on an ISO image that boots by BIOS and by UEFI, from a CD-ROM drive and from a disk: kernel, initramfs and
//! GRUB's menu are files of the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::gpt;
use super::hybrid::GREETING;
use super::system::{System, menu};
use crate::cache::{self, step};
use crate::debian::{BuildError, MTOOLS, XORRISO, require, run};
use crate::root::{Parts, copy};

/// The directory with `live.iso`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let (system, menu) = (System::build(parts)?, menu(GREETING));
    let grub = &system.grub;
    let key = system.recipe().with(&menu).with("1").key();
    cache::artifact("image-live", &key, |place| {
        require(&[XORRISO, MTOOLS])?;
        step("make a live system on an ISO image", || {
            let tree = place.join("tree");
            fs::create_dir(&tree).map_err(|e| BuildError::file(&tree, e))?;
            system.files().iter().try_for_each(|(from, name)| copy(from, &tree.join(name)))?;
            copy(&grub.join("eltorito.img"), &tree.join("eltorito.img"))?;
            let config = tree.join("grub.cfg");
            fs::write(&config, &menu).map_err(|e| BuildError::file(&config, e))?;
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
