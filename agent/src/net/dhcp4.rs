//! Answers of a DHCP server with one lease (RFC 2131), for the one guest behind the bridge; pure.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable, Name};

use super::plan::DhcpExtras;
use super::subnet::Subnet;

/// Length of an Ethernet address, in bytes (RFC 2131 §2, `hlen`).
const MAC_BYTES: u8 = 6;
/// Length of what is before the options, in bytes (RFC 2131 §2), with the cookie that begins them.
const FIXED_BYTES: usize = 240;
/// What begins the options (RFC 2131 §3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// An option of one byte that says nothing (RFC 2132 §3.1).
const PAD: u8 = 0;
/// What ends the options (RFC 2132 §3.2).
const END: u8 = 255;
/// The longest name in the `file` field, in bytes, without its NUL (RFC 2131 §2).
const FILE_MAX_BYTES: usize = 127;

/// Everything that the guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whom the address is for; others get no answer.
    pub mac: [u8; 6],
    /// The guest's network.
    pub subnet: Subnet<Ipv4Addr>,
    /// The longest packet, in bytes.
    pub mtu: u16,
    /// Name servers, may be empty.
    pub name_servers: Vec<Ipv4Addr>,
    /// Domains in which names are looked up, may be empty.
    pub search: Vec<Name>,
    /// The guest's host name; not sent when empty.
    pub hostname: String,
    /// What the manifest adds.
    pub extras: DhcpExtras,
}

/// What is read of a request, in its order: which option, and how many bytes it has.
const READ: [(u8, usize); 3] = [
    (50, 4), // requested address
    (53, 1), // message type
    (54, 4), // server
];

/// The message with nothing in it that is not read: its fixed part, if that holds, and the first of each option in
/// [`READ`]. A decoder that trusts lengths within options meets none from the guest.
fn sieved(message: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut options) = message.split_at_checked(FIXED_BYTES)?;
    if fixed.get(2) != Some(&MAC_BYTES) || !fixed.ends_with(&COOKIE) {
        return None;
    }
    let mut kept = fixed.to_vec();
    let mut wanted = READ.to_vec();
    loop {
        match options {
            [] | [END, ..] => break,
            [PAD, rest @ ..] => options = rest,
            [code, len, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                if let Some(at) = wanted.iter().position(|read| *read == (*code, value.len())) {
                    wanted.remove(at);
                    kept.extend([*code, *len]);
                    kept.extend(value);
                }
                options = rest;
            }
            [_] => return None,
        }
    }
    kept.push(END);
    Some(kept)
}

/// The answer to a message, if it deserves one.
pub fn answer(lease: &Lease, request: &[u8]) -> Option<Vec<u8>> {
    let request = Message::decode(&mut Decoder::new(&sieved(request)?)).ok()?;
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
    let informs = request.opts().msg_type() == Some(MessageType::Inform);
    let mut reply = Message::default();
    reply
        .set_opcode(Opcode::BootReply)
        .set_xid(request.xid())
        .set_flags(Flags::default().set_broadcast())
        .set_giaddr(request.giaddr())
        .set_chaddr(&lease.mac);
    reply.opts_mut().insert(DhcpOption::MessageType(kind));
    reply.opts_mut().insert(DhcpOption::ServerIdentifier(lease.subnet.gateway));
    if kind != MessageType::Nak {
        tell(lease, &mut reply);
    }
    // Who only asks for information has an address (RFC 2131 §4.3.5).
    if informs {
        reply.set_ciaddr(request.ciaddr());
    } else if kind != MessageType::Nak {
        reply.set_yiaddr(lease.subnet.guest);
        reply.opts_mut().insert(DhcpOption::AddressLeaseTime(u32::MAX));
    }
    reply.to_vec().ok()
}

fn tell(lease: &Lease, reply: &mut Message) {
    let DhcpExtras { boot_file, tftp_server, ntp_servers, private } = &lease.extras;
    let next_server = tftp_server.as_deref().and_then(|name| name.parse().ok());
    reply.set_siaddr(next_server.unwrap_or(lease.subnet.gateway));
    if let Some(file) = boot_file.as_deref().filter(|file| file.len() <= FILE_MAX_BYTES) {
        reply.set_fname(file.as_bytes());
    }
    let options = reply.opts_mut();
    let mut tell_if = |there: bool, option: DhcpOption| {
        if there {
            drop(options.insert(option));
        }
    };
    tell_if(true, DhcpOption::SubnetMask(lease.subnet.mask()));
    tell_if(true, DhcpOption::Router(vec![lease.subnet.gateway]));
    tell_if(true, DhcpOption::InterfaceMtu(lease.mtu));
    tell_if(!lease.name_servers.is_empty(), DhcpOption::DomainNameServer(lease.name_servers.clone()));
    tell_if(!lease.search.is_empty(), DhcpOption::DomainSearch(lease.search.clone()));
    if let Some(domain) = lease.search.first() {
        tell_if(true, DhcpOption::DomainName(domain.to_ascii().trim_end_matches('.').to_owned()));
    }
    tell_if(!lease.hostname.is_empty(), DhcpOption::Hostname(lease.hostname.clone()));
    tell_if(!ntp_servers.is_empty(), DhcpOption::NtpServers(ntp_servers.clone()));
    if let Some(name) = tftp_server {
        tell_if(true, DhcpOption::TFTPServerName(name.clone().into_bytes()));
    }
    if let Some(file) = boot_file {
        tell_if(true, DhcpOption::BootfileName(file.clone().into_bytes()));
    }
    for (code, value) in private {
        let option = UnknownOption::new(OptionCode::from(*code), value.clone().into_bytes());
        tell_if(true, DhcpOption::Unknown(option));
    }
}

