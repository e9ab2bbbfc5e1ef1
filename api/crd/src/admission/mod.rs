//! Admission: what is filled into an object that is written, and why one is refused. Pure: no clock, no client.
//!
//! ```text
//! JSON ── defaults ── read (words, types) ── the rules of its kind ── the platform's table
//! ```
//!
//! Messages, fields and reasons are KubeVirt's, since clients match them. What an answer needs beyond the object (the
//! cluster's settings, the object as it was, what it refers to) is passed in.

mod cause;
mod cpu;
mod credentials;
pub mod defaults;
mod disks;
pub mod instance;
pub mod machine;
mod memory;
pub mod migration;
mod names;
mod network;
pub mod others;
pub mod platform;
mod pod;
pub mod presets;
mod site;
mod spec;
mod volumes;
mod words;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::cause::{Cause, CauseType, Path};
pub use self::site::{DefaultInterface, Site};

use crate::instancetype::{
    VirtualMachineClusterInstancetype, VirtualMachineClusterPreference, VirtualMachineInstancetype,
    VirtualMachinePreference,
};
use crate::preset::VirtualMachineInstancePreset;
use crate::replica_set::VirtualMachineInstanceReplicaSet;
use crate::vm::VirtualMachine;
use crate::vmi::VirtualMachineInstance;
use crate::vmim::VirtualMachineInstanceMigration;

/// A kind that admission reads.
pub trait Admitted: DeserializeOwned {
    /// Values that are none of those that their field knows; empty ones are taken out.
    fn words(object: &mut Value) -> Vec<Cause>;
}

/// Reads an object that is being written. Where a value is none of those that its field knows, nothing else is looked
/// at.
pub fn read<T: Admitted>(object: &Value) -> Result<T, Vec<Cause>> {
    let mut object = object.clone();
    let causes = T::words(&mut object);
    if !causes.is_empty() {
        return Err(causes);
    }
    serde_path_to_error::deserialize(object).map_err(|error| {
        let field = error.path().to_string();
        vec![Cause { reason: CauseType::Invalid, message: error.into_inner().to_string(), field }]
    })
}

/// The words of an instance's spec at a JSON pointer.
fn spec_words(object: &mut Value, pointer: &str, path: &str) -> Vec<Cause> {
    object.pointer_mut(pointer).map(|spec| words::check(&Path::new(path), spec)).unwrap_or_default()
}

fn no_words(_: &mut Value) -> Vec<Cause> {
    Vec::new()
}

const RUN_STRATEGIES: &[&str] = &["Halted", "Manual", "Always", "RerunOnFailure", "Once", "WaitAsReceiver"];
const TOPOLOGIES: &[&str] = &[
    "sockets",
    "cores",
    "threads",
    "spread",
    "any",
    "preferSockets",
    "preferCores",
    "preferThreads",
    "preferSpread",
    "preferAny",
];
const SPREADS: &[&str] = &["SocketsCores", "SocketsCoresThreads", "CoresThreads"];

impl Admitted for VirtualMachineInstance {
    fn words(object: &mut Value) -> Vec<Cause> {
        spec_words(object, "/spec", "spec")
    }
}

impl Admitted for VirtualMachine {
    fn words(object: &mut Value) -> Vec<Cause> {
        let mut causes = spec_words(object, "/spec/template/spec", "spec.template.spec");
        causes.extend(words::one(object, "/spec/runStrategy", RUN_STRATEGIES, |value| Cause {
            reason: CauseType::Invalid,
            message: format!("Invalid RunStrategy ({value})"),
            field: "spec.runStrategy".to_owned(),
        }));
        causes.extend(missing_template(object));
        causes
    }
}

impl Admitted for VirtualMachineInstanceReplicaSet {
    fn words(object: &mut Value) -> Vec<Cause> {
        let mut causes = spec_words(object, "/spec/template/spec", "spec.template.spec");
        causes.extend(missing_template(object));
        causes
    }
}

fn missing_template(object: &Value) -> Option<Cause> {
    object.pointer("/spec/template").is_none_or(Value::is_null).then(|| Cause {
        reason: CauseType::Required,
        message: "missing virtual machine template.".to_owned(),
        field: "spec.template".to_owned(),
    })
}

impl Admitted for VirtualMachineInstancePreset {
    fn words(object: &mut Value) -> Vec<Cause> {
        // The walk starts at what would be an instance's spec.
        spec_words(object, "/spec", "spec")
    }
}

impl Admitted for VirtualMachineInstanceMigration {
    fn words(object: &mut Value) -> Vec<Cause> {
        no_words(object)
    }
}

impl Admitted for VirtualMachineInstancetype {
    fn words(object: &mut Value) -> Vec<Cause> {
        no_words(object)
    }
}

impl Admitted for VirtualMachineClusterInstancetype {
    fn words(object: &mut Value) -> Vec<Cause> {
        no_words(object)
    }
}

fn preference_words(object: &mut Value) -> Vec<Cause> {
    let say =
        |field: &str, message: String| Cause { reason: CauseType::Invalid, message, field: field.to_owned() };
    let topology = words::one(object, "/spec/cpu/preferredCPUTopology", TOPOLOGIES, |value| {
        say("spec.cpu.preferredCPUTopology", format!("unknown preferredCPUTopology {value}"))
    });
    let across = words::one(object, "/spec/cpu/spreadOptions/across", SPREADS, |value| {
        say("spec.cpu.spreadOptions.across", format!("across {value} is not supported"))
    });
    topology.into_iter().chain(across).collect()
}

impl Admitted for VirtualMachinePreference {
    fn words(object: &mut Value) -> Vec<Cause> {
        preference_words(object)
    }
}

impl Admitted for VirtualMachineClusterPreference {
    fn words(object: &mut Value) -> Vec<Cause> {
        preference_words(object)
    }
}

/// A value as JSON, for the walks that need no types.
fn json(value: &impl serde::Serialize) -> Value {
    // Our types are plain data, with text as keys.
    serde_json::to_value(value).unwrap_or_default()
}
