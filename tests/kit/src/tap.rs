//! A tap device on the host.

use std::process::Command;

use crate::host;

/// A tap device with an address, removed when dropped.
#[derive(Debug)]
pub struct Tap {
    name: String,
}

impl Tap {
    /// Makes tap `name` with `address` (`10.9.1.1/24`); `kind` may add `multi_queue`, and an owner: `user 107`.
    pub async fn new(name: &str, address: &str, kind: &str) -> Self {
        // What a killed run left behind is in the way.
        host(&format!(
            "ip link del {name} 2>/dev/null; ip tuntap add dev {name} mode tap vnet_hdr {kind} \
             && ip addr add {address} dev {name} && ip link set {name} up"
        ))
        .await;
        Self { name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // A test may have removed it itself.
        let _ = Command::new("ip").args(["link", "del", &self.name]).output();
    }
}
