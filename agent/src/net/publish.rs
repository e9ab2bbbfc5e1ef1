//! Published ports: connections to the machine that end in the guest.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{NetError, namespace::Namespace};

/// Connections forwarded at once for one port; further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 256;
/// How long the guest may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `[ADDRESS:]PORT:GUEST-PORT`: a TCP port of the machine that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Where the machine listens: 127.0.0.1 unless an address is given.
    pub address: IpAddr,
    /// The machine's port.
    pub port: u16,
    /// The guest's port.
    pub guest_port: u16,
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", SocketAddr::new(self.address, self.port), self.guest_port)
    }
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("'{text}' is not [ADDRESS:]PORT:GUEST-PORT, for example 2222:22");
        let (left, guest_port) = text.rsplit_once(':').ok_or_else(usage)?;
        let (address, port) = match left.rsplit_once(':') {
            Some((address, port)) => {
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
                (bare.parse().map_err(|_| usage())?, port)
            }
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), left),
        };
        let number = |text: &str| text.parse().ok().filter(|&p: &u16| p != 0).ok_or_else(usage);
        Ok(Self { address, port: number(port)?, guest_port: number(guest_port)? })
    }
}

/// Listens on the machine, in the namespace of the calling thread, and forwards each connection through the VM's.
pub fn start(namespace: &Namespace, what: Publish, guest: Ipv4Addr) -> Result<(), NetError> {
    let listen = |source| NetError::Io { doing: "listen on a published port", source };
    let listener = std::net::TcpListener::bind(SocketAddr::new(what.address, what.port)).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let target = SocketAddr::new(guest.into(), what.guest_port);
    namespace.spawn(move || async move {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((outside, _)) => drop(tokio::task::spawn_local(async move {
                    forward(outside, target).await;
                    drop(place);
                })),
                // Out of descriptors or the peer went away at once: the next one may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
}

/// Copies until both sides have closed. A guest that does not answer closes the outer connection, as a port without
/// a listener would.
async fn forward(mut outside: TcpStream, target: SocketAddr) {
    if let Ok(Ok(mut inside)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await {
        drop(copy_bidirectional(&mut outside, &mut inside).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_pair_is_read_and_nonsense_is_explained() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!("2222:22".parse(), Ok(Publish { address: local, port: 2222, guest_port: 22 }));
        assert_eq!(
            "[::1]:80:8080".parse(),
            Ok(Publish { address: "::1".parse().unwrap(), port: 80, guest_port: 8080 })
        );
        let shown = "127.0.0.1:2222:22";
        assert_eq!(shown.parse::<Publish>().unwrap().to_string(), shown);
        for bad in ["", "22", "0:22", "22:0", "x:22", "70000:1", "1.2.3:80:80", "::"] {
            let error = bad.parse::<Publish>().unwrap_err();
            assert!(error.contains("2222:22"), "{error}");
        }
    }
}
