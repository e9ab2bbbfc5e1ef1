//! Where a VMM process is in its life, and what it holds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::VmConfig;

/// Where a VMM process is in its life. A process holds at most one machine, and ends with it.
///
/// ```text
///   not_created ── PUT /vm ──▶ created ── boot ──▶ running ◀── resume ── paused
///                                 │                 │  │ ──── pause ─────▶ │
///                                 │                 │  └── reset ▶ running  │
///                                 └── shutdown ──▶ stopped ◀── shutdown ────┘   (and the guest's own power-off)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// The process waits for a configuration.
    NotCreated,
    /// The machine is built; no vCPU has run.
    Created,
    /// vCPUs run.
    Running,
    /// vCPUs and devices are halted between two instructions; memory and connections are kept.
    Paused,
    /// The machine is over and the process is about to end.
    Stopped,
}

impl VmState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotCreated => "not_created",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for VmState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The answer of `GET /vm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VmInfo {
    /// Where it is in its life.
    pub state: VmState,
    /// The configuration it was created with, what was drawn at random (identity, MAC addresses) filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<VmConfig>,
    /// When the vCPUs first ran, in milliseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted_at_unix_ms: Option<u64>,
    /// How often the machine was reset, by the guest or by a client.
    pub resets: u64,
    /// The process on the host.
    pub process_id: u32,
}

/// The answer of `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The program's name: `orlop-vmm`.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The API's version, as in its paths: `v1`.
    pub api: String,
}
