//! The command line of `orlop-vmm`.

mod api;
mod console;
pub mod fds;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{exit, run, server};

/// One process, one virtual machine, directly on KVM.
#[derive(Debug, Parser)]
#[command(name = "orlop-vmm", version, about, after_help = exit::HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one machine with its serial console here, and end with it.
    Run(run::RunArgs),
    /// Speak to a running VMM: send a request, attach to its console, follow its events.
    Api(api::Args),
    /// Print the OpenAPI document of the API.
    Openapi,
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Api(args) => api::main(&args),
        Command::Openapi => openapi(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("orlop-vmm: {error:#}");
        ExitCode::from(exit::FAILED)
    })
}

fn openapi() -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{}", server::document().to_pretty_json()?)?;
    Ok(ExitCode::SUCCESS)
}
