//! Answers of a DHCPv6 server with one lease (RFC 8415), for the one guest behind the bridge; pure.

use std::net::Ipv6Addr;

use dhcproto::v6::{DhcpOption, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode};
use dhcproto::{Decodable, Decoder, Encodable, Name};

use super::subnet::Subnet;

/// A lease without an end (RFC 8415 §7.7).
const INFINITE: u32 = u32::MAX;
/// Of several addresses that a client asks for, so many get an answer.
const ASSOCIATIONS_MAX: usize = 8;
/// The longest identifier, in bytes (RFC 8415 §11.1).
const DUID_MAX_BYTES: usize = 130;
/// A message's type and transaction, in bytes (RFC 8415 §8).
const HEADER_BYTES: usize = 4;
/// An association without its options, in bytes (RFC 8415 §21.4).
const IA_NA_BYTES: usize = 12;
/// An address without its options, in bytes (RFC 8415 §21.6).
const IA_ADDR_BYTES: usize = 24;

// The options that are read (RFC 8415 §21.2 to §21.14).
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDR: u16 = 5;
const RAPID_COMMIT: u16 = 14;

/// Everything that the guest is told. It is the only one on its bridge, and its identifier is its own choice (RFC 8415
/// §11), so that whoever asks is the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The bridge's address, from which the server's identifier follows.
    pub server_mac: [u8; 6],
    /// The guest's network.
    pub subnet: Subnet<Ipv6Addr>,
    /// Name servers, may be empty.
    pub name_servers: Vec<Ipv6Addr>,
    /// Domains in which names are looked up, may be empty.
    pub search: Vec<Name>,
}

/// The message with nothing in it that is not read: identifiers, associations with their addresses, and the wish for a
/// rapid commit. A decoder that trusts lengths within options meets none from the guest.
fn sieved(message: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = message.split_at_checked(HEADER_BYTES)?;
    let mut kept = header.to_vec();
    let mut associations = 0;
    while let Some((code, value, behind)) = option(rest) {
        rest = behind;
        match code {
            CLIENT_ID | SERVER_ID if value.len() <= DUID_MAX_BYTES => keep(&mut kept, code, value),
            RAPID_COMMIT => keep(&mut kept, code, &[]),
            IA_NA if associations < ASSOCIATIONS_MAX && value.len() >= IA_NA_BYTES => {
                associations += 1;
                keep(&mut kept, code, &sieved_association(value));
            }
            _ => {}
        }
    }
    rest.is_empty().then_some(kept)
}

fn sieved_association(value: &[u8]) -> Vec<u8> {
    let (fixed, mut rest) = value.split_at(IA_NA_BYTES);
    let mut kept = fixed.to_vec();
    let mut addresses = 0;
    while let Some((code, value, behind)) = option(rest) {
        rest = behind;
        if code == IA_ADDR && addresses < ASSOCIATIONS_MAX && value.len() >= IA_ADDR_BYTES {
            addresses += 1;
            keep(&mut kept, code, &value[..IA_ADDR_BYTES]);
        }
    }
    kept
}

/// The first option: its code, its value, and what is behind it (§21.1).
fn option(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [a, b, c, d, rest @ ..] = bytes else { return None };
    let (value, behind) = rest.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
    Some((u16::from_be_bytes([*a, *b]), value, behind))
}

/// Adds an option, whose value was one's.
fn keep(kept: &mut Vec<u8>, code: u16, value: &[u8]) {
    kept.extend(code.to_be_bytes());
    kept.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    kept.extend(value);
}

/// The answer to a message, if it deserves one (RFC 8415 §16, §18.3).
pub fn answer(lease: &Lease, request: &[u8]) -> Option<Vec<u8>> {
    let request = Message::decode(&mut Decoder::new(&sieved(request)?)).ok()?;
    let kind = request.msg_type();
    let client = match request.opts().get(OptionCode::ClientId) {
        Some(DhcpOption::ClientId(id)) if (1..=DUID_MAX_BYTES).contains(&id.len()) => Some(id.clone()),
        Some(_) => return None,
        None => None,
    };
    let server = match request.opts().get(OptionCode::ServerId) {
        Some(DhcpOption::ServerId(id)) => Some(*id == server_id(lease)),
        _ => None,
    };
    // Who must name itself, and whether it must name this server (§16.2 to §16.12).
    let fits = match kind {
        MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => {
            client.is_some() && server.is_none()
        }
        MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline => {
            client.is_some() && server == Some(true)
        }
        MessageType::InformationRequest => {
            server != Some(false) && request.opts().get(OptionCode::IANA).is_none()
        }
        _ => false,
    };
    if !fits {
        return None;
    }
    let rapid = kind == MessageType::Solicit && request.opts().get(OptionCode::RapidCommit).is_some();
    let reply_kind = match kind {
        MessageType::Solicit if !rapid => MessageType::Advertise,
        _ => MessageType::Reply,
    };
    let mut reply = Message::new_with_id(reply_kind, request.xid());
    let options = reply.opts_mut();
    options.insert(DhcpOption::ServerId(server_id(lease)));
    if let Some(client) = client {
        options.insert(DhcpOption::ClientId(client));
    }
    if rapid {
        options.insert(DhcpOption::RapidCommit);
    }
    match kind {
        MessageType::Confirm => options.insert(confirmed(lease, &request)?),
        MessageType::Release | MessageType::Decline => options.insert(status(Status::Success)),
        _ => {
            // The address goes where it is already, or to the first that asks.
            let has_it = |asked: &IANA| addresses(asked).any(|address| address == lease.subnet.guest);
            let chosen = associations(&request).position(has_it).unwrap_or(0);
            associations(&request).enumerate().for_each(|(position, asked)| {
                options.insert(DhcpOption::IANA(association(lease, asked, position == chosen)));
            });
            if !lease.name_servers.is_empty() {
                options.insert(DhcpOption::DomainNameServers(lease.name_servers.clone()));
            }
            if !lease.search.is_empty() {
                options.insert(DhcpOption::DomainSearchList(lease.search.clone()));
            }
        }
    }
    reply.to_vec().ok()
}

