//! The socket device.

use orlop_api::config::{VmConfig, VsockConfig};
use orlop_api::device::DeviceKind;
use orlop_virtio_vsock::build;

use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

/// Context identifiers that a guest may have: those below are the hypervisor's, the loop's and the host's, the last
/// one is "any" (virtio 1.3 §5.10.4).
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;
/// What a port adds to the socket's path: `_` and ten digits.
const PORT_SUFFIX_BYTES: usize = 11;

#[derive(Debug)]
struct Vsock {
    cid: u32,
    socket: String,
}

/// The device, where the configuration has one.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    config.vsock.iter().map(wanted).collect()
}

fn wanted(vsock: &VsockConfig) -> Result<Wanted, PlanError> {
    let cid = vsock.cid;
    check::ensure(CIDS.contains(&cid), "vsock.cid", || {
        format!("{cid} is not between {} and {}", CIDS.start(), CIDS.end())
    })?;
    check::socket(&vsock.socket, "vsock.socket", PORT_SUFFIX_BYTES)?;
    let spec = Box::new(Vsock { cid, socket: vsock.socket.clone() });
    Ok(Wanted { id: "vsock".to_owned(), field: "vsock".to_owned(), kind: DeviceKind::Vsock, spec })
}

impl Spec for Vsock {
    fn build(self: Box<Self>, _files: &mut Files) -> Result<Built, DeviceError> {
        let Self { cid, socket } = *self;
        let config = orlop_virtio_vsock::VsockConfig {
            name: "vsock".to_owned(),
            guest_cid: cid,
            socket: socket.into(),
        };
        let parts = build(config).map_err(DeviceError::of)?;
        Ok(Built::virtio(parts, Controls::default()))
    }
}
