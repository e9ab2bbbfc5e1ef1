//! The machines under test, with the same guest and comparable devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::guest::READY;
use crate::setup::{GUEST_MAC, MEMORY_MIB, Setup};

/// What every guest is told: a quiet serial console, and a reset that every machine understands.
pub const CMDLINE: &str = "console=ttyS0 reboot=t panic=-1 quiet";

/// A virtual machine monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// Ours, with PCI, disk, network card, entropy source and the API.
    Orlop,
    /// QEMU's smallest machine, with the same devices on virtio-mmio.
    QemuMicrovm,
    /// QEMU's Q35 with the same devices on PCI, its disk on an I/O thread by io_uring, its network on vhost-net.
    QemuQ35,
    /// Memory, one vCPU, a serial port.
    BareKvm,
}

/// The disk of the machine under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The image.
    pub image: PathBuf,
    /// Its format, `raw` or `qcow2`.
    pub format: &'static str,
    /// The raw image that it is an overlay over.
    pub backing: Option<PathBuf>,
    /// The guest only reads it.
    pub read_only: bool,
}

impl Drive {
    /// A raw disk that the guest may write.
    pub fn raw(image: &Path) -> Self {
        Self { image: image.to_owned(), format: "raw", backing: None, read_only: false }
    }

    /// As our configuration names it.
    fn ours(&self) -> Value {
        let backing: Vec<Value> =
            self.backing.iter().map(|path| json!({ "source": { "path": path }, "format": "raw" })).collect();
        json!({
            "id": "disk0",
            "source": { "path": self.image },
            "format": self.format,
            "backing": backing,
            "read_only": self.read_only,
            "direct": true,
        })
    }

    /// As QEMU's `-blockdev` names it; a backing image is found by its name in the header.
    fn qemu(&self) -> String {
        let file = format!("filename={}", self.image.display());
        let read_only = if self.read_only { "on" } else { "off" };
        match self.format {
            "raw" => format!(
                "driver=file,node-name=disk0,{file},aio=io_uring,cache.direct=on,read-only={read_only}"
            ),
            format => format!(
                "driver={format},node-name=disk0,cache.direct=on,discard=unmap,read-only={read_only},\
                 file.driver=file,file.{file},file.aio=io_uring,file.cache.direct=on"
            ),
        }
    }
}

impl Vmm {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orlop => "Orlop",
            Self::QemuMicrovm => "QEMU microvm",
            Self::QemuQ35 => "QEMU q35",
            Self::BareKvm => "bare KVM",
        }
    }

    /// The command that starts the guest, its serial port on standard output. With a `script` the guest runs that, with the
    /// load generator at hand; otherwise it waits for commands.
    pub fn command(self, setup: &Setup, script: Option<&str>) -> anyhow::Result<Command> {
        self.command_on(setup, script, Drive::raw(&setup.disk))
    }

    /// The same with another disk.
    pub fn command_on(self, setup: &Setup, script: Option<&str>, drive: Drive) -> anyhow::Result<Command> {
        let boot = match script {
            None => Boot::Kernel { initramfs: &setup.initramfs, cmdline: CMDLINE.to_owned() },
            Some(script) => Boot::Kernel {
                initramfs: &setup.load_initramfs,
                cmdline: format!("{CMDLINE} orlop.run=\"{script}\""),
            },
        };
        self.start(setup, &Guest { boot, drive })
    }

    /// The command that starts what is on a disk by stock firmware, its serial port on standard output.
    pub fn command_by(self, setup: &Setup, firmware: Firmware, drive: Drive) -> anyhow::Result<Command> {
        self.start(setup, &Guest { boot: Boot::Firmware(firmware), drive })
    }

    fn start(self, setup: &Setup, guest: &Guest) -> anyhow::Result<Command> {
        match (self, &guest.boot) {
            (Self::Orlop, _) => orlop(setup, guest),
            (Self::QemuMicrovm, _) => Ok(qemu_microvm(setup, guest)),
            (Self::QemuQ35, _) => Ok(qemu_q35(setup, guest)),
            (Self::BareKvm, Boot::Kernel { initramfs, cmdline }) => Ok(bare_kvm(setup, initramfs, cmdline)),
            (Self::BareKvm, Boot::Firmware(_)) => bail!("bare KVM has no firmware"),
        }
    }
}

/// Stock firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF, with the variable store in this file.
    Uefi(PathBuf),
}

impl Firmware {
    /// As our configuration names it.
    fn ours(&self, setup: &Setup) -> Value {
        let variables = match self {
            Self::Bios => Value::Null,
            Self::Uefi(variables) => json!({ "source": { "path": variables }, "persistent": true }),
        };
        json!({ "code": { "path": self.code(setup) }, "variables": variables })
    }

