//! For tests: what reads hostile bytes, as functions of them.

use orlop_crd::VirtualMachineInstance;
use orlop_crd::admission::{Site, defaults, instance, read};
use orlop_crd::kubevirt::configuration::KubeVirtConfiguration;
use orlop_crd::manifest::{Document, parse};

pub use crate::net::kit::{GUEST_MAC, dhcp4, dhcp6, router};
use crate::plan::{PlanError, plan};

/// Treats `text` as a manifest: reads it, admits its machines, and plans a run.
pub fn manifest(text: &str) {
    let documents = match parse(text) {
        Ok(documents) => documents,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for document in &documents {
        if let Document::VirtualMachineInstance(vmi) = document {
            admit(vmi);
        }
    }
    match plan(documents, uuid::Uuid::nil()) {
        Err(PlanError::Refused(refusals)) => {
            assert!(refusals.iter().all(|refusal| !refusal.path.is_empty() && !refusal.reason.is_empty()));
        }
        Err(PlanError::Machines(_) | PlanError::Name(_)) | Ok(_) => {}
    }
}

fn admit(vmi: &VirtualMachineInstance) {
    let site = Site::new(&KubeVirtConfiguration::default(), true);
    let Ok(json) = serde_json::to_value(vmi) else { return };
    let Ok(mut vmi) = read::<VirtualMachineInstance>(&json) else { return };
    defaults::instance(&mut vmi, &site);
    if let Err(causes) = instance::create(&vmi, "jane", &site) {
        assert!(causes.iter().all(|cause| !cause.message.is_empty()));
    }
}

/// What the VMM is told for the machine of the manifest `text`, as JSON; none where it cannot be run.
pub fn config(text: &str) -> Option<Vec<u8>> {
    let plan = plan(parse(text).ok()?, uuid::Uuid::nil()).ok()?;
    serde_json::to_vec(&plan.config).ok()
}
