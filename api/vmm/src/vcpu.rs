//! What the vCPUs did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One vCPU, as in the answer of `GET /vm/vcpus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VcpuInfo {
    /// Its number, from 0.
    pub index: u32,
    /// The identifier of its local APIC.
    pub apic_id: u32,
    /// The thread that runs it, as `gettid(2)` says; absent before boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<i32>,
    /// Returns from `KVM_RUN` to the VMM by reason since the machine was created: the names of KVM api §5
    /// (`KVM_EXIT_IO` …) in lower case, I/O and MMIO by direction: `io_in`, `io_out`, `mmio_read`, `mmio_write`, `hlt`,
    /// `shutdown`, `interrupted`. A reason that never occurred may be absent.
    pub exits: BTreeMap<String, u64>,
}

impl VcpuInfo {
    /// All exits together.
    pub fn exits_total(&self) -> u64 {
        self.exits.values().sum()
    }
}
