//! `orlop-vmm run`: one machine from a file, its serial console here.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_api::config::VmConfig;

use crate::cli::read_bounded;
use crate::exit;
use crate::process::{Process, ProcessArgs};
use crate::server::Socket;

/// What `orlop-vmm run` can be told.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The machine: a VmConfig in JSON, as PUT /api/v1/vm takes it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Serve the API at this unix socket as well.
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Leave standard input and output alone.
    #[arg(long)]
    no_console: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs the machine until it has ended; its end is the process's exit code.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let path = args.config.display();
    let text = match File::open(&args.config).and_then(read_bounded) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("orlop-vmm: cannot read {path}: {error}");
            return Ok(ExitCode::from(exit::HOST));
        }
    };
    let config: VmConfig =
        match serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text)) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("orlop-vmm: {path}: {error}");
                return Ok(ExitCode::from(exit::BAD_CONFIG));
            }
        };
    let socket = args.api_socket.as_deref().map(Socket::bind).transpose()?;
    Process { args: &args.process, socket, config: Some(config), terminal: !args.no_console }.run()
}
