//! Probes: how health is asked for.

use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, TCPSocketAction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// A probe. Exactly one of `exec`, `guestAgentPing`, `httpGet` and `tcpSocket` is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// A command run in the guest by its agent.
    pub exec: Option<ExecAction>,
    /// Failures in a row that count as failed. Unset: 3.
    pub failure_threshold: Option<u32>,
    /// The guest agent answers.
    pub guest_agent_ping: Option<GuestAgentPing>,
    /// A web request.
    pub http_get: Option<HTTPGetAction>,
    /// Seconds after the start before the first one. Unset: 0.
    pub initial_delay_seconds: Option<u32>,
    /// Seconds between two. Unset: 10.
    pub period_seconds: Option<u32>,
    /// Successes in a row that count as well again. Unset: 1.
    pub success_threshold: Option<u32>,
    /// A connection.
    pub tcp_socket: Option<TCPSocketAction>,
    /// Seconds until one counts as failed. Unset: 1.
    pub timeout_seconds: Option<u32>,
}

/// The guest agent answers; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct GuestAgentPing {}
