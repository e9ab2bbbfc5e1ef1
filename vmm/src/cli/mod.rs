//! The command line of `orlop-vmm`.

mod api;
mod console;
pub mod fds;

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use orlop_api::BODY_MAX_BYTES;

use crate::machine::chain;
use crate::{exit, run, serve, server};

const EXAMPLES: &str = "\
Examples:
  orlop-vmm run --config vm.json                         boot a machine here; Ctrl-] ends it
  orlop-vmm serve --api-socket /run/vm/api.sock          wait for one; then, from elsewhere:
  orlop-vmm api --api-socket /run/vm/api.sock PUT '/vm?boot=true' @vm.json
  orlop-vmm api --api-socket /run/vm/api.sock console

vm.json, a small machine (orlop-vmm openapi describes every field):
  { \"name\": \"a\", \"memory\": { \"size_bytes\": 268435456 },
    \"boot\": { \"kernel\": { \"kernel\": { \"path\": \"/boot/vmlinuz\" }, \"cmdline\": \"console=ttyS0\" } } }
";

const SERVE_HELP: &str = "\
Examples:
  orlop-vmm serve --api-socket /run/vm/api.sock
  orlop-vmm serve --api-fd 3 --fd kvm=4 --fd tap0=5      everything passed in, nothing to open";

const RUN_HELP: &str = "\
Examples:
  orlop-vmm run --config vm.json
  orlop-vmm run --config vm.json --api-socket /run/vm/api.sock
  orlop-vmm run --config vm.json --fd disk0=5 5<>disk.raw   with \"source\": { \"fd\": \"disk0\" } in vm.json";

/// One process, one virtual machine, directly on KVM.
#[derive(Debug, Parser)]
#[command(name = "orlop-vmm", version, about, after_help = help(), arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wait on the API for a machine to carry out, and end with it.
    #[command(after_help = SERVE_HELP)]
    Serve(serve::ServeArgs),
    /// Run one machine with its serial console here, and end with it.
    #[command(after_help = RUN_HELP)]
    Run(run::RunArgs),
    /// Speak to a running VMM: send a request, attach to its console, follow its events.
    Api(api::Args),
    /// Print the OpenAPI document of the API.
    Openapi,
}

fn help() -> String {
    format!("{EXAMPLES}\n{}", exit::HELP)
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
        Command::Run(args) => run::run(&args),
        Command::Api(args) => api::main(&args),
        Command::Openapi => openapi(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("orlop-vmm: {}", chain(error.as_ref()));
        ExitCode::from(exit::FAILED)
    })
}

/// All of `from`, as long as it is no longer than a request's body may be.
pub fn read_bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = BODY_MAX_BYTES as u64;
    if from.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        return Err(std::io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

fn openapi() -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{}", server::document().to_pretty_json()?)?;
    Ok(ExitCode::SUCCESS)
}
