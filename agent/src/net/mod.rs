//! Networking of one VM on one machine: KubeVirt's masquerade recipe in a network namespace of its own.
//!
//! ```text
//!  guest ── tap0 ─┐                         (network namespace of the VM)
//!                 ├─ bridge k6t-eth0 ── NAT ── eth0 ══ veth ══ ov-… ── NAT ── the machine's uplink
//!  DHCP server ───┘   10.0.2.1/24               │
//!  published ports ── dial from inside ─────────┘
//! ```
//!
//! The namespace is held by a thread and never has a name, the tap belongs to it, and the machine's own NAT rules sit
//! in a table that the kernel takes away with the process that made it: whatever happens to the process, nothing
//! stays behind.

mod dhcp;
mod link;
mod masquerade;
mod namespace;
mod nat;
mod plan;
mod publish;

pub use masquerade::{BRIDGE_MAC, Masquerade};
pub use plan::{MasqueradePlan, MasqueradeSpec, PlanError, plan_masquerade};
pub use publish::Publish;

use std::io;

/// Why a VM's network cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a request by netlink.
    #[error("cannot {doing}: {source}")]
    Netlink {
        /// What was being done.
        doing: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// `nft` refused a rule.
    #[error("nft refuses the address translation: {0}")]
    Nft(String),
    /// A link that was there is not any more.
    #[error("link {0} is gone")]
    Gone(String),
    /// The thread that holds the namespace ended.
    #[error("the VM's network namespace ended")]
    Ended,
    /// Not allowed to make a network namespace.
    #[error("making a network namespace needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root")]
    NotPermitted,
}
