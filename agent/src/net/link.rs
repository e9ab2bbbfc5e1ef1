//! Links, addresses and routes by netlink, and the tap by `/dev/net/tun`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::NetError;

/// A netlink connection to the network namespace of the calling thread, driven by the current runtime.
pub fn connect() -> Result<Handle, NetError> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|e| NetError::Io { doing: "open a netlink socket", source: e })?;
    tokio::spawn(connection);
    Ok(handle)
}

fn netlink(doing: &str) -> impl FnOnce(rtnetlink::Error) -> NetError + '_ {
    move |source| NetError::Netlink { doing: doing.to_owned(), source }
}

/// What the kernel says about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its MTU in bytes, where it fits.
    pub mtu: Option<u16>,
    /// Whether it is a bridge.
    pub is_bridge: bool,
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, mtu: None, is_bridge: false };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => link.mtu = u16::try_from(*mtu).ok(),
                LinkAttribute::LinkInfo(infos) => {
                    link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                }
                _ => {}
            }
        }
        link
    }
}

/// The link called `name`; `None` when there is none.
pub async fn find(handle: &Handle, name: &str) -> Result<Option<Link>, NetError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.as_ref().map(Link::of)),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -(nix::libc::ENODEV) => Ok(None),
        Err(e) => Err(netlink(&format!("look for link {name}"))(e)),
    }
}

/// The link called `name`, which must be there.
pub async fn must_find(handle: &Handle, name: &str) -> Result<Link, NetError> {
    find(handle, name).await?.ok_or_else(|| NetError::Gone(name.to_owned()))
}

/// The smallest MTU of the links that default routes lead over; `None` where there is no default route.
pub async fn way_out_mtu(handle: &Handle) -> Result<Option<u16>, NetError> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut smallest: Option<u16> = None;
    for all in [v4, v6] {
        let mut routes = Box::pin(handle.route().get(all).execute());
        while let Some(route) = routes.try_next().await.map_err(netlink("read the routes"))? {
            let Some(index) = way_out(&route) else { continue };
            let mut links = handle.link().get().match_index(index).execute();
            // A link that went away meanwhile leads nowhere.
            let Ok(Some(link)) = links.try_next().await else { continue };
            let mtu = Link::of(&link).mtu;
            smallest = smallest.into_iter().chain(mtu).min();
        }
    }
    Ok(smallest)
}

/// Over which link a default route leads.
fn way_out(route: &RouteMessage) -> Option<u32> {
    if route.header.destination_prefix_length != 0 {
        return None;
    }
    let is_gateway = |attribute: &&RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_));
    route.attributes.iter().find(is_gateway)?;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Makes a veth pair with the MTU `mtu` here and sends `peer` into the network namespace `peer_namespace`.
pub async fn add_veth(
    handle: &Handle,
    name: &str,
    peer: &str,
    mtu: u16,
    peer_namespace: &OwnedFd,
) -> Result<(), NetError> {
    let temporary = format!("{name}p");
    handle
        .link()
        .add(LinkVeth::new(name, &temporary).build())
        .execute()
        .await
        .map_err(netlink(&format!("make the veth pair {name}")))?;
    set_mtu(handle, name, mtu).await?;
    set_mtu(handle, &temporary, mtu).await?;
    let index = must_find(handle, &temporary).await?.index;
    let moved = LinkUnspec::new_with_index(index)
        .name(peer)
        .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(peer_namespace))
        .build();
    handle.link().set(moved).execute().await.map_err(netlink(&format!("move {peer} into the VM's namespace")))
}

/// Makes a bridge with the MAC address `mac`.
pub async fn add_bridge(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<(), NetError> {
    handle
        .link()
        .add(LinkBridge::new(name).address(mac.to_vec()).build())
        .execute()
        .await
        .map_err(netlink(&format!("make the bridge {name}")))
}

/// Sets the longest packet of `name`, in bytes.
pub async fn set_mtu(handle: &Handle, name: &str, mtu: u16) -> Result<(), NetError> {
    let index = must_find(handle, name).await?.index;
    let message = LinkUnspec::new_with_index(index).mtu(mtu.into()).build();
    handle.link().set(message).execute().await.map_err(netlink(&format!("set the MTU of {name}")))
}

/// Puts `link` under the bridge `bridge`.
pub async fn enslave(handle: &Handle, link: &str, bridge: &str) -> Result<(), NetError> {
    let (index, controller) = (must_find(handle, link).await?.index, must_find(handle, bridge).await?.index);
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).controller(controller).build())
        .execute()
        .await
        .map_err(netlink(&format!("put {link} under {bridge}")))
}

/// Gives `name` addresses, which count at once, and sets it up.
pub async fn address_up(handle: &Handle, name: &str, addresses: &[(IpAddr, u8)]) -> Result<(), NetError> {
    let index = must_find(handle, name).await?.index;
    for (address, prefix_len) in addresses {
        let mut request = handle.address().add(index, *address, *prefix_len);
        if address.is_ipv6() {
            // Nobody else is there who could have it.
            let at_once = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(at_once);
        }
        request
            .execute()
            .await
            .map_err(netlink(&format!("give {name} the address {address}/{prefix_len}")))?;
    }
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .map_err(netlink(&format!("set {name} up")))
}

/// Sends everything that has no other route to `gateway`.
pub async fn default_route(handle: &Handle, gateway: IpAddr) -> Result<(), NetError> {
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
    };
    handle.route().add(route).execute().await.map_err(netlink("add the default route"))
}

/// Whether the calling thread's namespace has IPv6.
pub fn has_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|value| value.trim() == "0")
}

/// Sets `net/…` of the calling thread's namespace, whose view `/proc/sys/net` has for the thread that opens it.
pub fn sysctl(name: &str, value: &str) -> Result<(), NetError> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path).is_ok_and(|found| found.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| NetError::Sysctl { name: name.to_owned(), source })
}

/// Makes the tap `name`, which must not exist, in the namespace of the calling thread with one descriptor per queue
/// pair, owned by nobody but these descriptors: it goes away with the last of them.
pub fn make_tap(name: &str, queue_pairs: u16) -> io::Result<Vec<OwnedFd>> {
    (0..queue_pairs.max(1)).map(|queue| tun::open_queue(name, queue == 0, queue_pairs > 1)).collect()
}

mod tun {
    //! The one ioctl that no crate here wraps.
    #![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper in the crates used here")]

    use std::fs::OpenOptions;
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::libc::{self, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, IFF_VNET_HDR, ifreq};

    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, ifreq);

    pub fn open_queue(name: &str, first: bool, multi_queue: bool) -> io::Result<OwnedFd> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: all zeroes is a valid ifreq: integers, byte arrays and a null pointer.
        let mut request: ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = IFF_TAP
            | IFF_NO_PI
            | IFF_VNET_HDR
            | if first { IFF_TUN_EXCL } else { 0 }
            | if multi_queue { IFF_MULTI_QUEUE } else { 0 };
        // The flags fill all 16 bits.
        request.ifr_ifru.ifru_flags = u16::try_from(flags).map_err(io::Error::other)?.cast_signed();
        // SAFETY: the descriptor is open and `request` is a complete ifreq that outlives the call.
        unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }?;
        Ok(file.into())
    }
}
