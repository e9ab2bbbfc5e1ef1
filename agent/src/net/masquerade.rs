//! Carries out a [`MasqueradePlan`].

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use super::dhcp::{self, Lease};
use super::nat::MachineNat;
use super::plan::UPLINK_PREFIX_LEN;
use super::publish;
use super::{MasqueradePlan, MasqueradeSpec, NetError, PlanError, Publish, link, namespace::Namespace, nat};

/// KubeVirt's name of the bridge of a pod's primary network.
const BRIDGE: &str = "k6t-eth0";
/// MAC address that KubeVirt gives that bridge; a guest may not use it.
pub const BRIDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
const TAP: &str = "tap0";
const UPLINK: &str = "eth0";
/// How often other addresses are tried when the machine's side is taken.
const ATTEMPTS: u16 = 16;

/// A network that is up; it ends when this value is dropped or the process ends, whichever way.
pub struct Masquerade {
    /// What was decided.
    pub plan: MasqueradePlan,
    /// The tap's descriptors, one per queue pair.
    pub taps: Vec<OwnedFd>,
    /// What of the machine's surroundings could not be had, for the user to know; the network works without.
    pub notes: Vec<String>,
    namespace: Namespace,
    _machine: Option<MachineNat>,
}

/// Why a network is not up.
#[derive(Debug, thiserror::Error)]
pub enum MasqueradeError {
    /// The manifest asks for what cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The machine refuses.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl Masquerade {
    /// Makes namespace, tap, bridge, address translation and DHCP server.
    pub async fn set_up(spec: &MasqueradeSpec, hostname: &str) -> Result<Self, MasqueradeError> {
        let namespace = Namespace::open().await?;
        let descriptor = namespace.descriptor().await?;
        let machine = link::connect()?;
        let plan = add_uplink(spec, &machine, &descriptor).await?;
        let mut notes = Vec::new();
        let inside = plan.clone();
        let taps = namespace.run(move || async move { build_inside(&inside).await }).await??;
        link::address_up(&machine, &plan.host_link, Some((plan.host_address, UPLINK_PREFIX_LEN))).await?;
        let nat = match reach_the_world(&plan) {
            Ok(nat) => Some(nat),
            Err(error) => {
                notes.push(format!("the guest reaches this machine, but not beyond it: {error}"));
                None
            }
        };
        let lease = Lease {
            mac: plan.mac,
            address: plan.guest,
            prefix_len: plan.prefix_len,
            gateway: plan.gateway,
            name_servers: name_servers(),
            hostname: hostname.to_owned(),
        };
        namespace.run(move || async move { dhcp::start(BRIDGE, lease) }).await??;
        Ok(Self { plan, taps, notes, namespace, _machine: nat })
    }

    /// Forwards connections to a port of this machine to a port of the guest, until the network ends.
    pub fn publish(&self, what: Publish) -> Result<(), NetError> {
        publish::start(&self.namespace, what, self.plan.guest)
    }
}

/// Makes the veth pair, moving on where another link or address is in the way.
async fn add_uplink(
    spec: &MasqueradeSpec,
    machine: &rtnetlink::Handle,
    namespace: &OwnedFd,
) -> Result<MasqueradePlan, MasqueradeError> {
    let mut attempt = 0;
    loop {
        let plan = super::plan_masquerade(spec, attempt)?;
        attempt += 1;
        let taken = link::index(machine, &plan.host_link).await?.is_some() || is_local(plan.host_address);
        if taken && attempt < ATTEMPTS {
            continue;
        }
        link::add_veth(machine, &plan.host_link, UPLINK, namespace).await?;
        return Ok(plan);
    }
}

/// Whether this machine has `address` already: then a socket can be bound to it.
fn is_local(address: Ipv4Addr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

async fn build_inside(plan: &MasqueradePlan) -> Result<Vec<OwnedFd>, NetError> {
    let inside = link::connect()?;
    link::address_up(&inside, "lo", None).await?;
    link::address_up(&inside, UPLINK, Some((plan.uplink_address, UPLINK_PREFIX_LEN))).await?;
    link::default_route(&inside, plan.host_address).await?;
    link::add_bridge(&inside, BRIDGE, BRIDGE_MAC).await?;
    let taps = link::make_tap(TAP, plan.queue_pairs)?;
    link::enslave(&inside, TAP, BRIDGE).await?;
    link::address_up(&inside, TAP, None).await?;
    link::address_up(&inside, BRIDGE, Some((plan.gateway, plan.prefix_len))).await?;
    // /proc/sys/net shows the namespace of the thread that opens it.
    sysctl("/proc/sys/net/ipv4/ip_forward")?;
    nat::apply(&nat::namespace_rules(plan))?;
    Ok(taps)
}

fn reach_the_world(plan: &MasqueradePlan) -> Result<MachineNat, NetError> {
    sysctl("/proc/sys/net/ipv4/ip_forward")?;
    MachineNat::install(plan)
}

fn sysctl(path: &str) -> Result<(), NetError> {
    let set = fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    if set {
        return Ok(());
    }
    fs::write(path, "1").map_err(|source| NetError::Io { doing: "turn IPv4 forwarding on", source })
}

/// The machine's name servers, without those on its loopback, which a guest cannot reach.
fn name_servers() -> Vec<Ipv4Addr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_else(|_: io::Error| String::new());
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .filter(|address: &Ipv4Addr| !address.is_loopback())
        .take(3)
        .collect()
}
