//! The console device with named ports (virtio 1.3 §5.3): byte streams between programs in the guest and unix sockets
//! on the host, such as `org.qemu.guest_agent.0`.
//!
//! ```text
//!   guest program ─ /dev/virtio-ports/NAME ─ transmitq ─▶ Port ─▶ unix socket ─ one host peer
//!                                            receiveq  ◀─      ◀─
//! ```
//!
//! Nothing is buffered here: what the guest sends stays in its own memory until the peer takes it, and what the peer
//! sends stays in its socket until the guest has room. So a peer that does not read stalls its own port and nothing
//! else, and a guest that does not read stalls that peer.
//!
//! Port 0 belongs to drivers that know no named ports; nobody listens there. The named ports count from 1.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod backend;
mod control;
mod device;
mod listen;
mod peer;
mod port;
mod shared;
mod state;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use orlop_virtio::{Parts, QueueSet};

use backend::Ports;
use device::Console;
use shared::Shared;

pub use listen::ListenError;
pub use state::{ConsoleState, PortState};

/// The most named ports.
pub const PORTS_MAX: usize = 31;
/// The longest name of a port in bytes.
pub const NAME_MAX_BYTES: usize = 64;

/// Where a port's host peer connects.
#[derive(Debug)]
pub enum Socket {
    /// A path to listen at. A socket that nobody listens on any more is replaced.
    Path(PathBuf),
    /// Somebody else listens already.
    Listener(UnixListener),
}

/// A named port.
#[derive(Debug)]
pub struct PortConfig {
    /// How the guest finds it: `/dev/virtio-ports/NAME` on Linux.
    pub name: String,
    /// Where its host peer connects.
    pub socket: Socket,
}

/// What a console is made of.
#[derive(Debug)]
pub struct Config {
    /// Its name on the host, for example `console0`: names its thread, at most 15 bytes.
    pub name: String,
    /// The named ports, 1 to [`PORTS_MAX`].
    pub ports: Vec<PortConfig>,
}

/// Why a console cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Too many ports, or none.
    #[error("a console has 1 to {PORTS_MAX} ports, not {0}")]
    Ports(usize),
    /// Empty, too long, or with characters that no device file has.
    #[error("the port name '{0}' is not 1 to {NAME_MAX_BYTES} printable characters without '/' and spaces")]
    PortName(String),
    /// Two ports of one name.
    #[error("there are two ports by the name '{0}'")]
    Twice(String),
    /// The thread could not be named.
    #[error("the console's name '{0}' is longer than 15 bytes")]
    Name(String),
    /// A port's socket cannot be had.
    #[error("port '{port}': {source}")]
    Listen {
        /// The port's name.
        port: String,
        /// Why.
        source: ListenError,
    },
    /// The host has no more descriptors.
    #[error("cannot create an event file for the console: {0}")]
    Event(std::io::Error),
}

/// A port as it is at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// A program in the guest has it open.
    pub guest_open: bool,
    /// A host peer is connected.
    pub connected: bool,
}

/// The host's view of a running device.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The named ports in order.
    pub fn ports(&self) -> Vec<PortInfo> {
        self.0.ports()
    }

    /// What it counted since power-on, as [`orlop_virtio::Device::counters`].
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters.list()
    }
}

/// Builds the device. Every listener is there when this returns.
pub fn build(config: Config) -> Result<(Parts, Handle), BuildError> {
    let Config { name, ports } = config;
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(BuildError::Ports(ports.len()));
    }
    if name.len() > 15 {
        return Err(BuildError::Name(name));
    }
    let mut names: Vec<String> = Vec::new();
    let mut listeners = Vec::new();
    for PortConfig { name, socket } in ports {
        check_name(&name, &names)?;
        let listener =
            listen::listen(socket).map_err(|source| BuildError::Listen { port: name.clone(), source })?;
        listeners.push(listener);
        names.push(name);
    }
    let shared = Arc::new(Shared::new(names));
    let backend = Ports::new(listeners, Arc::clone(&shared)).map_err(BuildError::Event)?;
    let device = Console::new(Arc::clone(&shared));
    let set = QueueSet { name, queues: (0..device.queue_count()).collect(), backend: Box::new(backend) };
    Ok((Parts { device: Box::new(device), sets: vec![set] }, Handle(shared)))
}

fn check_name(name: &str, before: &[String]) -> Result<(), BuildError> {
    let printable = name.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '/');
    if name.is_empty() || name.len() > NAME_MAX_BYTES || !printable {
        return Err(BuildError::PortName(name.to_owned()));
    }
    if before.iter().any(|other| other == name) {
        return Err(BuildError::Twice(name.to_owned()));
    }
    Ok(())
}
