//! Decisions about objects. Pure: the object, what it refers to and the settings in, an answer out.

use orlop_crd::admission::{
    Admitted, Cause, CauseType, Site, defaults, instance, machine, migration, others, presets, read,
};
use orlop_crd::instancetype::{VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec, infer};
use orlop_crd::preset::VirtualMachineInstancePreset;
use orlop_crd::replica_set::VirtualMachineInstanceReplicaSet;
use orlop_crd::vm::VirtualMachine;
use orlop_crd::vmi::VirtualMachineInstance;
use orlop_crd::vmim::VirtualMachineInstanceMigration;
use serde::Serialize;
use serde_json::Value;

use super::lookup::Referred;
use super::review::{Answer, Request};
use super::{Kind, Rule, Task};

/// What defaults may be written into; the rest of the object stays as its author wrote it.
const FILLED: [&str; 5] =
    ["/spec", "/status", "/metadata/labels", "/metadata/annotations", "/metadata/finalizers"];

/// Decides about one object.
pub fn decide(rule: &Rule, request: &Request, referred: &Referred, site: &Site) -> Answer {
    let answer = match (rule.task, rule.kind) {
        (Task::Mutate, Kind::Machine) => fill_machine(request, referred, site),
        (Task::Mutate, Kind::Instance) => fill_instance(request, referred, site),
        (Task::Mutate, Kind::Migration) => fill_migration(request),
        (Task::Mutate, _) => Ok(Answer::Allowed(Vec::new())),
        (Task::Validate, kind) => check(kind, request, referred, site).map(Answer::Allowed),
    };
    answer.unwrap_or_else(Answer::Refused)
}

type Filled = Result<Answer, Vec<Cause>>;

fn fill_machine(request: &Request, referred: &Referred, site: &Site) -> Filled {
    // What is no machine is for the validator, which has a word for it.
    let Ok(mut vm) = read::<VirtualMachine>(&request.object) else { return Ok(Answer::Allowed(Vec::new())) };
    let old = old::<VirtualMachine>(request);
    let user = &request.user_info.username;
    if request.sub_resource == "status" {
        machine::keep_status(&mut vm, old.as_ref(), user, site);
        return Ok(patched(request, &vm));
    }
    if request.is_deleted() {
        return Ok(Answer::Allowed(Vec::new()));
    }
    if let Some(inferred) = &referred.inferred_instancetype {
        infer::instancetype(&mut vm, inferred.clone()).map_err(|error| vec![inference(&error)])?;
    }
    if let Some(inferred) = &referred.inferred_preference {
        infer::preference(&mut vm, inferred.clone()).map_err(|error| vec![inference(&error)])?;
    }
    // Random, but the same if the API server asks again about the same request, as it does after another webhook's change.
    let uuid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request.uid.as_bytes());
    defaults::machine(&mut vm, site, &uuid.to_string());
    Ok(patched(request, &vm))
}

fn inference(error: &infer::InferError) -> Cause {
    Cause { reason: CauseType::NotFound, message: error.to_string(), field: "spec.instancetype".to_owned() }
}

fn fill_instance(request: &Request, referred: &Referred, site: &Site) -> Filled {
    let Ok(mut vmi) = read::<VirtualMachineInstance>(&request.object) else {
        return Ok(Answer::Allowed(Vec::new()));
    };
    let old = old::<VirtualMachineInstance>(request);
    instance::keep_status(&mut vmi, old.as_ref(), &request.user_info.username, site);
    if request.operation == "CREATE" {
        presets::merge(&mut vmi, &referred.presets);
        defaults::instance(&mut vmi, site);
    }
    Ok(patched(request, &vmi))
}

fn fill_migration(request: &Request) -> Filled {
    let Ok(mut object) = read::<VirtualMachineInstanceMigration>(&request.object) else {
        return Ok(Answer::Allowed(Vec::new()));
    };
    defaults::migration(&mut object);
    Ok(patched(request, &object))
}

/// The object as its author wrote it, with what was filled in.
fn patched(request: &Request, filled: &impl Serialize) -> Answer {
    let Ok(filled) = serde_json::to_value(filled) else { return Answer::Allowed(Vec::new()) };
    let mut object = request.object.clone();
    for pointer in FILLED {
        let Some((parent, name)) = pointer.rsplit_once('/') else { continue };
        let Some(Value::Object(parent)) = object.pointer_mut(parent) else { continue };
        match filled.pointer(pointer) {
            Some(value) => parent.insert(name.to_owned(), value.clone()),
            None => parent.remove(name),
        };
    }
    Answer::Patched(object)
}

fn old<T: Admitted>(request: &Request) -> Option<T> {
    (!request.old_object.is_null()).then(|| read(&request.old_object).ok()).flatten()
}

/// What the author should know of an object that may be, or why it may not.
fn check(kind: Kind, request: &Request, referred: &Referred, site: &Site) -> Result<Vec<String>, Vec<Cause>> {
    let user = request.user_info.username.as_str();
    let object = &request.object;
    match kind {
        Kind::Machine => {
            let vm: VirtualMachine = read(object)?;
            let refers = machine::Referred {
                instancetype: referred.instancetype.as_ref(),
                preference: referred.preference.as_ref(),
            };
            match old::<VirtualMachine>(request) {
                Some(old) => machine::update(&vm, &old, refers, user, site)?,
                None => machine::create(&vm, refers, user, site)?,
            }
        }
        Kind::Instance => {
            // A finalizer that goes is no change of the instance.
            if request.is_deleted() {
                return Ok(Vec::new());
            }
            let vmi: VirtualMachineInstance = read(object)?;
            match old::<VirtualMachineInstance>(request) {
                Some(old) => instance::update(&vmi, &old, user, site)?,
                None => instance::create(&vmi, user, site)?,
            }
        }
        Kind::ReplicaSet => others::replica_set(&read::<VirtualMachineInstanceReplicaSet>(object)?, site)?,
        Kind::Preset => others::preset(&read::<VirtualMachineInstancePreset>(object)?)?,
        Kind::Migration => {
            let new: VirtualMachineInstanceMigration = read(object)?;
            match old::<VirtualMachineInstanceMigration>(request) {
                Some(old) => migration::update(&new, &old)?,
                None => {
                    migration::create(&new, referred.instance.as_ref(), &referred.migrations, user, site)?
                }
            }
        }
        Kind::Instancetype => return others::instancetype(&spec::<VirtualMachineInstancetypeSpec>(object)?),
        Kind::Preference => return others::preference(&spec::<VirtualMachinePreferenceSpec>(object)?),
    }
    Ok(Vec::new())
}

/// The spec of an object whose kind has two scopes.
fn spec<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T, Vec<Cause>> {
    serde_json::from_value(object.get("spec").cloned().unwrap_or_default()).map_err(|error| {
        vec![Cause { reason: CauseType::Invalid, message: error.to_string(), field: "spec".to_owned() }]
    })
}
