//! `orlop-agent console NAME`.

use anyhow::{Context, Result};
use orlop_client::Client;

use crate::instance::{Place, split_name};
use crate::terminal::{self, Left};

/// Puts the console of a running VM on this terminal.
pub async fn console(name: &str) -> Result<()> {
    let (namespace, name) = split_name(name);
    let place = Place::of(namespace, name);
    place.running()?;
    let console = Client::new(place.api_socket()).console().await.context("cannot reach the console")?;
    eprintln!("console of {}; leave with Ctrl-]", place.display);
    match terminal::attach(console).await? {
        Left::Escape => eprintln!("\r\nleft; {} runs on", place.display),
        Left::Machine => eprintln!("\r\n{} is over", place.display),
    }
    Ok(())
}
