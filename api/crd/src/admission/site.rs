//! What admission knows of the cluster: the settings of the `KubeVirt` object that matter to it.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kubevirt::configuration::{InstancetypeReferencePolicy, KubeVirtConfiguration, VmRolloutStrategy};
use crate::vmi::{Architecture, EvictionStrategy};

/// The settings of a cluster, with their defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Architecture of machines that name none.
    pub architecture: Architecture,
    /// Machine type of machines that name none.
    pub machine_type: String,
    /// Machine types that are accepted; `*` stands for any text.
    pub emulated_machines: Vec<String>,
    /// CPU model of machines that name none.
    pub cpu_model: Option<String>,
    /// What a drained node does to machines that do not say.
    pub eviction_strategy: Option<EvictionStrategy>,
    /// Binding of the interface that machines without one get.
    pub default_network_interface: DefaultInterface,
    /// Machines may take over the pod's address.
    pub permit_bridge_on_pod_network: bool,
    /// How changes of running machines are carried out.
    pub rollout: VmRolloutStrategy,
    /// Sockets for hot-plug of machines that name none.
    pub max_cpu_sockets: Option<u32>,
    /// Memory for hot-plug of machines that name none.
    pub max_guest: Option<Quantity>,
    /// Multiple of what a machine starts with, where neither is set.
    pub max_hotplug_ratio: u32,
    /// Feature gates that are open, beside those that are always.
    pub gates: BTreeSet<String>,
    /// What becomes of references to instance types.
    pub reference_policy: InstancetypeReferencePolicy,
    /// Whether DataVolumes are served here (CDI is installed).
    pub has_data_volumes: bool,
    /// Service accounts of the platform itself, as user names; they may do what users may not.
    pub platform_users: BTreeSet<String>,
}

/// Binding of the interface that machines without one get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultInterface {
    /// KubeVirt's default.
    Bridge,
    /// Behind NAT.
    Masquerade,
}

impl Default for Site {
    fn default() -> Self {
        Site::new(&KubeVirtConfiguration::default(), true)
    }
}

impl Site {
    /// The settings of a cluster; `has_data_volumes` says whether CDI is installed.
    pub fn new(configuration: &KubeVirtConfiguration, has_data_volumes: bool) -> Site {
        let arch = configuration.architecture_configuration.clone().unwrap_or_default();
        let amd64 = arch.amd64.unwrap_or_default();
        let network = configuration.network.clone().unwrap_or_default();
        let live = configuration.live_update_configuration.clone().unwrap_or_default();
        let developer = configuration.developer_configuration.clone().unwrap_or_default();
        let mut machines = amd64.emulated_machines;
        if machines.is_empty() {
            machines.clone_from(&configuration.emulated_machines);
        }
        if machines.is_empty() {
            machines = vec!["q35*".to_owned(), "pc-q35*".to_owned()];
        }
        let mut gates: BTreeSet<String> = developer.feature_gates.into_iter().collect();
        for gate in &developer.disabled_feature_gates {
            gates.remove(gate);
        }
        Site {
            architecture: arch.default_architecture.unwrap_or(Architecture::Amd64),
            machine_type: amd64
                .machine_type
                .or_else(|| configuration.machine_type.clone())
                .unwrap_or_else(|| "q35".to_owned()),
            emulated_machines: machines,
            cpu_model: configuration.cpu_model.clone(),
            eviction_strategy: configuration.eviction_strategy,
            default_network_interface: match network.default_network_interface.as_deref() {
                Some("masquerade") => DefaultInterface::Masquerade,
                _ => DefaultInterface::Bridge,
            },
            permit_bridge_on_pod_network: network.permit_bridge_interface_on_pod_network.unwrap_or(true),
            rollout: configuration.vm_rollout_strategy.unwrap_or(VmRolloutStrategy::LiveUpdate),
            max_cpu_sockets: live.max_cpu_sockets,
            max_guest: live.max_guest,
            max_hotplug_ratio: live.max_hotplug_ratio.unwrap_or(DEFAULT_HOTPLUG_RATIO),
            gates,
            reference_policy: configuration
                .instancetype
                .as_ref()
                .and_then(|instancetype| instancetype.reference_policy)
                .unwrap_or(InstancetypeReferencePolicy::Reference),
            has_data_volumes,
            platform_users: BTreeSet::new(),
        }
    }

    /// Whether a feature gate is open.
    pub fn gate(&self, name: &str) -> bool {
        self.gates.contains(name)
    }

    /// Whether changes of running machines are carried out at once.
    pub fn live_update(&self) -> bool {
        self.rollout == VmRolloutStrategy::LiveUpdate
    }

    /// Whether the user is a component of the platform.
    pub fn is_platform(&self, user: &str) -> bool {
        self.platform_users.contains(user)
    }
}

/// KubeVirt's `maxHotplugRatio`.
const DEFAULT_HOTPLUG_RATIO: u32 = 4;

/// Whether a text fits a pattern in which `*` stands for any text, as in the list of machine types.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut rest = rest;
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, want) in [
            ("q35*", "q35", true),
            ("q35*", "q35-9.6", true),
            ("pc-q35*", "pc-i440fx", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c", false),
            ("q35", "q35x", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn a_gate_that_is_in_both_lists_is_closed() {
        let configuration = serde_json::from_value(serde_json::json!({
            "developerConfiguration": { "featureGates": ["HostDisk", "VSOCK"], "disabledFeatureGates": ["VSOCK"] }
        }))
        .unwrap();
        let site = Site::new(&configuration, true);
        assert!(site.gate("HostDisk") && !site.gate("VSOCK"));
    }
}
