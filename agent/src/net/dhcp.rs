//! A DHCP server with one lease (RFC 2131), for the one guest behind the bridge.

use std::net::{Ipv4Addr, SocketAddr};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;

use super::NetError;

/// Everything that the guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whom the address is for; others get no answer.
    pub mac: [u8; 6],
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix_len: u8,
    /// Router and server.
    pub gateway: Ipv4Addr,
    /// Name servers, may be empty.
    pub name_servers: Vec<Ipv4Addr>,
    /// The guest's host name; not sent when empty.
    pub hostname: String,
}

/// The longest message read, in bytes: an Ethernet frame's worth.
const MESSAGE_MAX_BYTES: usize = 1500;

/// Serves `lease` on the link `device` of the calling thread's namespace until its runtime ends.
pub fn start(device: &str, lease: Lease) -> Result<(), NetError> {
    let fault = |source| NetError::Io { doing: "start the DHCP server", source };
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).map_err(fault)?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into()).map_err(|e| fault(e.into()))?;
    socket.set_broadcast(true).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    let socket = UdpSocket::from_std(socket).map_err(fault)?;
    tokio::task::spawn_local(async move {
        let mut buffer = [0; MESSAGE_MAX_BYTES];
        loop {
            let Ok((len, _)) = socket.recv_from(&mut buffer).await else { return };
            let Some(reply) = buffer.get(..len).and_then(|bytes| answer(&lease, bytes)) else { continue };
            // The guest has no address yet that a unicast could reach; a lost answer is asked for again.
            drop(socket.send_to(&reply, SocketAddr::from((Ipv4Addr::BROADCAST, 68))).await);
        }
    });
    Ok(())
}

/// The answer to a message, if it deserves one.
fn answer(lease: &Lease, request: &[u8]) -> Option<Vec<u8>> {
    let request = Message::decode(&mut Decoder::new(request)).ok()?;
    if request.opcode() != Opcode::BootRequest || request.chaddr() != lease.mac {
        return None;
    }
    let kind = match request.opts().msg_type()? {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if for_another_server(lease, &request) => return None,
        MessageType::Request if wants_another_address(lease, &request) => MessageType::Nak,
        MessageType::Request | MessageType::Inform => MessageType::Ack,
        _ => return None,
    };
    let mut reply = Message::default();
    reply
        .set_opcode(Opcode::BootReply)
        .set_xid(request.xid())
        .set_flags(Flags::default().set_broadcast())
        .set_giaddr(request.giaddr())
        .set_chaddr(&lease.mac);
    let options = reply.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(lease.gateway));
    if kind != MessageType::Nak {
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::from(u32::MAX << (32 - lease.prefix_len))));
        options.insert(DhcpOption::Router(vec![lease.gateway]));
        options.insert(DhcpOption::AddressLeaseTime(u32::MAX));
        if !lease.name_servers.is_empty() {
            options.insert(DhcpOption::DomainNameServer(lease.name_servers.clone()));
        }
        if !lease.hostname.is_empty() {
            options.insert(DhcpOption::Hostname(lease.hostname.clone()));
        }
        reply.set_yiaddr(lease.address).set_siaddr(lease.gateway);
    }
    reply.to_vec().ok()
}

fn for_another_server(lease: &Lease, request: &Message) -> bool {
    matches!(request.opts().get(OptionCode::ServerIdentifier),
        Some(DhcpOption::ServerIdentifier(server)) if *server != lease.gateway)
}

fn wants_another_address(lease: &Lease, request: &Message) -> bool {
    match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => *address != lease.address,
        _ => !request.ciaddr().is_unspecified() && request.ciaddr() != lease.address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            mac: [2, 0, 0, 0, 0, 9],
            address: Ipv4Addr::new(10, 0, 2, 2),
            prefix_len: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 1),
            name_servers: vec![],
            hostname: "vm".into(),
        }
    }

    fn ask(change: impl FnOnce(&mut Message)) -> Option<Message> {
        let mut request = Message::default();
        request.set_opcode(Opcode::BootRequest).set_xid(77).set_chaddr(&lease().mac);
        request.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
        change(&mut request);
        let reply = answer(&lease(), &request.to_vec().unwrap())?;
        Some(Message::decode(&mut Decoder::new(&reply)).unwrap())
    }

    #[test]
    fn a_guest_is_offered_its_address_and_gets_it() {
        let offer = ask(|_| {}).unwrap();
        assert_eq!((offer.xid(), offer.yiaddr()), (77, lease().address));
        assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
        let ack = ask(|m| {
            m.opts_mut().insert(DhcpOption::MessageType(MessageType::Request));
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(lease().address));
        });
        assert_eq!(ack.unwrap().opts().msg_type(), Some(MessageType::Ack));
    }

    #[test]
    fn another_address_is_refused_and_another_card_ignored() {
        let nak = ask(|m| {
            m.opts_mut().insert(DhcpOption::MessageType(MessageType::Request));
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 2, 9)));
        });
        assert_eq!(nak.unwrap().opts().msg_type(), Some(MessageType::Nak));
        assert!(
            ask(|m| {
                m.set_chaddr(&[9; 6]);
            })
            .is_none()
        );
        assert!(
            ask(|m| {
                m.set_opcode(Opcode::BootReply);
            })
            .is_none()
        );
    }

    #[test]
    fn bytes_that_are_no_message_get_no_answer() {
        for len in 0..300 {
            assert_eq!(answer(&lease(), &vec![0xff; len]), None);
        }
    }
}
