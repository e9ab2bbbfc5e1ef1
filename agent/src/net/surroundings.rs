//! What of this machine a guest is to know.

use std::fs;
use std::net::IpAddr;

use rtnetlink::Handle;

use super::plan::Surroundings;
use super::{NetError, link};

/// MTU where no way leads out, in bytes: Ethernet's.
const MTU: u16 = 1500;
/// The smallest that a card may promise (virtio 1.3 §5.1.4.1), in bytes.
const MTU_MIN: u16 = 68;
/// Of each family, as the resolver has it (resolv.conf(5), `MAXNS`).
const NAME_SERVERS_MAX: usize = 3;
/// As the resolver once had it (resolv.conf(5), `search`).
const SEARCH_MAX: usize = 6;

/// Looks around in the namespace of the calling thread.
pub async fn look(machine: &Handle) -> Result<Surroundings, NetError> {
    let mtu = link::way_out_mtu(machine).await?.unwrap_or(MTU).max(MTU_MIN);
    let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    Ok(Surroundings {
        mtu,
        ipv6: link::has_ipv6(),
        name_servers: name_servers(&resolver),
        search: search(&resolver),
    })
}

/// The name servers, without those that a guest cannot reach: on the loopback, and on one link.
fn name_servers(resolver: &str) -> Vec<IpAddr> {
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let all: Vec<IpAddr> = words(resolver, "nameserver")
        .filter_map(|mut words| words.next()?.parse().ok())
        .filter(reachable)
        .collect();
    let of = |v6: bool| all.iter().copied().filter(move |a| a.is_ipv6() == v6).take(NAME_SERVERS_MAX);
    of(false).chain(of(true)).collect()
}

/// The last of its kind counts.
fn search(resolver: &str) -> Vec<String> {
    let last = words(resolver, "search").chain(words(resolver, "domain")).last();
    last.into_iter().flatten().filter(|domain| *domain != ".").take(SEARCH_MAX).map(str::to_owned).collect()
}

/// What stands behind `keyword`, line by line.
fn words<'a>(
    resolver: &'a str,
    keyword: &'a str,
) -> impl Iterator<Item = std::str::SplitWhitespace<'a>> + 'a {
    resolver.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(keyword)).then_some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_that_a_guest_reaches_are_told() {
        let text = "# 1.1.1.1\nnameserver 127.0.0.53\nnameserver  192.0.2.1\nnameserver 2001:db8::1\n\
                    nameserver fe80::1%eth0\nnameserver ::1\nsearch a.example b.example .\noptions edns0\n";
        let servers: Vec<String> = name_servers(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(search(text), ["a.example", "b.example"]);
        assert!(name_servers("").is_empty() && search("").is_empty());
    }
}
