//! The network of a guest behind address translation: KubeVirt gives the gateway the first address and the guest the
//! second.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One family of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet<A> {
    /// The bridge's address: the guest's router and DHCP server.
    pub gateway: A,
    /// The guest's address.
    pub guest: A,
    /// Length of the network's prefix.
    pub prefix_len: u8,
}

/// Why a network cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not `address/prefix` of the family.
    #[error("'{0}' is not {1}")]
    Cidr(String, &'static str),
    /// Too small for a gateway and a guest.
    #[error("'{0}' has no room for a gateway and a guest: use a prefix of /{1} or shorter")]
    TooSmall(String, u8),
}

impl Subnet<Ipv4Addr> {
    /// Reads `networks[].pod.vmNetworkCIDR`.
    pub fn parse(cidr: Option<&str>) -> Result<Self, SubnetError> {
        let cidr = cidr.unwrap_or("10.0.2.0/24");
        let (address, prefix_len) = split::<Ipv4Addr>(cidr, "an IPv4 network such as 10.0.2.0/24", 30)?;
        let network = u32::from(address) & u32::MAX << (32 - u32::from(prefix_len));
        Ok(Self { gateway: (network + 1).into(), guest: (network + 2).into(), prefix_len })
    }

    /// The network's mask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - u32::from(self.prefix_len)))
    }
}

impl Subnet<Ipv6Addr> {
    /// Reads `networks[].pod.vmIPv6NetworkCIDR`.
    pub fn parse(cidr: Option<&str>) -> Result<Self, SubnetError> {
        let cidr = cidr.unwrap_or("fd10:0:2::/120");
        let (address, prefix_len) = split::<Ipv6Addr>(cidr, "an IPv6 network such as fd10:0:2::/120", 126)?;
        let network = u128::from(address) & mask6(prefix_len);
        Ok(Self { gateway: (network + 1).into(), guest: (network + 2).into(), prefix_len })
    }

    /// The network's address.
    pub fn prefix(&self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.gateway) & mask6(self.prefix_len))
    }

    /// Whether `address` is in the network.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        u128::from(address) & mask6(self.prefix_len) == u128::from(self.prefix())
    }
}

fn mask6(prefix_len: u8) -> u128 {
    u128::MAX << (128 - u32::from(prefix_len))
}

/// The address and the prefix, which is 1 to `longest`.
fn split<A: std::str::FromStr>(cidr: &str, what: &'static str, longest: u8) -> Result<(A, u8), SubnetError> {
    let bad = || SubnetError::Cidr(cidr.to_owned(), what);
    let (address, prefix) = cidr.split_once('/').ok_or_else(bad)?;
    let address = address.parse().map_err(|_| bad())?;
    // Two bits are the room for both; a family's addresses have two more than the longest prefix.
    let prefix_len: u8 = prefix.parse().ok().filter(|p| (1..=longest + 2).contains(p)).ok_or_else(bad)?;
    if prefix_len > longest {
        return Err(SubnetError::TooSmall(cidr.to_owned(), longest));
    }
    Ok((address, prefix_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_where_kubevirt_puts_it() {
        let v4 = Subnet::<Ipv4Addr>::parse(None).unwrap();
        assert_eq!((v4.gateway, v4.guest), (Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(v4.mask(), Ipv4Addr::new(255, 255, 255, 0));
        let v6 = Subnet::<Ipv6Addr>::parse(None).unwrap();
        assert_eq!(v6.gateway.to_string(), "fd10:0:2::1");
        assert_eq!((v6.guest.to_string().as_str(), v6.prefix_len), ("fd10:0:2::2", 120));
        assert!(v6.contains(v6.guest) && !v6.contains("fd10:0:2::102".parse().unwrap()));
    }

    #[test]
    fn the_manifests_network_counts() {
        let v4 = Subnet::<Ipv4Addr>::parse(Some("192.168.77.9/30")).unwrap();
        assert_eq!(v4.guest, Ipv4Addr::new(192, 168, 77, 10));
        let v6 = Subnet::<Ipv6Addr>::parse(Some("fd99::1:0/112")).unwrap();
        assert_eq!(v6.guest.to_string(), "fd99::1:2");
        for bad in ["", "10.0.2.0", "10.0.2.0/0", "10.0.2.0/33", "10.0.2/24", "fd00::/64"] {
            assert!(matches!(Subnet::<Ipv4Addr>::parse(Some(bad)), Err(SubnetError::Cidr(..))), "{bad}");
        }
        for bad in ["", "fd00::", "fd00::/0", "fd00::/129", "10.0.2.0/24", "fd00:::/64"] {
            assert!(matches!(Subnet::<Ipv6Addr>::parse(Some(bad)), Err(SubnetError::Cidr(..))), "{bad}");
        }
        assert!(matches!(Subnet::<Ipv4Addr>::parse(Some("10.0.2.0/31")), Err(SubnetError::TooSmall(_, 30))));
        assert!(matches!(Subnet::<Ipv6Addr>::parse(Some("fd00::/127")), Err(SubnetError::TooSmall(_, 126))));
    }
}
