//! A card on a bridge of the machine: its tap is the bridge's port.

use std::io;
use std::os::fd::OwnedFd;

use super::plan::{self, BridgeSpec};
use super::{NetError, link};

/// How many names of the tap are tried.
const ATTEMPTS: u16 = 16;
/// Where the bridge's MTU cannot be used, in bytes: Ethernet's.
const MTU: u16 = 1500;

/// A tap on a bridge; it goes away with its descriptors.
pub struct Bridged {
    /// The tap's descriptors, one per queue pair.
    pub taps: Vec<OwnedFd>,
    /// The bridge's MTU in bytes, which the tap took over.
    pub mtu: u16,
}

impl Bridged {
    /// Makes the tap and puts it under the bridge, in the network namespace of the calling thread.
    pub async fn set_up(spec: &BridgeSpec) -> Result<Self, NetError> {
        let netlink = link::connect()?;
        let bridge = link::find(&netlink, &spec.bridge).await?;
        let Some(bridge) = bridge.filter(|link| link.is_bridge) else {
            return Err(NetError::NoBridge(spec.bridge.clone()));
        };
        let mtu = bridge.mtu.unwrap_or(MTU);
        let (tap, taps) = make_tap(spec)?;
        link::set_mtu(&netlink, &tap, mtu).await?;
        if link::has_ipv6() {
            // The machine itself is not to be reached through it.
            link::sysctl(&format!("net/ipv6/conf/{tap}/disable_ipv6"), "1")?;
        }
        link::enslave(&netlink, &tap, &spec.bridge).await?;
        link::address_up(&netlink, &tap, &[]).await?;
        Ok(Self { taps, mtu })
    }
}

/// Makes the tap, moving on where another link has its name.
fn make_tap(spec: &BridgeSpec) -> Result<(String, Vec<OwnedFd>), NetError> {
    let mut attempt = 0;
    loop {
        let name = plan::bridged_tap(&spec.card, attempt);
        attempt += 1;
        match link::make_tap(&name, spec.queue_pairs) {
            Ok(taps) => return Ok((name, taps)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < ATTEMPTS => {}
            Err(source) => return Err(NetError::Io { doing: "make a tap (/dev/net/tun)", source }),
        }
    }
}
