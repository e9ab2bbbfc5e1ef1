//! Decides every address and name of a masquerade network; pure.

use std::net::Ipv4Addr;

/// What the manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradeSpec {
    /// `namespace/name` of the VM: the machine side's names and addresses follow from it.
    pub vm: String,
    /// `networks[].pod.vmNetworkCIDR`.
    pub cidr: Option<String>,
    /// `interfaces[].macAddress`.
    pub mac: Option<[u8; 6]>,
    /// Queue pairs of the tap.
    pub queue_pairs: u16,
}

/// Every address and name, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradePlan {
    /// The bridge's address: the guest's router, DHCP and name server route.
    pub gateway: Ipv4Addr,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// Length of the guest network's prefix.
    pub prefix_len: u8,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Queue pairs of the tap.
    pub queue_pairs: u16,
    /// The machine's side of the veth pair; at most 15 bytes.
    pub host_link: String,
    /// Address of the machine's side.
    pub host_address: Ipv4Addr,
    /// Address of the namespace's side; the prefix of both is [`UPLINK_PREFIX_LEN`].
    pub uplink_address: Ipv4Addr,
}

/// Both ends of the veth pair live in a network of two addresses (RFC 3021).
pub const UPLINK_PREFIX_LEN: u8 = 31;

/// Why a masquerade network cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not `a.b.c.d/n`.
    #[error("vmNetworkCIDR '{0}' is not an IPv4 network such as 10.0.2.0/24")]
    Cidr(String),
    /// Too small for a gateway and a guest.
    #[error("vmNetworkCIDR '{0}' has no room for a gateway and a guest: use a prefix of /30 or shorter")]
    TooSmall(String),
}

/// Lays out the network of `spec`; `attempt` moves the machine's side elsewhere when its addresses are taken.
pub fn plan_masquerade(spec: &MasqueradeSpec, attempt: u16) -> Result<MasqueradePlan, PlanError> {
    let cidr = spec.cidr.as_deref().unwrap_or("10.0.2.0/24");
    let bad = || PlanError::Cidr(cidr.to_owned());
    let (address, prefix) = cidr.split_once('/').ok_or_else(bad)?;
    let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
    let prefix_len: u8 = prefix.parse().ok().filter(|p| (1..=32).contains(p)).ok_or_else(bad)?;
    if prefix_len > 30 {
        return Err(PlanError::TooSmall(cidr.to_owned()));
    }
    let network = u32::from(address) & (u32::MAX << (32 - prefix_len));
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{}#{attempt}", spec.vm).as_bytes());
    let [a, b, c, d, e, ..] = *digest.as_bytes();
    // 100.96.0.0/11, the upper part of the carrier-grade NAT space (RFC 6598), which hosts seldom use.
    let host = (u32::from(Ipv4Addr::new(100, 96, 0, 0)) | (u32::from_be_bytes([0, a & 0x1f, b, c]))) & !1;
    Ok(MasqueradePlan {
        gateway: Ipv4Addr::from(network + 1),
        guest: Ipv4Addr::from(network + 2),
        prefix_len,
        mac: spec.mac.unwrap_or([0x02, a, b, c, d, e]),
        queue_pairs: spec.queue_pairs,
        host_link: format!("ov-{a:02x}{b:02x}{c:02x}{d:02x}"),
        host_address: Ipv4Addr::from(host),
        uplink_address: Ipv4Addr::from(host | 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cidr: Option<&str>) -> MasqueradeSpec {
        MasqueradeSpec { vm: "default/a".into(), cidr: cidr.map(Into::into), mac: None, queue_pairs: 1 }
    }

    #[test]
    fn the_guest_is_where_kubevirt_puts_it() {
        let plan = plan_masquerade(&spec(None), 0).unwrap();
        assert_eq!((plan.gateway, plan.guest), (Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(plan.mac[0] & 3, 2, "locally administered, unicast");
        assert!(plan.host_link.len() <= 15);
        assert_eq!(plan.host_address.octets()[0], 100);
        assert_eq!(u32::from(plan.host_address) + 1, u32::from(plan.uplink_address));
    }

    #[test]
    fn another_attempt_is_elsewhere_and_the_same_one_is_the_same() {
        let [a, b, c] = [0, 1, 0].map(|n| plan_masquerade(&spec(None), n).unwrap());
        assert_ne!(a.host_address, b.host_address);
        assert_eq!(a, c);
    }

    #[test]
    fn the_manifests_network_counts() {
        let plan = plan_masquerade(&spec(Some("192.168.77.9/30")), 0).unwrap();
        assert_eq!(plan.guest, Ipv4Addr::new(192, 168, 77, 10));
        for bad in ["", "10.0.2.0", "10.0.2.0/0", "10.0.2.0/33", "10.0.2/24", "fd00::/64"] {
            assert_eq!(plan_masquerade(&spec(Some(bad)), 0), Err(PlanError::Cidr(bad.into())));
        }
        assert!(matches!(plan_masquerade(&spec(Some("10.0.2.0/31")), 0), Err(PlanError::TooSmall(_))));
    }
}
