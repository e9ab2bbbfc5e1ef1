//! Disks as distributions make them, which boot by BIOS and by UEFI: GPT, a BIOS boot partition with GRUB's core, an EFI
//! system partition with GRUB and its menu, and what else there is to be.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{BuildError, MTOOLS, SGDISK, require, run};

const SECTOR_BYTES: u64 = 512;
/// First sector of the BIOS boot partition, right after the partition table; the ESP follows at 1 MiB.
const CORE_SECTOR: u64 = 34;
const ESP_SECTOR: u64 = 2048;
/// The backup of the partition table needs 33 sectors at the end: a mebibyte keeps it aligned.
const TAIL_BYTES: u64 = 1 << 20;
/// A FAT with 32 bits an entry must not be smaller.
const ESP_LEAST_BYTES: u64 = 34 << 20;
/// What of an ESP is not files.
const ESP_SPARE_BYTES: u64 = 4 << 20;

/// Where `boot.img` is told of the core's first sector (GRUB `boot/i386/pc/boot.S`: `kernel_sector`), in bytes.
const BOOT_CORE_SECTOR: usize = 0x5c;
/// What of the first sector is code; disk signature and partition table follow.
const BOOT_CODE_BYTES: usize = 440;
/// Where the core's first sector is told of the rest (`diskboot.S`: the first block list entry): sector, number of
/// sectors, segment.
const CORE_BLOCK_LIST: usize = 0x1f4;
const CORE_SEGMENT: u16 = 0x820;

/// What is on such a disk.
pub(super) struct Content<'a> {
    /// GRUB's images, from [`crate::root::Parts::grub`].
    pub(super) grub: &'a Path,
    /// GRUB's menu.
    pub(super) menu: &'a str,
    /// More files of the ESP, each with its name there.
    pub(super) files: &'a [(&'a Path, &'a str)],
    /// A file system for a third partition.
    pub(super) root: Option<&'a Path>,
}

/// Makes the raw disk `disk`, in whose directory there is room for what is needed meanwhile.
pub(super) fn disk(disk: &Path, content: &Content<'_>) -> Result<(), BuildError> {
    require(&[SGDISK, MTOOLS])?;
    let esp = disk.with_extension("esp");
    fill_esp(&esp, content)?;
    let lengths = [Some(esp.as_path()), content.root].into_iter().flatten().map(length);
    let lengths = lengths.collect::<Result<Vec<u64>, _>>()?;
    partition(disk, &lengths)?;
    let write = || -> io::Result<()> {
        let mut file = File::options().read(true).write(true).open(disk)?;
        install_grub(&mut file, content.grub)?;
        file.seek(SeekFrom::Start(ESP_SECTOR * SECTOR_BYTES))?;
        copy_sparse(&esp, &mut file)?;
        content.root.map_or(Ok(()), |root| copy_sparse(root, &mut file))
    };
    write().map_err(|e| BuildError::file(disk, e))?;
    fs::remove_file(&esp).map_err(|e| BuildError::file(&esp, e))
}

/// The length of a file in bytes.
fn length(file: &Path) -> Result<u64, BuildError> {
    fs::metadata(file).map(|about| about.len()).map_err(|e| BuildError::file(file, e))
}

fn fill_esp(esp: &Path, content: &Content<'_>) -> Result<(), BuildError> {
    let menu = esp.with_extension("menu");
    fs::write(&menu, content.menu).map_err(|e| BuildError::file(&menu, e))?;
    let grub = content.grub.join("grub.efi");
    let mut files = vec![(grub.as_path(), "EFI/BOOT/BOOTX64.EFI"), (menu.as_path(), "grub.cfg")];
    files.extend(content.files);
    fat(esp, ESP_LEAST_BYTES, &files)?;
    fs::remove_file(&menu).map_err(|e| BuildError::file(&menu, e))
}

/// Makes a FAT file system of at least `least` bytes in the file `image`, with `files` and the directories that they are in.
pub(super) fn fat(image: &Path, least: u64, files: &[(&Path, &str)]) -> Result<(), BuildError> {
    let mut bytes = ESP_SPARE_BYTES;
    for (from, _) in files {
        bytes += length(from)?;
    }
    let bytes = bytes.max(least).next_multiple_of(1 << 20);
    let sized = File::create(image).and_then(|file| file.set_len(bytes));
    sized.map_err(|e| BuildError::file(image, e))?;
    let what = "make an EFI system partition";
    let wide: &[&str] = if least >= ESP_LEAST_BYTES { &["-F"] } else { &[] };
    run(what, Command::new("mformat").arg("-i").arg(image).args(wide).args(["-v", "ORLOP", "::"]))?;
    let above = |name: &str| Path::new(name).ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
    // In order, so that each comes after the one that it is in.
    let directories: BTreeSet<PathBuf> = files.iter().flat_map(|(_, to)| above(to)).collect();
    let directories = directories.iter().filter(|directory| !directory.as_os_str().is_empty());
    let directories = directories.map(|directory| format!("::/{}", directory.display()));
    run(what, Command::new("mmd").arg("-i").arg(image).args(directories))?;
    for (from, to) in files {
        run(what, Command::new("mcopy").arg("-i").arg(image).arg(from).arg(format!("::/{to}")))?;
    }
    Ok(())
}

/// A table with the BIOS boot partition, the ESP, and a root file system where there is a second one of the `lengths`,
/// which are in bytes, one after the other.
fn partition(disk: &Path, lengths: &[u64]) -> Result<(), BuildError> {
    let bytes = ESP_SECTOR * SECTOR_BYTES + lengths.iter().sum::<u64>() + TAIL_BYTES;
    let sized = File::create(disk).and_then(|file| file.set_len(bytes));
    sized.map_err(|e| BuildError::file(disk, e))?;
    let mut sgdisk = Command::new("sgdisk");
    // The sectors are where this file says, aligned or not.
    sgdisk.args(["-a", "1", "-n", &format!("1:{CORE_SECTOR}:{}", ESP_SECTOR - 1), "-t", "1:ef02"]);
    let mut first = ESP_SECTOR;
    for (length, (number, kind)) in lengths.iter().zip([(2, "ef00"), (3, "8300")]) {
        let next = first + length / SECTOR_BYTES;
        sgdisk.args(["-n", &format!("{number}:{first}:{}", next - 1), "-t", &format!("{number}:{kind}")]);
        first = next;
    }
    run("make a partition table", sgdisk.arg(disk)).map(drop)
}

/// Puts the boot sector and GRUB's core into their places.
fn install_grub(file: &mut File, grub: &Path) -> io::Result<()> {
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
    file.write_all(&core)
}

/// Copies all of `from` to where `file` stands; holes and zeroes become holes.
fn copy_sparse(from: &Path, file: &mut File) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut piece)?;
        let piece = &piece[..len];
        if piece.is_empty() {
            return Ok(());
        }
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all(piece)?;
        } else {
            file.seek(SeekFrom::Current(piece.len() as i64))?;
        }
    }
}
