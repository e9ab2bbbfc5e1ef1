//! The virtio console with its named ports.

use orlop_api::config::{ConsoleConfig, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_virtio_console::{Config, NAME_MAX_BYTES, PORTS_MAX, PortConfig, Socket, build};

use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

#[derive(Debug)]
struct Console {
    /// Names and sockets of the ports.
    ports: Vec<(String, String)>,
}

/// The console, where the configuration has one.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    config.console.iter().map(wanted).collect()
}

fn wanted(console: &ConsoleConfig) -> Result<Wanted, PlanError> {
    let count = console.ports.len();
    check::ensure((1..=PORTS_MAX).contains(&count), "console.ports", || {
        format!("{count} ports: there must be 1 to {PORTS_MAX}")
    })?;
    let mut ports: Vec<(String, String)> = Vec::new();
    for (index, port) in console.ports.iter().enumerate() {
        let (name, field) = (&port.name, format!("console.ports[{index}].name"));
        let printable = name.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '/');
        check::ensure((1..=NAME_MAX_BYTES).contains(&name.len()) && printable, &field, || {
            format!("'{name}' is not 1 to {NAME_MAX_BYTES} printable characters without '/' and spaces")
        })?;
        check::ensure(!ports.iter().any(|(other, _)| other == name), &field, || {
            format!("'{name}' is the name of another port already")
        })?;
        check::socket(&port.socket, &format!("console.ports[{index}].socket"), 0)?;
        ports.push((name.clone(), port.socket.clone()));
    }
    let spec = Box::new(Console { ports });
    Ok(Wanted { id: "console".to_owned(), field: "console".to_owned(), kind: DeviceKind::Console, spec })
}

impl Spec for Console {
    fn build(self: Box<Self>, _files: &mut Files) -> Result<Built, DeviceError> {
        let port = |(name, path): (String, String)| PortConfig { name, socket: Socket::Path(path.into()) };
        let ports = self.ports.into_iter().map(port).collect();
        let config = Config { name: "console".to_owned(), ports };
        let (parts, _handle) = build(config).map_err(DeviceError::of)?;
        Ok(Built::virtio(parts, Controls::default()))
    }
}