/// The server's identifier: its link-layer address (§11.4).
fn server_id(lease: &Lease) -> Vec<u8> {
    const DUID_LL: [u8; 2] = [0, 3];
    const ETHERNET: [u8; 2] = [0, 1];
    [&DUID_LL[..], &ETHERNET, &lease.server_mac].concat()
}

fn associations(request: &Message) -> impl Iterator<Item = &IANA> {
    let all = request.opts().iter().filter_map(|option| match option {
        DhcpOption::IANA(association) => Some(association),
        _ => None,
    });
    all.take(ASSOCIATIONS_MAX)
}

fn addresses(association: &IANA) -> impl Iterator<Item = Ipv6Addr> + '_ {
    let all = association.opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(address) => Some(address.addr),
        _ => None,
    });
    all.take(ASSOCIATIONS_MAX)
}

/// What becomes of one identity association: the chosen one gets the address, others none. An address that the client
/// has and should not have ends at once (§18.3.4).
fn association(lease: &Lease, asked: &IANA, chosen: bool) -> IANA {
    let guest = lease.subnet.guest;
    let mut answer = IANA { id: asked.id, t1: INFINITE, t2: INFINITE, opts: Default::default() };
    let address = |addr, life| {
        DhcpOption::IAAddr(IAAddr { addr, preferred_life: life, valid_life: life, opts: Default::default() })
    };
    for wrong in addresses(asked).filter(|addr| !chosen || *addr != guest) {
        answer.opts.insert(address(wrong, 0));
    }
    if chosen {
        answer.opts.insert(address(guest, INFINITE));
    } else {
        answer.opts.insert(status(Status::NoAddrsAvail));
    }
    answer
}

