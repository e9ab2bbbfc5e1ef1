//! Rules of a VirtualMachine, around its template.

use orlop_crd::admission::CauseType::{Invalid, Required};
use serde_json::{Value, json};

use super::{Rule, rule};

/// Rules of a machine, around its template.
pub fn machine() -> Vec<Rule> {
    let template =
        json!({ "metadata": { "name": "dv" }, "spec": { "source": { "blank": {} }, "storage": {} } });
    vec![
        rule(
            [("spec.template", Value::Null)],
            [(Required, "spec.template", "missing virtual machine template.")],
        ),
        rule(
            [("spec.running", json!(true))],
            [(
                Invalid,
                "spec.running",
                "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead",
            )],
        ),
        rule(
            [("spec.runStrategy", Value::Null)],
            [(Invalid, "spec.running", "RunStrategy must be specified")],
        ),
        rule([("spec.runStrategy", json!("x"))], [(Invalid, "spec.runStrategy", "Invalid RunStrategy (x)")]),
        rule(
            [("spec.runStrategy", json!("WaitAsReceiver"))],
            [(
                Invalid,
                "spec.runStrategy",
                "Invalid RunStrategy (WaitAsReceiver), DecentralizedLiveMigration feature gate is not enabled in kubevirt resource",
            )],
        ),
        rule(
            [("spec.dataVolumeTemplates", json!([template]))],
            [(
                Required,
                "spec.dataVolumeTemplate[0]",
                "DataVolumeTemplate entry spec.dataVolumeTemplate[0] must be referenced in the VMI template's 'volumes' list",
            )],
        ),
        rule(
            [
                (
                    "spec.dataVolumeTemplates",
                    json!([{ "metadata": { "name": "dv" }, "spec": { "storage": {} } }]),
                ),
                ("spec.template.spec.volumes.0", json!({ "name": "root", "dataVolume": { "name": "dv" } })),
            ],
            [(
                Invalid,
                "spec.dataVolumeTemplate[0]",
                "Data volume should have either Source, SourceRef, or be externally populated",
            )],
        ),
        rule(
            [("spec.template.spec.domain.memory", json!({ "guest": "2Gi", "maxGuest": "1Gi" }))],
            [(
                Invalid,
                "spec.template.spec.domain.memory.guest",
                "Guest memory is greater than the configured maxGuest memory",
            )],
        ),
        rule(
            [("spec.template.spec.domain.memory", json!({ "guest": "1025Mi", "maxGuest": "2Gi" }))],
            [(Invalid, "spec.template.spec.domain.memory.guest", "Guest memory must be 2Mi aligned")],
        ),
        rule(
            [("spec.template.spec.domain.cpu", json!({ "sockets": 3, "maxSockets": 2 }))],
            [(
                Invalid,
                "spec.template.spec.domain.cpu.sockets",
                "Number of sockets in CPU topology is greater than the maximum sockets allowed",
            )],
        ),
    ]
}
