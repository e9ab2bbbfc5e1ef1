//! Anybody may connect to `virt-api`: what they send costs nobody else anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::site::{ADDRESS, Site, VMI, instance};

/// Longer than `virt-api` waits for a client.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn admit_silent_clients_are_dropped_and_hold_up_nobody() {
    let site = Site::new("admit-silent").await;
    let mut silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(ADDRESS).expect("it listens")).collect();
    site.create(VMI, &instance("a")).await.expect("it may be, all the same");
    let first = silent.first_mut().expect("there are some");
    first.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(first.read(&mut [0; 16]).expect("a closed connection, and not a timeout"), 0);
}

#[tokio::test]
async fn admit_what_is_not_tls_is_closed() {
    let site = Site::new("admit-plain").await;
    let mut plain = TcpStream::connect(ADDRESS).expect("it listens");
    plain.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    plain.write_all(b"POST /virtualmachines-validate HTTP/1.1\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    site.create(VMI, &instance("a")).await.expect("it may be");
}
