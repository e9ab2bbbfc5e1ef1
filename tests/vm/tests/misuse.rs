//! Bad configurations, bad files, a host that lacks something, clients that talk nonsense: one clear sentence each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orlop_kit::{Guest, KernelKind, PATIENCE, Vm, host, image, scratch, vmm};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Exit codes of `orlop-vmm` (`orlop-vmm --help`).
const USAGE: i32 = 2;
const BAD_CONFIG: i32 = 3;
const NO_KVM: i32 = 4;
const HOST: i32 = 5;

/// A place for configurations and broken files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir_in(scratch()).expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs the machine that `config` describes, by `starter`: exit code and standard error.
    async fn run_by(&self, starter: &str, config: &Value) -> (i32, String) {
        let file = self.path("config.json");
        std::fs::write(&file, config.to_string()).expect("a file");
        let command = format!(
            "{starter} timeout 60 {} run --no-console --config {} </dev/null; code=$?; echo; echo $code",
            vmm().display(),
            file.display()
        );
        let output = host(&command).await;
        let (stderr, code) = output.rsplit_once('\n').unwrap_or(("", &output));
        (code.parse().expect("an exit code"), stderr.trim().to_owned())
    }

    /// Expects `config` to be refused with `code`, by one sentence that has all of `words`.
    async fn refused(&self, config: &Value, code: i32, words: &[&str]) {
        self.refused_by("", config, code, words).await;
    }

    async fn refused_by(&self, starter: &str, config: &Value, code: i32, words: &[&str]) {
        let (found, sentence) = self.run_by(starter, config).await;
        assert_eq!(found, code, "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "one sentence: {sentence}");
        assert!(sentence.starts_with("orlop-vmm: "), "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "no '{word}' in: {sentence}");
        }
    }
}

/// The small guest's configuration, to be broken.
fn config() -> Value {
    serde_json::to_value(Guest::linux(KernelKind::BzImage).config).expect("plain data")
}

/// The same with `value` at the JSON pointer `pointer`, whose last part may be new.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = config();
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    config.pointer_mut(parent).expect("the part before it")[last] = value;
    config
}

fn disk(source: &Path) -> Value {
    json!([{ "id": "disk0", "source": { "path": source } }])
}

#[tokio::test]
async fn a_configuration_with_a_mistake_is_refused_naming_the_field() {
    let place = Place::new();
    let cases = [
        (with("/memory/sise_bytes", json!(1)), "memory.sise_bytes"),
        (with("/memory/size_bytes", json!("much")), "memory.size_bytes"),
        (with("/memory/size_bytes", json!(4097)), "memory.size_bytes"),
        (with("/memory/size_bytes", json!(1_u64 << 60)), "memory.size_bytes"),
        (with("/cpus", json!({ "sockets": 0 })), "cpus"),
        (with("/cpus", json!({ "sockets": 8, "cores": 9 })), "cpus"),
        (with("/name", json!("")), "name"),
        (with("/uuid", json!("1234")), "uuid"),
        (with("/serial/backlog_bytes", json!(1)), "serial.backlog_bytes"),
        (with("/boot/kernel/kernel", json!({ "path": "relative" })), "boot.kernel.kernel"),
        (with("/boot/kernel/kernel", json!({ "fd": "nobody" })), "boot.kernel.kernel"),
        (
            with("/disks", json!([{ "id": "a", "source": { "path": "/d" }, "queue_size": 3 }])),
            "disks[0].queue_size",
        ),
        (with("/disks", json!([{ "id": "a", "source": { "path": "/d" }, "queues": 65 }])), "disks[0].queues"),
        (
            with(
                "/disks",
                json!([{ "id": "a", "source": { "path": "/d" }, "serial": "123456789012345678901" }]),
            ),
            "disks[0].serial",
        ),
        (
            with(
                "/disks",
                json!([{ "id": "a", "source": { "path": "/d" }, "bandwidth_limit": { "per_second": 0 } }]),
            ),
            "disks[0].bandwidth_limit.per_second",
        ),
        (
            with(
                "/disks",
                json!([{ "id": "a", "source": { "path": "/d" } }, { "id": "a", "source": { "path": "/e" } }]),
            ),
            "disks[1].id",
        ),
        (with("/nets", json!([{ "id": "n", "tap": { "name": "t" }, "mac": "52:54" }])), "nets[0].mac"),
        (
            with("/nets", json!([{ "id": "n", "tap": { "name": "t" }, "mac": "01:00:00:00:00:01" }])),
            "nets[0].mac",
        ),
        (with("/nets", json!([{ "id": "n", "tap": { "name": "t" }, "mtu": 67 }])), "nets[0].mtu"),
        (
            with("/nets", json!([{ "id": "n", "tap": { "name": "t" }, "queue_pairs": 33 }])),
            "nets[0].queue_pairs",
        ),
        (with("/vsock", json!({ "cid": 2, "socket": "/s" })), "vsock.cid"),
        (with("/vsock", json!({ "cid": 3, "socket": format!("/{}", "s".repeat(108)) })), "vsock.socket"),
        (with("/console", json!({ "ports": [] })), "console.ports"),
        (with("/balloon", json!({ "target_bytes": 1 })), "balloon.target_bytes"),
    ];
    for (config, field) in cases {
        let (code, sentence) = place.run_by("", &config).await;
        let expected =
            if field.ends_with("kernel.kernel") && sentence.contains("--fd") { HOST } else { BAD_CONFIG };
        assert_eq!(code, expected, "{field}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{field}: {sentence}");
        assert!(sentence.contains(&format!("{field}: ")), "{field}: {sentence}");
    }
}

