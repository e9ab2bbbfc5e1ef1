//! What a forbidden call leads to, shown by processes of their own: a filter is not to be undone.

use std::process::{Command, Output};

use super::kind::KINDS;
use super::{Jail, JailPolicy, Seccomp, ThreadKind};

/// Tells a process started by a test which kind of thread to become.
const ROLE: &str = "ORLOP_JAIL_TEST_KIND";

/// Runs the test `name` of this program again, as `kind`.
fn again(name: &str, kind: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture"]).env(ROLE, kind);
    // As in a VMM, where the jail comes before any other thread and its arena.
    command.env("MALLOC_ARENA_MAX", "1").output().unwrap()
}

fn jail() -> Jail {
    Jail::new(JailPolicy { seccomp: Seccomp::Enforce, landlock: true, sockets: vec![] }).unwrap()
}

fn role() -> Option<ThreadKind> {
    let name = std::env::var(ROLE).ok()?;
    KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
}

#[test]
fn a_forbidden_call_of_any_kind_of_thread_is_named() {
    if let Some(kind) = role() {
        jail().confine(kind).unwrap();
        // No thread of a VMM has a reason to open files once it is confined.
        let opened = std::fs::File::open("/dev/null");
        unreachable!("it was opened: {opened:?}");
    }
    for (_, name) in KINDS {
        let output = again("jail::tests::a_forbidden_call_of_any_kind_of_thread_is_named", name);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(crate::exit::FORBIDDEN_CALL)), "{name}: {said}");
        let line =
            format!("a thread of kind '{name}' made the system call openat (257), which it may not make");
        assert!(said.contains(&line), "{name}: {said}");
    }
}

#[test]
fn a_confined_thread_can_still_do_its_work() {
    if let Some(kind) = role() {
        jail().confine(kind).unwrap();
        let map: std::collections::HashMap<u32, Vec<u8>> = (0..64).map(|n| (n, vec![0; 1 << 16])).collect();
        let lock = std::sync::Mutex::new(map);
        assert_eq!(lock.lock().unwrap().len(), 64);
        assert!(std::time::Instant::now().elapsed() < std::time::Duration::MAX);
        return;
    }
    for (_, name) in KINDS {
        let output = again("jail::tests::a_confined_thread_can_still_do_its_work", name);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_closed_file_system_cannot_be_opened() {
    const NAME: &str = "jail::tests::a_closed_file_system_cannot_be_opened";
    if role().is_some() {
        let config = serde_json::json!({
            "name": "a",
            "memory": { "size_bytes": 1 << 20 },
            "boot": { "kernel": { "kernel": { "path": "/k" } } },
        });
        jail().close_files(&serde_json::from_value(config).unwrap()).unwrap();
        let refused = std::fs::File::open("/etc/passwd").map(drop).map_err(|e| e.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::PermissionDenied));
        return;
    }
    // A kernel without landlock closes nothing, and says so by not listing it.
    let lists = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if lists.contains("landlock") {
        let output = again(NAME, "main");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
