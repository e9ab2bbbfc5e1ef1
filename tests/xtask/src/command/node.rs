//! `cargo xtask node`: a machine with real KVM, wherever this runs.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use orlop_nested::cache::{say, seconds};
use orlop_nested::{Job, JobError, Node, NodeOptions, Standing, retried};

/// Run a command in a node with real KVM, or a shell if none is named
///
/// Where this machine has KVM of its own the command runs right here. Elsewhere it runs in a virtual node: a QEMU machine with an
/// emulated AMD processor whose SVM works, and a stock Debian kernel. Its exit code and output are handed back.
///
/// The checkout and cargo's target directory appear in the node at the same paths as outside, read-only, and target/debug is in
/// PATH, so that what was just built runs there. Guest images are in $ORLOP_IMAGES, a fast writable disk is at $ORLOP_SCRATCH, and
/// /job is a writable directory shared with this machine.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  cargo xtask node                          a shell in a fresh node
  cargo xtask node -- uname -a              one command in a fresh node
  cargo xtask node up                       a node that stays up: commands then take milliseconds
  cargo xtask node -- orlop-vmm --help      …in the node that is up, if one is
  cargo xtask node down"
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    size: Size,

    /// Start a fresh node even if one is up
    #[arg(long)]
    fresh: bool,

    /// Give the command a terminal, as the shell has one
    #[arg(long, short)]
    terminal: bool,

    /// The command and its arguments; a shell if there is none
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Args, Clone, Copy)]
struct Size {
    /// Processors of the virtual node
    #[arg(long, default_value_t = NodeOptions::default().cpus, value_name = "N")]
    cpus: u32,

    /// Memory of the virtual node in MiB
    #[arg(long, default_value_t = NodeOptions::default().memory_mib, value_name = "MIB")]
    memory: u32,
}

#[derive(Subcommand)]
enum Action {
    /// Bring a node up that stays up and takes the commands of `cargo xtask node -- CMD`
    Up(Size),
    /// End the node that is up
    Down,
    /// Say whether a node is up
    Status,
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.action {
        Some(Action::Up(size)) => up(*size),
        Some(Action::Down) => down(),
        Some(Action::Status) => Ok(status()),
        None => job(arguments),
    }
}

/// The node of `cargo xtask node up`.
fn standing() -> Standing {
    Standing::named("up")
}

fn options(size: Size) -> NodeOptions {
    NodeOptions { cpus: size.cpus, memory_mib: size.memory, ..NodeOptions::default() }
}

fn up(size: Size) -> Result<ExitCode> {
    let began = Instant::now();
    let node = standing().up(&options(size))?;
    say(format_args!("the node is up ({}), process {}", seconds(began.elapsed()), node.pid));
    Ok(ExitCode::SUCCESS)
}

fn down() -> Result<ExitCode> {
    say(if standing().down()? { "the node is down" } else { "no node is up" });
    Ok(ExitCode::SUCCESS)
}

fn status() -> ExitCode {
    let Some(node) = standing().status() else {
        println!("down");
        return ExitCode::FAILURE;
    };
    println!("up\nprocess: {}", node.pid);
    println!("/job:    {}\nconsole: {}", node.job_dir.display(), node.console.display());
    ExitCode::SUCCESS
}

fn job(arguments: &Arguments) -> Result<ExitCode> {
    let shell = arguments.command.is_empty();
    let job = if shell { Job::new(["bash", "-i"]) } else { Job::new(arguments.command.clone()) };
    let terminal = (shell || arguments.terminal) && std::io::stdin().is_terminal();
    let attached = if arguments.fresh { None } else { standing().attach() };
    let options = options(arguments.size);
    let code = match attached {
        Some(node) => node.attach(&job, terminal)?,
        // What somebody has typed cannot be typed again for them.
        None if terminal => Node::start(&options)?.attach(&job, terminal)?,
        None => retried(&options, is_the_nodes_fault, |node| Ok(node.attach(&job, terminal)?))?,
    };
    Ok(exit_code(code))
}

fn is_the_nodes_fault(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(JobError::is_the_nodes_fault)
}

/// Codes beyond a byte do not exist on Unix.
fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
