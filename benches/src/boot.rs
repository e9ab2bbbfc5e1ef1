//! Process start → first line of init.

use anyhow::Context;

use crate::guest::{Guest, READY, with_patience};
use crate::report::Row;
use crate::setup::Setup;
use crate::vmm::Vmm;

/// Measures, one machine after the other in every round, so that a drift of the host hits all alike.
pub fn measure(setup: &Setup, runs: usize) -> anyhow::Result<Vec<Row>> {
    let vmms = [Vmm::Orlop, Vmm::QemuMicrovm, Vmm::BareKvm];
    let mut seconds = [const { Vec::new() }; 3];
    for _ in 0..runs {
        for (vmm, series) in vmms.into_iter().zip(&mut seconds) {
            series.push(with_patience(|| {
                once(setup, vmm).with_context(|| format!("boot under {}", vmm.name()))
            })?);
        }
    }
    let [ours, qemu, bare] = &seconds;
    Ok(vec![
        Row::new("boot", "s", ours, Vmm::QemuMicrovm.name(), qemu),
        Row::new("boot", "s", ours, Vmm::BareKvm.name(), bare),
    ])
}

fn once(setup: &Setup, vmm: Vmm) -> anyhow::Result<f64> {
    let mut guest = Guest::start(vmm.command(setup, None)?)?;
    Ok(guest.wait_for(READY)?.as_secs_f64())
}
