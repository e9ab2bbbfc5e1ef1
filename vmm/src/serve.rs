//! `orlop-vmm serve`: waits for a machine on its API, and ends with it.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

use crate::cli::fds::{claim_one, parse_number};
use crate::process::{Process, ProcessArgs};
use crate::server::Socket;

/// Where `orlop-vmm serve` serves.
#[derive(Debug, Args)]
#[group(id = "api", required = true, multiple = false)]
pub struct SocketArgs {
    /// Make the API's unix socket at this path.
    #[arg(long, value_name = "PATH", env = "ORLOP_API_SOCKET")]
    api_socket: Option<PathBuf>,
    /// Serve the API on the descriptor N, a unix socket that listens already.
    #[arg(long, value_name = "N", value_parser = parse_number)]
    api_fd: Option<RawFd>,
}

/// What `orlop-vmm serve` can be told.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// End when the process that started this one does, whichever way.
    #[arg(long)]
    die_with_parent: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Serves until the machine that a client creates has ended; its end is the process's exit code.
pub fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        die_with_parent()?;
    }
    let socket = match (&args.socket.api_socket, args.socket.api_fd) {
        (_, Some(number)) => Some(Socket::from_fd(claim_one(number)?, number)?),
        (Some(path), None) => Some(Socket::bind(path)?),
        (None, None) => None,
    };
    Process { args: &args.process, socket, config: None, terminal: false }.run()
}

/// Asks the kernel for a SIGKILL at the parent's end (`PR_SET_PDEATHSIG`, `prctl(2)`).
fn die_with_parent() -> anyhow::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot tie this process to its parent")?;
    // It may have ended just before.
    ensure!(rustix::process::getppid() == parent, "the process that started this one has ended");
    Ok(())
}
