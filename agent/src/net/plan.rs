//! Decides every address and name of a network; pure.
//!
//! The part that is inside a network namespace, [`InsidePlan`], is KubeVirt's recipe for a pod's network and knows
//! nothing of how the namespace is reached. The [`UplinkPlan`] is what a pod gets from its cluster, and a run without
//! one makes itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::subnet::Subnet;

/// KubeVirt's name of the bridge of a pod's primary network.
const BRIDGE: &str = "k6t-eth0";
/// MAC address that KubeVirt gives that bridge; a guest may not use it.
pub const BRIDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
const TAP: &str = "tap0";
const UPLINK: &str = "eth0";

/// Both ends of the veth pair live in a network of two addresses (RFC 3021).
pub const UPLINK_PREFIX_LEN: u8 = 31;
/// The same for IPv6 (RFC 6164).
pub const UPLINK_PREFIX_LEN6: u8 = 127;
/// The smallest MTU that IPv6 may have, in bytes (RFC 8200 §5).
const IPV6_MTU_MIN: u16 = 1280;

/// What a network card is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetSpec {
    /// A network of its own behind address translation.
    Masquerade(MasqueradeSpec),
    /// A bridge of the machine.
    Bridge(BridgeSpec),
}

/// What the manifest asks of a masqueraded network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradeSpec {
    /// `namespace/name` of the VM: the machine side's names and addresses follow from it.
    pub vm: String,
    /// `networks[].pod.vmNetworkCIDR`.
    pub v4: Subnet<Ipv4Addr>,
    /// `networks[].pod.vmIPv6NetworkCIDR`.
    pub v6: Subnet<Ipv6Addr>,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Queue pairs of the tap.
    pub queue_pairs: u16,
    /// `interfaces[].ports` and `.portRanges`; all where there are none.
    pub ports: Vec<Ports>,
    /// `interfaces[].dhcpOptions`.
    pub dhcp: DhcpExtras,
}

impl MasqueradeSpec {
    /// Whether TCP connections to `port` lead to the guest.
    pub fn forwards(&self, port: u16) -> bool {
        let has =
            |ports: &Ports| ports.transport == Transport::Tcp && (ports.first..=ports.last).contains(&port);
        self.ports.is_empty() || self.ports.iter().any(has)
    }
}

/// What the manifest asks of a card on a bridge of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// `namespace/name` of the VM and the interface's name: the tap's name follows from it.
    pub card: String,
    /// The bridge's name.
    pub bridge: String,
    /// Queue pairs of the tap.
    pub queue_pairs: u16,
}

/// Transport protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports that lead to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of which protocol.
    pub transport: Transport,
    /// The first, 1 or more.
    pub first: u16,
    /// The last, not less than the first.
    pub last: u16,
}

/// More options for the guest's DHCP answer (RFC 2132).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DhcpExtras {
    /// Option 67.
    pub boot_file: Option<String>,
    /// Option 66.
    pub tftp_server: Option<String>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Options 224 to 254 with their values.
    pub private: Vec<(u8, String)>,
}

/// What the namespace is connected to, as far as the guest is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// MTU of the way out, in bytes.
    pub mtu: u16,
    /// Whether there is IPv6.
    pub ipv6: bool,
    /// Name servers that a guest can reach.
    pub name_servers: Vec<IpAddr>,
    /// Domains in which names are looked up.
    pub search: Vec<String>,
}

/// A masqueraded network inside a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsidePlan {
    /// The way out, which is there.
    pub uplink: &'static str,
    /// The bridge that the guest is on.
    pub bridge: &'static str,
    /// The guest's tap.
    pub tap: &'static str,
    /// Queue pairs of the tap.
    pub queue_pairs: u16,
    /// MTU of tap and bridge, in bytes.
    pub mtu: u16,
    /// The guest's network.
    pub v4: Subnet<Ipv4Addr>,
    /// The guest's network, where the namespace has the family.
    pub v6: Option<Subnet<Ipv6Addr>>,
    /// Which ports of the uplink lead to the guest; all where there are none.
    pub ports: Vec<Ports>,
}

/// The two ends of a veth pair in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends<A> {
    /// The machine's.
    pub host: A,
    /// The namespace's.
    pub inside: A,
}

/// How the namespace is connected to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkPlan {
    /// The machine's side of the veth pair; at most 15 bytes.
    pub host_link: String,
    /// The prefix is [`UPLINK_PREFIX_LEN`].
    pub v4: Ends<Ipv4Addr>,
    /// The prefix is [`UPLINK_PREFIX_LEN6`].
    pub v6: Option<Ends<Ipv6Addr>>,
}

