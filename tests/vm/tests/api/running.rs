//! A machine that runs: every route, every answer that is described.

use std::path::PathBuf;

use hyper::Method;
use orlop_api::config::VmConfig;
use orlop_api::event::EventKind;
use orlop_client::{Client, Console};
use orlop_kit::Tap;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::document::Document;
use crate::guest;
use crate::process::{DEADLINE, Vmm};

/// Answers that take a client or a host which misbehave (`hostile` provokes them), or a process with descriptors (the
/// target `buses`).
const PROVOKED_ELSEWHERE: [&str; 4] = [
    "GET /api/v1/events 503",
    "GET /api/v1/vm/console 503",
    "PUT /api/v1/vm 408",
    "PUT /api/v1/vm/devices/{id}/medium 204",
];

/// A process with a configuration for its machine.
async fn machine(more: serde_json::Value) -> (Vmm, VmConfig) {
    let vmm = Vmm::start().await;
    let kernel = vmm.directory().join("guest");
    guest::write(&kernel);
    let config = guest::config(&kernel, more);
    (vmm, config)
}

async fn read_until(console: &mut Console, end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).ends_with(end) {
            let byte = console.read_u8().await.expect("the console goes on");
            text.push(byte);
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("in time");
    String::from_utf8(text).expect("ASCII")
}

async fn booted(more: serde_json::Value) -> (Vmm, Client, Console) {
    let (vmm, config) = machine(more).await;
    let client = vmm.client();
    client.create(&config, true).await.expect("it boots");
    let mut console = client.console().await.expect("it has one");
    assert_eq!(read_until(&mut console, "ok\n").await, "ok\n");
    (vmm, client, console)
}

