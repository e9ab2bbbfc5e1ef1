//! `orlop-agent list`.

use anyhow::Result;
use orlop_client::Client;

use crate::instance::{self, Place, display_name};

/// Prints the VMs that run on this machine.
pub async fn list() -> Result<()> {
    let records = instance::list()?;
    println!("{:<24} {:<12} {:>8}  {:<16} PUBLISHED", "NAME", "STATE", "PID", "ADDRESS");
    for record in records {
        let socket = Place::of(&record.namespace, &record.name).api_socket();
        let state = match Client::new(socket).info().await {
            Ok(info) => info.state.name(),
            Err(_) => "unreachable",
        };
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