fn for_another_server(lease: &Lease, request: &Message) -> bool {
    matches!(request.opts().get(OptionCode::ServerIdentifier),
        Some(DhcpOption::ServerIdentifier(server)) if *server != lease.subnet.gateway)
}

fn wants_another_address(lease: &Lease, request: &Message) -> bool {
    match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => *address != lease.subnet.guest,
        _ => !request.ciaddr().is_unspecified() && request.ciaddr() != lease.subnet.guest,
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::*;

    fn lease() -> Lease {
        Lease {
            mac: [2, 0, 0, 0, 0, 9],
            subnet: Subnet::<Ipv4Addr>::parse(None).unwrap(),
            mtu: 1400,
            name_servers: vec![Ipv4Addr::new(192, 0, 2, 53)],
            search: vec!["cluster.example".parse().unwrap()],
            hostname: "vm".into(),
            extras: DhcpExtras {
                boot_file: Some("pxelinux.0".into()),
                tftp_server: Some("192.0.2.7".into()),
                ntp_servers: vec![Ipv4Addr::new(192, 0, 2, 123)],
                private: vec![(224, "one".into()), (254, "two".into())],
            },
        }
    }

    fn request(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut request = Message::default();
        request.set_opcode(Opcode::BootRequest).set_xid(77).set_chaddr(&lease().mac);
        request.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
        change(&mut request);
        request.to_vec().unwrap()
    }

    fn ask(change: impl FnOnce(&mut Message)) -> Option<Message> {
        let reply = answer(&lease(), &request(change))?;
        Some(Message::decode(&mut Decoder::new(&reply)).unwrap())
    }

    fn kind(kind: MessageType) -> impl FnOnce(&mut Message) {
        move |m| drop(m.opts_mut().insert(DhcpOption::MessageType(kind)))
    }

    #[test]
    fn a_guest_is_offered_its_address_and_gets_it() {
        let offer = ask(|_| {}).unwrap();
        assert_eq!((offer.xid(), offer.yiaddr()), (77, lease().subnet.guest));
        assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
        let ack = ask(|m| {
            kind(MessageType::Request)(m);
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(lease().subnet.guest));
        });
        assert_eq!(ack.unwrap().opts().msg_type(), Some(MessageType::Ack));
    }

    #[test]
    fn every_option_of_the_manifest_is_told() {
        let offer = ask(|_| {}).unwrap();
        let options = offer.opts();
        for (code, expected) in [
            (OptionCode::InterfaceMtu, DhcpOption::InterfaceMtu(1400)),
            (OptionCode::NtpServers, DhcpOption::NtpServers(vec![Ipv4Addr::new(192, 0, 2, 123)])),
            (OptionCode::TFTPServerName, DhcpOption::TFTPServerName(b"192.0.2.7".to_vec())),
            (OptionCode::BootfileName, DhcpOption::BootfileName(b"pxelinux.0".to_vec())),
            (OptionCode::DomainName, DhcpOption::DomainName("cluster.example".into())),
            (OptionCode::Hostname, DhcpOption::Hostname("vm".into())),
            (OptionCode::SubnetMask, DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0))),
        ] {
            assert_eq!(options.get(code), Some(&expected));
        }
        for (code, value) in [(224, "one"), (254, "two")] {
            let code = OptionCode::from(code);
            let expected = DhcpOption::Unknown(UnknownOption::new(code, value.into()));
            assert_eq!(options.get(code), Some(&expected));
        }
        assert_eq!(offer.siaddr(), Ipv4Addr::new(192, 0, 2, 7), "where a boot program loads from");
    }

    #[test]
    fn who_only_asks_for_information_keeps_its_address() {
        let ack = ask(|m| {
            kind(MessageType::Inform)(m);
            m.set_ciaddr(lease().subnet.guest);
        })
        .unwrap();
        assert_eq!((ack.yiaddr(), ack.ciaddr()), (Ipv4Addr::UNSPECIFIED, lease().subnet.guest));
        assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), None);
    }

    #[test]
    fn another_address_is_refused_and_another_card_ignored() {
        let nak = ask(|m| {
            kind(MessageType::Request)(m);
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 2, 9)));
        });
        assert_eq!(nak.unwrap().opts().msg_type(), Some(MessageType::Nak));
        let from_another = ask(|m| {
            m.set_chaddr(&[9; 6]);
        });
        assert!(from_another.is_none());
        let no_request = ask(|m| {
            m.set_opcode(Opcode::BootReply);
        });
        assert!(no_request.is_none());
        for unasked in [MessageType::Offer, MessageType::Ack, MessageType::Release, MessageType::Decline] {
            assert!(ask(kind(unasked)).is_none(), "{unasked:?}");
        }
    }

    #[test]
    fn an_address_that_claims_to_be_longer_than_its_field_gets_no_answer() {
        let good = request(|_| {});
        for length in [0, 5, 7, 16, 17, 255] {
            let mut bad = good.clone();
            bad[2] = length;
            assert_eq!(answer(&lease(), &bad), None, "hlen {length}");
        }
    }

    #[test]
    fn bytes_that_are_no_message_get_no_answer() {
        for len in 0..300 {
            assert_eq!(answer(&lease(), &vec![0xff; len]), None);
        }
        let good = request(kind(MessageType::Request));
        for len in 0..236 {
            assert_eq!(answer(&lease(), &good[..len]), None);
        }
        // What comes of broken options is the same guest's lease or nothing, and never a panic.
        noise::disturbed(&good, |bytes| drop(answer(&lease(), bytes)));
    }
}
