//! What the virtual node is made of, from one tree of Debian packages: its kernel, a small initramfs, its read-only
//! root, the QEMU that runs it, and the kernel that its guests boot.
//!
//! The QEMU comes out of the same tree as everything else and is started through that tree's own dynamic linker, so
//! every machine runs the same version (10 in trixie) and none of its own packages is touched or needed.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Recipe, step};
use crate::cpio::Archive;
use crate::debian::{BuildError, MKFS_EROFS, RootTree, find, require, run};
use crate::firmware;
use crate::kmod;

const PACKAGES: &[&str] = &[
    "acpica-tools",
    "busybox-static",
    "curl",
    "docker-registry",
    "dosfstools",
    "e2fsprogs",
    "ethtool",
    "fio",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "jq",
    "kmod",
    "libcap2-bin",
    "linux-image-amd64",
    "linux-image-cloud-amd64",
    "mtools",
    "netcat-openbsd",
    "nftables",
    "openssh-client",
    "ovmf",
    "procps",
    "psmisc",
    "python3-minimal",
    "qemu-system-x86",
    "qemu-utils",
    "runc",
    "seabios",
    "shim-signed",
    "socat",
    "strace",
    "udev",
    "util-linux-extra",
    "xorriso",
];

/// Modules that the node loads before anything else runs. `kvm_amd` comes last: the job agent holds its static keys.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    // What erofs and ext4 ask the crypto layer for by name, so that no dependency shows it.
    "crc32c_generic",
    "9pnet_virtio",
    "9p",
    "overlay",
    "erofs",
    "ext4",
    "tun",
    "vhost_net",
    "vhost_vsock",
    "kvm_amd",
];

const INIT: &str = include_str!("../guest/node-init");
const STAGE2: &str = include_str!("../guest/node-stage2");

/// Where the parts are.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    directory: PathBuf,
    initramfs: PathBuf,
}

impl Parts {
    /// The kernel of the node.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.directory.join("host/vmlinuz")
    }

    /// Its initramfs, to which the shares and the job agent of one node are appended.
    pub(crate) fn initramfs(&self) -> PathBuf {
        self.initramfs.clone()
    }

    /// Its root file system.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root.erofs")
    }

    /// What guests are made of: `vmlinuz`, `modules` and `busybox`.
    pub(crate) fn guest(&self) -> PathBuf {
        self.directory.join("guest")
    }

    /// The distribution's firmware for guests, unmodified.
    pub(crate) fn firmware(&self) -> PathBuf {
        self.directory.join("firmware")
    }

    /// GRUB for either firmware: `boot.img` and `core.img` for BIOS, `grub.efi` for UEFI; for a CD-ROM with a BIOS `eltorito.img`, with
    /// `boot_hybrid.img` where the CD-ROM is a disk; for Secure Boot `shim.efi.signed` and `grub.efi.signed`.
    pub(crate) fn grub(&self) -> PathBuf {
        self.directory.join("grub")
    }

    /// A command that starts the `qemu-img` of the same packages.
    pub(crate) fn qemu_img(&self) -> Command {
        let mut command = self.linked(None);
        command.arg(self.directory.join("qemu/qemu-img"));
        command
    }

    /// The dynamic linker of the packages with QEMU's libraries, in a network namespace: a program comes next.
    fn linked(&self, namespace: Option<&str>) -> Command {
        let libraries = self.directory.join("qemu/lib");
        let linker = libraries.join("ld-linux-x86-64.so.2");
        let mut command = match namespace {
            None => Command::new(linker),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(linker);
                command
            }
        };
        command.arg("--library-path").arg(libraries);
        command
    }

    /// A command that starts the QEMU of the same packages, with the library `shim` before its own, in a network namespace.
    pub(crate) fn qemu(&self, shim: &Path, namespace: Option<&str>) -> Command {
        let tree = self.directory.join("qemu");
        let mut command = self.linked(namespace);
        command
            .arg("--preload")
            .arg(shim)
            .arg(tree.join("qemu-system-x86_64"))
            .arg("-L")
            .arg(tree.join("share/qemu"))
            .arg("-L")
            .arg(tree.join("share/seabios"))
            // Modules of another build on this machine would be looked at, and refused, otherwise.
            .env("QEMU_MODULE_DIR", tree.join("lib"));
        command
    }
}

