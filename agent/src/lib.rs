//! `orlop-agent`: carries out VirtualMachineInstances on this machine.

mod commands;
mod exit;
mod files;
mod images;
mod instance;
mod iso;
#[cfg(feature = "kit")]
pub mod kit;
mod net;
mod plan;
mod reaper;
mod terminal;
mod vmm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs virtual machines that KubeVirt manifests describe, on this machine and without a cluster.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("{}\n\n{EXAMPLES}", exit::HELP))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  orlop-agent run deploy/samples/debian.yaml                        boot it, its console on this terminal
  orlop-agent run deploy/samples/debian.yaml --publish 2222:22      and ssh -p 2222 debian@127.0.0.1
  orlop-agent run deploy/samples/debian.yaml --detach               in the background
  orlop-agent console debian                                        come back to its console
  orlop-agent stop debian                                           power button, then the end
  orlop-agent image import quay.io/containerdisks/debian:12         fetch a container disk; see image import --help

Where runs live: $ORLOP_RUN_DIR, else /run/orlop (root), $XDG_RUNTIME_DIR/orlop or /tmp/orlop-UID.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry out one manifest: until the machine is over, or with --detach until it is up.
    Run(commands::run::Options),
    /// List the VMs that run here.
    List,
    /// Attach to the serial console of a running VM; Ctrl-] leaves it.
    Console {
        /// Its name.
        #[arg(value_name = "[NAMESPACE/]NAME")]
        name: String,
    },
    /// Stop a VM: power button, then after the grace period the end of the machine.
    Stop {
        /// Its name.
        #[arg(value_name = "[NAMESPACE/]NAME")]
        name: String,
        /// Seconds that the guest may take; the manifest's terminationGracePeriodSeconds otherwise. 0 ends it at once.
        #[arg(long, value_name = "SECONDS")]
        grace_period: Option<u64>,
    },
    /// Fetch, list and remove the images that container disks and kernels come from.
    Image {
        #[command(subcommand)]
        command: commands::image::Command,
    },
    /// Wait for a run to end and clear up after it.
    #[command(name = reaper::SUBCOMMAND, hide = true)]
    Reap {
        /// Descriptor of the run's lock, held meanwhile.
        lock: i32,
        /// The run's directory.
        directory: PathBuf,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Reap { lock: _, directory } = &cli.command {
        return match reaper::reap(directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(exit::FAILED),
        };
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("orlop-agent: cannot start: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    let result = runtime.block_on(dispatch(cli.command));
    // A read of standard input cannot be interrupted; it ends with the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("orlop-agent: {}", sentence(&error));
            ExitCode::from(exit::FAILED)
        }
    }
}

/// An error with its causes, each said once: many say their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        said if said.ends_with(&cause) => said.to_owned(),
        said => format!("{said}: {cause}"),
    })
}

async fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(options) => commands::run::run(options).await,
        Command::List => commands::list::list().await.map(|()| 0),
        Command::Console { name } => commands::console::console(&name).await.map(|()| 0),
        Command::Stop { name, grace_period } => commands::stop::stop(&name, grace_period).await.map(|()| 0),
        Command::Image { command } => commands::image::image(command).await.map(|()| 0),
        Command::Reap { .. } => Ok(exit::USAGE),
    }
}
