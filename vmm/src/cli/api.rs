//! `orlop-vmm api`: speaks to a running VMM, for people and scripts.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use orlop_api::BASE;
use orlop_client::{Answer, Body, Client};

use super::{console, read_bounded};

/// Arguments of `orlop-vmm api`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export ORLOP_API_SOCKET=/run/vm/api.sock
  orlop-vmm api GET /vm                                  state and configuration
  orlop-vmm api PUT '/vm?boot=true' @vm.json             create a machine from a file and start it
  orlop-vmm api POST /vm/pause
  orlop-vmm api PUT /vm/balloon '{\"target_bytes\": 67108864}'
  orlop-vmm api PUT /vm/devices/net0/link '{\"up\": false}'
  orlop-vmm api GET /vm/log                              what the serial port said
  orlop-vmm api console                                  the serial port; Ctrl-] leaves
  orlop-vmm api events                                   what happens, one JSON object per line
  orlop-vmm api GET /openapi.json                        what else there is

Exit codes: 0 the VMM said yes; 1 it said no, or cannot be reached; 2 wrong command line.")]
pub struct Args {
    /// The socket of the VMM.
    #[arg(long, value_name = "PATH", env = "ORLOP_API_SOCKET")]
    api_socket: PathBuf,
    /// How long to wait for an answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// GET, PUT or POST; or 'console', or 'events'.
    method: String,
    /// A path below /api/v1, for example /vm.
    path: Option<String>,
    /// The body: JSON, @FILE, or - for standard input.
    body: Option<String>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Console,
    Events,
    Request(Method, String),
}

/// Runs the command.
pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let task = task(&args.method, args.path.as_deref())?;
    let client = Client::new(&args.api_socket).with_timeout(Duration::from_secs(args.timeout));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let code = runtime.block_on(async {
        match task {
            Task::Console => console::attach(&client).await,
            Task::Events => events(&client).await,
            Task::Request(method, path) => request(&client, method, &path, args.body.as_deref()).await,
        }
    });
    // The console's reader of standard input may sit in a read that nothing ends.
    runtime.shutdown_background();
    code
}

fn task(method: &str, path: Option<&str>) -> anyhow::Result<Task> {
    let Some(path) = path else {
        return match method {
            "console" => Ok(Task::Console),
            "events" => Ok(Task::Events),
            _ => bail!("'{method}' needs a path, for example: orlop-vmm api GET /vm"),
        };
    };
    let method: Method =
        method.to_ascii_uppercase().parse().with_context(|| format!("'{method}' is no method"))?;
    let path = path.strip_prefix(BASE).unwrap_or(path);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(match (method, path.as_str()) {
        (Method::GET, "/vm/console") => Task::Console,
        (Method::GET, "/events") => Task::Events,
        (method, _) => Task::Request(method, path),
    })
}

async fn request(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let body = body.map(read_body).transpose()?;
    let answer = client.request(method, path, body).await?;
    print(&answer).context("cannot print the answer")?;
    if answer.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let problem = answer.success().err().map(|error| error.to_string()).unwrap_or_default();
    bail!("the VMM refused: {problem}")
}

fn read_body(body: &str) -> anyhow::Result<Body> {
    let bytes = match body.strip_prefix('@') {
        Some(file) => File::open(file)
            .and_then(read_bounded)
            .with_context(|| format!("cannot read the body from {file}"))?,
        None if body == "-" => {
            read_bounded(std::io::stdin().lock()).context("cannot read the body from standard input")?
        }
        None => body.as_bytes().to_vec(),
    };
    Ok(Body { bytes, content_type: "application/json" })
}

/// JSON is laid out for people; what else comes is passed on as it is.
fn print(answer: &Answer) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let value =
        answer.content_type.contains("json").then(|| answer.json::<serde_json::Value>().ok()).flatten();
    match value {
        Some(value) => writeln!(out, "{value:#}")?,
        None => out.write_all(&answer.body)?,
    }
    if value_needs_newline(answer) && out.is_terminal() {
        writeln!(out)?;
    }
    out.flush()
}

fn value_needs_newline(answer: &Answer) -> bool {
    !answer.content_type.contains("json") && !answer.body.is_empty() && !answer.body.ends_with(b"\n")
}

async fn events(client: &Client) -> anyhow::Result<ExitCode> {
    let mut events = client.events(0).await?;
    while let Some(event) = events.next().await? {
        let line = serde_json::to_string(&event)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print an event")?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_be_written_in_every_usual_way() {
        for path in ["/vm", "vm", "/api/v1/vm"] {
            let task = task("get", Some(path)).expect("well formed");
            assert_eq!(task, Task::Request(Method::GET, "/vm".to_owned()));
        }
    }

    #[test]
    fn streams_are_known_by_path_and_by_name() {
        assert_eq!(task("console", None).expect("a name"), Task::Console);
        assert_eq!(task("GET", Some("/vm/console")).expect("a path"), Task::Console);
        assert_eq!(task("events", None).expect("a name"), Task::Events);
        assert_eq!(task("GET", Some("/api/v1/events")).expect("a path"), Task::Events);
        assert!(task("GET", None).is_err());
        assert!(task("GE T", Some("/vm")).is_err());
    }
}
