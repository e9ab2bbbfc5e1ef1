//! A process that has no machine yet.

use hyper::Method;
use orlop_api::BODY_MAX_BYTES;
use orlop_client::Body;
use serde_json::json;

use crate::document::Document;
use crate::process::{self, Vmm};

#[tokio::test(flavor = "current_thread")]
async fn what_looks_is_answered_and_as_described() {
    let vmm = Vmm::start().await;
    let client = vmm.client();
    let document = Document::of(&client).await;
    let info = document.ask(&client, (Method::GET, "/vm"), None, 200).await;
    assert_eq!(info["state"], "not_created");
    for path in ["/vm/devices", "/vm/vcpus"] {
        assert_eq!(document.ask(&client, (Method::GET, path), None, 200).await, json!([]), "{path}");
    }
    for path in ["/vm/log", "/metrics", "/openapi.json"] {
        document.ask(&client, (Method::GET, path), None, 200).await;
    }
    let version = document.ask(&client, (Method::GET, "/version"), None, 200).await;
    assert_eq!(version["name"], "orlop-vmm");
}

#[tokio::test(flavor = "current_thread")]
async fn what_needs_a_machine_is_refused_with_the_state_named() {
    let vmm = Vmm::start().await;
    let client = vmm.client();
    let document = Document::of(&client).await;
    let commands =
        ["boot", "pause", "resume", "power-button", "reset"].map(|name| (format!("/vm/{name}"), None));
    let target = Some(r#"{"target_bytes": 4096}"#);
    let puts = [
        ("/vm/balloon".to_owned(), target),
        ("/vm/devices/net0/link".to_owned(), Some(r#"{"up": true}"#)),
        ("/vm/devices/disk0/size".to_owned(), Some(r#"{"size_bytes": 4096}"#)),
    ];
    for (path, body) in commands.into_iter().chain(puts) {
        let method = if body.is_some() { Method::PUT } else { Method::POST };
        let problem = document.ask(&client, (method, &path), body, 409).await;
        assert_eq!(problem["reason"], "not_in_this_state", "{path}");
        assert_eq!(problem["state"], "not_created", "{path}");
        assert_eq!(problem["instance"], format!("/api/v1{path}"));
    }
    let error = client.console().await.expect_err("there is no console");
    assert_eq!(error.problem().map(|problem| problem.status), Some(409), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_bad_configuration_is_refused_with_the_field_named() {
    let vmm = Vmm::start().await;
    let client = vmm.client();
    let document = Document::of(&client).await;
    let mut config = json!({
        "name": "a",
        "memory": { "size_bytes": 16 << 20 },
        "boot": { "kernel": { "kernel": { "path": "/nonexistent/kernel" } } },
    });
    let put = (Method::PUT, "/vm");
    let problem = document.ask(&client, put.clone(), Some("{"), 400).await;
    assert_eq!(problem["reason"], "bad_body");
    config["memory"]["sise"] = json!(1);
    let problem = document.ask(&client, put.clone(), Some(&config.to_string()), 400).await;
    assert_eq!((&problem["reason"], &problem["field"]), (&json!("bad_body"), &json!("memory.sise")));
    config["memory"] = json!({ "size_bytes": 4097 });
    let problem = document.ask(&client, put.clone(), Some(&config.to_string()), 422).await;
    assert_eq!((&problem["reason"], &problem["field"]), (&json!("invalid"), &json!("memory.size_bytes")));
    config["memory"] = json!({ "size_bytes": 16 << 20 });
    let problem = document.ask(&client, put, Some(&config.to_string()), 500).await;
    assert_eq!(
        (&problem["reason"], &problem["field"]),
        (&json!("host_failure"), &json!("boot.kernel.kernel"))
    );
    let info = document.ask(&client, (Method::GET, "/vm"), None, 200).await;
    assert_eq!(info["state"], "not_created", "what was refused leaves nothing behind");
}

#[tokio::test(flavor = "current_thread")]
async fn bodies_are_declared_and_bounded() {
    let vmm = Vmm::start().await;
    let client = vmm.client();
    let document = Document::of(&client).await;
    for path in ["/vm", "/vm/balloon", "/vm/devices/net0/link", "/vm/devices/disk0/size"] {
        let form = Body { bytes: b"{}".to_vec(), content_type: "application/x-www-form-urlencoded" };
        let problem = document.ask_with(&client, (Method::PUT, path), Some(form), 415).await;
        assert_eq!(problem["reason"], "unsupported_media_type");
        let problem = document.ask(&client, (Method::PUT, path), Some(r#"{"no": 1}"#), 400).await;
        assert_eq!((&problem["reason"], &problem["field"]), (&json!("bad_body"), &json!("no")));
    }
    let large = " ".repeat(BODY_MAX_BYTES + 1);
    let problem = document.ask(&client, (Method::PUT, "/vm"), Some(&large), 413).await;
    assert_eq!(problem["reason"], "body_too_large");
    let problem = document.ask(&client, (Method::PUT, "/vm?bot=true"), Some("{}"), 400).await;
    assert_eq!(problem["reason"], "bad_request", "an unknown parameter is not ignored");
}

#[tokio::test(flavor = "current_thread")]
async fn unknown_paths_and_methods_are_problems_too() {
    let vmm = Vmm::start().await;
    let client = vmm.client();
    let document = Document::of(&client).await;
    let answer = client.request(Method::GET, "/vn", None).await.expect("it answers");
    assert_eq!((answer.status.as_u16(), answer.content_type.as_str()), (404, "application/problem+json"));
    document.check_named("Problem", &answer.json().expect("JSON"));
    let answer = client.request(Method::DELETE, "/vm", None).await.expect("it answers");
    assert_eq!((answer.status.as_u16(), answer.content_type.as_str()), (405, "application/problem+json"));
    document.check_named("Problem", &answer.json().expect("JSON"));
}

#[tokio::test(flavor = "current_thread")]
async fn shutting_down_ends_the_process_and_removes_its_socket() {
    let mut vmm = Vmm::start().await;
    let mut events = vmm.client().events(0).await.expect("a stream");
    vmm.client().shutdown().await.expect("it is allowed in every state");
    let last = events.next().await.expect("a whole stream").expect("an event");
    assert!(last.what.is_last(), "{last:?}");
    assert_eq!(events.next().await.expect("a whole stream"), None);
    assert_eq!(vmm.wait().code(), Some(20));
    assert!(!vmm.socket().exists());
}

#[tokio::test(flavor = "current_thread")]
async fn a_second_process_does_not_take_the_socket() {
    let vmm = Vmm::start().await;
    let output = process::serve(vmm.socket()).output().expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is in use by a running process"), "{said}");
    vmm.client().version().await.expect("the first one goes on");
}

#[tokio::test(flavor = "current_thread")]
async fn a_socket_that_listens_already_can_be_passed_in() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a fresh path");
    let mut process = std::process::Command::new("sh")
        .args(["-c", "exec \"$0\" serve --api-fd 3 3<&0 </dev/null"])
        .arg(orlop_kit::vmm())
        .stdin(std::os::fd::OwnedFd::from(listener))
        .spawn()
        .expect("it starts");
    let client = orlop_client::Client::new(&socket).with_timeout(process::DEADLINE);
    client.version().await.expect("it answers");
    client.shutdown().await.expect("it is allowed in every state");
    assert_eq!(process.wait().expect("it is our child").code(), Some(20));
    assert!(socket.exists(), "who made the file removes it");
}

#[tokio::test(flavor = "current_thread")]
async fn the_command_line_speaks_it() {
    let vmm = Vmm::start().await;
    let run = |arguments: &[&str]| process::api(vmm.socket(), arguments).output().expect("it starts");
    let output = run(&["GET", "/vm"]);
    assert_eq!(output.status.code(), Some(0));
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(info["state"], "not_created");
    let output = run(&["POST", "/vm/pause"]);
    assert_eq!(output.status.code(), Some(1));
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(problem["status"], 409);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not_created"));
    assert_eq!(run(&["GET"]).status.code(), Some(1));
    assert_eq!(run(&[]).status.code(), Some(2));
}
