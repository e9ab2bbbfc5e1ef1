//! Settings for those who look after the platform: feature gates, verbosity, clients.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Feature gates, ratios and verbosity.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DeveloperConfiguration {
    /// The control plane may be profiled. Unset: `false`.
    pub cluster_profiler: Option<bool>,
    /// vCPUs for each CPU that pods ask for. Unset: 10.
    pub cpu_allocation_ratio: Option<i32>,
    /// Feature gates to close. None may be in both lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled_feature_gates: Vec<String>,
    /// Looking at container disks before they are used.
    pub disk_verification: Option<DiskVerification>,
    /// Feature gates to open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feature_gates: Vec<String>,
    /// How much components log.
    pub log_verbosity: Option<LogVerbosity>,
    /// Guest memory in percent of what the pod asks for. Unset: 100.
    pub memory_overcommit: Option<i32>,
    /// Lowest TSC frequency of the cluster in Hz, where it should not be found out.
    #[serde(rename = "minimumClusterTSCFrequency")]
    pub minimum_cluster_tsc_frequency: Option<i64>,
    /// Bytes that stay free on a claim whose disk file is made. Unset: 131072.
    #[serde(rename = "minimumReservePVCBytes")]
    pub minimum_reserve_pvc_bytes: Option<u64>,
    /// Labels that nodes must carry to take machines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selectors: BTreeMap<String, String>,
    /// Percent by which a claim may be smaller than asked for. Unset: 10.
    pub pvc_tolerate_less_space_up_to_percent: Option<i32>,
    /// No longer of use: there is no emulation, only KVM.
    pub use_emulation: Option<bool>,
}

/// Looking at container disks before they are used.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DiskVerification {
    /// Memory that this may take.
    pub memory_limit: Quantity,
}

/// How much components log, from 0 to 9. Unset: 2.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LogVerbosity {
    /// virt-handler on the named nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_verbosity: BTreeMap<String, u32>,
    /// virt-api.
    #[serde(rename = "virtAPI")]
    pub virt_api: Option<u32>,
    /// virt-controller.
    pub virt_controller: Option<u32>,
    /// virt-handler.
    pub virt_handler: Option<u32>,
    /// The VMM in launcher pods.
    pub virt_launcher: Option<u32>,
    /// The installing component.
    pub virt_operator: Option<u32>,
    /// The component that speaks with other clusters.
    pub virt_synchronization_controller: Option<u32>,
}

/// Settings of a component that take effect without a restart.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ReloadableComponentConfiguration {
    /// Its client of the API server.
    pub rest_client: Option<RestClientConfiguration>,
}

/// A client of the API server.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RestClientConfiguration {
    /// How fast it may ask.
    pub rate_limiter: Option<RateLimiter>,
}

/// How fast a client may ask.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RateLimiter {
    /// By a token bucket.
    pub token_bucket_rate_limiter: Option<TokenBucketRateLimiter>,
}

/// A token bucket. In both fields 0 means the component's default.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TokenBucketRateLimiter {
    /// Requests that may come at once.
    pub burst: i32,
    /// Requests per second in the long run.
    pub qps: f64,
}
