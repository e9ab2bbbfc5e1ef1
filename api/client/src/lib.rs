//! A typed client of the VMM's REST API over a unix socket.
//!
//! ```no_run
//! # async fn example() -> Result<(), orlop_client::Error> {
//! let client = orlop_client::Client::new("/run/vm/api.sock");
//! client.wait_ready(std::time::Duration::from_secs(5)).await?;
//! let mut events = client.events(0).await?;
//! client.pause().await?;
//! while let Some(event) = events.next().await? {
//!     println!("{} {}", event.seq, event.what.name());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every request has a connection of its own, so one that hangs holds up no other. Each step of a request is bounded by
//! the client's timeout; streams ([`Console`], [`Events`]) are bounded until they are established only.

mod connection;
mod console;
mod error;
mod events;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use orlop_api::config::VmConfig;
use orlop_api::control::{BalloonTarget, DiskSize, LinkState, Medium};
use orlop_api::device::DeviceInfo;
use orlop_api::state::{Version, VmInfo};
use orlop_api::vcpu::VcpuInfo;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use connection::{Answer, Body};
pub use console::Console;
pub use error::Error;
pub use events::Events;

/// How long a request may take unless [`Client::with_timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How long [`Client::wait_ready`] waits between two tries to connect.
const READY_INTERVAL: Duration = Duration::from_millis(5);

/// A client of one VMM process. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the VMM that listens on `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: TIMEOUT }
    }

    /// The same with another bound on how long a request may take.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Where the VMM listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the VMM answers, at most for `deadline`: for one that was just started. The error is that of the last
    /// try.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<Version, Error> {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            match self.version().await {
                Err(Error::Connect { .. }) if tokio::time::Instant::now() < end => {
                    tokio::time::sleep(READY_INTERVAL).await;
                }
                answer => return answer,
            }
        }
    }

    /// `GET /version`.
    pub async fn version(&self) -> Result<Version, Error> {
        self.get("/version").await
    }

    /// `PUT /vm`: builds the machine, and starts it too with `boot`.
    pub async fn create(&self, config: &VmConfig, boot: bool) -> Result<VmInfo, Error> {
        let path = if boot { "/vm?boot=true" } else { "/vm" };
        self.send(Method::PUT, path, Some(config)).await?.json()
    }

    /// `POST /vm/boot`.
    pub async fn boot(&self) -> Result<(), Error> {
        self.post("/vm/boot").await
    }

    /// `GET /vm`: state and configuration.
    pub async fn info(&self) -> Result<VmInfo, Error> {
        self.get("/vm").await
    }

    /// `POST /vm/pause`: returns when every vCPU and device stands still.
    pub async fn pause(&self) -> Result<(), Error> {
        self.post("/vm/pause").await
    }

    /// `POST /vm/resume`.
    pub async fn resume(&self) -> Result<(), Error> {
        self.post("/vm/resume").await
    }

    /// `POST /vm/power-button`: the guest may react or not.
    pub async fn power_button(&self) -> Result<(), Error> {
        self.post("/vm/power-button").await
    }

    /// `POST /vm/reset`.
    pub async fn reset(&self) -> Result<(), Error> {
        self.post("/vm/reset").await
    }

    /// `POST /vm/shutdown`: ends the machine and the process now, without asking the guest.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.post("/vm/shutdown").await
    }

    /// `GET /vm/devices`.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, Error> {
        self.get("/vm/devices").await
    }

    /// `GET /vm/vcpus`.
    pub async fn vcpus(&self) -> Result<Vec<VcpuInfo>, Error> {
        self.get("/vm/vcpus").await
    }

    /// `PUT /vm/balloon`.
    pub async fn set_balloon(&self, target: BalloonTarget) -> Result<(), Error> {
        self.send(Method::PUT, "/vm/balloon", Some(&target)).await.map(drop)
    }

    /// `PUT /vm/devices/{id}/size`.
    pub async fn set_size(&self, device: &str, size: DiskSize) -> Result<(), Error> {
        let path = format!("/vm/devices/{}/size", connection::encode_segment(device));
        self.send(Method::PUT, &path, Some(&size)).await.map(drop)
    }

    /// `PUT /vm/devices/{id}/link`.
    pub async fn set_link(&self, device: &str, link: LinkState) -> Result<(), Error> {
        let path = format!("/vm/devices/{}/link", connection::encode_segment(device));
        self.send(Method::PUT, &path, Some(&link)).await.map(drop)
    }

    /// `PUT /vm/devices/{id}/medium`: puts a medium into a CD-ROM drive.
    pub async fn insert(&self, device: &str, medium: &Medium) -> Result<(), Error> {
        let path = format!("/vm/devices/{}/medium", connection::encode_segment(device));
        self.send(Method::PUT, &path, Some(medium)).await.map(drop)
    }

    /// `DELETE /vm/devices/{id}/medium`: takes the medium out of a CD-ROM drive, with `force` even where the guest has
    /// locked its tray.
    pub async fn eject(&self, device: &str, force: bool) -> Result<(), Error> {
        let path = format!("/vm/devices/{}/medium?force={force}", connection::encode_segment(device));
        self.send(Method::DELETE, &path, None::<&()>).await.map(drop)
    }

    /// `GET /vm/log`: what is kept of the serial port's output.
    pub async fn log(&self) -> Result<Vec<u8>, Error> {
        Ok(self.send(Method::GET, "/vm/log", None::<&()>).await?.body.into())
    }

    /// `GET /metrics`: Prometheus text.
    pub async fn metrics(&self) -> Result<String, Error> {
        self.send(Method::GET, "/metrics", None::<&()>).await?.text()
    }

    /// `GET /openapi.json`.
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.get("/openapi.json").await
    }

    /// `GET /vm/console`: attaches to the serial port, backlog first.
    pub async fn console(&self) -> Result<Console, Error> {
        Console::attach(self).await
    }

    /// `GET /events`: follows what happens from the event after number `after` on; 0 starts with the oldest one kept.
    pub async fn events(&self, after: u64) -> Result<Events, Error> {
        Events::follow(self, after).await
    }

    /// Sends any request below the API's base path and returns the answer whatever its status: for tools.
    pub async fn request(&self, method: Method, path: &str, body: Option<Body>) -> Result<Answer, Error> {
        self.bounded("answer", async {
            let response = connection::open(&self.socket).await?.send(method, path, body, &[]).await?;
            Answer::read(response).await
        })
        .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(Method::GET, path, None::<&()>).await?.json()
    }

    async fn post(&self, path: &str) -> Result<(), Error> {
        self.send(Method::POST, path, None::<&()>).await.map(drop)
    }

    /// Sends a typed request; an answer that is a problem becomes an error.
    async fn send<T: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&T>,
    ) -> Result<Answer, Error> {
        let body = body.map(Body::json).transpose()?;
        self.request(method, path, body).await?.success()
    }

    async fn bounded<T>(
        &self,
        what: &'static str,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, step).await {
            Ok(done) => done,
            Err(_) => Err(Error::Timeout { what, after: self.timeout, socket: self.socket.clone() }),
        }
    }
}
