//! The job agent of the virtual node: carries out what arrives on its virtio-serial ports.
//!
//! It also holds KVM's static keys (see [`hold`]) and powers the node off when the process that started it is gone.

mod hold;
mod port;
mod process;

use std::path::PathBuf;
use std::{fs, io, thread};

use orlop_nested::wire::{LIFELINE, PORTS, port_name};
use rustix::system::{RebootCommand, reboot};

fn main() -> io::Result<()> {
    let _held =
        hold::static_keys().inspect_err(|e| eprintln!("orlop-node: failed to hold KVM's static keys: {e}"));
    let mut threads = Vec::new();
    for n in 0..PORTS {
        let device = find_port(&port_name(n))?;
        threads.push(thread::spawn(move || port::serve(&device)));
    }
    if fs::read_to_string("/proc/cmdline")?.contains("orlop.lifeline=1") {
        let device = find_port(LIFELINE)?;
        thread::spawn(move || {
            let reason = port::wait_for_hangup(&device);
            eprintln!("orlop-node: powering off, because whoever started this node is gone ({reason:?})");
            if let Err(e) = reboot(RebootCommand::PowerOff) {
                eprintln!("orlop-node: failed to power off: {e}");
            }
        });
    }
    println!("orlop-node: ready");
    for thread in threads {
        if let Ok(Err(e)) = thread.join() {
            eprintln!("orlop-node: a job port failed: {e}");
        }
    }
    Ok(())
}

/// The device of the virtio-serial port with this name. There is no udev to make links by name.
fn find_port(name: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio-serial port is called {name}")))
}
