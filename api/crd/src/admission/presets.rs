//! Presets: what is merged into new instances by their labels. Deprecated, and still KubeVirt's.

use serde_json::{Map, Value};

use super::json;
use super::others::selects;
use crate::domain::DomainSpec;
use crate::preset::VirtualMachineInstancePreset;
use crate::vmi::VirtualMachineInstance;

/// Says on an instance which presets it got; the value is the presets' API version.
const ANNOTATION_PREFIX: &str = "virtualmachinepreset.kubevirt.io/";
const API_VERSION: &str = "kubevirt.io/v1";
/// An instance with this annotation gets none.
const EXCLUDE: &str = "virtualmachineinstancepresets.admission.kubevirt.io/exclude";

/// Merges the presets that select an instance into it, in the order of their names. A preset that contradicts the instance, or one
/// before it, is left out as a whole.
pub fn merge(vmi: &mut VirtualMachineInstance, presets: &[VirtualMachineInstancePreset]) {
    let annotations = vmi.metadata.annotations.clone().unwrap_or_default();
    if annotations.get(EXCLUDE).is_some_and(|value| value == "true") {
        return;
    }
    let labels = vmi.metadata.labels.clone().unwrap_or_default();
    let mut chosen: Vec<&VirtualMachineInstancePreset> = presets
        .iter()
        .filter(|preset| {
            preset.spec.as_ref().is_some_and(|spec| selects(&spec.selector, &labels).unwrap_or(false))
        })
        .collect();
    chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for preset in chosen {
        let Some(domain) = preset.spec.as_ref().and_then(|spec| spec.domain.as_ref()) else { continue };
        let mut merged = json(&vmi.spec.domain);
        if !fill(&mut merged, &json(domain)) {
            continue;
        }
        let Ok(domain) = serde_json::from_value::<DomainSpec>(merged) else { continue };
        vmi.spec.domain = domain;
        if let Some(name) = &preset.metadata.name {
            let annotations = vmi.metadata.annotations.get_or_insert_default();
            annotations.insert(format!("{ANNOTATION_PREFIX}{name}"), API_VERSION.to_owned());
        }
    }
}

/// Fills what `target` lacks from `preset`; false where both say something and not the same.
fn fill(target: &mut Value, preset: &Value) -> bool {
    match (target, preset) {
        (Value::Object(target), Value::Object(preset)) => fill_object(target, preset),
        (target, preset) => target == preset,
    }
}

fn fill_object(target: &mut Map<String, Value>, preset: &Map<String, Value>) -> bool {
    preset.iter().all(|(name, value)| match target.get_mut(name) {
        Some(there) => fill(there, value),
        None => {
            target.insert(name.clone(), value.clone());
            true
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn preset(name: &str, domain: Value) -> VirtualMachineInstancePreset {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "domain": domain, "selector": { "matchLabels": { "size": "small" } } },
        }))
        .unwrap()
    }

    fn instance(domain: Value) -> VirtualMachineInstance {
        let metadata = json!({ "name": "x", "labels": { "size": "small" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "domain": domain } })).unwrap()
    }

    #[test]
    fn a_preset_fills_what_an_instance_lacks_and_is_noted() {
        let mut vmi = instance(json!({ "devices": {}, "cpu": { "cores": 2 } }));
        merge(&mut vmi, &[preset("small", json!({ "devices": {}, "memory": { "guest": "64Mi" } }))]);
        assert_eq!(json(&vmi.spec.domain)["memory"]["guest"], "64Mi");
        assert_eq!(json(&vmi.spec.domain)["cpu"]["cores"], 2);
        let annotations = vmi.metadata.annotations.unwrap();
        assert_eq!(annotations["virtualmachinepreset.kubevirt.io/small"], "kubevirt.io/v1");
    }

    #[test]
    fn a_preset_that_contradicts_is_left_out_as_a_whole() {
        let before = instance(json!({ "devices": {}, "cpu": { "cores": 2 } }));
        let mut vmi = before.clone();
        let contradicting = json!({ "devices": {}, "cpu": { "cores": 4 }, "memory": { "guest": "64Mi" } });
        merge(&mut vmi, &[preset("big", contradicting)]);
        assert_eq!(vmi, before);
    }

    #[test]
    fn an_instance_can_do_without_presets() {
        let mut vmi = instance(json!({ "devices": {} }));
        vmi.metadata.labels = None;
        let unlabelled = vmi.clone();
        let presets = [preset("small", json!({ "devices": {}, "memory": { "guest": "64Mi" } }))];
        merge(&mut vmi, &presets);
        assert_eq!(vmi, unlabelled);
        let mut vmi = instance(json!({ "devices": {} }));
        vmi.metadata.annotations = Some([(EXCLUDE.to_owned(), "true".to_owned())].into());
        let excluded = vmi.clone();
        merge(&mut vmi, &presets);
        assert_eq!(vmi, excluded);
    }
}
