//! A small disk that firmware with Secure Boot starts: the distribution's signed shim, signed GRUB and signed kernel, on an
//! EFI system partition that is the whole disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Recipe, step};
use crate::debian::{BuildError, MTOOLS, require, run};
use crate::root::Parts;

/// What GRUB does: straight into the small guest. The signed GRUB looks for this where Debian has it.
const CONFIG: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo 'orlop-signed-grub: starting'
linux /bzImage console=ttyS0 quiet
initrd /initramfs.cpio
boot
";

const DISK_MIB: u64 = 48;

/// The directory with `secure.raw`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let signed = parts.grub();
    let initramfs = super::initramfs::build(parts)?.join("initramfs.cpio");
    let kernel = super::kernel::build(parts)?.join("bzImage");
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let recipe =
        [&signed, &initramfs, &kernel].iter().fold(Recipe::new(), |recipe, path| recipe.with(bytes(path)));
    let key = recipe.with(CONFIG).with("1").key();
    cache::artifact("image-secure", &key, |place| {
        require(&[MTOOLS])?;
        step("make a disk that boots by Secure Boot", || {
            let (disk, config) = (place.join("secure.raw"), place.join("grub.cfg"));
            fs::write(&config, CONFIG).map_err(|e| BuildError::file(&config, e))?;
            let sized = File::create(&disk).and_then(|file| file.set_len(DISK_MIB << 20));
            sized.map_err(|e| BuildError::file(&disk, e))?;
            let what = "make an EFI system partition";
            run(what, Command::new("mformat").arg("-i").arg(&disk).args(["-F", "-v", "ORLOP", "::"]))?;
            let directories = ["::/EFI", "::/EFI/BOOT", "::/EFI/debian"];
            run(what, Command::new("mmd").arg("-i").arg(&disk).args(directories))?;
            for (from, to) in [
                (&signed.join("shim.efi.signed"), "::/EFI/BOOT/BOOTX64.EFI"),
                (&signed.join("grub.efi.signed"), "::/EFI/BOOT/grubx64.efi"),
                (&config, "::/EFI/debian/grub.cfg"),
                (&kernel, "::/bzImage"),
                (&initramfs, "::/initramfs.cpio"),
            ] {
                run(what, Command::new("mcopy").arg("-i").arg(&disk).arg(from).arg(to))?;
            }
            fs::remove_file(&config).map_err(|e| BuildError::file(&config, e))
        })
    })
}