#[tokio::test]
async fn a_configuration_that_is_missing_or_no_json_is_named() {
    let place = Place::new();
    let run = async |arguments: &str| {
        host(&format!("{} run --no-console {arguments} </dev/null; echo $?", vmm().display())).await
    };
    let missing = run(&format!("--config {}", place.text("missing.json"))).await;
    assert!(
        missing.contains(&place.text("missing.json")) && missing.ends_with(&format!("\n{HOST}")),
        "{missing}"
    );
    std::fs::write(place.path("bad.json"), "{").expect("a file");
    let bad = run(&format!("--config {}", place.text("bad.json"))).await;
    assert!(bad.contains(&place.text("bad.json")) && bad.ends_with(&format!("\n{BAD_CONFIG}")), "{bad}");
    let usage = run("--config").await;
    assert!(usage.ends_with(&format!("\n{USAGE}")), "{usage}");
}

#[tokio::test]
async fn a_kernel_that_is_none_is_refused_by_name_and_reason() {
    let place = Place::new();
    host(&format!("head -c 100K /dev/urandom >{}", place.text("noise"))).await;
    host(&format!("head -c 1M {} >{}", image("bzImage").display(), place.text("short-bz"))).await;
    host(&format!("head -c 1M {} >{}", image("vmlinux").display(), place.text("short-elf"))).await;
    host(&format!("mkdir {}; touch {}", place.text("directory"), place.text("empty"))).await;
    let kernel = |name: &str| with("/boot/kernel/kernel", json!({ "path": place.path(name) }));
    for (name, code) in [
        ("missing", HOST),
        ("noise", BAD_CONFIG),
        ("short-bz", BAD_CONFIG),
        ("short-elf", BAD_CONFIG),
        ("empty", BAD_CONFIG),
        ("directory", BAD_CONFIG),
    ] {
        let (found, sentence) = place.run_by("", &kernel(name)).await;
        assert_eq!(found, code, "{name}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{name}: {sentence}");
        assert!(sentence.contains("boot.kernel.kernel: "), "{name}: {sentence}");
    }
    let small = with("/memory/size_bytes", json!(4 << 20));
    place.refused(&small, BAD_CONFIG, &["memory.size_bytes: "]).await;
    let long = with("/boot/kernel/cmdline", json!("x".repeat(2048)));
    place.refused(&long, BAD_CONFIG, &["boot.kernel.cmdline: ", "2048", "2047"]).await;
    let no_note = Guest::kernel(image("bzImage"), "").with(|config| {
        let orlop_api::config::BootConfig::Kernel(kernel) = &mut config.boot else { panic!("a kernel") };
        kernel.initramfs = Some(orlop_kit::path(place.path("missing")));
    });
    let no_initramfs = serde_json::to_value(no_note.config).expect("plain data");
    place.refused(&no_initramfs, HOST, &["boot.kernel.initramfs: ", &place.text("missing")]).await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_had_is_named_with_the_reason() {
    let place = Place::new();
    host(&format!("mkdir {}; touch {}", place.text("directory"), place.text("empty"))).await;
    host(&format!("mkfifo {}; truncate -s 1M {1}; chmod 400 {1}", place.text("pipe"), place.text("mine")))
        .await;
    for (name, reason) in
        [("missing", "does not exist"), ("directory", "a directory"), ("empty", "is empty"), ("pipe", "pipe")]
    {
        let config = with("/disks", disk(&place.path(name)));
        place.refused(&config, HOST, &["disks[0]: ", &place.text(name), reason]).await;
    }
    // A user without privileges, and a file of root.
    host(&format!("chmod 755 {}", place.0.path().display())).await;
    let nobody = "sh -c 'exec 8<>/dev/kvm; exec setpriv --reuid=107 --regid=107 --clear-groups --bounding-set=-all \
                  --inh-caps=-all \"$@\" --fd kvm=8' sh";
    let config = with("/disks", disk(&place.path("mine")));
    place.refused_by(nobody, &config, HOST, &["disks[0]: ", &place.text("mine"), "permission", "107"]).await;
}

#[tokio::test]
async fn a_tap_that_cannot_be_had_is_named_with_the_reason() {
    let place = Place::new();
    let tap = |name: &str| with("/nets", json!([{ "id": "net0", "tap": { "name": name } }]));
    place.refused(&tap("orlopnone"), HOST, &["nets[0]: ", "orlopnone", "no such interface"]).await;
    place.refused(&tap("lo"), HOST, &["nets[0]: ", "'lo' is not a tap"]).await;
}

#[tokio::test]
async fn a_host_without_kvm_is_told_what_is_missing() {
    let place = Place::new();
    let hide = "unshare --mount sh -c 'mount --bind /dev/null /dev/kvm && exec \"$@\"' sh";
    place.refused_by(hide, &config(), NO_KVM, &["/dev/kvm"]).await;
    let remove = "unshare --mount sh -c 'mount -t tmpfs tmpfs /dev && exec \"$@\"' sh";
    place.refused_by(remove, &config(), NO_KVM, &["/dev/kvm"]).await;
    host(&format!("chmod 755 {}", place.0.path().display())).await;
    let forbid = "unshare --mount sh -c 'mount -t tmpfs tmpfs /dev && mknod -m 600 /dev/kvm c 10 232 && mknod -m 666 \
                  /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec setpriv --reuid=107 --regid=107 --clear-groups \"$@\"' sh";
    place.refused_by(forbid, &config(), NO_KVM, &["/dev/kvm", "permission"]).await;
}

#[tokio::test]
async fn a_machine_that_nobody_watches_runs_to_its_end() {
    let place = Place::new();
    let guest = Guest::linux(KernelKind::BzImage).script("true");
    let (code, stderr) = place.run_by("", &serde_json::to_value(guest.config).expect("plain data")).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[tokio::test]
async fn a_refused_machine_leaves_a_process_that_takes_the_next() {
    let vm = Vm::process(&[]).await;
    let guest = Guest::linux(KernelKind::BzImage).script("true");
    let broken = guest.clone().disk("disk0", vm.file("missing"));
    for _ in 0..3 {
        let refused = vm.client.create(&broken.config, true).await.expect_err("there is no such disk");
        assert_eq!(refused.problem().expect("a problem").field.as_deref(), Some("disks[0]"));
    }
    let mut vm = vm;
    vm.start(&guest).await;
    assert_eq!(vm.exit().await.code, Some(0));
}

/// Sends `bytes` and reads the status line of what comes back, empty where nothing does.
async fn raw(vm: &Vm, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(vm.client.socket()).await.expect("the VMM listens");
    // It may hang up in the middle.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer or the end");
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn clients_that_talk_nonsense_hurt_nobody() {
    let mut vm = Vm::shell(&Guest::linux(KernelKind::BzImage)).await;
    // Slow ones that never finish their request stay throughout.
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = UnixStream::connect(vm.client.socket()).await.expect("the VMM listens");
        stream.write_all(b"GET /api/v1/vm HTTP/1.1\r\nHost: ").await.expect("it is taken");
        slow.push(stream);
    }
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let header =
        [b"GET /api/v1/vm HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n\r\n".to_vec()].concat();
    let cases: [(&[u8], &[&str]); 7] = [
        (&noise, &["HTTP/1.1 400 Bad Request", ""]),
        (&header, &["HTTP/1.1 431 Request Header Fields Too Large", "HTTP/1.1 400 Bad Request", ""]),
        (b"GET /api/v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &["HTTP/1.1 404 Not Found"]),
        (b"DELETE /api/v1/vm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &["HTTP/1.1 405 Method Not Allowed"]),
        (
            b"PUT /api/v1/vm HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
            &["HTTP/1.1 415 Unsupported Media Type"],
        ),
        (
            b"PUT /api/v1/vm/balloon HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
              Content-Length: 7\r\n\r\n[1,2,3}",
            &["HTTP/1.1 400 Bad Request"],
        ),
        (b"GET /api/v1/vm/console HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &["HTTP/1.1 426 Upgrade Required"]),
    ];
    for (bytes, expected) in cases {
        let status = raw(&vm, bytes).await;
        assert!(
            expected.contains(&status.as_str()),
            "'{status}' to {}",
            String::from_utf8_lossy(&bytes[..60.min(bytes.len())])
        );
    }
    let quick = vm.client.clone().with_timeout(Duration::from_secs(5));
    quick.info().await.expect("others are served");
    assert_eq!(vm.run("echo alive").await, "alive");
    drop(slow);
}
