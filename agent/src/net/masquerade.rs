//! A masqueraded network of a run without a cluster: a namespace with the recipe in it, a way to it, and its servers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use super::advert::Advert;
use super::namespace::Namespace;
use super::nft::OwnedRules;
use super::plan::{
    self, BRIDGE_MAC, InsidePlan, MasqueradeSpec, Surroundings, UPLINK_PREFIX_LEN, UPLINK_PREFIX_LEN6,
    UplinkPlan,
};
use super::{NetError, Publish, dhcp4, dhcp6, link, publish, recipe, rules, serve, surroundings};

/// How often other addresses are tried when the machine's side is taken.
const ATTEMPTS: u16 = 16;

/// A network that is up; it ends when this value is dropped or the process ends, whichever way.
pub struct Masquerade {
    /// What was decided about the guest's side.
    pub plan: InsidePlan,
    /// The tap's descriptors, one per queue pair.
    pub taps: Vec<OwnedFd>,
    /// What of the machine's surroundings could not be had, for the user to know; the network works without.
    pub notes: Vec<String>,
    namespace: Namespace,
    _machine: Option<OwnedRules>,
}

impl Masquerade {
    /// Makes namespace, tap, bridge, address translation and servers.
    pub async fn set_up(spec: &MasqueradeSpec, hostname: &str) -> Result<Self, NetError> {
        let machine = link::connect()?;
        let around = surroundings::look(&machine).await?;
        let namespace = Namespace::open().await?;
        let descriptor = namespace.descriptor().await?;
        let uplink = add_uplink(spec, &around, &machine, &descriptor).await?;
        let plan = plan::inside(spec, &around);
        let (inside, way) = (plan.clone(), uplink.clone());
        let taps = namespace
            .run(move || async move {
                lead_out(inside.uplink, &way).await?;
                recipe::build(&inside).await
            })
            .await??;
        if uplink.v6.is_some() {
            // The machine takes no routes from there.
            link::sysctl(&format!("net/ipv6/conf/{}/accept_ra", uplink.host_link), "0")?;
        }
        link::address_up(&machine, &uplink.host_link, &host_addresses(&uplink)).await?;
        let mut notes = Vec::new();
        let rules = match reach_the_world(&uplink) {
            Ok(rules) => Some(rules),
            Err(error) => {
                notes.push(format!("the guest reaches this machine, but not beyond it: {error}"));
                None
            }
        };
        let servers = Servers::of(spec, &plan, &around, hostname);
        namespace.run(move || async move { servers.start().await }).await??;
        Ok(Self { plan, taps, notes, namespace, _machine: rules })
    }

    /// Forwards connections to a port of this machine to a port of the guest, until the network ends.
    pub fn publish(&self, what: Publish) -> Result<(), NetError> {
        publish::start(&self.namespace, what, self.plan.v4.guest)
    }
}

/// Makes the veth pair, moving on where another link or address is in the way.
async fn add_uplink(
    spec: &MasqueradeSpec,
    around: &Surroundings,
    machine: &rtnetlink::Handle,
    namespace: &OwnedFd,
) -> Result<UplinkPlan, NetError> {
    let mut attempt = 0;
    loop {
        let plan = plan::uplink(&spec.vm, around, attempt);
        attempt += 1;
        let taken = link::find(machine, &plan.host_link).await?.is_some()
            || is_local(plan.v4.host.into())
            || plan.v6.is_some_and(|v6| is_local(v6.host.into()));
        if taken && attempt < ATTEMPTS {
            continue;
        }
        let uplink = plan::inside(spec, around).uplink;
        link::add_veth(machine, &plan.host_link, uplink, around.mtu, namespace).await?;
        return Ok(plan);
    }
}

/// Whether this machine has `address` already: then a socket can be bound to it.
fn is_local(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn host_addresses(uplink: &UplinkPlan) -> Vec<(IpAddr, u8)> {
    let v4 = (uplink.v4.host.into(), UPLINK_PREFIX_LEN);
    let v6 = uplink.v6.map(|v6| (v6.host.into(), UPLINK_PREFIX_LEN6));
    std::iter::once(v4).chain(v6).collect()
}

/// Connects the namespace of the calling thread to the machine.
async fn lead_out(name: &str, uplink: &UplinkPlan) -> Result<(), NetError> {
    let netlink = link::connect()?;
    link::address_up(&netlink, "lo", &[]).await?;
    let mut addresses = vec![(IpAddr::from(uplink.v4.inside), UPLINK_PREFIX_LEN)];
    addresses.extend(uplink.v6.map(|v6| (v6.inside.into(), UPLINK_PREFIX_LEN6)));
    link::address_up(&netlink, name, &addresses).await?;
    link::default_route(&netlink, uplink.v4.host.into()).await?;
    match uplink.v6 {
        Some(v6) => link::default_route(&netlink, v6.host.into()).await,
        None => Ok(()),
    }
}

fn reach_the_world(uplink: &UplinkPlan) -> Result<OwnedRules, NetError> {
    link::sysctl("net/ipv4/ip_forward", "1")?;
    if uplink.v6.is_some() {
        keep_router_advertisements()?;
        link::sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    OwnedRules::install(&rules::machine(uplink))
}

/// A machine that forwards IPv6 no longer listens to routers, and so would lose its own way out, unless told to (`accept_ra`
/// 2, ip-sysctl.rst).
fn keep_router_advertisements() -> Result<(), NetError> {
    if fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    let read = |source| NetError::Io { doing: "read /proc/sys/net/ipv6/conf", source };
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").map_err(read)? {
        let path = entry.map_err(read)?.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            // A link that went away meanwhile hears nobody.
            drop(fs::write(&path, "2"));
        }
    }
    Ok(())
}

/// What is served on the guest's bridge.
struct Servers {
    bridge: &'static str,
    dhcp4: dhcp4::Lease,
    v6: Option<(dhcp6::Lease, Advert)>,
}

impl Servers {
    fn of(spec: &MasqueradeSpec, plan: &InsidePlan, around: &Surroundings, hostname: &str) -> Self {
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        let v6 = |address: &IpAddr| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        };
        let servers = &around.name_servers;
        // A domain that is no name helps nobody.
        let search: Vec<_> = around.search.iter().filter_map(|domain| domain.parse().ok()).collect();
        let name_servers: Vec<Ipv4Addr> = servers.iter().filter_map(v4).collect();
        let v6 = plan.v6.map(|subnet| {
            let name_servers = servers.iter().filter_map(v6).collect();
            let lease = dhcp6::Lease { server_mac: BRIDGE_MAC, subnet, name_servers, search: search.clone() };
            (lease, Advert { mac: BRIDGE_MAC, mtu: plan.mtu, subnet })
        });
        let dhcp4 = dhcp4::Lease {
            mac: spec.mac,
            subnet: plan.v4,
            mtu: plan.mtu,
            name_servers,
            search,
            hostname: hostname.to_owned(),
            extras: spec.dhcp.clone(),
        };
        Self { bridge: plan.bridge, dhcp4, v6 }
    }

    /// Starts them in the namespace of the calling thread, on its runtime.
    async fn start(self) -> Result<(), NetError> {
        let Self { bridge, dhcp4, v6 } = self;
        serve::dhcp4(bridge, dhcp4)?;
        if let Some((lease, advert)) = v6 {
            let index = link::must_find(&link::connect()?, bridge).await?.index;
            serve::dhcp6(bridge, index, lease)?;
            serve::advertise(bridge, index, &advert)?;
        }
        Ok(())
    }
}
