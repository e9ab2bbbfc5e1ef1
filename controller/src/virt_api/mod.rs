//! `virt-api`: decides about every object of ours before it is stored.
//!
//! ```text
//! kube-apiserver ── AdmissionReview over TLS ──▶ server ──▶ admission: look up (reads) ▶ decide (pure) ▶ answer
//!                                                              ▲
//! KubeVirt object ── watch ──▶ site ───────────────────────────┘
//! ```

mod admission;
mod certificate;
mod configuration;
mod server;
mod site;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use tokio::net::TcpListener;

use self::admission::Admission;
use self::configuration::Endpoint;

/// Admission: fills defaults in, and refuses what cannot be, in KubeVirt's words
///
/// Makes its own certificate, keeps it in a Secret that all replicas share, renews it in time, and registers itself with the API
/// server.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where to listen for the API server
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// The namespace that it and its Service are in
    #[arg(long, env = "POD_NAMESPACE", default_value = "kubevirt", value_name = "NAME")]
    namespace: String,

    /// The name of its Service
    #[arg(long, default_value = "virt-api", value_name = "NAME")]
    service: String,

    /// How the API server reaches it instead of by its Service, for one that runs outside the cluster
    #[arg(long, value_name = "HTTPS-URL")]
    url: Option<String>,
}

/// Serves until it is told to end.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { listen, namespace, service, url } = arguments;
    let client = Client::try_default().await.context("no way to the API server")?;
    let endpoint = match url {
        Some(url) => Endpoint::Url(url),
        None => Endpoint::Service { namespace: namespace.clone(), name: service },
    };
    // The port is taken before anybody is told of it.
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let site = site::watch(client.clone(), &namespace).await?;
    let names = endpoint.host_names()?;
    let certificates = certificate::Store::open(client.clone(), &namespace, names).await?;
    let admission = Arc::new(Admission::new(client.clone(), site));
    let serving = server::serve(listener, certificates.resolver(), admission);
    let registering = configuration::keep(client, &endpoint, certificates.authority());
    tracing::info!("virt-api listens on {listen}");
    tokio::select! {
        ended = serving => ended.context("the server ended"),
        ended = registering => ended.context("cannot register the webhooks"),
        ended = certificates.renew() => ended.context("cannot renew the certificate"),
        () = told_to_end() => Ok(()),
    }
}

/// Returns when SIGTERM or SIGINT comes.
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
