//! Replica sets, presets, instance types and preferences.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::cause::{Cause, Causes, Path};
use super::site::Site;
use super::{json, platform, spec};
use crate::instancetype::preference::{PreferredCpuTopology, SpreadAcross};
use crate::instancetype::requirements::spread_options;
use crate::instancetype::{VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec};
use crate::preset::VirtualMachineInstancePreset;
use crate::replica_set::VirtualMachineInstanceReplicaSet;

/// Why a replica set may not be written.
pub fn replica_set(set: &VirtualMachineInstanceReplicaSet, site: &Site) -> Result<(), Vec<Cause>> {
    let at = Path::new("spec");
    let base = at.child("template.spec");
    let mut causes = Causes::default();
    if let Some(instance) = &set.spec.template.spec {
        causes.extend(spec::check(&base, instance, site).into_vec());
    }
    let metadata = set.spec.template.metadata.as_ref();
    let empty = BTreeMap::new();
    let labels = metadata.and_then(|metadata| metadata.labels.as_ref()).unwrap_or(&empty);
    let field = at.child("selector");
    match selects(&set.spec.selector, labels) {
        Ok(true) => {}
        Ok(false) => causes.invalid(&field, "selector does not match labels."),
        Err(message) => causes.invalid(&field, message),
    }
    if causes.is_empty() {
        platform::check(&base, &json(&set.spec.template.spec), &mut causes);
    }
    causes.into_result()
}

/// Whether a selector chooses an object with these labels; an error where it is none. An empty one chooses all.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let mut all = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.as_deref().unwrap_or_default();
        let has = labels.get(&expression.key);
        let is_in = has.is_some_and(|value| values.contains(value));
        all &= match (expression.operator.as_str(), values.is_empty()) {
            ("In", false) => is_in,
            ("NotIn", false) => !is_in,
            ("Exists", true) => has.is_some(),
            ("DoesNotExist", true) => has.is_none(),
            ("In" | "NotIn", true) => {
                let operator = &expression.operator;
                return Err(format!("for '{}' operator, values set can't be empty", operator.to_lowercase()));
            }
            ("Exists" | "DoesNotExist", false) => {
                return Err("values set must be empty for exists and does not exist".to_owned());
            }
            (operator, _) => return Err(format!("\"{operator}\" is not a valid label selector operator")),
        };
    }
    Ok(all)
}

/// Why a preset may not be written.
pub fn preset(preset: &VirtualMachineInstancePreset) -> Result<(), Vec<Cause>> {
    let at = Path::new("spec.domain");
    let mut causes = Causes::default();
    match preset.spec.as_ref().and_then(|spec| spec.domain.as_ref()) {
        None => causes.required(&at, "missing domain."),
        Some(domain) => {
            spec::domain(&at, domain, &mut causes);
            if causes.is_empty() {
                let whole = serde_json::json!({ "domain": json(domain) });
                platform::check(&Path::new("spec"), &whole, &mut causes);
            }
        }
    }
    causes.into_result()
}

/// Why an instance type may not be written; else what its author should know.
pub fn instancetype(spec: &VirtualMachineInstancetypeSpec) -> Result<Vec<String>, Vec<Cause>> {
    let field = Path::new("spec.memory.overcommitPercent");
    let mut causes = Causes::default();
    let percent = spec.memory.overcommit_percent.unwrap_or(0);
    if !(0..=100).contains(&percent) {
        causes.invalid(&field, format!("{field} '{percent}': must be in range between 0 and 100."));
    }
    if percent != 0 && spec.memory.hugepages.is_some() {
        causes
            .invalid(&field, format!("{field} and spec.memory.hugepages should not be requested together."));
    }
    causes.into_result()?;
    let deprecated =
        "launchSecurity is deprecated and will be removed in a future release. Use preference instead.";
    Ok(spec.launch_security.iter().map(|_| deprecated.to_owned()).collect())
}

/// Why a preference may not be written; else what its author should know.
pub fn preference(spec: &VirtualMachinePreferenceSpec) -> Result<Vec<String>, Vec<Cause>> {
    use PreferredCpuTopology as T;
    let mut causes = Causes::default();
    let topology = spec.cpu.as_ref().and_then(|cpu| cpu.preferred_cpu_topology);
    let (ratio, across) = spread_options(Some(spec));
    if matches!(topology, Some(T::Spread | T::PreferSpread))
        && across == SpreadAcross::CoresThreads
        && ratio != 2
    {
        let message =
            "only a ratio of 2 (1 core 2 threads) is allowed when spreading vCPUs over cores and threads";
        causes.invalid("spec.cpu.spreadOptions.ratio", message);
    }
    causes.into_result()?;
    let (old, new) = match topology {
        Some(T::PreferSockets) => ("preferSockets", "sockets"),
        Some(T::PreferCores) => ("preferCores", "cores"),
        Some(T::PreferThreads) => ("preferThreads", "threads"),
        Some(T::PreferSpread) => ("preferSpread", "spread"),
        Some(T::PreferAny) => ("preferAny", "any"),
        _ => return Ok(Vec::new()),
    };
    Ok(vec![format!(
        "PreferredCPUTopology {old} is deprecated for removal in a future release, please use {new} instead"
    )])
}
