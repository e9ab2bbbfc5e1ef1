//! Instance type and preference by the volume that the machine starts from: whoever made the image wrote their names on
//! it, as labels.
//!
//! Finding the object is a walk over claims, DataVolumes and DataSources. [`start`] and [`next`] say which object to
//! look at; reading it is the caller's part.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::cdi::DataVolumeSpec;
use crate::vm::{InferFromVolumeFailurePolicy, InstancetypeMatcher, PreferenceMatcher, VirtualMachine};

/// Label with the name of an instance type.
pub const INSTANCETYPE_LABEL: &str = "instancetype.kubevirt.io/default-instancetype";
/// Label with its kind.
pub const INSTANCETYPE_KIND_LABEL: &str = "instancetype.kubevirt.io/default-instancetype-kind";
/// Label with the name of a preference.
pub const PREFERENCE_LABEL: &str = "instancetype.kubevirt.io/default-preference";
/// Label with its kind.
pub const PREFERENCE_KIND_LABEL: &str = "instancetype.kubevirt.io/default-preference-kind";

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// A PersistentVolumeClaim.
    Claim(Name),
    /// A DataVolume; where there is none, the claim of the same name.
    DataVolume(Name),
    /// A DataSource.
    DataSource(Name),
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What was found where one looked.
#[derive(Clone, Debug)]
pub enum Found<'f> {
    /// A claim with these labels.
    Claim(&'f BTreeMap<String, String>),
    /// A DataVolume with these labels.
    DataVolume(&'f BTreeMap<String, String>, &'f DataVolumeSpec),
    /// A DataSource with these labels, and the claim that it stands for.
    DataSource(&'f BTreeMap<String, String>, Option<Name>),
}

/// The end of a search, or its next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look there.
    Look(Look),
    /// The name, and the kind where one is given.
    Named(String, Option<String>),
}

/// Why nothing was inferred.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InferError {
    /// No such volume.
    #[error("unable to find volume {0} to infer defaults")]
    NoVolume(String),
    /// A volume that stands for no object with labels.
    #[error("unable to infer defaults from volume {0} as type is not supported")]
    VolumeType(String),
    /// The object has no such label.
    #[error("unable to find required {0} label on the volume")]
    NoLabel(String),
    /// A DataVolume that is filled otherwise.
    #[error("unable to infer defaults from DataVolumeSpec as DataVolumeSource is not supported")]
    Source,
    /// A reference to something else.
    #[error("unable to infer defaults from DataVolumeSourceRef as Kind {0} is not supported")]
    ReferenceKind(String),
    /// A DataSource that stands for no claim.
    #[error("unable to infer defaults from DataSource that doesn't provide DataVolumeSourcePVC")]
    DataSource,
}

impl InferError {
    /// Whether a machine may say that it does not mind.
    pub fn may_be_ignored(&self) -> bool {
        !matches!(self, InferError::NoVolume(_))
    }
}

/// The first step for a machine's volume: `label` is the one that is looked for.
pub fn start(vm: &VirtualMachine, volume: &str) -> Result<Step, InferError> {
    let namespace = vm.metadata.namespace.clone().unwrap_or_default();
    let volumes = vm.spec.template.spec.iter().flat_map(|spec| &spec.volumes);
    let Some(found) = volumes.into_iter().find(|each| each.name == volume) else {
        return Err(InferError::NoVolume(volume.to_owned()));
    };
    if let Some(claim) = &found.persistent_volume_claim {
        return Ok(Step::Look(Look::Claim(Name { namespace, name: claim.claim_name.clone() })));
    }
    let Some(data) = &found.data_volume else { return Err(InferError::VolumeType(volume.to_owned())) };
    let named = |template: &&crate::cdi::DataVolumeTemplateSpec| {
        template.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()) == Some(&data.name)
    };
    match vm.spec.data_volume_templates.iter().find(named) {
        Some(template) => filled_from(&template.spec, &namespace),
        None => Ok(Step::Look(Look::DataVolume(Name { namespace, name: data.name.clone() }))),
    }
}

/// The step after one object was looked at. `namespace` is the machine's.
pub fn next(found: &Found<'_>, namespace: &str, label: &str, kind_label: &str) -> Result<Step, InferError> {
    let labels = match found {
        Found::Claim(labels) | Found::DataVolume(labels, _) | Found::DataSource(labels, _) => labels,
    };
    if let Some(name) = labels.get(label) {
        return Ok(Step::Named(name.clone(), labels.get(kind_label).cloned()));
    }
    match found {
        Found::Claim(_) => Err(InferError::NoLabel(label.to_owned())),
        Found::DataVolume(_, spec) => filled_from(spec, namespace),
        Found::DataSource(_, Some(claim)) => Ok(Step::Look(Look::Claim(claim.clone()))),
        Found::DataSource(_, None) => Err(InferError::DataSource),
    }
}

/// What a DataVolume is filled from.
fn filled_from(spec: &DataVolumeSpec, namespace: &str) -> Result<Step, InferError> {
    if let Some(claim) = spec.source.as_ref().and_then(|source| source.pvc.as_ref()) {
        let name = Name { namespace: claim.namespace.clone(), name: claim.name.clone() };
        return Ok(Step::Look(Look::Claim(name)));
    }
    let Some(reference) = &spec.source_ref else { return Err(InferError::Source) };
    if reference.kind != "DataSource" {
        return Err(InferError::ReferenceKind(reference.kind.clone()));
    }
    let namespace = reference.namespace.clone().unwrap_or_else(|| namespace.to_owned());
    Ok(Step::Look(Look::DataSource(Name { namespace, name: reference.name.clone() })))
}

/// Writes what was inferred into the machine's matcher for instance types. An error that the machine minds is given
/// back.
pub fn instancetype(
    vm: &mut VirtualMachine,
    inferred: Result<(String, Option<String>), InferError>,
) -> Result<(), InferError> {
    let Some(matcher) = vm.spec.instancetype.as_ref() else { return Ok(()) };
    let ignore = matcher.infer_from_volume_failure_policy == Some(InferFromVolumeFailurePolicy::Ignore);
    match inferred {
        Ok((name, kind)) => {
            // A machine that did not count on an instance type brought its own memory.
            if ignore && let Some(spec) = &mut vm.spec.template.spec {
                spec.domain.memory = None;
            }
            vm.spec.instancetype =
                Some(InstancetypeMatcher { name: Some(name), kind, ..InstancetypeMatcher::default() });
        }
        Err(error) if ignore && error.may_be_ignored() => vm.spec.instancetype = None,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Writes what was inferred into the machine's matcher for preferences. An error that the machine minds is given back.
pub fn preference(
    vm: &mut VirtualMachine,
    inferred: Result<(String, Option<String>), InferError>,
) -> Result<(), InferError> {
    let Some(matcher) = vm.spec.preference.as_ref() else { return Ok(()) };
    let ignore = matcher.infer_from_volume_failure_policy == Some(InferFromVolumeFailurePolicy::Ignore);
    match inferred {
        Ok((name, kind)) => {
            vm.spec.preference =
                Some(PreferenceMatcher { name: Some(name), kind, ..PreferenceMatcher::default() });
        }
        Err(error) if ignore && error.may_be_ignored() => vm.spec.preference = None,
        Err(error) => return Err(error),
    }
    Ok(())
}
