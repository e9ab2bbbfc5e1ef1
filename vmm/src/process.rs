//! A process around one machine: what its command line says, and the one thread on which driver and API run.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use orlop_api::config::VmConfig;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::fds::{NamedFd, claim};
use crate::jail::{JailPolicy, Seccomp};
use crate::machine::{self, Handle, Outcome, Refusal, Setup};
use crate::server::{self, Socket};
use crate::terminal::Terminal;

/// What every process with a machine can be told.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Use the descriptor N that the process was started with wherever the configuration names NAME. `kvm=N` is
    /// /dev/kvm.
    #[arg(long = "fd", value_name = "NAME=N")]
    fds: Vec<NamedFd>,
    /// End when the guest asks for a reset, instead of resetting the machine in place.
    #[arg(long)]
    no_reboot: bool,
    /// Use a KVM without hardware virtualization. Linux does not boot on it.
    #[arg(long)]
    allow_software_kvm: bool,
    /// What a system call that a thread may not make leads to.
    #[arg(long, value_enum, default_value_t)]
    seccomp: Seccomp,
    /// Leave the file system open to the process.
    #[arg(long)]
    no_landlock: bool,
}

/// What a process does with its machine.
pub struct Process<'a> {
    /// How it was started.
    pub args: &'a ProcessArgs,
    /// Where it serves the API.
    pub socket: Option<Socket>,
    /// A machine to be created and booted at once.
    pub config: Option<VmConfig>,
    /// Whether the serial console is on this terminal.
    pub terminal: bool,
}

impl Process<'_> {
    /// Runs until the machine has ended.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let descriptors = claim(&self.args.fds)?;
        let sockets = self.socket.iter().filter_map(|socket| socket.path().map(Path::to_owned)).collect();
        let jail = JailPolicy { seccomp: self.args.seccomp, landlock: !self.args.no_landlock, sockets };
        let setup = Setup {
            descriptors,
            reboot: !self.args.no_reboot,
            allow_software_kvm: self.args.allow_software_kvm,
            jail,
        };
        // Before there are other threads that a signal could find.
        let terminal = self.terminal.then(Terminal::open).transpose().context("cannot use this terminal")?;
        let (handle, driver) = machine::start(setup)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (outcome, refused) = runtime.block_on(async {
            let asked_to_end = asked_to_end()?;
            // `handle` itself lasts until the end: a machine of which nobody asks anything runs on.
            let ((), (), refused, outcome) = tokio::join!(
                serve(self.socket.as_ref(), handle.clone()),
                show(terminal.as_ref(), handle.clone()),
                create(handle.clone(), self.config),
                driver.drive(asked_to_end),
            );
            anyhow::Ok((outcome, refused))
        })?;
        // Whatever is left, threads of the guest above all, ends with the process.
        drop(terminal);
        if let Err(refusal) = refused {
            eprintln!("orlop-vmm: {refusal}");
            return Ok(ExitCode::from(refusal.exit_code()));
        }
        if outcome != Outcome::PowerOff {
            eprintln!("orlop-vmm: {outcome}");
        }
        Ok(ExitCode::from(outcome.exit_code()))
    }
}

/// Serves the API until the machine has ended.
async fn serve(socket: Option<&Socket>, handle: Handle) {
    let Some(socket) = socket else { return };
    match socket.listener().and_then(UnixListener::from_std) {
        Ok(listener) => server::serve(listener, handle).await,
        Err(e) => eprintln!("orlop-vmm: cannot serve the API: {e}"),
    }
}

/// Shows the console until the machine has ended.
async fn show(terminal: Option<&Terminal>, handle: Handle) {
    if let Some(terminal) = terminal {
        terminal.attach(&handle).await;
    }
}

/// Creates and boots the machine that was asked for at the start; without it there is no reason to go on.
async fn create(handle: Handle, config: Option<VmConfig>) -> Result<(), Refusal> {
    let Some(config) = config else { return Ok(()) };
    let created = handle.create(config, true).await;
    if created.is_err() {
        // It can only be refused when it has ended already.
        let _ = handle.shutdown().await;
    }
    created
}

/// Resolves when the process is told to end: SIGTERM, SIGINT or SIGHUP.
fn asked_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut signals: Vec<Signal> = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<_, _>>()?;
    Ok(async move {
        std::future::poll_fn(|cx| {
            let ready = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    })
}
