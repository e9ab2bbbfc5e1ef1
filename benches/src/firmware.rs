//! Stock firmware boots a disk: process start → the first word of the boot loader, and → the guest's prompt.

use anyhow::Context;

use crate::guest::{COMMANDS, Guest, with_patience};
use crate::report::Row;
use crate::setup::Setup;
use crate::vmm::{Drive, Firmware, Vmm};

/// What the boot loader of the disk says first.
const LOADER: &str = "orlop-grub: starting";

/// Measures both kinds of firmware in every round, each machine on fresh copies of the disk and the variable store.
pub fn measure(setup: &Setup, runs: usize) -> anyhow::Result<Vec<Row>> {
    let vmms = [Vmm::Orlop, Vmm::QemuQ35];
    let mut rows = Vec::new();
    for name in ["bios", "uefi"] {
        let mut loader = [const { Vec::new() }; 2];
        let mut prompt = [const { Vec::new() }; 2];
        for _ in 0..runs {
            for (at, vmm) in vmms.into_iter().enumerate() {
                let (first, last) = with_patience(|| {
                    once(setup, vmm, name).with_context(|| format!("{name} boot under {}", vmm.name()))
                })?;
                loader[at].push(first);
                prompt[at].push(last);
            }
        }
        let peer = Vmm::QemuQ35.name();
        rows.push(Row::new(&format!("{name}-loader"), "s", &loader[0], peer, &loader[1]));
        rows.push(Row::new(&format!("{name}-prompt"), "s", &prompt[0], peer, &prompt[1]));
    }
    Ok(rows)
}

fn once(setup: &Setup, vmm: Vmm, name: &str) -> anyhow::Result<(f64, f64)> {
    let fresh = |image: &str| {
        let (from, copy) = (setup.images.join(image), setup.directory.path().join(image));
        std::fs::copy(&from, &copy).with_context(|| format!("cannot copy {}", from.display()))?;
        anyhow::Ok(copy)
    };
    let firmware = match name {
        "bios" => Firmware::Bios,
        _ => Firmware::Uefi(fresh("OVMF_VARS_4M.fd")?),
    };
    let drive = Drive::raw(&fresh("hybrid.raw")?);
    let mut guest = Guest::start(vmm.command_by(setup, firmware, drive)?)?;
    let first = guest.wait_for(LOADER)?;
    let last = guest.wait_for(COMMANDS)?;
    Ok((first.as_secs_f64(), last.as_secs_f64()))
}
