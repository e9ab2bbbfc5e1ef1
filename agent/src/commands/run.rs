//! `orlop-agent run FILE`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use orlop_client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::supervise;
use crate::images::Images;
use crate::instance::{Place, Record};
use crate::net::{Bridged, Masquerade, NetSpec, Publish};
use crate::plan::{FileWant, RunPlan, blame, plan};
use crate::reaper::Reaper;
use crate::{exit, files, vmm};

/// How long the VMM may take until it answers.
const VMM_READY: Duration = Duration::from_secs(20);
/// Longest time for building a machine: its kernel is read and its memory mapped meanwhile.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);
/// What a detached run says on its standard output once its machine is up.
const UP: &str = "orlop-agent: up";

/// What the command line says.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A manifest in YAML or JSON with one VirtualMachineInstance or VirtualMachine, and the Secrets that it names; `-`
    /// reads standard input.
    file: PathBuf,
    /// Forward a TCP port of this machine to the guest, for example 2222:22 or 0.0.0.0:8080:80. May be repeated.
    #[arg(long, value_name = "[ADDRESS:]PORT:GUEST-PORT")]
    publish: Vec<Publish>,
    /// Return once the machine runs; `orlop-agent console` and `orlop-agent stop` reach it.
    #[arg(long)]
    detach: bool,
    /// The orlop-vmm program. Otherwise the one beside this program, then the one in $PATH.
    #[arg(long, value_name = "PATH")]
    vmm: Option<PathBuf>,
}

/// Reads the manifest, or says everything that is wrong with it.
fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map(|_| text).map_err(|error| format!("{}: {error}", path.display()))
}

fn decide(options: &Options) -> Result<RunPlan, String> {
    let file = options.file.display();
    let text = read(&options.file)?;
    let said =
        |error: String| error.lines().map(|line| format!("{file}: {line}")).collect::<Vec<_>>().join("\n");
    let documents = orlop_crd::manifest::parse(&text).map_err(|e| said(e.to_string()))?;
    let plan = plan(documents, uuid::Uuid::new_v4()).map_err(|e| said(e.to_string()))?;
    if let Some(memory_bytes) = memory_bytes() {
        plan.fits(memory_bytes).map_err(|e| said(e.to_string()))?;
    }
    for what in &options.publish {
        may_publish(&plan, *what).map_err(|reason| format!("{file}: --publish {what}: {reason}"))?;
    }
    Ok(plan)
}

/// How much memory this machine has, in bytes (`proc_meminfo(5)`).
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether the manifest lets `what` lead to its guest.
fn may_publish(plan: &RunPlan, what: Publish) -> Result<(), String> {
    let masqueraded = plan.nets.values().find_map(|net| match net {
        NetSpec::Masquerade(spec) => Some(spec),
        NetSpec::Bridge(_) => None,
    });
    let Some(spec) = masqueraded else {
        return Err("it needs an interface with masquerade: {} in the manifest".into());
    };
    if spec.forwards(what.guest_port) {
        return Ok(());
    }
    Err(format!("the interface's ports do not name TCP port {}", what.guest_port))
}

/// Runs the manifest to its end, or until the machine is up with `--detach`.
pub async fn run(options: Options) -> Result<u8> {
    let plan = match decide(&options) {
        Ok(plan) => plan,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Ok(exit::USAGE);
        }
    };
    if options.detach && options.file == Path::new("-") {
        eprintln!("orlop-agent: --detach needs a file: standard input ends with this process");
        return Ok(exit::USAGE);
    }
    if options.detach {
        // Here its progress is seen; the run in the background finds it in the cache.
        let mut images = Images::default();
        for image in plan.files.values().filter_map(FileWant::image) {
            images.get(image).await?;
        }
        detach(&options).await
    } else {
        carry_out(plan, options).await
    }
}

async fn carry_out(mut plan: RunPlan, options: Options) -> Result<u8> {
    let place = Place::of(&plan.namespace, &plan.name);
    let claim = place.claim()?;
    let program = vmm::find(options.vmm)?;
    let reaper = Reaper::start(&claim).context("cannot start the process that clears up")?;
    let mut descriptors = BTreeMap::new();
    // Held to the end of the run: meanwhile nobody removes its images.
    let mut images = Images::default();
    for (name, want) in &plan.files {
        descriptors.insert(name.clone(), OwnedFd::from(files::open(want, &mut images).await?));
    }
    let network = set_up_networks(&mut plan, &options.publish, &mut descriptors).await?;
    let mut process = vmm::spawn(&program, &place.api_socket(), descriptors)?;
    let client = Client::new(place.api_socket()).with_timeout(CREATE_TIMEOUT);
    let created = async {
        client.wait_ready(VMM_READY).await?;
        client.create(&plan.config, !plan.start_paused).await
    };
    if let Err(error) = created.await {
        // The process may have said why on its standard error, and ended; its code says more than ours.
        let ended = tokio::time::timeout(Duration::from_secs(1), process.wait()).await;
        let why = error.problem().map_or_else(|| error.to_string(), |problem| blame::explain(&plan, problem));
        eprintln!("orlop-agent: cannot start {}: {why}", place.display);
        drop(reaper);
        return Ok(match ended {
            Ok(Ok(status)) if !status.success() => vmm::exit_code(status),
            _ => exit::FAILED,
        });
    }
    claim.publish(&Record {
        name: plan.name.clone(),
        namespace: plan.namespace.clone(),
        pid: std::process::id(),
        vmm_pid: process.id().unwrap_or_default(),
        address: network.as_ref().map(|n| n.plan.v4.guest.to_string()),
        published: options.publish.iter().map(Publish::to_string).collect(),
        grace_period_seconds: plan.grace_period_seconds,
    })?;
    announce(&plan, &place, network.as_ref(), &options.publish);
    if is_detached() {
        println!("{UP}");
    }
    let code = supervise::supervise(&plan, &place, &client, &mut process).await?;
    drop(reaper);
    Ok(code)
}

