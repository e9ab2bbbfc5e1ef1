//! What every benchmark needs: images, programs, a disk, a tap.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::overlay;

/// The host's end of the wire.
pub const HOST_ADDRESS: &str = "10.199.0.1";
/// The guest's end of the wire.
pub const GUEST_ADDRESS: &str = "10.199.0.2";
/// The guest's card.
pub const GUEST_MAC: &str = "52:54:00:6f:72:6c";
/// Size of the guest's disk.
const DISK_BYTES: u64 = 512 << 20;
/// Memory of every guest.
pub const MEMORY_MIB: u64 = 256;

/// Everything that the machines under test are made of.
#[derive(Debug)]
pub struct Setup {
    /// `orlop-vmm`.
    pub vmm: PathBuf,
    /// `bare-kvm`.
    pub bare_kvm: PathBuf,
    /// Guest images and firmware.
    pub images: PathBuf,
    /// The kernel, an ELF image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The same with the load generator in it.
    pub load_initramfs: PathBuf,
    /// A raw disk that the guest may write.
    pub disk: PathBuf,
    /// The tap device, up, with [`HOST_ADDRESS`].
    pub tap: Tap,
    /// A directory for sockets and configurations, gone with this.
    pub directory: tempfile::TempDir,
}

impl Setup {
    /// Finds the images, and makes disk and tap.
    pub fn new() -> anyhow::Result<Self> {
        let images = PathBuf::from(std::env::var_os("ORLOP_IMAGES").context(
            "$ORLOP_IMAGES is not set: benchmarks run in a node, start them with 'cargo xtask bench'",
        )?);
        let scratch = std::env::var_os("ORLOP_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = tempfile::Builder::new().prefix("bench").tempdir_in(scratch)?;
        let programs =
            std::env::current_exe()?.parent().context("this program is in no directory")?.to_owned();
        let beside = |name: &str| {
            let path = programs.join(name);
            ensure!(path.exists(), "{} is missing: 'cargo xtask bench' builds it", path.display());
            Ok(path)
        };
        let vmm = match std::env::var_os("ORLOP_VMM") {
            Some(path) => PathBuf::from(path),
            None => beside("orlop-vmm")?,
        };
        let initramfs = images.join("initramfs.cpio");
        let load_initramfs = directory.path().join("initramfs.cpio");
        overlay::extend(&initramfs, &beside("bench-load")?, &load_initramfs)?;
        // The checkout may be on a slow file system, the peers' programs are not.
        let nearby = |program: PathBuf, name: &str| {
            let copy = directory.path().join(name);
            std::fs::copy(&program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
            anyhow::Ok(copy)
        };
        Ok(Self {
            vmm: nearby(vmm, "orlop-vmm")?,
            bare_kvm: nearby(beside("bare-kvm")?, "bare-kvm")?,
            kernel: images.join("vmlinux"),
            initramfs,
            load_initramfs,
            disk: make_disk(directory.path())?,
            tap: Tap::new("orlopbench0")?,
            images,
            directory,
        })
    }
}

/// A disk whose every block is there, so that no run pays for allocating it.
fn make_disk(directory: &Path) -> anyhow::Result<PathBuf> {
    let path = directory.join("disk.raw");
    let mut file = File::create(&path)?;
    std::io::copy(&mut std::io::Read::take(File::open("/dev/urandom")?, DISK_BYTES), &mut file)
        .with_context(|| format!("cannot fill {}", path.display()))?;
    file.sync_all()?;
    Ok(path)
}

/// A tap device; removed when dropped.
#[derive(Debug)]
pub struct Tap {
    /// The interface's name.
    pub name: String,
}

impl Tap {
    fn new(name: &str) -> anyhow::Result<Self> {
        // What a run that was killed left behind.
        let _ = Command::new("ip").args(["link", "delete", name]).output();
        ip(&["tuntap", "add", name, "mode", "tap", "vnet_hdr"])?;
        let tap = Self { name: name.to_owned() };
        ip(&["address", "add", &format!("{HOST_ADDRESS}/24"), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // It goes with the node in any case.
        let _ = ip(&["link", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
