//! Packets of a guest to the servers of its network.

use orlop_agent::kit;

/// The first byte says to which: DHCP, DHCPv6, or the router.
pub fn run(bytes: &[u8]) {
    let Some((server, packet)) = bytes.split_first() else { return };
    match server % 3 {
        0 => kit::dhcp4(packet),
        1 => kit::dhcp6(packet),
        _ => kit::router(packet),
    }
}

fn dhcp4(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 1, 1, 6, 0, 0, 0, 0, 77];
    message.resize(1 + 28, 0);
    message.extend(kit::GUEST_MAC);
    message.resize(1 + 236, 0);
    message.extend([99, 130, 83, 99, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    message
}

fn dhcp6(kind: u8, options: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![1, kind, 0, 0, 77, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
    message.extend(options.concat());
    message
}

/// What clients send, and what none would.
pub fn corpus() -> crate::Corpus {
    let association = [&[0, 3, 0, 40][..], &[7; 12], &[0, 5, 0, 24], &[0xfd; 16], &[0; 8]].concat();
    let mut corpus: crate::Corpus =
        (1..9).map(|kind| (format!("v4-{kind}"), dhcp4(kind, &[50, 4, 10, 0, 2, 2]))).collect();
    corpus.extend((1..14).map(|kind| (format!("v6-{kind}"), dhcp6(kind, &[&association, &[0, 14, 0, 0]]))));
    let bad = [
        ("v4-no-end", dhcp4(1, &[12])),
        ("v4-long-option", dhcp4(3, &[54, 255, 1])),
        ("v4-search", dhcp4(1, &[119, 3, 0xc0, 0, 0])),
        ("v6-short-association", dhcp6(1, &[&[0, 3, 0, 4, 1, 2, 3, 4]])),
        ("v6-in-itself", dhcp6(3, &[&association, &association, &association])),
        ("solicitation", vec![2, 133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9]),
        ("advertisement", vec![2, 134, 0, 0, 0, 0, 0, 0, 0]),
        ("nothing", Vec::new()),
    ];
    corpus.extend(bad.map(|(name, bytes)| (name.to_owned(), bytes)));
    corpus
}