/// Makes every network and takes its taps and its MTU over; the masqueraded one, if there is one, lives as long as the
/// result.
async fn set_up_networks(
    plan: &mut RunPlan,
    publish: &[Publish],
    descriptors: &mut BTreeMap<String, OwnedFd>,
) -> Result<Option<Masquerade>> {
    let mut masquerade = None;
    for (id, spec) in &plan.nets {
        let refused = |error| anyhow!("cannot set the network of '{id}' up: {error}");
        let (taps, mtu) = match spec {
            NetSpec::Masquerade(spec) => {
                let mut network = Masquerade::set_up(spec, &plan.hostname).await.map_err(refused)?;
                let made = (std::mem::take(&mut network.taps), network.plan.mtu);
                masquerade = Some(network);
                made
            }
            NetSpec::Bridge(spec) => {
                let Bridged { taps, mtu } = Bridged::set_up(spec).await.map_err(refused)?;
                (taps, mtu)
            }
        };
        for (queue, tap) in taps.into_iter().enumerate() {
            descriptors.insert(crate::plan::tap_name(id, u16::try_from(queue)?), tap);
        }
        if let Some(card) = plan.config.nets.iter_mut().find(|card| card.id == *id) {
            card.mtu = Some(mtu);
        }
    }
    if let Some(network) = &masquerade {
        for what in publish {
            network.publish(*what).map_err(|error| anyhow!("--publish {what}: {error}"))?;
        }
    }
    Ok(masquerade)
}

fn announce(plan: &RunPlan, place: &Place, network: Option<&Masquerade>, publish: &[Publish]) {
    eprintln!("{}: started, API at {}", place.display, place.api_socket().display());
    if let Some(network) = network {
        let v6 = network.plan.v6.map(|v6| format!(" and {}", v6.guest)).unwrap_or_default();
        eprintln!("{}: its address is {}{v6}, by DHCP", place.display, network.plan.v4.guest);
        for note in &network.notes {
            eprintln!("{}: {note}", place.display);
        }
    }
    for what in publish {
        eprintln!("{}: {}:{} leads to its port {}", place.display, what.address, what.port, what.guest_port);
    }
    if plan.start_paused {
        let socket = place.api_socket();
        eprintln!(
            "{}: start strategy Paused: start it with orlop-vmm api --api-socket {} POST /vm/boot",
            place.display,
            socket.display()
        );
    }
}

/// Set for the process that goes on in the background.
const DETACHED: &str = "ORLOP_DETACHED";

/// Whether this process goes on in the background: it has no terminal.
pub fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Starts the same run in a session of its own and waits until its machine is up. What it says meanwhile is said here;
/// afterwards it holds neither this process's standard output nor its standard error.
async fn detach(options: &Options) -> Result<u8> {
    let mut command = tokio::process::Command::new("setsid");
    command.arg(std::env::current_exe()?).arg("run").arg(&options.file);
    for what in &options.publish {
        command.arg("--publish").arg(what.to_string());
    }
    if let Some(vmm) = &options.vmm {
        command.arg("--vmm").arg(vmm);
    }
    let said = files::scratch()?;
    let mut child = command
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said.try_clone().context("cannot keep what the run says")?)
        .spawn()
        .context("cannot start the run in the background (setsid, Debian package util-linux)")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line == UP {
            return repeat(&said).map(|()| 0);
        }
    }
    let status = child.wait().await?;
    repeat(&said)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).filter(|&c| c != 0).unwrap_or(exit::FAILED))
}

/// Prints what the run in the background has said so far, without moving the place where it goes on.
fn repeat(said: &std::fs::File) -> Result<()> {
    let mut text = vec![0; usize::try_from(said.metadata()?.len())?];
    said.read_exact_at(&mut text, 0)?;
    std::io::stderr().write_all(&text)?;
    Ok(())
}