/// Lays out the inside of `spec`'s namespace.
pub fn inside(spec: &MasqueradeSpec, surroundings: &Surroundings) -> InsidePlan {
    InsidePlan {
        uplink: UPLINK,
        bridge: BRIDGE,
        tap: TAP,
        queue_pairs: spec.queue_pairs,
        mtu: surroundings.mtu,
        v4: spec.v4,
        v6: has_ipv6(surroundings).then_some(spec.v6),
        ports: spec.ports.clone(),
    }
}

/// Lays out the way to the namespace of `vm`; `attempt` moves it elsewhere when its addresses are taken.
pub fn uplink(vm: &str, surroundings: &Surroundings, attempt: u16) -> UplinkPlan {
    let [a, b, c, d, rest @ ..] = digest(&format!("{vm}#{attempt}"));
    // 100.96.0.0/11, the upper part of the carrier-grade NAT space (RFC 6598), which hosts seldom use.
    let host = (u32::from(Ipv4Addr::new(100, 96, 0, 0)) | (u32::from_be_bytes([0, a & 0x1f, b, c]))) & !1;
    // A unique local network (RFC 4193) with 40 bits that follow from the name.
    let [e, f, g, ..] = rest;
    let host6 = u128::from(Ipv6Addr::from([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0]));
    UplinkPlan {
        host_link: format!("ov-{a:02x}{b:02x}{c:02x}{d:02x}"),
        v4: Ends { host: host.into(), inside: (host | 1).into() },
        v6: has_ipv6(surroundings).then(|| Ends { host: host6.into(), inside: (host6 | 1).into() }),
    }
}

/// Name of the tap of a card on a bridge of the machine; at most 15 bytes.
pub fn bridged_tap(card: &str, attempt: u16) -> String {
    let [a, b, c, d, ..] = digest(&format!("{card}#{attempt}"));
    format!("ot-{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// The MAC address of `card` where the manifest has none: locally administered, the same in every run.
pub fn mac_of(card: &str) -> [u8; 6] {
    let [a, b, c, d, e, ..] = digest(card);
    match [0x02, a, b, c, d, e] {
        BRIDGE_MAC => [0x02, 0, 0, 0, 0, 1],
        mac => mac,
    }
}

fn has_ipv6(surroundings: &Surroundings) -> bool {
    surroundings.ipv6 && surroundings.mtu >= IPV6_MTU_MIN
}

fn digest(text: &str) -> [u8; 16] {
    *uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(mtu: u16) -> Surroundings {
        Surroundings { mtu, ipv6: true, name_servers: Vec::new(), search: Vec::new() }
    }

    #[test]
    fn the_uplink_has_names_and_addresses_of_its_own() {
        let plan = uplink("default/a", &surroundings(1500), 0);
        assert!(plan.host_link.len() <= 15);
        assert_eq!(plan.v4.host.octets()[0], 100);
        assert_eq!(u32::from(plan.v4.host) + 1, u32::from(plan.v4.inside));
        let v6 = plan.v6.unwrap();
        assert!(v6.host.is_unique_local() && u128::from(v6.host) + 1 == u128::from(v6.inside));
    }

    #[test]
    fn another_attempt_is_elsewhere_and_the_same_one_is_the_same() {
        let [a, b, c] = [0, 1, 0].map(|n| uplink("default/a", &surroundings(1500), n));
        assert_ne!(a.v4, b.v4);
        assert_ne!(a.v6, b.v6);
        assert_eq!(a, c);
        assert_ne!(bridged_tap("default/a/net", 0), bridged_tap("default/a/net", 1));
        assert!(bridged_tap("default/a/net", 0).len() <= 15);
    }

    #[test]
    fn a_card_without_an_address_gets_one_of_its_own() {
        assert_eq!(mac_of("default/a/net")[0] & 3, 2, "locally administered, unicast");
        assert_ne!(mac_of("default/a/net"), mac_of("default/a/other"));
    }

    #[test]
    fn a_way_out_that_is_too_narrow_for_ipv6_has_none() {
        assert!(uplink("default/a", &surroundings(1279), 0).v6.is_none());
        assert!(uplink("default/a", &surroundings(1280), 0).v6.is_some());
        let without = Surroundings { ipv6: false, ..surroundings(1500) };
        assert!(uplink("default/a", &without, 0).v6.is_none());
    }
}
