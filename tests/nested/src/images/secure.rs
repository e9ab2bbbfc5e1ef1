//! A small disk that firmware with Secure Boot starts: the distribution's signed shim, signed GRUB and signed kernel, on an
//! EFI system partition that is the whole disk.

use std::fs;
use std::path::PathBuf;

use super::gpt;
use super::system::{System, menu};
use crate::cache::{self, step};
use crate::debian::{BuildError, MTOOLS, require};
use crate::root::Parts;

/// What the signed GRUB says first.
const GREETING: &str = "orlop-signed-grub: starting";

const DISK_BYTES: u64 = 48 << 20;

/// The directory with `secure.raw`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let (system, menu) = (System::build(parts)?, menu(GREETING));
    let key = system.recipe().with(&menu).with("2").key();
    cache::artifact("image-secure", &key, |place| {
        require(&[MTOOLS])?;
        step("make a disk that boots by Secure Boot", || {
            let config = place.join("grub.cfg");
            fs::write(&config, &menu).map_err(|e| BuildError::file(&config, e))?;
            let [shim, grub] = ["shim.efi.signed", "grub.efi.signed"].map(|name| system.grub.join(name));
            let mut files = vec![
                (shim.as_path(), "EFI/BOOT/BOOTX64.EFI"),
                (grub.as_path(), "EFI/BOOT/grubx64.efi"),
                // The signed GRUB looks for it where Debian has it.
                (config.as_path(), "EFI/debian/grub.cfg"),
            ];
            files.extend(system.files());
            gpt::fat(&place.join("secure.raw"), DISK_BYTES, &files)?;
            fs::remove_file(&config).map_err(|e| BuildError::file(&config, e))
        })
    })
}
