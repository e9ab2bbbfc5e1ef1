//! What of the node's packages is for guests that boot by firmware: SeaBIOS, OVMF, and GRUB for both.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::debian::{BuildError, run};
use crate::root::copy;

/// The firmware files that are taken: BIOS, UEFI with its variable store, both again for Secure Boot, and where the packages
/// have them.
const SOURCES: [&str; 5] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/OVMF/OVMF_CODE_4M.fd",
    "usr/share/OVMF/OVMF_VARS_4M.fd",
    "usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
    "usr/share/OVMF/OVMF_VARS_4M.ms.fd",
];
/// Their names.
pub(crate) const FILES: &[&str] =
    &["bios-256k.bin", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"];

/// What is signed for Secure Boot, and its name here.
const SIGNED: [(&str, &str); 2] = [
    ("usr/lib/shim/shimx64.efi.signed", "shim.efi.signed"),
    ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grub.efi.signed"),
];

/// What GRUB does before it knows its disk: it looks for the file system with the menu of a disk of [`crate::images`].
pub(crate) const GRUB_EARLY: &str = "search --no-floppy --set=root --label ORLOP\nconfigfile /grub.cfg\n";
/// What it needs to do that, and to start Linux; `biosdisk` only where there is a BIOS.
const GRUB_MODULES: &[&str] = &[
    "configfile",
    "echo",
    "ext2",
    "fat",
    "iso9660",
    "linux",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_uuid",
    "search_label",
    "serial",
];

/// Takes the firmware out of the tree `root`.
pub(crate) fn take(root: &Path, place: &Path) -> Result<(), BuildError> {
    fs::create_dir(place).map_err(|e| BuildError::file(place, e))?;
    SOURCES.iter().zip(FILES).try_for_each(|(from, name)| copy(&root.join(from), &place.join(name)))
}

/// Makes GRUB's images with the tools of the tree `root`, which is left as it was, and takes the signed ones out of it.
pub(crate) fn make_grub(root: &Path, place: &Path) -> Result<(), BuildError> {
    fs::create_dir(place).map_err(|e| BuildError::file(place, e))?;
    let early = root.join("tmp/early.cfg");
    fs::write(&early, GRUB_EARLY).map_err(|e| BuildError::file(&early, e))?;
    for (format, name, more) in [
        ("i386-pc", "core.img", &["biosdisk"] as &[&str]),
        ("i386-pc-eltorito", "eltorito.img", &["biosdisk"]),
        ("x86_64-efi", "grub.efi", &["efi_gop"]),
    ] {
        let made = root.join("tmp").join(name);
        let mut mkimage = Command::new("chroot");
        mkimage.arg(root).args(["grub-mkimage", "-O", format, "-p", "/", "-c", "/tmp/early.cfg", "-o"]);
        mkimage.arg(Path::new("/tmp").join(name)).args(GRUB_MODULES).args(more);
        run("make an image of GRUB", &mut mkimage)?;
        copy(&made, &place.join(name))?;
        fs::remove_file(&made).map_err(|e| BuildError::file(&made, e))?;
    }
    for name in ["boot.img", "boot_hybrid.img"] {
        copy(&root.join("usr/lib/grub/i386-pc").join(name), &place.join(name))?;
    }
    SIGNED.iter().try_for_each(|(from, name)| copy(&root.join(from), &place.join(name)))?;
    fs::remove_file(&early).map_err(|e| BuildError::file(&early, e))
}
