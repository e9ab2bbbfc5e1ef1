//! A small disk as distributions make them, which boots by BIOS and by UEFI: GPT, a BIOS boot partition with GRUB's core,
//! and an EFI system partition with GRUB, the kernel and the initramfs.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Recipe, step};
use crate::debian::{BuildError, MTOOLS, SGDISK, require, run};
use crate::root::Parts;

/// Menu of GRUB: straight into the small guest.
const CONFIG: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo 'orlop-grub: starting'
linux /bzImage console=ttyS0 quiet
initrd /initramfs.cpio
boot
";

const SECTOR_BYTES: u64 = 512;
/// First sector of the BIOS boot partition, right after the partition table; the ESP follows at 1 MiB.
const CORE_SECTOR: u64 = 34;
const ESP_SECTOR: u64 = 2048;
const ESP_MIB: u64 = 62;
/// The backup of the partition table needs 33 sectors at the end.
const DISK_MIB: u64 = 64;

/// Where `boot.img` is told of the core's first sector (GRUB `boot/i386/pc/boot.S`: `kernel_sector`), in bytes.
const BOOT_CORE_SECTOR: usize = 0x5c;
/// What of the first sector is code; disk signature and partition table follow.
const BOOT_CODE_BYTES: usize = 440;
/// Where the core's first sector is told of the rest (`diskboot.S`: the first block list entry): sector, number of
/// sectors, segment.
const CORE_BLOCK_LIST: usize = 0x1f4;
const CORE_SEGMENT: u16 = 0x820;

/// The directory with `hybrid.raw`.
pub(super) fn build(parts: &Parts) -> Result<PathBuf, BuildError> {
    let grub = parts.grub();
    let initramfs = super::initramfs::build(parts)?.join("initramfs.cpio");
    let kernel = super::kernel::build(parts)?.join("bzImage");
    let recipe =
        [&grub, &initramfs, &kernel].iter().fold(Recipe::new(), |recipe, path| recipe.with(bytes(path)));
    let key = recipe.with(CONFIG).with("1").key();
    cache::artifact("image-hybrid", &key, |place| {
        require(&[SGDISK, MTOOLS])?;
        step("make a disk that boots by BIOS and by UEFI", || {
            let esp = place.join("esp.raw");
            fill_esp(&esp, place, &grub.join("grub.efi"), &kernel, &initramfs)?;
            let disk = place.join("hybrid.raw");
            partition(&disk)?;
            install(&disk, &esp, &grub).map_err(|e| BuildError::file(&disk, e))?;
            fs::remove_file(&esp).map_err(|e| BuildError::file(&esp, e))
        })
    })
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

fn fill_esp(
    esp: &Path,
    place: &Path,
    grub: &Path,
    kernel: &Path,
    initramfs: &Path,
) -> Result<(), BuildError> {
    let config = place.join("grub.cfg");
    fs::write(&config, CONFIG).map_err(|e| BuildError::file(&config, e))?;
    let sized = File::create(esp).and_then(|file| file.set_len(ESP_MIB << 20));
    sized.map_err(|e| BuildError::file(esp, e))?;
    let what = "make an EFI system partition";
    run(what, Command::new("mformat").arg("-i").arg(esp).args(["-F", "-v", "ORLOP", "::"]))?;
    run(what, Command::new("mmd").arg("-i").arg(esp).args(["::/EFI", "::/EFI/BOOT"]))?;
    for (from, to) in [
        (grub, "::/EFI/BOOT/BOOTX64.EFI"),
        (kernel, "::/bzImage"),
        (initramfs, "::/initramfs.cpio"),
        (&config, "::/grub.cfg"),
    ] {
        run(what, Command::new("mcopy").arg("-i").arg(esp).arg(from).arg(to))?;
    }
    fs::remove_file(&config).map_err(|e| BuildError::file(&config, e))
}

fn partition(disk: &Path) -> Result<(), BuildError> {
    let sized = File::create(disk).and_then(|file| file.set_len(DISK_MIB << 20));
    sized.map_err(|e| BuildError::file(disk, e))?;
    let core = format!("1:{CORE_SECTOR}:{}", ESP_SECTOR - 1);
    let esp = format!("2:{ESP_SECTOR}:{}", ESP_SECTOR + (ESP_MIB << 20) / SECTOR_BYTES - 1);
    let mut sgdisk = Command::new("sgdisk");
    // The sectors are where this file says, aligned or not.
    sgdisk.args(["-a", "1", "-n", &core, "-t", "1:ef02", "-n", &esp, "-t", "2:ef00"]).arg(disk);
    run("make a partition table", &mut sgdisk).map(drop)
}

/// Puts the boot sector, GRUB's core and the ESP into their places.
fn install(disk: &Path, esp: &Path, grub: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(disk)?;
    let mut boot = fs::read(grub.join("boot.img"))?;
    let mut core = fs::read(grub.join("core.img"))?;
    if boot.len() != 512 || core.len() < 512 {
        return Err(io::Error::other("GRUB's images are shorter than a sector"));
    }
    boot[BOOT_CORE_SECTOR..BOOT_CORE_SECTOR + 8].copy_from_slice(&CORE_SECTOR.to_le_bytes());
    let rest = (core.len() as u64).div_ceil(SECTOR_BYTES) - 1;
    let count = u16::try_from(rest).ok().filter(|_| CORE_SECTOR + rest < ESP_SECTOR);
    let count = count.ok_or_else(|| io::Error::other("GRUB's core does not fit before the ESP"))?;
    let mut block = (CORE_SECTOR + 1).to_le_bytes().to_vec();
    block.extend(count.to_le_bytes());
    block.extend(CORE_SEGMENT.to_le_bytes());
    core[CORE_BLOCK_LIST..CORE_BLOCK_LIST + block.len()].copy_from_slice(&block);
    file.write_all(&boot[..BOOT_CODE_BYTES])?;
    file.seek(SeekFrom::Start(CORE_SECTOR * SECTOR_BYTES))?;
    file.write_all(&core)?;
    file.seek(SeekFrom::Start(ESP_SECTOR * SECTOR_BYTES))?;
    let mut content = Vec::new();
    File::open(esp)?.read_to_end(&mut content)?;
    // Holes stay holes.
    for piece in content.chunks(64 << 10) {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all(piece)?;
        } else {
            file.seek(SeekFrom::Current(piece.len() as i64))?;
        }
    }
    Ok(())
}
