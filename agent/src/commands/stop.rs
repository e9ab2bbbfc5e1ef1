//! `orlop-agent stop NAME`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orlop_client::Client;

use crate::instance::{Place, split_name};

/// How long the run may take to clear up once its machine is over.
const CLEAR_UP: Duration = Duration::from_secs(10);
/// How often the end of the run is looked for; it has no event file of its own.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the VMM may take for an answer before it counts as hung.
const ANSWER: Duration = Duration::from_secs(5);
/// How often the power button is pressed: a guest that still boots does not see the first time.
const PRESS_EVERY: Duration = Duration::from_secs(5);

/// Presses the power button, waits, and ends the machine when the guest took too long. Where its VMM does not answer the
/// run is killed, and the machine ends with it.
pub async fn stop(name: &str, grace_period: Option<u64>) -> Result<()> {
    let (namespace, name) = split_name(name);
    let place = Place::of(namespace, name);
    let record = place.running()?;
    let client = Client::new(place.api_socket());
    let grace = Duration::from_secs(grace_period.unwrap_or(record.grace_period_seconds));
    match power_off(&client, grace).await {
        Ok(true) => {}
        Ok(false) => eprintln!("{} did not power off within {} s: ended it", place.display, grace.as_secs()),
        Err(error) => {
            let pid = i32::try_from(record.pid).context("the run's process number is damaged")?;
            // It holds the instance, so that this is no other process by the same number.
            kill(Pid::from_raw(pid), Signal::SIGKILL)
                .with_context(|| format!("cannot stop {}: {error}; nor kill process {pid}", place.display))?;
            eprintln!("{}: {error}; killed it", place.display);
        }
    }
    let deadline = tokio::time::Instant::now() + CLEAR_UP;
    while place.running().is_ok_and(|now| now.pid == record.pid) {
        if tokio::time::Instant::now() > deadline {
            bail!("the machine is over, but process {} still holds {}", record.pid, place.display);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Asks the guest to power off and ends the machine after `grace`; says whether the guest did it by itself. An error
/// means that the VMM does not answer.
pub async fn power_off(client: &Client, grace: Duration) -> Result<bool, orlop_client::Error> {
    let client = &client.clone().with_timeout(ANSWER);
    let mut events = client.events(0).await?;
    // A paused guest cannot see its power button; what cannot be resumed is not paused.
    drop(client.resume().await);
    let asked = grace > Duration::ZERO && client.power_button().await.is_ok();
    let over = async {
        while let Ok(Some(event)) = events.next().await
            && !event.what.is_last()
        {}
    };
    if asked {
        let press = async {
            loop {
                tokio::time::sleep(PRESS_EVERY).await;
                drop(client.power_button().await);
            }
        };
        tokio::select! {
            () = over => return Ok(true),
            () = press => {}
            () = tokio::time::sleep(grace) => {}
        }
    }
    match client.shutdown().await {
        Ok(()) => Ok(false),
        // It ended between the two calls.
        Err(error) if error.problem().is_none() => Ok(true),
        Err(error) => Err(error),
    }
}