    /// QEMU's arguments for it.
    fn qemu(&self, setup: &Setup) -> Vec<String> {
        let code = self.code(setup).display().to_string();
        match self {
            Self::Bios => vec!["-bios".into(), code],
            Self::Uefi(variables) => vec![
                "-drive".into(),
                format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"),
                "-drive".into(),
                format!("if=pflash,format=raw,unit=1,file={}", variables.display()),
            ],
        }
    }

    fn code(&self, setup: &Setup) -> PathBuf {
        setup.images.join(match self {
            Self::Bios => "bios-256k.bin",
            Self::Uefi(_) => "OVMF_CODE_4M.fd",
        })
    }
}

/// What is booted.
struct Guest<'a> {
    boot: Boot<'a>,
    drive: Drive,
}

/// How it is started.
enum Boot<'a> {
    Kernel { initramfs: &'a Path, cmdline: String },
    Firmware(Firmware),
}

/// Where our API listens.
pub fn api_socket(setup: &Setup) -> PathBuf {
    setup.directory.path().join("api.sock")
}

/// Our configuration of the machine under test.
fn config(setup: &Setup, guest: &Guest) -> Value {
    let boot = match &guest.boot {
        Boot::Kernel { initramfs, cmdline } => json!({ "kernel": {
            "kernel": { "path": setup.kernel },
            "initramfs": { "path": initramfs },
            "cmdline": cmdline,
        } }),
        Boot::Firmware(firmware) => json!({ "firmware": firmware.ours(setup) }),
    };
    json!({
        "name": "bench",
        "memory": { "size_bytes": MEMORY_MIB << 20 },
        "boot": boot,
        "disks": [guest.drive.ours()],
        "nets": [{ "id": "net0", "tap": { "name": setup.tap.name }, "mac": GUEST_MAC }],
        "rng": {},
    })
}

fn orlop(setup: &Setup, guest: &Guest) -> anyhow::Result<Command> {
    let file = setup.directory.path().join("vm.json");
    std::fs::write(&file, config(setup, guest).to_string()).context("cannot write the configuration")?;
    let mut command = Command::new(&setup.vmm);
    command.arg("run").arg("--config").arg(file).arg("--api-socket").arg(api_socket(setup));
    Ok(command)
}

fn bare_kvm(setup: &Setup, initramfs: &Path, cmdline: &str) -> Command {
    let mut command = Command::new(&setup.bare_kvm);
    command.arg(&setup.kernel).arg(initramfs).arg(cmdline).arg(MEMORY_MIB.to_string()).arg(READY);
    command
}

fn qemu(setup: &Setup, machine: &str, guest: &Guest) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", machine, "-cpu", "host", "-smp", "1", "-m", &MEMORY_MIB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-object", "iothread,id=io0"])
        .arg("-blockdev")
        .arg(guest.drive.qemu());
    match &guest.boot {
        Boot::Kernel { initramfs, cmdline } => {
            command.arg("-kernel").arg(&setup.kernel).arg("-initrd").arg(initramfs).args(["-append", cmdline])
        }
        Boot::Firmware(firmware) => command.args(firmware.qemu(setup)),
    };
    command
}

fn qemu_microvm(setup: &Setup, guest: &Guest) -> Command {
    let machine = "microvm,accel=kvm,isa-serial=on,rtc=on";
    let mut command = qemu(setup, machine, guest);
    command
        .args(["-device", "virtio-blk-device,drive=disk0,iothread=io0"])
        .args(["-netdev", &tap(setup, false)])
        .args(["-device", &format!("virtio-net-device,netdev=net0,mac={GUEST_MAC}")])
        .args(["-device", "virtio-rng-device"]);
    command
}

fn qemu_q35(setup: &Setup, guest: &Guest) -> Command {
    let mut command = qemu(setup, "q35,accel=kvm", guest);
    command
        .args(["-device", "virtio-blk-pci,drive=disk0,iothread=io0,num-queues=1"])
        .args(["-netdev", &tap(setup, true)])
        .args(["-device", &format!("virtio-net-pci,netdev=net0,mac={GUEST_MAC},romfile=")])
        .args(["-device", "virtio-rng-pci"]);
    command
}

fn tap(setup: &Setup, vhost: bool) -> String {
    let vhost = if vhost { "on" } else { "off" };
    format!("tap,id=net0,ifname={},script=no,downscript=no,vhost={vhost}", setup.tap.name)
}