/// Whether the addresses of a client that moved fit the link; no answer where it names none (§18.3.3).
fn confirmed(lease: &Lease, request: &Message) -> Option<DhcpOption> {
    let mut all = associations(request).flat_map(addresses).peekable();
    all.peek()?;
    let fit = all.all(|address| lease.subnet.contains(address));
    Some(status(if fit { Status::Success } else { Status::NotOnLink }))
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: String::new() })
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::*;

    const CLIENT: [u8; 4] = [0, 4, 7, 7];

    fn lease() -> Lease {
        Lease {
            server_mac: [2, 0, 0, 0, 0, 0],
            subnet: Subnet::<Ipv6Addr>::parse(None).unwrap(),
            name_servers: vec!["2001:db8::53".parse().unwrap()],
            search: vec!["cluster.example".parse().unwrap()],
        }
    }

    fn wanted(id: u32, addresses: &[&str]) -> DhcpOption {
        let mut association = IANA { id, t1: 0, t2: 0, opts: Default::default() };
        for addr in addresses {
            let addr = addr.parse().unwrap();
            let address = IAAddr { addr, preferred_life: 0, valid_life: 0, opts: Default::default() };
            association.opts.insert(DhcpOption::IAAddr(address));
        }
        DhcpOption::IANA(association)
    }

    fn request(kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
        let mut request = Message::new_with_id(kind, [1, 2, 3]);
        request.opts_mut().insert(DhcpOption::ClientId(CLIENT.to_vec()));
        options.into_iter().for_each(|option| request.opts_mut().insert(option));
        request.to_vec().unwrap()
    }

    fn ask(kind: MessageType, options: Vec<DhcpOption>) -> Option<Message> {
        let reply = answer(&lease(), &request(kind, options))?;
        Some(Message::decode(&mut Decoder::new(&reply)).unwrap())
    }

    fn this_server() -> DhcpOption {
        DhcpOption::ServerId(server_id(&lease()))
    }

    /// Addresses with their lifetimes, of each association.
    fn given(reply: &Message) -> Vec<(u32, Vec<(String, u32)>)> {
        let addresses = |association: &IANA| {
            let all = association.opts.iter().filter_map(|option| match option {
                DhcpOption::IAAddr(address) => Some((address.addr.to_string(), address.valid_life)),
                _ => None,
            });
            all.collect()
        };
        associations(reply).map(|association| (association.id, addresses(association))).collect()
    }

    #[test]
    fn a_guest_is_advertised_its_address_and_gets_it() {
        let advertise = ask(MessageType::Solicit, vec![wanted(5, &[])]).unwrap();
        assert_eq!((advertise.msg_type(), advertise.xid()), (MessageType::Advertise, [1, 2, 3]));
        assert_eq!(given(&advertise), [(5, vec![("fd10:0:2::2".into(), INFINITE)])]);
        let reply = ask(MessageType::Request, vec![this_server(), wanted(5, &["fd10:0:2::2"])]).unwrap();
        assert_eq!(reply.msg_type(), MessageType::Reply);
        assert_eq!(given(&reply), [(5, vec![("fd10:0:2::2".into(), INFINITE)])]);
        let servers = DhcpOption::DomainNameServers(vec!["2001:db8::53".parse().unwrap()]);
        assert_eq!(reply.opts().get(OptionCode::DomainNameServers), Some(&servers));
        assert_eq!(reply.opts().get(OptionCode::ClientId), Some(&DhcpOption::ClientId(CLIENT.to_vec())));
    }

    #[test]
    fn who_is_in_a_hurry_gets_it_at_once() {
        let reply = ask(MessageType::Solicit, vec![wanted(5, &[]), DhcpOption::RapidCommit]).unwrap();
        assert_eq!(reply.msg_type(), MessageType::Reply);
        assert!(reply.opts().get(OptionCode::RapidCommit).is_some());
    }

    #[test]
    fn another_address_ends_and_a_second_one_is_not_to_be_had() {
        let held = wanted(5, &["fd10:0:2::2", "fd99::9"]);
        let reply = ask(MessageType::Rebind, vec![wanted(4, &[]), held, wanted(6, &[])]).unwrap();
        let mut all = given(&reply);
        all.sort();
        all[1].1.sort();
        assert_eq!(all[0], (4, vec![]));
        assert_eq!(all[1], (5, vec![("fd10:0:2::2".into(), INFINITE), ("fd99::9".into(), 0)]));
        assert_eq!(all[2], (6, vec![]));
    }

    #[test]
    fn a_guest_that_moved_learns_whether_its_address_fits() {
        let said = |address: &str| {
            let reply = ask(MessageType::Confirm, vec![wanted(1, &[address])]).unwrap();
            reply.opts().get(OptionCode::StatusCode).cloned()
        };
        assert_eq!(said("fd10:0:2::2"), Some(status(Status::Success)));
        assert_eq!(said("fd99::9"), Some(status(Status::NotOnLink)));
        assert!(ask(MessageType::Confirm, vec![wanted(1, &[])]).is_none());
    }

    #[test]
    fn information_is_given_without_an_address() {
        let reply = ask(MessageType::InformationRequest, vec![]).unwrap();
        assert!(reply.opts().get(OptionCode::IANA).is_none());
        assert!(reply.opts().get(OptionCode::DomainNameServers).is_some());
    }

    #[test]
    fn what_is_for_another_server_or_comes_from_one_gets_no_answer() {
        let other = || DhcpOption::ServerId(vec![0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
        assert!(ask(MessageType::Solicit, vec![this_server(), wanted(5, &[])]).is_none());
        for kind in [MessageType::Request, MessageType::Renew, MessageType::Release, MessageType::Decline] {
            assert!(ask(kind, vec![other(), wanted(5, &[])]).is_none(), "{kind:?}");
            assert!(ask(kind, vec![wanted(5, &[])]).is_none(), "{kind:?} without a server");
        }
        for kind in [MessageType::Advertise, MessageType::Reply, MessageType::Reconfigure] {
            assert!(ask(kind, vec![this_server(), wanted(5, &[])]).is_none(), "{kind:?}");
        }
        let nameless = Message::new_with_id(MessageType::Solicit, [0; 3]).to_vec().unwrap();
        assert_eq!(answer(&lease(), &nameless), None);
    }

    #[test]
    fn bytes_that_are_no_message_get_no_answer() {
        for len in 0..300 {
            assert_eq!(answer(&lease(), &vec![0xff; len]), None);
        }
        let good = request(MessageType::Request, vec![this_server(), wanted(5, &["fd10:0:2::2"])]);
        noise::disturbed(&good, |bytes| drop(answer(&lease(), bytes)));
        // Lengths within options that are shorter than their fixed parts: vendor options, addresses, associations.
        for code in [3, 4, 5, 17, 25, 26] {
            for len in 0..40 {
                let mut bad = request(MessageType::Solicit, vec![]);
                keep(&mut bad, code, &vec![0xff; len]);
                drop(answer(&lease(), &bad));
            }
        }
        // Associations within associations, as deep as a packet is long.
        let mut nested = Vec::new();
        while nested.len() + 16 < 1500 {
            let len = u16::try_from(nested.len() + 12).unwrap();
            nested = [&[0, 3][..], &len.to_be_bytes(), &[0; 12], &nested].concat();
        }
        let mut deep = request(MessageType::Solicit, vec![]);
        deep.extend(nested);
        drop(answer(&lease(), &deep));
    }
}
