//! Links, addresses and routes by netlink, and the tap by `/dev/net/tun`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use futures_util::TryStreamExt;
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

/// The index of the link called `name`; `None` when there is none.
pub async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, NetError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -(nix::libc::ENODEV) => Ok(None),
        Err(e) => Err(netlink(&format!("look for link {name}"))(e)),
    }
}

async fn must_index(handle: &Handle, name: &str) -> Result<u32, NetError> {
    index(handle, name).await?.ok_or_else(|| NetError::Gone(name.to_owned()))
}

/// Makes a veth pair here and sends `peer` into the network namespace of the process or thread `peer_namespace`.
pub async fn add_veth(
    handle: &Handle,
    name: &str,
    peer: &str,
    peer_namespace: &OwnedFd,
) -> Result<(), NetError> {
    let temporary = format!("{name}p");
    handle
        .link()
        .add(LinkVeth::new(name, &temporary).build())
        .execute()
        .await
        .map_err(netlink(&format!("make the veth pair {name}")))?;
    let index = must_index(handle, &temporary).await?;
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

/// Puts `link` under the bridge `bridge`.
pub async fn enslave(handle: &Handle, link: &str, bridge: &str) -> Result<(), NetError> {
    let (index, controller) = (must_index(handle, link).await?, must_index(handle, bridge).await?);
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).controller(controller).build())
        .execute()
        .await
        .map_err(netlink(&format!("put {link} under {bridge}")))
}

/// Gives `name` an address and sets it up.
pub async fn address_up(
    handle: &Handle,
    name: &str,
    address: Option<(Ipv4Addr, u8)>,
) -> Result<(), NetError> {
    let index = must_index(handle, name).await?;
    if let Some((address, prefix_len)) = address {
        handle
            .address()
            .add(index, address.into(), prefix_len)
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
pub async fn default_route(handle: &Handle, gateway: Ipv4Addr) -> Result<(), NetError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    handle.route().add(route).execute().await.map_err(netlink("add the default route"))
}

/// Makes the tap `name` in the namespace of the calling thread with one descriptor per queue pair, owned by nobody
/// but these descriptors: it goes away with the last of them.
pub fn make_tap(name: &str, queue_pairs: u16) -> Result<Vec<OwnedFd>, NetError> {
    let fault = |source: io::Error| NetError::Io { doing: "make a tap (/dev/net/tun)", source };
    (0..queue_pairs.max(1)).map(|_| tun::open_queue(name, queue_pairs > 1).map_err(fault)).collect()
}

mod tun {
    //! The one ioctl that no crate here wraps.
    #![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper in the crates used here")]

    use std::fs::OpenOptions;
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::libc::{self, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, ifreq};

    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, ifreq);

    pub fn open_queue(name: &str, multi_queue: bool) -> io::Result<OwnedFd> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: all zeroes is a valid ifreq: integers, byte arrays and a null pointer.
        let mut request: ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if multi_queue { IFF_MULTI_QUEUE } else { 0 };
        request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open and `request` is a complete ifreq that outlives the call.
        unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }?;
        Ok(file.into())
    }
}
