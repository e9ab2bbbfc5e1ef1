//! A small disk that boots by BIOS and by UEFI into the small guest: kernel and initramfs are on its ESP.

use std::path::PathBuf;

use super::gpt::{self, Content};
use super::system::{System, menu};
use crate::cache::{self, step};
use crate::debian::BuildError;
use crate::root::Parts;

/// What GRUB says first.
pub(super) const GREETING: &str = "orlop-grub: starting";

/// The directory with `hybrid.raw`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let (system, menu) = (System::build(parts)?, menu(GREETING));
    let key = system.recipe().with(&menu).with("2").key();
    cache::artifact("image-hybrid", &key, |place| {
        step("make a disk that boots by BIOS and by UEFI", || {
            let content = Content { grub: &system.grub, menu: &menu, files: &system.files(), root: None };
            gpt::disk(&place.join("hybrid.raw"), &content)
        })
    })
}
