//! `orlop-agent list`.

use std::time::Duration;

use anyhow::Result;
use orlop_client::Client;

use crate::instance::{self, Place, display_name};

/// How long a VMM may take to say how it is.
const ANSWER: Duration = Duration::from_secs(2);

/// Prints the VMs that run on this machine.
pub async fn list() -> Result<()> {
    let records = instance::list()?;
    println!("{:<24} {:<12} {:>8}  {:<16} PUBLISHED", "NAME", "STATE", "PID", "ADDRESS");
    let states = records.iter().map(async |record| {
        let socket = Place::of(&record.namespace, &record.name).api_socket();
        match Client::new(socket).with_timeout(ANSWER).info().await {
            Ok(info) => info.state.name(),
            Err(_) => "unreachable",
        }
    });
    let states = futures_util::future::join_all(states).await;
    for (record, state) in records.iter().zip(states) {
        println!(
            "{:<24} {:<12} {:>8}  {:<16} {}",
            display_name(&record.namespace, &record.name),
            state,
            record.vmm_pid,
            record.address.as_deref().unwrap_or("-"),
            record.published.join(", "),
        );
    }
    Ok(())
}
