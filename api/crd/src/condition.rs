//! A condition: one thing about an object that holds or does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::status::ConditionStatus;

/// One thing about an object that holds or does not, with its reason.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// When it was last looked at.
    #[serialize_always]
    pub last_probe_time: Option<Time>,
    /// When `status` last changed.
    #[serialize_always]
    pub last_transition_time: Option<Time>,
    /// The reason as a sentence.
    pub message: Option<String>,
    /// The reason as one CamelCase word.
    pub reason: Option<String>,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Which condition, for example `Available`.
    pub r#type: String,
}
