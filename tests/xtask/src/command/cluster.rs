//! `cargo xtask cluster`: a real Kubernetes, wherever this runs.

use std::fs::File;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use orlop_cluster::{Cluster, NodeSize};
use orlop_nested::Job;
use orlop_nested::cache::{say, seconds};

/// Bring a real Kubernetes cluster up on this machine, and speak to it
///
/// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and DNS run as processes in a network namespace of their own; nodes
/// are virtual nodes with containerd, kubelet and kube-proxy. Everything is built from pinned Go modules, once: some six minutes.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask cluster up                         a control plane and two nodes
  cargo xtask cluster up --nodes 0               a control plane alone, in seconds
  cargo xtask cluster kubectl -- get nodes
  cargo xtask cluster node add                   one more node
  cargo xtask cluster node run n1 -- ctr version
  cargo xtask cluster logs                       which logs there are
  cargo xtask cluster logs n1/kubelet
  cargo xtask cluster down                       everything of it goes")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring it up, or add the nodes that it lacks
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2, value_name = "N")]
        nodes: u8,
        #[command(flatten)]
        size: Size,
    },
    /// Say what is up
    Status,
    /// Run kubectl as the cluster's administrator
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Add a node, or run a command in one
    Node {
        #[command(subcommand)]
        action: NodeAction,
    },
    /// Show a log, or which ones there are
    Logs {
        /// A name as this command lists it
        name: Option<String>,
    },
    /// End everything of it
    Down,
}

#[derive(Subcommand)]
enum NodeAction {
    /// Add a node
    Add(Size),
    /// Run a command in a node
    Run {
        /// The node's name
        node: String,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
}

#[derive(Args, Clone, Copy)]
struct Size {
    /// Processors of a node
    #[arg(long, default_value_t = NodeSize::default().cpus, value_name = "N")]
    cpus: u32,

    /// Memory of a node in MiB
    #[arg(long, default_value_t = NodeSize::default().memory_mib, value_name = "MIB")]
    memory: u32,
}

impl Size {
    fn node(self) -> NodeSize {
        NodeSize { cpus: self.cpus, memory_mib: self.memory }
    }
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cluster = Cluster::of_checkout();
    let began = Instant::now();
    match &arguments.action {
        Action::Up { nodes, size } => {
            cluster.up(*nodes, size.node())?;
            say(format_args!("the cluster is up ({})", seconds(began.elapsed())));
            Ok(ExitCode::SUCCESS)
        }
        Action::Status => status(&cluster),
        Action::Kubectl { arguments } => {
            ensure!(cluster.is_up(), "no cluster is up: cargo xtask cluster up");
            finish(cluster.kubectl().args(arguments))
        }
        Action::Node { action: NodeAction::Add(size) } => {
            let name = cluster.add_node(size.node())?;
            say(format_args!("node {name} is Ready ({})", seconds(began.elapsed())));
            Ok(ExitCode::SUCCESS)
        }
        Action::Node { action: NodeAction::Run { node, command } } => {
            let standing = cluster.node(node).with_context(|| format!("no node {node} is up"))?;
            let attached = standing.attach().with_context(|| format!("no node {node} is up"))?;
            let code = attached.attach(&Job::new(command.clone()).cwd("/"), false)?;
            Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
        }
        Action::Logs { name } => logs(&cluster, name.as_deref()),
        Action::Down => {
            say(if cluster.down()? { "the cluster is down" } else { "no cluster is up" });
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn status(cluster: &Cluster) -> Result<ExitCode> {
    if !cluster.is_up() {
        println!("down");
        return Ok(ExitCode::FAILURE);
    }
    println!("up");
    finish(cluster.kubectl().args(["get", "nodes", "--output", "wide"]))
}

fn logs(cluster: &Cluster, name: Option<&str>) -> Result<ExitCode> {
    let logs = cluster.logs();
    let Some(name) = name else {
        logs.iter().for_each(|(name, path)| println!("{name:<28} {}", path.display()));
        return Ok(ExitCode::SUCCESS);
    };
    let Some((_, path)) = logs.iter().find(|(known, _)| known == name) else {
        bail!("there is no log {name}: cargo xtask cluster logs lists them");
    };
    let mut log = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    io::copy(&mut log, &mut io::stdout()).context("cannot show it")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command to its end on this process's streams.
fn finish(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
