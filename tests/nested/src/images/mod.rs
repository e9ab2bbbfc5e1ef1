//! Guest images, built once from Debian packages.
//!
//! | file | what |
//! | --- | --- |
//! | `bzImage` | Debian's cloud kernel as it is installed |
//! | `vmlinux` | the ELF file packed into it: 64-bit entry, and a PVH entry by its note |
//! | `initramfs.cpio` | busybox, the virtio drivers of that kernel, and `guest/init` |
//! | `bios-256k.bin` | SeaBIOS |
//! | `OVMF_CODE_4M.fd`, `OVMF_VARS_4M.fd` | OVMF and its empty variable store |
//! | `OVMF_CODE_4M.secboot.fd`, `OVMF_VARS_4M.ms.fd` | OVMF for Secure Boot, and a store with it on and the usual keys |
//! | `secure.raw` | a disk that boots by Secure Boot: signed shim, signed GRUB, that kernel, that initramfs |
//! | `hybrid.raw` | a GPT disk that boots by BIOS and by UEFI: GRUB, that kernel, that initramfs |
//! | `debian.raw` | an installed Debian: ext4 on the whole disk, 2 GiB sparse |
//! | `debian.vmlinuz`, `debian.initrd` | what that system boots |
//! | `debian.qcow2` | the same system on a GPT disk that boots by BIOS and by UEFI from any bus |
//! | `live.iso` | an ISO image that boots by BIOS and by UEFI, as CD-ROM and as disk: GRUB, that kernel, that initramfs |
//! | `installer.vmlinuz`, `installer.initrd` | Debian's installer |
//! | `grub-rescue.iso`, `ipxe.iso`, `ipxe.lkrn`, `memtest.iso`, `memtest.bin` | what packages carry ready to boot |

mod debian;
mod debian_disk;
mod gpt;
mod hybrid;
mod initramfs;
mod kernel;
mod live;
mod packaged;
mod secure;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Recipe, step};
use crate::debian::{BuildError, MKE2FS, require, run};
use crate::firmware;
use crate::root::{self, Parts};

/// An image that tests, samples and benchmarks boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Debian's cloud kernel, packed and unpacked.
    Kernel,
    /// A small initramfs that runs a script, or commands from the console.
    Initramfs,
    /// The distribution's firmware: SeaBIOS and OVMF.
    Firmware,
    /// A small disk that boots by either firmware into the small guest.
    Hybrid,
    /// A small disk that boots by Secure Boot.
    Secure,
    /// An installed Debian.
    Debian,
    /// The same as an image that either firmware boots from any bus.
    DebianDisk,
    /// A live system on an ISO image that either firmware boots.
    Live,
    /// Guests that packages carry ready to boot.
    Packaged,
}

impl Image {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Kernel,
        Self::Initramfs,
        Self::Firmware,
        Self::Hybrid,
        Self::Secure,
        Self::Debian,
        Self::DebianDisk,
        Self::Live,
        Self::Packaged,
    ];

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Firmware => "firmware",
            Self::Hybrid => "hybrid",
            Self::Secure => "secure",
            Self::Debian => "debian",
            Self::DebianDisk => "debian-disk",
            Self::Live => "live",
            Self::Packaged => "packaged",
        }
    }

    /// One line on what it is for.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Kernel => {
                "Debian's cloud kernel, as bzImage and as the ELF file in it (64-bit and PVH entry)"
            }
            Self::Initramfs => {
                "busybox and the virtio drivers: runs orlop.run=SCRIPT, or commands from the console"
            }
            Self::Firmware => "SeaBIOS and OVMF as Debian packages them",
            Self::Hybrid => {
                "a GPT disk with BIOS boot partition and ESP: GRUB, the kernel and the initramfs, by either firmware"
            }
            Self::Secure => "a disk with signed shim, GRUB and kernel, for firmware with Secure Boot",
            Self::Debian => {
                "an installed Debian with systemd, cloud-init, sshd and qemu-guest-agent, as raw disk"
            }
            Self::DebianDisk => {
                "the same as qcow2: GPT, ESP and BIOS boot partition, by either firmware from any bus"
            }
            Self::Live => "a live system on an ISO image, by either firmware, as CD-ROM and as disk",
            Self::Packaged => {
                "what packages carry ready to boot: Debian's installer, GRUB rescue, iPXE, memtest86+"
            }
        }
    }

    /// Its files.
    #[must_use]
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Kernel => &["bzImage", "vmlinux"],
            Self::Initramfs => &["initramfs.cpio"],
            Self::Firmware => firmware::FILES,
            Self::Hybrid => &["hybrid.raw"],
            Self::Secure => &["secure.raw"],
            Self::Debian => &["debian.raw", "debian.vmlinuz", "debian.initrd"],
            Self::DebianDisk => &["debian.qcow2"],
            Self::Live => &["live.iso"],
            Self::Packaged => packaged::FILES,
        }
    }

    /// The directory with its files, built if they are not there yet.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(self) -> Result<PathBuf, BuildError> {
        self.build_from(&root::parts()?)
    }

    fn build_from(self, parts: &Parts) -> Result<PathBuf, BuildError> {
        match self {
            Self::Kernel => kernel::build(parts),
            Self::Initramfs => initramfs::build(parts),
            Self::Firmware => Ok(parts.firmware()),
            Self::Hybrid => hybrid::build(parts),
            Self::Secure => secure::build(parts),
            Self::Debian => debian::build(),
            Self::DebianDisk => debian_disk::build(parts),
            Self::Live => live::build(parts),
            Self::Packaged => packaged::build(),
        }
    }
}

/// One directory with the files of all images: [`crate::env::IMAGES`] on a machine with KVM of its own.
///
/// # Errors
/// See [`BuildError`].
pub fn directory() -> Result<PathBuf, BuildError> {
    let parts = root::parts()?;
    let mut recipe = Recipe::new();
    let mut files = Vec::new();
    for image in Image::ALL {
        let directory = image.build_from(&parts)?;
        recipe = recipe.with(directory.as_os_str().as_encoded_bytes());
        files.extend(image.files().iter().map(|file| directory.join(file)));
    }
    cache::artifact("images", &recipe.key(), |place| {
        for file in &files {
            let link = place.join(file.file_name().unwrap_or_default());
            fs::hard_link(file, &link).map_err(|e| BuildError::file(&link, e))?;
        }
        Ok(())
    })
}

/// The same directory as a read-only ext4 disk for the virtual node: reading a kernel from it takes a tenth of the
/// time that 9p takes.
pub(crate) fn disk() -> Result<PathBuf, BuildError> {
    let directory = directory()?;
    let key = Recipe::new().with(directory.as_os_str().as_encoded_bytes()).key();
    let disk = cache::artifact("images-disk", &key, |place| {
        let disk = place.join("images.ext4");
        step("put the guest images on a disk for the virtual node", || {
            ext4(&disk, "images", Some(&directory), "4G", "^has_journal")
        })
    })?;
    Ok(disk.join("images.ext4"))
}

/// Makes a sparse file with an ext4 file system, filled from `content`; holes in its files stay holes.
pub(crate) fn ext4(
    image: &Path,
    label: &str,
    content: Option<&Path>,
    size: &str,
    features: &str,
) -> Result<(), BuildError> {
    require(&[MKE2FS])?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
    ]);
    mke2fs.args(["-L", label, "-O", features]);
    if let Some(content) = content {
        mke2fs.arg("-d").arg(content);
    }
    run("make an ext4 file system", mke2fs.arg(image).arg(size)).map(drop)
}