/// The parts of the node, built if they are not there yet.
pub(crate) fn parts() -> Result<Parts, BuildError> {
    let tree = RootTree { name: "root of the virtual node", packages: PACKAGES, hooks: &[], initrd: false };
    let key = Recipe::new().with(tree.recipe()).with(firmware::GRUB_EARLY).with("5").key();
    let directory = cache::artifact("node", &key, |directory| {
        require(&[MKFS_EROFS])?;
        let root = directory.join("root");
        tree.build(&root)?;
        step("take the kernels and QEMU out of it", || {
            take_kernel(&root, &directory.join("host"), |version| !version.contains("cloud"))?;
            take_kernel(&root, &directory.join("guest"), |version| version.contains("cloud"))?;
            take_qemu(&root, &directory.join("qemu"))?;
            firmware::take(&root, &directory.join("firmware"))?;
            firmware::make_grub(&root, &directory.join("grub"))
        })?;
        step("make the root file system of the virtual node", || {
            let image = directory.join("root.erofs");
            run("make an erofs", Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(&root))
        })?;
        fs::remove_dir_all(&root).map_err(|e| BuildError::file(&root, e))
    })?;
    let key = Recipe::new().with(key).with(INIT).with(STAGE2).with(MODULES.join(" ")).key();
    let initramfs = cache::artifact("node-initramfs", &key, |place| {
        step("make the initramfs of the virtual node", || {
            initramfs(&directory.join("host"), &place.join("initramfs.cpio"))
        })
    })?;
    Ok(Parts { directory, initramfs: initramfs.join("initramfs.cpio") })
}

/// A kernel (`vmlinuz`), its modules (`modules`) and a `busybox` to load them with.
fn take_kernel(root: &Path, place: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), BuildError> {
    let kernel = find(&root.join("boot"), "vmlinuz-", wanted)?;
    let name = kernel.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let modules = root.join("usr/lib/modules").join(name.trim_start_matches("vmlinuz-"));
    fs::create_dir(place).map_err(|e| BuildError::file(place, e))?;
    copy(&kernel, &place.join("vmlinuz"))?;
    copy(&root.join("usr/bin/busybox"), &place.join("busybox"))?;
    run(
        "keep the modules of a kernel",
        Command::new("cp").arg("-a").arg(modules).arg(place.join("modules")),
    )?;
    Ok(())
}

fn initramfs(kernel: &Path, image: &Path) -> Result<(), BuildError> {
    let modules = kmod::collect(&kernel.join("modules"), MODULES)?;
    let busybox = kernel.join("busybox");
    let busybox = fs::read(&busybox).map_err(|e| BuildError::file(&busybox, e))?;
    let order: String = modules.iter().map(|module| format!("{}\n", module.file_name)).collect();
    let write = || {
        let mut archive = Archive::new(BufWriter::new(File::create(image)?));
        for directory in ["bin", "dev", "lower", "modules", "new", "proc", "sys", "upper"] {
            archive.directory(directory)?;
        }
        archive.device("dev/console", 5, 1)?;
        archive.file("bin/busybox", &busybox)?;
        archive.file("init", INIT.as_bytes())?;
        archive.file("stage2", STAGE2.as_bytes())?;
        archive.file("modules/order", order.as_bytes())?;
        for module in &modules {
            archive.file(&format!("modules/{}", module.file_name), &module.content)?;
        }
        archive.finish().map(drop)
    };
    write().map_err(|e| BuildError::file(image, e))
}

/// QEMU, its firmware, and the libraries that it asks for.
fn take_qemu(root: &Path, place: &Path) -> Result<(), BuildError> {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let linker = libraries.join("ld-linux-x86-64.so.2");
    for directory in ["lib", "share"] {
        let directory = place.join(directory);
        fs::create_dir_all(&directory).map_err(|e| BuildError::file(&directory, e))?;
    }
    copy(&linker, &place.join("lib/ld-linux-x86-64.so.2"))?;
    for program in ["qemu-system-x86_64", "qemu-img"] {
        let binary = root.join("usr/bin").join(program);
        copy(&binary, &place.join(program))?;
        let listed = run(
            "list the libraries of QEMU",
            Command::new(&linker).arg("--library-path").arg(&libraries).arg("--list").arg(&binary),
        )?;
        for library in
            String::from_utf8_lossy(&listed).split_whitespace().filter(|word| word.starts_with('/'))
        {
            let library = Path::new(library);
            if let (true, Some(name)) = (library.starts_with(root), library.file_name()) {
                copy(library, &place.join("lib").join(name))?;
            }
        }
    }
    // What the shim needs.
    copy(&libraries.join("libgcc_s.so.1"), &place.join("lib/libgcc_s.so.1"))?;
    let share = root.join("usr/share");
    for tree in [share.join("qemu"), share.join("seabios")] {
        run("copy the firmware of QEMU", Command::new("cp").arg("-aL").arg(&tree).arg(place.join("share")))?;
    }
    Ok(())
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::copy(from, to).map(drop).map_err(|e| BuildError::file(from, e))
}
