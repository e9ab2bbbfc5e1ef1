//! A small disk that boots by BIOS and by UEFI into the small guest: kernel and initramfs are on its ESP.

use std::path::{Path, PathBuf};

use super::gpt::{self, Content};
use crate::cache::{self, Recipe, step};
use crate::debian::BuildError;
use crate::root::Parts;

/// Menu of GRUB: straight into the small guest.
pub(super) const MENU: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo 'orlop-grub: starting'
linux /bzImage console=ttyS0 quiet
initrd /initramfs.cpio
boot
";

/// The directory with `hybrid.raw`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let grub = parts.grub();
    let initramfs = super::initramfs::build(parts)?.join("initramfs.cpio");
    let kernel = super::kernel::build(parts)?.join("bzImage");
    let recipe =
        [&grub, &initramfs, &kernel].iter().fold(Recipe::new(), |recipe, path| recipe.with(bytes(path)));
    let key = recipe.with(MENU).with("2").key();
    cache::artifact("image-hybrid", &key, |place| {
        step("make a disk that boots by BIOS and by UEFI", || {
            let files = [(kernel.as_path(), "bzImage"), (initramfs.as_path(), "initramfs.cpio")];
            let content = Content { grub: &grub, menu: MENU, files: &files, root: None };
            gpt::disk(&place.join("hybrid.raw"), &content)
        })
    })
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
