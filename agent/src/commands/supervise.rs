//! Stays with a machine until it is over.

use std::time::Duration;

use anyhow::Result;
use orlop_api::event::{EventKind, Initiator};
use orlop_client::Client;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::run::is_detached;
use super::stop::power_off;
use crate::instance::Place;
use crate::plan::RunPlan;
use crate::terminal::{self, Left};
use crate::vmm;

/// How long the VMM may take to answer somebody who wants it to end at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Waits for the end of the machine with its console on this terminal. SIGINT, SIGTERM and SIGHUP ask the guest to power
/// off and end the machine after its grace period; a second one ends it at once.
pub async fn supervise(plan: &RunPlan, place: &Place, client: &Client, process: &mut Child) -> Result<u8> {
    let console = show_console(place, client);
    let stop = stop_on_signal(plan, place, client);
    let events = watch(plan, place, client);
    let mut status = None;
    {
        tokio::pin!(console, stop, events);
        let (mut console_done, mut stop_done, mut events_done) = (false, false, false);
        while status.is_none() {
            tokio::select! {
                ended = process.wait() => status = Some(ended?),
                () = &mut console, if !console_done => console_done = true,
                done = &mut stop, if !stop_done => {
                    stop_done = true;
                    if !done? {
                        eprintln!("\r\n{}: its VMM is killed", place.display);
                        process.start_kill()?;
                    }
                }
                () = &mut events, if !events_done => events_done = true,
            }
        }
    }
    let code = status.map_or(crate::exit::FAILED, vmm::exit_code);
    if code != 0 {
        eprintln!("\r\n{}: the machine ended with code {code} (see orlop-vmm --help)", place.display);
    }
    Ok(code)
}

async fn show_console(place: &Place, client: &Client) {
    if is_detached() {
        return;
    }
    let left = match client.console().await {
        Ok(console) => terminal::attach(console).await,
        Err(error) => {
            eprintln!("{}: no console: {error}", place.display);
            return;
        }
    };
    match left {
        Ok(Left::Escape) => eprintln!(
            "\r\n{0}: runs on without its console; Ctrl-C stops it, orlop-agent console {0} comes back",
            place.display
        ),
        Ok(Left::Machine) => {}
        Err(error) => eprintln!("\r\n{}: the console ended: {error}", place.display),
    }
}

/// Says whether the machine is over or about to be; else only the end of its process is left.
async fn stop_on_signal(plan: &RunPlan, place: &Place, client: &Client) -> Result<bool> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    next(&mut signals).await;
    eprintln!(
        "\r\n{}: asked to power off, at most {} s; once more ends it at once",
        place.display, plan.grace_period_seconds
    );
    Ok(tokio::select! {
        ended = power_off(client, Duration::from_secs(plan.grace_period_seconds)) => ended.is_ok(),
        () = next(&mut signals) => {
            let ended = tokio::time::timeout(AT_ONCE, client.shutdown()).await;
            ended.is_ok_and(|ended| ended.is_ok())
        }
    })
}

async fn next(signals: &mut [tokio::signal::unix::Signal]) {
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(waits).await;
}

/// What happens to the machine: with `rebootPolicy: Terminate` a reset by the guest ends it; a disk whose error paused it
/// is named, with what to do.
async fn watch(plan: &RunPlan, place: &Place, client: &Client) {
    let Ok(mut events) = client.events(0).await else { return };
    while let Ok(Some(event)) = events.next().await {
        match event.what {
            EventKind::Reset { by: Initiator::Guest } if plan.end_on_reset => {
                drop(client.shutdown().await);
            }
            EventKind::DiskError { device, detail } => eprintln!(
                "\r\n{}: {}: {detail}; the machine is paused. When that is mended, go on with: orlop-vmm api \
                 --api-socket {} POST /vm/resume",
                place.display,
                device.strip_prefix("disk-").unwrap_or(&device),
                place.api_socket().display()
            ),
            _ => {}
        }
    }
}
