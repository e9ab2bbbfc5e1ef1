//! What of the node's packages is for guests that boot by firmware: SeaBIOS, OVMF, and GRUB for both.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::debian::{BuildError, run};
use crate::root::copy;

/// The firmware files that are taken: BIOS, UEFI with its variable store, and where the packages have them.
const SOURCES: [&str; 3] =
    ["usr/share/seabios/bios-256k.bin", "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"];
/// Their names.
pub(crate) const FILES: &[&str] = &["bios-256k.bin", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"];

/// What GRUB does before it knows its disk: it looks for the file system of [`crate::images`]'s hybrid disk.
pub(crate) const GRUB_EARLY: &str = "search --no-floppy --set=root --label ORLOP\nconfigfile /grub.cfg\n";
/// What it needs to do that, and to start Linux; `biosdisk` only where there is a BIOS.
const GRUB_MODULES: &[&str] = &[
    "configfile",
    "echo",
    "fat",
    "linux",
    "normal",
    "part_gpt",
    "reboot",
    "search",
    "search_label",
    "serial",
];

/// Takes the firmware out of the tree `root`.
pub(crate) fn take(root: &Path, place: &Path) -> Result<(), BuildError> {
    fs::create_dir(place).map_err(|e| BuildError::file(place, e))?;
    SOURCES.iter().zip(FILES).try_for_each(|(from, name)| copy(&root.join(from), &place.join(name)))
}

/// Makes GRUB's images with the tools of the tree `root`, which is left as it was.
pub(crate) fn make_grub(root: &Path, place: &Path) -> Result<(), BuildError> {
    fs::create_dir(place).map_err(|e| BuildError::file(place, e))?;
    let early = root.join("tmp/early.cfg");
    fs::write(&early, GRUB_EARLY).map_err(|e| BuildError::file(&early, e))?;
    for (format, name, more) in
        [("i386-pc", "core.img", &["biosdisk"] as &[&str]), ("x86_64-efi", "grub.efi", &["efi_gop"])]
    {
        let made = root.join("tmp").join(name);
        let mut mkimage = Command::new("chroot");
        mkimage.arg(root).args(["grub-mkimage", "-O", format, "-p", "/", "-c", "/tmp/early.cfg", "-o"]);
        mkimage.arg(Path::new("/tmp").join(name)).args(GRUB_MODULES).args(more);
        run("make an image of GRUB", &mut mkimage)?;
        copy(&made, &place.join(name))?;
        fs::remove_file(&made).map_err(|e| BuildError::file(&made, e))?;
    }
    copy(&root.join("usr/lib/grub/i386-pc/boot.img"), &place.join("boot.img"))?;
    fs::remove_file(&early).map_err(|e| BuildError::file(&early, e))
}
