//! System management mode: what raises its interrupts, what locks them, and what hides its memory.

use std::sync::Arc;

use orlop_chipset::Smi;
use orlop_pci::{LockSmi, Smram};

use super::Surroundings;
use crate::machine::plan::Plan;
use crate::machine::policy::GuestAct;

/// The source of the interrupts.
pub fn source(around: &Surroundings<'_>) -> Arc<Smi> {
    let line = around.vm.smi_line();
    Arc::new(Smi::new(Arc::new(move || line.raise())))
}

/// What locks `smi`.
pub fn lock(smi: &Arc<Smi>) -> LockSmi {
    let smi = Arc::clone(smi);
    Box::new(move |locked| smi.lock(locked))
}

/// What hides the memory that `plan` sets aside.
pub fn memory(plan: &Plan, around: &Surroundings<'_>) -> Option<Smram> {
    let smram = plan.smram.as_ref()?;
    let (slots, alarm) = (Arc::clone(around.slots), Arc::clone(around.alarm));
    let hide = move |hidden| {
        // Memory that should be hidden and is not is worse than a machine that stops.
        if let Err(error) = slots.hide(hidden) {
            alarm.halt(GuestAct::Fault { vcpu: 0, detail: format!("system management RAM: {error}") });
        }
    };
    Some(Smram { top: smram.end, hide: Box::new(hide) })
}
