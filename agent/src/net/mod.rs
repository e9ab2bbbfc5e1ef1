//! Networking of one VM on one machine.
//!
//! ```text
//!  guest ── tap0 ─┐                         (network namespace of the VM: recipe.rs, as in a pod)
//!                 ├─ bridge k6t-eth0 ── NAT ── eth0 ══ veth ══ ov-… ── NAT ── the machine's uplink
//!  DHCPv4 and v6 ─┤   10.0.2.1, fd10:0:2::1     │
//!  router adverts ┘                             │
//!  published ports ── dial from inside ─────────┘
//!
//!  guest ── ot-… ── a bridge of the machine  (bridge.rs)
//! ```
//!
//! `plan`, `subnet`, `rules`, `dhcp4`, `dhcp6`, `advert` and `pace` decide and have no socket; `link`, `nft`, `serve` and
//! `namespace` act; `recipe`, `masquerade` and `bridge` put them together. The namespace is held by a thread and never has
//! a name, taps belong to their descriptors, and the machine's own NAT rules sit in tables that the kernel takes away with
//! the process that made them: whatever happens to the process, nothing stays behind.

mod advert;
mod bridge;
mod dhcp4;
mod dhcp6;
#[cfg(feature = "kit")]
pub mod kit;
mod link;
mod masquerade;
mod namespace;
mod nft;
#[cfg(test)]
mod noise;
mod pace;
mod plan;
mod publish;
mod recipe;
mod rules;
mod serve;
mod subnet;
mod surroundings;

pub use bridge::Bridged;
pub use masquerade::Masquerade;
pub use plan::{BRIDGE_MAC, BridgeSpec, DhcpExtras, MasqueradeSpec, NetSpec, Ports, Transport, mac_of};
pub use publish::Publish;
pub use subnet::Subnet;

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
    /// The kernel refused a setting.
    #[error("cannot set {name}: {source}")]
    Sysctl {
        /// The setting, as under `/proc/sys`.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// `nft` refused a rule.
    #[error("nft refuses the address translation: {0}")]
    Nft(String),
    /// A link that was there is not any more.
    #[error("link {0} is gone")]
    Gone(String),
    /// The manifest names a bridge that the machine does not have.
    #[error("there is no bridge '{0}' on this machine")]
    NoBridge(String),
    /// The thread that holds the namespace ended.
    #[error("the VM's network namespace ended")]
    Ended,
    /// Not allowed to make a network namespace.
    #[error("making a network namespace needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root")]
    NotPermitted,
}
