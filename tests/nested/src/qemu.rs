//! The command line of the virtual node's QEMU.

use std::path::Path;
use std::process::Command;

use crate::link::RunDir;
use crate::node::{Cable, NodeDisk, NodeOptions, Share};
use crate::root::Parts;
use crate::wire::{LIFELINE, PORTS, port_name};

/// Files of one node that QEMU is told about.
pub(crate) struct Files<'a> {
    /// The library that QEMU is started with.
    pub(crate) shim: &'a Path,
    /// The initramfs with what is particular to this node.
    pub(crate) initramfs: &'a Path,
    /// The file system of the guest images, if the node has one.
    pub(crate) images: Option<&'a Path>,
}

/// QEMU with an emulated AMD processor whose SVM works. `-cpu EPYC` is eight times faster at page faults than `max`.
///
/// `lifeline`: whether the node powers itself off when the process that started it is gone.
pub(crate) fn command(
    parts: &Parts,
    run_dir: &RunDir,
    options: &NodeOptions,
    shares: &[Share],
    files: &Files,
    lifeline: bool,
) -> Command {
    let namespace = options.cable.as_ref().map(|cable| cable.namespace.as_str());
    let mut qemu = parts.qemu(files.shim, namespace);
    qemu.current_dir(run_dir.path());
    qemu.args(["-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "EPYC,+svm,+npt"])
        .args(["-smp", &options.cpus.to_string(), "-m", &options.memory_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", &format!("file:{}", escaped(&run_dir.console_path())), "-pidfile", "qemu.pid"])
        .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=31"]);
    qemu.arg("-kernel").arg(parts.kernel()).arg("-initrd").arg(files.initramfs);
    qemu.arg("-append").arg(kernel_command_line(lifeline));

    disk(&mut qemu, "root", &parts.root(), "readonly=on");
    disk(&mut qemu, "scratch", &run_dir.scratch_path(), "cache=unsafe,discard=unmap,detect-zeroes=off");
    if let Some(images) = files.images {
        disk(&mut qemu, "images", images, "readonly=on");
    }
    for NodeDisk { serial, file } in &options.disks {
        disk(&mut qemu, serial, file, "readonly=on");
    }
    if let Some(Cable { tap, mac, .. }) = &options.cable {
        qemu.args(["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no")])
            .args(["-device", &format!("virtio-net-pci,netdev=net0,mac={mac},romfile=")]);
    }
    for (tag, share) in tags(shares) {
        let readonly = if share.writable { "" } else { ",readonly=on" };
        let path = escaped(&share.host);
        qemu.arg("-fsdev")
            .arg(format!("local,id={tag},path={path},security_model=none,multidevs=remap{readonly}"))
            .arg("-device")
            .arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
    }
    for n in 0..PORTS {
        port(&mut qemu, &format!("job{n}"), &port_name(n));
    }
    port(&mut qemu, "lifeline", LIFELINE);
    qemu
}

/// Each share with the tag that the node mounts it by.
pub(crate) fn tags(shares: &[Share]) -> impl Iterator<Item = (String, &Share)> {
    shares.iter().enumerate().map(|(n, share)| (format!("share{n}"), share))
}

fn kernel_command_line(lifeline: bool) -> String {
    // Mitigations cost time and guard nothing here. `panic=-1` with `-no-reboot` makes a panic end QEMU.
    let lifeline = u8::from(lifeline);
    format!("console=ttyS0 panic=-1 quiet mitigations=off orlop.lifeline={lifeline}")
}

fn disk(qemu: &mut Command, id: &str, file: &Path, how: &str) {
    let file = escaped(file);
    qemu.arg("-drive")
        .arg(format!("if=none,id={id},file={file},format=raw,aio=threads,{how}"))
        .arg("-device")
        .arg(format!("virtio-blk-pci,drive={id},serial={id}"));
}

/// A virtio-serial port, reachable as a unix socket in the run directory (QEMU's working directory).
fn port(qemu: &mut Command, socket: &str, name: &str) {
    qemu.arg("-chardev")
        .arg(format!("socket,id={socket},path={socket},server=on,wait=off"))
        .arg("-device")
        .arg(format!("virtserialport,chardev={socket},name={name}"));
}

/// QEMU separates options by commas; a comma in a path is doubled.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
