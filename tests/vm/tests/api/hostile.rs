//! Clients that misbehave: the process lives and the others are served.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use orlop_client::Events;

use crate::process::{DEADLINE, Vmm};

/// Everything until the process closes the connection.
fn read_to_end(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    // The process may close with our bytes unread, which is a reset: what came before it counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

async fn is_served(vmm: &Vmm) {
    vmm.client().version().await.expect("the others are served");
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_not_http_is_refused() {
    let vmm = Vmm::start().await;
    for garbage in [
        &b"\0\x01\x02\xff\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\n: :\r\n\r\n",
    ] {
        let mut stream = vmm.connect();
        stream.write_all(garbage).expect("it listens");
        let answer = read_to_end(stream);
        assert!(answer.starts_with("HTTP/1.1 400"), "{garbage:?} got {answer}");
    }
    is_served(&vmm).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_head_of_a_megabyte_is_refused() {
    let vmm = Vmm::start().await;
    let mut stream = vmm.connect();
    let head = format!("GET /api/v1/vm HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20));
    // It may stop listening before it has all.
    let _ = stream.write_all(head.as_bytes());
    let answer = read_to_end(stream);
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    is_served(&vmm).await;
}

#[tokio::test(flavor = "current_thread")]
async fn half_a_request_holds_up_nobody_and_is_dropped() {
    let vmm = Vmm::start().await;
    let half_open: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = vmm.connect();
            stream.write_all(b"GET /api/v1/vm HT").expect("it listens");
            stream
        })
        .collect();
    is_served(&vmm).await;
    for stream in half_open {
        read_to_end(stream);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn half_a_body_is_answered_with_a_timeout() {
    let vmm = Vmm::start().await;
    let mut stream = vmm.connect();
    let head = "PUT /api/v1/vm HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("it listens");
    is_served(&vmm).await;
    let answer = read_to_end(stream);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains(r#""reason":"request_timeout""#), "{answer}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_that_never_reads_costs_only_itself() {
    let vmm = Vmm::start().await;
    let mut silent = vmm.connect();
    let request = b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    silent.set_nonblocking(true).expect("a socket");
    // Until neither side takes more.
    while silent.write_all(request).is_ok() {}
    is_served(&vmm).await;
}

#[tokio::test(flavor = "current_thread")]
async fn streams_are_bounded_and_leave_room_for_requests() {
    let vmm = Vmm::start().await;
    let client = vmm.client();
    let mut followers: Vec<Events> = Vec::new();
    let refused = loop {
        match client.events(0).await {
            Ok(events) => followers.push(events),
            Err(error) => break error,
        }
        assert!(followers.len() <= 64, "no bound");
    };
    let problem = refused.problem().expect("a problem document");
    assert_eq!((problem.status, problem.reason.name()), (503, "too_many_readers"));
    is_served(&vmm).await;
    followers.pop();
    // The place is free as soon as the process has noticed that the client is gone.
    let end = tokio::time::Instant::now() + DEADLINE;
    while client.events(0).await.is_err() {
        assert!(tokio::time::Instant::now() < end, "a place was never given back");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_hundred_silent_clients_do_not_hold_the_others_up() {
    let vmm = Vmm::start().await;
    let silent: Vec<_> = (0..100).map(|_| vmm.connect()).collect();
    let began = Instant::now();
    is_served(&vmm).await;
    assert!(began.elapsed() < Duration::from_secs(2), "served after {:?}", began.elapsed());
    // More than are ever kept: the oldest are let go, and the others are still served.
    let more: Vec<_> = (0..200).map(|_| vmm.connect()).collect();
    is_served(&vmm).await;
    assert!(read_to_end(silent.into_iter().next().expect("the first")).is_empty());
    drop(more);
}
