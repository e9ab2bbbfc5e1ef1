//! A VMM process with a machine in it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use orlop_api::event::Event;
use orlop_client::Client;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Guest, PATIENCE, Transcript, scratch, vmm};

/// A VMM process; it is killed when dropped.
pub struct Vm {
    /// Speaks to it.
    pub client: Client,
    process: Child,
    console: Option<Transcript>,
    directory: TempDir,
}

/// How a VMM process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code; `None` when a signal killed it.
    pub code: Option<i32>,
    /// What it wrote on standard error.
    pub stderr: String,
    /// What the guest wrote on its console.
    pub console: String,
}

impl Vm {
    /// Starts a process that holds no machine yet.
    pub async fn process(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir_in(scratch()).expect("a directory for the VM");
        let socket = directory.path().join("api.sock");
        let log = std::fs::File::create(directory.path().join("stderr")).expect("a log");
        let process = Command::new(vmm())
            .args(["serve", "--api-socket"])
            .arg(&socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", vmm().display()));
        let client = Client::new(socket).with_timeout(PATIENCE);
        let mut vm = Self { client, process, console: None, directory };
        if let Err(error) = vm.client.wait_ready(Duration::from_secs(30)).await {
            let status = vm.process.try_wait();
            panic!("the VMM does not answer: {error}; {status:?}; it said: {}", vm.stderr());
        }
        vm
    }

    /// Starts `guest` and attaches to its console.
    pub async fn boot(guest: &Guest) -> Self {
        let mut vm = Self::process(&[]).await;
        if let Err(error) = vm.client.create(&guest.config, true).await {
            panic!("cannot start the guest: {error}; the VMM said: {}", vm.stderr());
        }
        vm.attach().await;
        vm
    }

    /// Starts the small Linux guest and waits until it takes commands.
    pub async fn shell(guest: &Guest) -> Self {
        let mut vm = Self::boot(guest).await;
        vm.expect("orlop-init: commands").await;
        vm
    }

    /// Attaches to the console anew; what was read before is forgotten.
    pub async fn attach(&mut self) {
        let console = self.client.console().await.expect("a console");
        self.console = Some(Transcript::new(console));
    }

    /// The console.
    pub fn console(&mut self) -> &mut Transcript {
        self.console.as_mut().expect("attached to the console")
    }

    /// Waits for `what` on the console.
    pub async fn expect(&mut self, what: &str) -> String {
        self.console().expect(what, PATIENCE).await
    }

    /// Lets the small Linux guest run `command`: its output; panics when it fails.
    pub async fn run(&mut self, command: &str) -> String {
        let (output, code) = self.try_run(command).await;
        assert_eq!(code, 0, "'{command}' failed in the guest:\n{output}");
        output
    }

    /// Lets the small Linux guest run `command`: its output and exit code.
    pub async fn try_run(&mut self, command: &str) -> (String, i32) {
        let console = self.console();
        console.send(&format!("{command}\n")).await;
        let output = console.expect("orlop-init: exit ", PATIENCE).await;
        let code = console.expect("\n", PATIENCE).await;
        // The terminal echoes the command before its output.
        let output = output.replace('\r', "");
        let output = output.split_once(command).map_or(output.as_str(), |(_, after)| after).trim();
        (output.to_owned(), code.trim().parse().expect("an exit code"))
    }

    /// All events so far and to come, until `until` likes one; panics when it takes too long.
    pub async fn wait_event(&self, until: impl Fn(&Event) -> bool) -> Event {
        let mut events = self.client.events(0).await.expect("events");
        let mut seen = Vec::new();
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(event) = events.next().await.expect("an event") {
                if until(&event) {
                    return Some(event);
                }
                seen.push(event);
            }
            None
        });
        match found.await {
            Ok(Some(event)) => event,
            _ => panic!("the event did not come; there were {seen:?}"),
        }
    }

    /// Waits for the end of the machine and its process.
    pub async fn exit(mut self) -> Exit {
        let ended = tokio::time::timeout(PATIENCE, async {
            if let Some(console) = self.console.as_mut() {
                console.rest(PATIENCE).await;
            }
            self.process.wait().await
        });
        let status = match ended.await {
            Ok(status) => status.expect("an exit status"),
            Err(_) => panic!("the VMM did not end; it said: {}", self.stderr()),
        };
        let console = self.console.as_ref().map(|c| c.text().to_owned()).unwrap_or_default();
        Exit { code: status.code(), stderr: self.stderr(), console }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("a running process")
    }

    /// A file for this VM that goes away with it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the process wrote on standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.file("stderr")).unwrap_or_default()
    }
}
