//! What the rest of the process may ask of the machine.
//!
//! A [`Handle`] is a mailbox of the driver task, the one owner of the machine's state. A request is answered when it
//! has been carried out, or refused with a [`Refusal`] that says why. Dropping the future of a request takes nothing
//! back: it is carried out all the same.

use orlop_api::config::VmConfig;
use orlop_api::device::DeviceInfo;
use orlop_api::state::{VmInfo, VmState};
use orlop_api::vcpu::VcpuInfo;
use tokio::sync::{mpsc, oneshot, watch};

use super::console::Console;
use super::events::EventLog;
use super::outcome::Outcome;
use super::policy::Command;

/// How many requests may wait for the driver; a client beyond that waits itself.
const WAITING_MAX: usize = 32;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The machine's state does not allow it.
    #[error("a machine that is {state} does not allow '{request}'")]
    NotAllowed {
        /// What was asked for.
        request: &'static str,
        /// The state that is in the way.
        state: VmState,
    },
    /// The request itself is wrong.
    #[error("{}{detail}", prefix(.field))]
    Invalid {
        /// The field of the configuration that is to blame, `disks[0].queue_size`.
        field: Option<String>,
        /// What is wrong with it and what would be right.
        detail: String,
    },
    /// There is no such device.
    #[error("{detail}")]
    NotFound {
        /// What there is not.
        detail: String,
    },
    /// This machine or this build cannot do it.
    #[error("{detail}")]
    Unsupported {
        /// What is missing.
        detail: String,
    },
    /// The guest is in the way.
    #[error("{detail}")]
    Locked {
        /// How.
        detail: String,
    },
    /// The host failed: a file is missing or locked, there is no usable `/dev/kvm`, memory is short.
    #[error("{}{detail}", prefix(.field))]
    Host {
        /// The field of the configuration that names what failed.
        field: Option<String>,
        /// What failed and what to do.
        detail: String,
        /// The exit code for a process that cannot go on without it; see [`crate::exit`].
        exit_code: u8,
    },
    /// The machine has ended, and the process is about to.
    #[error("the machine has ended")]
    Gone,
}

fn prefix(field: &Option<String>) -> String {
    field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default()
}

impl Refusal {
    /// The exit code for a process whose only purpose was refused; see [`crate::exit`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Invalid { .. } => crate::exit::BAD_CONFIG,
            Self::Host { exit_code, .. } => *exit_code,
            _ => crate::exit::FAILED,
        }
    }
}

/// Where the answer to a request goes.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What waits in the driver's mailbox.
pub(super) enum Request {
    /// Changes the machine.
    Command(Command, Reply<Result<(), Refusal>>),
    /// Asks for the state and what it was made of.
    Info(Reply<VmInfo>),
    /// Asks for the devices.
    Devices(Reply<Vec<DeviceInfo>>),
    /// Asks for the vCPUs.
    Vcpus(Reply<Vec<VcpuInfo>>),
}

/// The machine, as the rest of the process sees it. Clones reach the same one.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    outcome: watch::Receiver<Option<Outcome>>,
    events: EventLog,
    console: Console,
}

/// The driver's ends of what a [`Handle`] holds.
pub(super) struct Mailbox {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) outcome: watch::Sender<Option<Outcome>>,
    pub(super) events: EventLog,
    pub(super) console: Console,
}

/// A handle and the mailbox that it reaches.
pub(super) fn channel(events: EventLog, console: Console) -> (Handle, Mailbox) {
    let (to_driver, requests) = mpsc::channel(WAITING_MAX);
    let (outcome, ended) = watch::channel(None);
    let mailbox = Mailbox { requests, outcome, events: events.clone(), console: console.clone() };
    (Handle { requests: to_driver, outcome: ended, events, console }, mailbox)
}

impl Handle {
    /// Builds the machine, and starts it at once if `boot` says so. A configuration that cannot be carried out leaves
    /// the state as it was.
    pub async fn create(&self, config: VmConfig, boot: bool) -> Result<(), Refusal> {
        self.command(Command::Create { config: Box::new(config), boot }).await
    }

    /// Starts a machine that was created without.
    pub async fn boot(&self) -> Result<(), Refusal> {
        self.command(Command::Boot).await
    }

    /// Stops the vCPUs, then drains every device. When it returns nothing touches guest memory.
    pub async fn pause(&self) -> Result<(), Refusal> {
        self.command(Command::Pause).await
    }

    /// Lets a paused machine go on.
    pub async fn resume(&self) -> Result<(), Refusal> {
        self.command(Command::Resume).await
    }

    /// Presses the power button; what follows is the guest's affair.
    pub async fn power_button(&self) -> Result<(), Refusal> {
        self.command(Command::PowerButton).await
    }

    /// Resets the machine in place: devices to power-on, the kernel loaded anew, the first vCPU at its entry.
    pub async fn reset(&self) -> Result<(), Refusal> {
        self.command(Command::Reset).await
    }

    /// Ends the machine at once, whatever it does; the process ends soon after.
    pub async fn shutdown(&self) -> Result<(), Refusal> {
        self.command(Command::Shutdown).await
    }

    /// Sets how many bytes the balloon takes from the guest.
    pub async fn set_balloon(&self, target_bytes: u64) -> Result<(), Refusal> {
        self.command(Command::Balloon { target_bytes }).await
    }

    /// Plugs the cable of network card `id` in or out.
    pub async fn set_link(&self, id: &str, up: bool) -> Result<(), Refusal> {
        self.command(Command::Link { id: id.to_owned(), up }).await
    }

    /// Puts the descriptor `fd` as a medium into CD-ROM drive `id`.
    pub async fn insert(&self, id: &str, fd: &str) -> Result<(), Refusal> {
        self.command(Command::Insert { id: id.to_owned(), fd: fd.to_owned() }).await
    }

    /// Takes the medium out of CD-ROM drive `id`, with `force` even where the guest has locked its tray.
    pub async fn eject(&self, id: &str, force: bool) -> Result<(), Refusal> {
        self.command(Command::Eject { id: id.to_owned(), force }).await
    }

    /// Makes disk `id` longer.
    pub async fn set_size(&self, id: &str, size_bytes: u64) -> Result<(), Refusal> {
        self.command(Command::Size { id: id.to_owned(), size_bytes }).await
    }

    /// State, configuration and history.
    pub async fn info(&self) -> Result<VmInfo, Refusal> {
        self.ask(Request::Info).await
    }

    /// Every device with its address, counters and queues, in PCI order; empty before the machine is created.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, Refusal> {
        self.ask(Request::Devices).await
    }

    /// Every vCPU with its exits by reason; empty before the machine is created.
    pub async fn vcpus(&self) -> Result<Vec<VcpuInfo>, Refusal> {
        self.ask(Request::Vcpus).await
    }

    /// What happened to the machine.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Returns when the machine has ended, with the reason; the process is about to end then.
    pub async fn stopped(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        let reason = ended.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| Outcome::Failed("the driver of the machine is gone".to_owned()))
    }

    async fn command(&self, command: Command) -> Result<(), Refusal> {
        self.ask(|reply| Request::Command(command, reply)).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)
    }
}