#[tokio::test(flavor = "current_thread")]
async fn every_described_answer_can_be_had_and_is_as_described() {
    let tap = Tap::new("api0", "10.98.0.1/24", "").await;
    let nets = json!([{ "id": "net0", "tap": { "name": tap.name() } }]);
    let iso = tempfile::NamedTempFile::new().expect("a file");
    iso.as_file().set_len(1 << 20).expect("room for it");
    let source = json!({ "path": iso.path() });
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(1 << 20).expect("room for it");
    let disks = json!([
        { "id": "cd", "source": source, "bus": "scsi", "cdrom": {} },
        { "id": "disk0", "source": { "path": image.path() } },
    ]);
    let more = json!({ "balloon": {}, "rng": {}, "nets": nets, "disks": disks });
    let (mut vmm, config) = machine(more).await;
    let client = vmm.client();
    let document = Document::of(&client).await;
    let json = serde_json::to_string(&config).expect("plain data");
    let ask = async |method: Method, path: &str, body: Option<&str>, status: u16| {
        document.ask(&client, (method, path), body, status).await
    };
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);

    for command in ["boot", "pause", "resume", "power-button", "reset"] {
        ask(post.clone(), &format!("/vm/{command}"), None, 409).await;
    }
    let (medium, delete) = ("/vm/devices/cd/medium", Method::DELETE);
    for path in ["/vm", "/vm/balloon", "/vm/devices/net0/link", "/vm/devices/disk0/size", medium] {
        ask(put.clone(), path, Some("{"), 400).await;
        let form = orlop_client::Body { bytes: vec![], content_type: "text/plain" };
        document.ask_with(&client, (put.clone(), path), Some(form), 415).await;
    }
    ask(put.clone(), "/vm/devices/net0/link", Some(r#"{"up":true}"#), 409).await;
    ask(put.clone(), "/vm/devices/disk0/size", Some(r#"{"size_bytes":4096}"#), 409).await;
    ask(put.clone(), "/vm/balloon", Some(r#"{"target_bytes":0}"#), 409).await;
    ask(put.clone(), medium, Some(r#"{"fd":"iso"}"#), 409).await;
    ask(delete.clone(), medium, None, 409).await;
    ask(put.clone(), "/vm", Some(&" ".repeat(orlop_api::BODY_MAX_BYTES + 1)), 413).await;
    ask(put.clone(), "/vm", Some(&json.replace(r#""tiny""#, r#""TINY""#)), 422).await;
    let no_disk = json.replace(&iso.path().display().to_string(), "/nonexistent/disk");
    ask(put.clone(), "/vm", Some(&no_disk), 500).await;
    ask(get.clone(), "/vm/console", None, 426).await;
    assert_eq!(
        client.console().await.expect_err("no machine").problem().map(|problem| problem.status),
        Some(409)
    );
    document.note(get.clone(), "/vm/console", 409);

    let info = ask(put.clone(), "/vm", Some(&json), 201).await;
    assert_eq!(info["state"], "created");
    ask(put.clone(), "/vm", Some(&json), 409).await;
    ask(post.clone(), "/vm/boot", None, 204).await;
    let mut console = client.console().await.expect("it has one");
    document.note(get.clone(), "/vm/console", 101);
    assert_eq!(read_until(&mut console, "ok\n").await, "ok\n");

    for path in ["/vm", "/vm/devices", "/vm/vcpus", "/vm/log", "/metrics", "/version", "/openapi.json"] {
        ask(get.clone(), path, None, 200).await;
    }
    ask(put.clone(), "/vm/balloon", Some(r#"{"target_bytes":4096}"#), 204).await;
    ask(put.clone(), "/vm/balloon", Some(r#"{"target_bytes":4095}"#), 422).await;
    ask(put.clone(), "/vm/devices/net0/link", Some(r#"{"up":false}"#), 204).await;
    ask(put.clone(), "/vm/devices/net1/link", Some(r#"{"up":true}"#), 404).await;
    ask(put.clone(), medium, Some(r#"{"fd":"iso"}"#), 422).await;
    ask(put.clone(), "/vm/devices/dvd/medium", Some(r#"{"fd":"iso"}"#), 404).await;
    ask(delete.clone(), "/vm/devices/dvd/medium", None, 404).await;
    ask(delete.clone(), "/vm/devices/net0/medium", None, 409).await;
    ask(delete.clone(), &format!("{medium}?force=true"), None, 204).await;
    ask(put.clone(), "/vm/devices/net0/size", Some(r#"{"size_bytes":4096}"#), 409).await;
    ask(put.clone(), "/vm/devices/disk9/size", Some(r#"{"size_bytes":4096}"#), 404).await;
    ask(put.clone(), "/vm/devices/disk0/size", Some(r#"{"size_bytes":4096}"#), 422).await;
    ask(put.clone(), "/vm/devices/disk0/size", Some(r#"{"size_bytes":2097152}"#), 204).await;
    for command in ["power-button", "pause", "resume", "reset"] {
        ask(post.clone(), &format!("/vm/{command}"), None, 204).await;
    }
    check_events(&client, &document).await;
    ask(post, "/vm/shutdown", None, 204).await;
    assert_eq!(vmm.wait().code(), Some(20));

    check_lacking(&document).await;
    let unseen: Vec<String> =
        document.unseen().into_iter().filter(|name| !PROVOKED_ELSEWHERE.contains(&name.as_str())).collect();
    assert!(unseen.is_empty(), "described, but never seen: {unseen:?}");
}

/// Every event so far is as described.
async fn check_events(client: &Client, document: &Document) {
    let mut events = client.events(0).await.expect("a stream");
    document.note(Method::GET, "/events", 200);
    let expected = [
        "created",
        "booted",
        "balloon_target",
        "link",
        "medium_ejected",
        "disk_size",
        "power_button",
        "paused",
        "resumed",
        "reset",
    ];
    for (name, seq) in expected.into_iter().zip(1..) {
        let event = events.next().await.expect("a whole stream").expect("an event");
        document.check_named("Event", &serde_json::to_value(&event).expect("plain data"));
        assert_eq!((event.what.name(), event.seq), (name, seq));
    }
    let bad = tokio::net::UnixStream::connect(client.socket()).await.expect("it listens");
    let (mut from, mut to) = bad.into_split();
    let request = b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\nlast-event-id: x\r\nconnection: close\r\n\r\n";
    to.write_all(request).await.expect("it listens");
    let mut answer = String::new();
    from.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    document.note(Method::GET, "/events", 400);
}

/// Answers of a machine without balloon, network card, serial port.
async fn check_lacking(document: &Document) {
    let (vmm, config) = machine(json!({ "serial": { "enabled": false } })).await;
    let client = vmm.client();
    client.create(&config, false).await.expect("it is built");
    let put = Method::PUT;
    let problem =
        document.ask(&client, (put.clone(), "/vm/balloon"), Some(r#"{"target_bytes":0}"#), 404).await;
    assert_eq!(problem["reason"], "no_such_device");
    let error = client.console().await.expect_err("it has none");
    assert_eq!(error.problem().map(|problem| problem.reason.name()), Some("not_configured"), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn the_console_goes_both_ways_for_several_and_survives_a_reconnect() {
    let (_vmm, client, mut one) = booted(json!({})).await;
    let mut two = client.console().await.expect("a second reader");
    one.write_all(b"hello ").await.expect("it takes input");
    assert_eq!(read_until(&mut one, "hello ").await, "hello ");
    assert_eq!(read_until(&mut two, "hello ").await, "ok\nhello ");
    drop(one);
    two.write_all(b"again.").await.expect("it takes input");
    assert_eq!(read_until(&mut two, ".").await, "again.");
    let mut late = client.console().await.expect("a reader that comes back");
    assert_eq!(read_until(&mut late, ".").await, "ok\nhello again.");
    assert_eq!(client.log().await.expect("a log"), b"ok\nhello again.");
}

#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_never_reads_is_no_burden() {
    let (_vmm, client, mut console) = booted(json!({ "serial": { "backlog_bytes": 4096 } })).await;
    let _never_reads = client.console().await.expect("a second reader");
    // More than the backlog holds; bytes that come one by one fill a socket's buffer soon.
    let line = [b'x'; 1023];
    for _ in 0..6 {
        console.write_all(&line).await.expect("it takes input");
        console.write_all(b"\n").await.expect("it takes input");
        read_until(&mut console, "\n").await;
    }
    client.info().await.expect("the process lives");
}

#[tokio::test(flavor = "current_thread")]
async fn a_paused_machine_names_its_state_and_keeps_its_console() {
    let (_vmm, client, mut console) = booted(json!({})).await;
    client.pause().await.expect("it runs");
    let problem = client.pause().await.expect_err("it is paused").problem().cloned().expect("a problem");
    assert_eq!(problem.state.map(|state| state.name()), Some("paused"));
    console.write_all(b"later").await.expect("it waits for the guest");
    client.resume().await.expect("it is paused");
    assert_eq!(read_until(&mut console, "later").await, "later");
    client.reset().await.expect("it runs");
    assert_eq!(read_until(&mut console, "ok\n").await, "ok\n", "the console survives a reset");
    assert_eq!(client.info().await.expect("an answer").resets, 1);
}

#[tokio::test(flavor = "current_thread")]
async fn events_resume_where_a_client_left_off() {
    let (mut vmm, client, _console) = booted(json!({})).await;
    let mut events = client.events(1).await.expect("a stream");
    assert_eq!(events.next().await.expect("whole").map(|event| event.what), Some(EventKind::Booted));
    drop(events);
    client.pause().await.expect("it runs");
    let mut events = client.events(2).await.expect("a stream");
    assert_eq!(
        events.next().await.expect("whole").map(|event| (event.seq, event.what)),
        Some((3, EventKind::Paused))
    );
    client.shutdown().await.expect("in every state");
    let last = events.next().await.expect("whole").expect("an event");
    assert!(last.what.is_last(), "{last:?}");
    assert_eq!(events.next().await.expect("whole"), None);
    vmm.wait();
}

#[tokio::test(flavor = "current_thread")]
async fn a_kernel_that_is_none_is_refused_by_its_field() {
    let vmm = Vmm::start().await;
    let path: PathBuf = vmm.directory().join("not-a-kernel");
    std::fs::write(&path, "hello").expect("a writable directory");
    let error =
        vmm.client().create(&guest::config(&path, json!({})), true).await.expect_err("it is no kernel");
    let problem = error.problem().expect("a problem document");
    assert_eq!(problem.field.as_deref(), Some("boot.kernel.kernel"), "{problem}");
}
