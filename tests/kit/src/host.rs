//! The other side: programs on the machine that the VMM runs on.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::PATIENCE;

/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs `script` in a shell of the host: its output; panics when it fails.
pub async fn host(script: &str) -> String {
    let (output, code) = try_host(script).await;
    assert_eq!(code, Some(0), "'{script}' failed on the host:\n{output}");
    output
}

/// Runs `script` in a shell of the host: its output, standard error included, and its exit code.
pub async fn try_host(script: &str) -> (String, Option<i32>) {
    let output = shell(script).output();
    let output = tokio::time::timeout(PATIENCE, output).await;
    let output = output.unwrap_or_else(|_| panic!("'{script}' did not end on the host within {PATIENCE:?}"));
    let output = output.unwrap_or_else(|error| panic!("cannot run a shell: {error}"));
    (String::from_utf8_lossy(&output.stdout).trim().to_owned(), output.status.code())
}

/// Starts `script` in a shell of the host; it is killed when dropped. Its standard output can be read.
pub fn host_job(script: &str) -> Child {
    shell(script).spawn().unwrap_or_else(|error| panic!("cannot run a shell: {error}"))
}

/// What the job wrote once it has ended; panics when it failed.
pub async fn finished(job: Child) -> String {
    let output = tokio::time::timeout(PATIENCE, job.wait_with_output()).await;
    let output = output.expect("the job on the host ends").expect("it can be waited for");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "a job on the host failed: {}\n{text}", output.status);
    text
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec 2>&1; {script}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Looks at `condition` until it holds; panics with `what` when it takes too long.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looking = async {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        while !condition().await {
            interval.tick().await;
        }
    };
    if tokio::time::timeout(PATIENCE, looking).await.is_err() {
        panic!("waited for {PATIENCE:?}, but not: {what}");
    }
}
