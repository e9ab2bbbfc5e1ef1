//! The inside of a namespace as KubeVirt makes it in a pod: bridge, tap, addresses, rules. It acts in the network
//! namespace of the calling thread, and how that one is reached from outside is not its business.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::plan::{BRIDGE_MAC, InsidePlan};
use super::{NetError, link, nft, rules};

/// Carries `plan` out: the tap's descriptors, one per queue pair.
pub async fn build(plan: &InsidePlan) -> Result<Vec<OwnedFd>, NetError> {
    let netlink = link::connect()?;
    let fault = |source| NetError::Io { doing: "make a tap (/dev/net/tun)", source };
    let taps = link::make_tap(plan.tap, plan.queue_pairs).map_err(fault)?;
    link::add_bridge(&netlink, plan.bridge, BRIDGE_MAC).await?;
    link::set_mtu(&netlink, plan.tap, plan.mtu).await?;
    if plan.v6.is_some() {
        // The bridge's address on its link counts at once: nobody else has it. The tap needs none.
        link::sysctl(&format!("net/ipv6/conf/{}/accept_dad", plan.bridge), "0")?;
        link::sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", plan.tap), "1")?;
    }
    link::enslave(&netlink, plan.tap, plan.bridge).await?;
    link::set_mtu(&netlink, plan.bridge, plan.mtu).await?;
    link::address_up(&netlink, plan.tap, &[]).await?;
    let mut addresses = vec![(IpAddr::from(plan.v4.gateway), plan.v4.prefix_len)];
    addresses.extend(plan.v6.map(|v6| (v6.gateway.into(), v6.prefix_len)));
    link::address_up(&netlink, plan.bridge, &addresses).await?;
    link::sysctl("net/ipv4/ip_forward", "1")?;
    // What the namespace's own processes send to the guest from 127.0.0.1 is not dropped on the way.
    link::sysctl(&format!("net/ipv4/conf/{}/route_localnet", plan.bridge), "1")?;
    if plan.v6.is_some() {
        link::sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    nft::apply(&rules::inside(plan))?;
    Ok(taps)
}
