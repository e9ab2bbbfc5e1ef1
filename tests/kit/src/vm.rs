//! A VMM process with a machine in it.

use std::any::Any;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use orlop_api::device::DeviceInfo;
use orlop_api::event::{Event, EventKind};
use orlop_client::{Client, Events};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Guest, PATIENCE, Transcript, scratch, vmm};

/// How long a process that ends takes to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// All events of a machine that has ended or is about to: reads `events` to their end.
pub async fn ended(mut events: Events) -> Vec<EventKind> {
    let mut all = Vec::new();
    let reading = async {
        while let Some(event) = events.next().await.expect("an event") {
            all.push(event.what);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the events end with the machine");
    all
}

/// A VMM process; it is killed when dropped.
pub struct Vm {
    /// Speaks to it.
    pub client: Client,
    process: Child,
    console: Option<Transcript>,
    /// What has to last as long as the process.
    kept: Vec<Box<dyn Any + Send>>,
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
        Self::process_in(directory, &[], arguments).await
    }

    /// The same in `directory`, started by `starter`, a command that is given the VMM's as its arguments.
    pub async fn process_in(directory: TempDir, starter: &[&str], arguments: &[&str]) -> Self {
        let socket = directory.path().join("api.sock");
        let log = std::fs::File::create(directory.path().join("stderr")).expect("a log");
        let program = vmm();
        let mut words = starter.iter().map(OsStr::new).chain([program.as_os_str()]);
        let process = Command::new(words.next().expect("at least the VMM"))
            .args(words)
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
        let mut vm = Self { client, process, console: None, kept: Vec::new(), directory };
        let ready = tokio::select! {
            ready = vm.client.wait_ready(PATIENCE) => ready.map(drop).map_err(|error| error.to_string()),
            status = vm.process.wait() => Err(format!("it ended: {status:?}")),
        };
        if let Err(error) = ready {
            panic!("the VMM does not answer: {error}; it said: {}", vm.stderr());
        }
        vm
    }

    /// Starts `guest` and attaches to its console.
    pub async fn boot(guest: &Guest) -> Self {
        let mut vm = Self::process(&[]).await;
        vm.start(guest).await;
        vm
    }

    /// Builds `guest` in this process and attaches to its console; it does not run yet.
    pub async fn prepare(&mut self, guest: &Guest) {
        if let Err(error) = self.client.create(&guest.config, false).await {
            panic!("cannot create the guest: {error}; the VMM said: {}", self.stderr());
        }
        self.attach().await;
    }

    /// Starts `guest` in this process, its console attached from the first byte.
    pub async fn start(&mut self, guest: &Guest) {
        self.prepare(guest).await;
        self.client.boot().await.expect("a guest that boots");
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
        match self.console().wait_for(what, PATIENCE).await {
            Ok(between) => between,
            Err(why) => {
                // A process that has closed the console is about to say why.
                let _ = tokio::time::timeout(LAST_WORDS, self.process.wait()).await;
                panic!("{why}\nthe VMM said: {}", self.stderr())
            }
        }
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

    /// What device `id` counted under `name`.
    pub async fn counter(&self, id: &str, name: &str) -> u64 {
        let device = self.device(id).await;
        let found = device.counters.get(name).copied();
        found.unwrap_or_else(|| panic!("'{id}' does not count '{name}', but {:?}", device.counters.keys()))
    }

    /// Device `id` as the API shows it.
    pub async fn device(&self, id: &str) -> DeviceInfo {
        let devices = self.client.devices().await.expect("the devices");
        let found = devices.iter().find(|device| device.id == id).cloned();
        found.unwrap_or_else(|| panic!("no device '{id}' among {devices:?}"))
    }

    /// Kills the process with SIGKILL; its directory is left.
    pub async fn kill(mut self) -> TempDir {
        self.process.kill().await.expect("a process to kill");
        self.directory
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("a running process")
    }

    /// Has `thing`, a tap for example, last as long as this.
    pub fn keep(&mut self, thing: impl Any + Send) {
        self.kept.push(Box::new(thing));
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
