//! Process start → the API answers its first request.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::report::Row;
use crate::setup::Setup;
use crate::vmm::api_socket;

const DEADLINE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_micros(200);

/// Measures against QEMU's monitor protocol, which is the nearest thing it has.
pub fn measure(setup: &Setup, runs: usize) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut qemu) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(once(orlop(setup), &api_socket(setup), api_answers)?);
        let socket = setup.directory.path().join("qmp.sock");
        qemu.push(once(qemu_waiting(&socket), &socket, qmp_answers)?);
    }
    Ok(vec![Row::new("start", "ms", &ours, "QEMU microvm (QMP)", &qemu)])
}

fn orlop(setup: &Setup) -> Command {
    let mut command = Command::new(&setup.vmm);
    command.arg("serve").arg("--api-socket").arg(api_socket(setup));
    command
}

fn qemu_waiting(socket: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-M",
            "microvm,accel=kvm",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-S",
            "-m",
            "256",
        ])
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", socket.display()));
    command
}

fn once(mut command: Command, socket: &Path, answers: fn(UnixStream) -> bool) -> anyhow::Result<f64> {
    // What a process that was killed left behind would refuse connections, which looks like starting up.
    let _ = std::fs::remove_file(socket);
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let _ended = Ended(child);
    while started.elapsed() < DEADLINE {
        if UnixStream::connect(socket).is_ok_and(answers) {
            return Ok(started.elapsed().as_secs_f64() * 1000.0);
        }
        std::thread::sleep(RETRY);
    }
    bail!("{command:?} did not answer within {} s", DEADLINE.as_secs())
}

/// Killed when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn api_answers(mut stream: UnixStream) -> bool {
    let request = b"GET /api/v1/version HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
    stream.write_all(request).is_ok() && first_line(stream).starts_with("HTTP/1.1 200")
}

fn qmp_answers(mut stream: UnixStream) -> bool {
    let asked = stream.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").is_ok();
    asked && first_line(stream).contains("QMP")
}

fn first_line(stream: UnixStream) -> String {
    let mut line = String::new();
    // An error is no answer, and so is an empty line.
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}
