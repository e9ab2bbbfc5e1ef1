//! Migrations: of an instance that is there and can move, one at a time.

use super::cause::{Cause, CauseType, Causes};
use super::defaults::MIGRATION_LABEL;
use super::site::Site;
use crate::status::{ConditionStatus, VmiPhase};
use crate::vmi::VirtualMachineInstance;
use crate::vmim::{MigrationPhase, VirtualMachineInstanceMigration};

/// Why a migration may not be created. `vmi` is its instance, where there is one; `others` are the migrations of its
/// namespace.
pub fn create(
    migration: &VirtualMachineInstanceMigration,
    vmi: Option<&VirtualMachineInstance>,
    others: &[VirtualMachineInstanceMigration],
    user: &str,
    site: &Site,
) -> Result<(), Vec<Cause>> {
    let mut causes = Causes::default();
    let name = migration.spec.vmi_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        causes.required("spec.vmiName", "vmiName is missing");
        return causes.into_result();
    }
    if migration.spec.priority.is_some() && !site.is_platform(user) {
        causes.not_supported("spec.priority", "priority may be set by the platform only");
    }
    let decentralized = migration.spec.send_to.is_some() || migration.spec.receive.is_some();
    if decentralized {
        causes.not_supported("spec", "migration between clusters or namespaces is not supported yet");
    }
    let Some(vmi) = vmi else {
        let namespace = migration.metadata.namespace.as_deref().unwrap_or_default();
        causes.push(CauseType::NotFound, "", format!("the VMI \"{namespace}/{name}\" does not exist"));
        return causes.into_result();
    };
    let status = vmi.status.clone().unwrap_or_default();
    if matches!(status.phase, Some(VmiPhase::Succeeded | VmiPhase::Failed)) {
        causes.invalid("", "Cannot migrate VMI in finalized state.");
    }
    for condition in &status.conditions {
        if condition.r#type == "LiveMigratable" && condition.status == ConditionStatus::False {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let message = condition.message.as_deref().unwrap_or_default();
            causes.invalid("", format!("Cannot migrate VMI, Reason: {reason}, Message: {message}"));
        }
    }
    let in_flight = |other: &&VirtualMachineInstanceMigration| {
        other.spec.vmi_name.as_deref() == Some(name) && !is_over(other)
    };
    if let Some(other) = others.iter().find(in_flight) {
        let uid = other.metadata.uid.as_deref().unwrap_or_default();
        let message = format!(
            "in-flight migration detected. Active migration job ({uid}) is currently already in progress for VMI {name}."
        );
        causes.invalid("", message);
    }
    causes.into_result()
}

fn is_over(migration: &VirtualMachineInstanceMigration) -> bool {
    let phase = migration.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(MigrationPhase::Succeeded | MigrationPhase::Failed))
}

/// Why a migration may not be changed so.
pub fn update(
    new: &VirtualMachineInstanceMigration,
    old: &VirtualMachineInstanceMigration,
) -> Result<(), Vec<Cause>> {
    let mut causes = Causes::default();
    let label = |migration: &VirtualMachineInstanceMigration| {
        migration.metadata.labels.as_ref().and_then(|labels| labels.get(MIGRATION_LABEL).cloned())
    };
    if new.spec != old.spec {
        causes.not_supported("", "update of Migration object's spec is restricted");
    } else if let Some(before) = label(old).filter(|_| !is_over(new)) {
        match (&new.metadata.labels, label(new)) {
            (None, _) => {
                causes.not_supported("", "selector label can't be removed from an in-flight migration");
            }
            (Some(_), now) if now.as_ref() != Some(&before) => {
                causes.not_supported("", "selector label can't be modified on an in-flight migration");
            }
            _ => {}
        }
    }
    causes.into_result()
}
