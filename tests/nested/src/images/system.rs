//! The small guest as a system that boots by itself: GRUB, kernel and initramfs, for whatever they are put on.

use std::path::{Path, PathBuf};

use crate::cache::Recipe;
use crate::debian::BuildError;
use crate::root::Parts;

/// What such a system is made of.
pub(super) struct System {
    /// GRUB's images, from [`Parts::grub`].
    pub(super) grub: PathBuf,
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The initramfs.
    pub(super) initramfs: PathBuf,
}

impl System {
    pub(super) fn build(parts: &Parts) -> Result<Self, BuildError> {
        let initramfs = super::initramfs::build(parts)?.join("initramfs.cpio");
        let kernel = super::kernel::build(parts)?.join("bzImage");
        Ok(Self { grub: parts.grub(), kernel, initramfs })
    }

    /// What decides the content of an image with this and nothing else on it.
    pub(super) fn recipe(&self) -> Recipe {
        let Self { grub, kernel, initramfs } = self;
        [grub, initramfs, kernel].iter().fold(Recipe::new(), |recipe, path| recipe.with(bytes(path)))
    }

    /// Kernel and initramfs with the names by which [`menu`] knows them.
    pub(super) fn files(&self) -> [(&Path, &str); 2] {
        [(&self.kernel, "bzImage"), (&self.initramfs, "initramfs.cpio")]
    }
}

/// Menu of GRUB: straight into the small guest, after `greeting` on the serial line.
pub(super) fn menu(greeting: &str) -> String {
    format!(
        "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\necho '{greeting}'\n\
         linux /bzImage console=ttyS0 quiet\ninitrd /initramfs.cpio\nboot\n"
    )
}

/// A path as an ingredient.
pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
