//! For tests: the servers of a network, each as a function of a packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{DhcpExtras, Subnet, advert, dhcp4, dhcp6};

/// The guest that the servers know.
pub const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The longest answer that fits into a packet without being cut, in bytes: what the link carries less its headers.
const ANSWER_MAX_BYTES: usize = 1500;

/// Treats `packet` as what a guest sends to its DHCP server.
pub fn dhcp4(packet: &[u8]) {
    let Ok(subnet) = Subnet::<Ipv4Addr>::parse(None) else { return };
    let lease = dhcp4::Lease {
        mac: GUEST_MAC,
        subnet,
        mtu: 1500,
        name_servers: vec![Ipv4Addr::new(192, 0, 2, 53)],
        search: Vec::new(),
        hostname: "vm".into(),
        extras: DhcpExtras {
            boot_file: None,
            tftp_server: None,
            ntp_servers: Vec::new(),
            private: Vec::new(),
        },
    };
    check(dhcp4::answer(&lease, packet));
}

/// Treats `packet` as what a guest sends to its DHCPv6 server.
pub fn dhcp6(packet: &[u8]) {
    let Ok(subnet) = Subnet::<Ipv6Addr>::parse(None) else { return };
    let name_servers = vec![Ipv6Addr::LOCALHOST];
    let lease = dhcp6::Lease { server_mac: [2, 0, 0, 0, 0, 0], subnet, name_servers, search: Vec::new() };
    check(dhcp6::answer(&lease, packet));
}

/// Treats `packet` as what a guest asks its router.
pub fn router(packet: &[u8]) {
    let _ = advert::is_solicitation(packet);
}

fn check(answer: Option<Vec<u8>>) {
    let len = answer.map_or(0, |answer| answer.len());
    assert!(len <= ANSWER_MAX_BYTES, "an answer of {len} bytes");
}
