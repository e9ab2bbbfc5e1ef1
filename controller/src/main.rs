//! What runs once per cluster. Each component is a subcommand, so that one image serves all.

mod virt_api;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What Orlop runs once per Kubernetes cluster.
///
/// Each component is a Deployment of this program. It speaks to the API server as its pod's service account, or, outside a cluster,
/// as $KUBECONFIG says.
#[derive(Parser)]
#[command(name = "orlop-controller", version)]
struct Arguments {
    #[command(subcommand)]
    component: Component,
}

#[derive(Subcommand)]
enum Component {
    VirtApi(virt_api::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let result = match Arguments::parse().component {
        Component::VirtApi(arguments) => virt_api::run(arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
