//! Router advertisements (RFC 4861), by which the guest finds its way out and learns to ask for its address; pure.

use std::net::Ipv6Addr;

use etherparse::icmpv6::{
    NdpOptionHeader, NdpOptionType, PrefixInformation, RouterAdvertisementHeader, RouterAdvertisementPayload,
};
use etherparse::{Icmpv6Header, Icmpv6Slice, Icmpv6Type};

use super::subnet::Subnet;

/// How long a router may be used without being heard of again, in seconds: the longest that is allowed (§6.2.1).
const ROUTER_LIFETIME_SECONDS: u16 = 9000;
/// A prefix without an end (§4.6.2).
const INFINITE: u32 = u32::MAX;
/// Hop limit for the guest's packets: that of the Assigned Numbers (§6.2.1).
const HOP_LIMIT: u8 = 64;

/// What is advertised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// The router's address on the link.
    pub mac: [u8; 6],
    /// The longest packet, in bytes.
    pub mtu: u16,
    /// The guest's network.
    pub subnet: Subnet<Ipv6Addr>,
}

/// The advertisement, as an ICMPv6 message whose checksum is left to the kernel: addresses come from DHCPv6 (M), the
/// prefix is on this link (L), and nobody makes addresses from it.
pub fn message(advert: &Advert) -> Vec<u8> {
    let header = Icmpv6Header::new(Icmpv6Type::RouterAdvertisement(RouterAdvertisementHeader {
        cur_hop_limit: HOP_LIMIT,
        managed_address_config: true,
        other_config: true,
        router_lifetime: ROUTER_LIFETIME_SECONDS,
    }));
    let times = RouterAdvertisementPayload { reachable_time: 0, retrans_timer: 0 };
    let prefix = PrefixInformation {
        prefix_length: advert.subnet.prefix_len,
        on_link: true,
        autonomous_address_configuration: false,
        valid_lifetime: INFINITE,
        preferred_lifetime: INFINITE,
        prefix: advert.subnet.prefix().octets(),
    };
    let option = |option_type| NdpOptionHeader { option_type, length_units: 1 }.to_bytes();
    let mtu = u32::from(advert.mtu).to_be_bytes();
    [
        &header.to_bytes()[..],
        &times.to_bytes(),
        &option(NdpOptionType::SOURCE_LINK_LAYER_ADDRESS),
        &advert.mac,
        &option(NdpOptionType::MTU),
        &[0, 0],
        &mtu,
        &prefix.to_bytes(),
    ]
    .concat()
}

/// Whether `message` asks for an advertisement (§6.1.1); its checksum was the kernel's to check.
pub fn is_solicitation(message: &[u8]) -> bool {
    let Ok(message) = Icmpv6Slice::from_slice(message) else { return false };
    if message.icmp_type() != Icmpv6Type::RouterSolicitation {
        return false;
    }
    // Behind the type are four reserved bytes and the options, none of which is empty.
    let Ok(etherparse::icmpv6::Icmpv6PayloadSlice::RouterSolicitation(payload)) = message.payload_slice()
    else {
        return false;
    };
    payload.options_iterator().all(|option| option.is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::*;

    #[test]
    fn an_advertisement_says_what_the_guest_needs() {
        let subnet = Subnet::<Ipv6Addr>::parse(None).unwrap();
        let bytes = message(&Advert { mac: [2, 0, 0, 0, 0, 0], mtu: 1400, subnet });
        // RFC 4861 §4.2: type, code, checksum, hop limit, flags, lifetime, two times; §4.6: three options.
        let expected = [
            &[134, 0, 0, 0, 64, 0xc0, 0x23, 0x28, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 1, 2, 0, 0, 0, 0, 0],
            &[5, 1, 0, 0, 0, 0, 5, 0x78],
            &[3, 4, 120, 0x80, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
            &[0xfd, 0x10, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn only_whole_solicitations_are_answered() {
        let good = [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9];
        assert!(is_solicitation(&good));
        assert!(is_solicitation(&good[..8]), "without options");
        assert!(!is_solicitation(&good[..7]));
        assert!(!is_solicitation(&good[..12]), "half an option");
        for (at, value) in [(0, 134), (0, 135), (1, 1), (9, 0), (9, 2)] {
            let mut bad = good;
            bad[at] = value;
            assert!(!is_solicitation(&bad), "byte {at} is {value}");
        }
        noise::disturbed(&good, |bytes| {
            is_solicitation(bytes);
        });
    }
}
