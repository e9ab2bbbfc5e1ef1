//! The servers on a guest's bridge: sockets around [`dhcp4`], [`dhcp6`] and [`advert`]. Nothing that a guest sends ends
//! one: what deserves no answer gets none, and a socket that fails for a while is asked again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, setsockopt, sockopt,
};
use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;

use super::advert::{self, Advert};
use super::pace::Pace;
use super::{NetError, dhcp4, dhcp6};

/// The longest message read, in bytes: what is longer is cut off and then no message.
const MESSAGE_MAX_BYTES: usize = 1500;
/// How long a socket that failed is left alone.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// All DHCPv6 servers on a link (RFC 8415 §7.1).
const DHCP6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// All routers on a link (RFC 4291 §2.7.1).
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All nodes on a link (RFC 4291 §2.7.1).
const NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Between two advertisements that nobody asked for: within the 1800 s that RFC 4861 §6.2.1 allows.
const ADVERTISE_EVERY: Duration = Duration::from_secs(300);

/// Serves `lease` on the link `device` of the calling thread's namespace until its runtime ends.
pub fn dhcp4(device: &str, lease: dhcp4::Lease) -> Result<(), NetError> {
    let socket = udp(device, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 67)))
        .and_then(|socket| {
            socket.set_broadcast(true)?;
            UdpSocket::from_std(socket)
        })
        .map_err(|source| NetError::Io { doing: "start the DHCP server", source })?;
    // The guest has no address yet that a unicast could reach.
    let to_all = SocketAddr::from((Ipv4Addr::BROADCAST, 68));
    tokio::task::spawn_local(async move {
        serve(&socket, |message, _| Some((dhcp4::answer(&lease, message)?, to_all))).await;
    });
    Ok(())
}

/// Serves `lease` by DHCPv6 on the link `device`, whose number is `index`, likewise.
pub fn dhcp6(device: &str, index: u32, lease: dhcp6::Lease) -> Result<(), NetError> {
    let socket = udp(device, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 547)))
        .and_then(|socket| {
            socket.join_multicast_v6(&DHCP6_SERVERS, index)?;
            UdpSocket::from_std(socket)
        })
        .map_err(|source| NetError::Io { doing: "start the DHCPv6 server", source })?;
    tokio::task::spawn_local(async move {
        let answer = |message: &[u8], from| {
            // A client asks from its address on the link and listens on port 546 (RFC 8415 §7.2).
            let client = link_local(from)?;
            Some((dhcp6::answer(&lease, message)?, on_link(client, 546, index)))
        };
        serve(&socket, answer).await;
    });
    Ok(())
}

/// Advertises a router on the link `device`, whose number is `index`, likewise.
pub fn advertise(device: &str, index: u32, advert: &Advert) -> Result<(), NetError> {
    let socket = icmp6(device, index)
        .and_then(UdpSocket::from_std)
        .map_err(|source| NetError::Io { doing: "start the router's advertisements", source })?;
    let message = advert::message(advert);
    tokio::task::spawn_local(async move {
        let to_all = on_link(NODES, 0, index);
        let mut unasked = tokio::time::interval(ADVERTISE_EVERY);
        unasked.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let answers = serve(&socket, |asked, from| {
            let to = link_local(from).map_or(to_all, |host| on_link(host, 0, index));
            advert::is_solicitation(asked).then(|| (message.clone(), to))
        });
        tokio::pin!(answers);
        loop {
            tokio::select! {
                () = &mut answers => return,
                _ = unasked.tick() => drop(socket.send_to(&message, to_all).await),
            }
        }
    });
    Ok(())
}

/// Answers what comes to `socket`, at the pace that a flood does not change. An answer that is lost is asked for again.
async fn serve(
    socket: &UdpSocket,
    mut answer: impl FnMut(&[u8], SocketAddr) -> Option<(Vec<u8>, SocketAddr)>,
) {
    let mut buffer = [0; MESSAGE_MAX_BYTES];
    let mut pace = Pace::new(Instant::now());
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // The link is down, or memory is short.
            tokio::time::sleep(AFTER_FAILURE).await;
            continue;
        };
        let Some((reply, to)) = buffer.get(..len).and_then(|message| answer(message, from)) else { continue };
        if pace.allows(Instant::now()) {
            drop(socket.send_to(&reply, to).await);
        }
    }
}

fn link_local(from: SocketAddr) -> Option<Ipv6Addr> {
    match from.ip() {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
        _ => None,
    }
}

fn on_link(address: Ipv6Addr, port: u16, index: u32) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(address, port, 0, index))
}

/// A socket on one link only, so that each of several can have the port.
fn udp(device: &str, address: SocketAddr) -> io::Result<StdUdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = on_device(device, family, SockType::Datagram, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket.into())
}

/// A raw socket for ICMPv6: it is read and written by message and address, as a UDP socket is.
fn icmp6(device: &str, index: u32) -> io::Result<StdUdpSocket> {
    let socket = on_device(device, AddressFamily::Inet6, SockType::Raw, Some(SockProtocol::IcmpV6))?;
    // Messages of neighbour discovery are believed only with this hop limit (RFC 4861 §6.1.2).
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &255)?;
    setsockopt(&socket, sockopt::Ipv6Ttl, &255)?;
    let socket = StdUdpSocket::from(socket);
    socket.join_multicast_v6(&ROUTERS, index)?;
    Ok(socket)
}

fn on_device(
    device: &str,
    family: AddressFamily,
    kind: SockType,
    protocol: Option<SockProtocol>,
) -> io::Result<OwnedFd> {
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
    Ok(socket)
}
