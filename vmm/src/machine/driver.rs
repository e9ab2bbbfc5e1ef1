//! The driver: the one task that owns the machine's state.
//!
//! It decides by [`policy`](super::policy) and lets the machine's thread act, one step at a time; meanwhile it answers
//! questions and can still end everything. So a device that is slow to drain holds up neither the API nor the end.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use orlop_api::config::VmConfig;
use orlop_api::event::{EventKind, Initiator};
use orlop_api::state::{VmInfo, VmState};
use orlop_chipset::Serial;
use tokio::sync::{mpsc, oneshot};

use super::console::Console;
use super::events::now_unix_ms;
use super::firmware_log::FirmwareLog;
use super::handle::{Mailbox, Refusal, Reply, Request};
use super::hands::{Created, Done, Job, answer};
use super::outcome::Outcome;
use super::policy::{Command, GuestAct, Step, on_command, on_guest};
use super::serial_log::SerialLog;
use crate::jail::{Jail, ThreadKind};

/// How long the devices of a guest that powered itself off may take until they are drained.
const DRAIN: Duration = Duration::from_secs(10);
/// How long taking a machine apart may take that ends in any other way.
const TAKE_APART: Duration = Duration::from_secs(5);

/// The driver; [`Driver::drive`] is its task.
pub struct Driver {
    pub(super) mailbox: Mailbox,
    pub(super) acts: mpsc::UnboundedReceiver<GuestAct>,
    pub(super) jobs: Sender<Job>,
    pub(super) jail: Arc<Jail>,
    /// Whether a guest's reset goes round.
    pub(super) reboot: bool,
    pub(super) state: VmState,
    pub(super) config: Option<VmConfig>,
    pub(super) serial: Option<Arc<Serial>>,
    pub(super) log: Option<SerialLog>,
    pub(super) firmware_log: FirmwareLog,
    pub(super) booted_at_unix_ms: Option<u64>,
    pub(super) resets: u64,
    /// Commands that wait for the step in progress.
    pub(super) waiting: VecDeque<(Command, Reply<Result<(), Refusal>>)>,
}

/// A step that the machine's thread is carrying out.
struct Doing {
    step: Step,
    result: oneshot::Receiver<Result<Done, Refusal>>,
    /// Who asked, where it was a client.
    reply: Option<Reply<Result<(), Refusal>>>,
}

impl Driver {
    /// Drives the machine until it has ended; `signal` resolves when the process is told to end.
    pub async fn drive(mut self, signal: impl Future<Output = ()>) -> Outcome {
        tokio::pin!(signal);
        let console = self.mailbox.console.clone();
        let mut doing: Option<Doing> = None;
        let outcome = loop {
            if doing.is_none()
                && let Some((command, reply)) = self.waiting.pop_front()
            {
                match self.start(command, reply) {
                    Next::Idle => continue,
                    Next::Doing(next) => doing = Some(next),
                    Next::Stop(outcome) => break outcome,
                }
            }
            tokio::select! {
                biased;
                () = &mut signal => break Outcome::Signal,
                result = result_of(&mut doing) => {
                    if let Some(done) = doing.take()
                        && let Some(outcome) = self.finish(done, result)
                    {
                        break outcome;
                    }
                }
                Some(act) = self.acts.recv(), if doing.is_none() => {
                    match self.react(act) {
                        Next::Idle => {}
                        Next::Doing(next) => doing = Some(next),
                        Next::Stop(outcome) => break outcome,
                    }
                }
                request = self.mailbox.requests.recv() => match request {
                    Some(Request::Command(Command::Shutdown, reply)) => {
                        let _ = reply.send(Ok(()));
                        break Outcome::Client;
                    }
                    Some(Request::Command(command, reply)) => self.waiting.push_back((command, reply)),
                    Some(Request::Info(reply)) => { let _ = reply.send(self.info()); }
                    Some(Request::Devices(reply)) => { let _ = self.jobs.send(Job::Devices(reply)); }
                    Some(Request::Vcpus(reply)) => { let _ = self.jobs.send(Job::Vcpus(reply)); }
                    None => break Outcome::Failed("nobody can reach the machine any more".to_owned()),
                },
                () = typed(&self.serial, &console) => {
                    if let Some(serial) = &self.serial {
                        console.feed(|bytes| serial.input(bytes));
                    }
                }
                () = self.firmware_log.copy() => {}
                copied = copy(&mut self.log) => if copied.is_err() { self.log = None },
            }
        };
        self.end(outcome).await
    }

    /// What a client's command leads to.
    fn start(&mut self, command: Command, reply: Reply<Result<(), Refusal>>) -> Next {
        match on_command(self.state, command) {
            Ok(Step::Stop(outcome)) => {
                let _ = reply.send(Ok(()));
                Next::Stop(outcome)
            }
            Ok(step) => Next::Doing(self.act(step, Some(reply))),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                Next::Idle
            }
        }
    }

    /// What a guest's act leads to.
    fn react(&mut self, act: GuestAct) -> Next {
        if let GuestAct::DiskError { device, detail } = &act {
            let (device, detail) = (device.clone(), detail.clone());
            self.mailbox.events.post(EventKind::DiskError { device, detail });
        }
        match on_guest(self.state, act, self.reboot) {
            Step::Nothing => Next::Idle,
            Step::Panic { crash_loaded } => {
                self.mailbox.events.post(EventKind::Panic { crash_loaded });
                Next::Idle
            }
            Step::Stop(outcome) => Next::Stop(outcome),
            step => Next::Doing(self.act(step, None)),
        }
    }

    fn act(&self, step: Step, reply: Option<Reply<Result<(), Refusal>>>) -> Doing {
        let (send, result) = oneshot::channel();
        // A thread that is gone drops the sender, and that is noticed.
        let _ = self.jobs.send(Job::Step(step.clone(), send));
        Doing { step, result, reply }
    }

    /// Takes note of a step that was carried out. A guest's reset that failed is the end.
    fn finish(&mut self, doing: Doing, result: Result<Done, Refusal>) -> Option<Outcome> {
        let Doing { step, reply, .. } = doing;
        let result = result.and_then(|done| self.note(&step, done));
        let failed_reset = match (&step, &result) {
            (Step::Reset { .. }, Err(e)) => Some(Outcome::Failed(e.to_string())),
            _ => None,
        };
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
        failed_reset
    }

    fn note(&mut self, step: &Step, done: Done) -> Result<(), Refusal> {
        if let Done::Created(created) = done {
            return self.note_created(*created);
        }
        let event = match step {
            Step::Boot => {
                self.note_booted();
                return Ok(());
            }
            Step::Pause => {
                self.state = VmState::Paused;
                EventKind::Paused
            }
            Step::Resume => {
                self.state = VmState::Running;
                EventKind::Resumed
            }
            Step::Reset { by, .. } => {
                self.resets += 1;
                EventKind::Reset { by: *by }
            }
            Step::PowerButton => EventKind::PowerButton,
            Step::Balloon { target_bytes } => EventKind::BalloonTarget { target_bytes: *target_bytes },
            Step::Link { id, up } => EventKind::Link { device: id.clone(), up: *up },
            Step::Insert { id, .. } => EventKind::MediumInserted { device: id.clone() },
            Step::Eject { id, .. } => EventKind::MediumEjected { device: id.clone() },
            Step::Size { id, size_bytes } => {
                EventKind::DiskSize { device: id.clone(), size_bytes: *size_bytes }
            }
            Step::Create { .. } | Step::Panic { .. } | Step::Stop(_) | Step::Nothing => return Ok(()),
        };
        self.mailbox.events.post(event);
        Ok(())
    }

    fn note_created(&mut self, created: Created) -> Result<(), Refusal> {
        let Created { config, serial, log, running } = created;
        // Every other thread is confined by now; this one is the last.
        let confined = self.jail.confine(ThreadKind::Main);
        confined.map_err(|e| Refusal::Host {
            field: None,
            detail: e.to_string(),
            exit_code: crate::exit::FAILED,
        })?;
        self.state = VmState::Created;
        self.mailbox.events.post(EventKind::Created { name: config.name.clone() });
        (self.config, self.serial, self.log) = (Some(config), serial, log);
        if running {
            self.note_booted();
        }
        Ok(())
    }

    fn note_booted(&mut self) {
        self.state = VmState::Running;
        self.booted_at_unix_ms = Some(now_unix_ms());
        self.mailbox.events.post(EventKind::Booted);
    }

    fn info(&self) -> VmInfo {
        VmInfo {
            state: self.state,
            config: self.config.clone(),
            booted_at_unix_ms: self.booted_at_unix_ms,
            resets: self.resets,
            process_id: std::process::id(),
        }
    }

    /// Takes the machine apart, lets a guest that powered itself off have its last writes, and tells everyone.
    async fn end(&mut self, outcome: Outcome) -> Outcome {
        let drain = outcome == Outcome::PowerOff;
        let (done, apart) = oneshot::channel();
        let _ = self.jobs.send(Job::End { drain, done });
        // A device that cannot drain must not keep the process.
        let _ = tokio::time::timeout(if drain { DRAIN } else { TAKE_APART }, apart).await;
        self.firmware_log.finish();
        if let Some(log) = &mut self.log {
            // There is nobody left to tell.
            let _ = log.finish();
        }
        self.state = VmState::Stopped;
        let by = match &outcome {
            Outcome::PowerOff | Outcome::Reset => Initiator::Guest,
            Outcome::Client => Initiator::Client,
            Outcome::Signal => Initiator::Signal,
            Outcome::TripleFault { .. } | Outcome::GuestFault { .. } | Outcome::Failed(_) => Initiator::Vmm,
        };
        match &outcome {
            Outcome::TripleFault { vcpu } => self.mailbox.events.post(EventKind::TripleFault { vcpu: *vcpu }),
            Outcome::GuestFault { vcpu, detail } => {
                let (vcpu, detail) = (*vcpu, detail.clone());
                self.mailbox.events.post(EventKind::GuestFault { vcpu, detail });
            }
            _ => {}
        }
        self.mailbox.events.post(EventKind::Shutdown { by });
        self.mailbox.outcome.send_replace(Some(outcome.clone()));
        outcome
    }
}

/// What follows from a decision.
enum Next {
    Idle,
    Doing(Doing),
    Stop(Outcome),
}

async fn result_of(doing: &mut Option<Doing>) -> Result<Done, Refusal> {
    match doing {
        Some(doing) => answer(&mut doing.result).await.and_then(|result| result),
        None => pending().await,
    }
}

async fn typed(serial: &Option<Arc<Serial>>, console: &Console) {
    match serial {
        Some(_) => console.typed().await,
        None => pending().await,
    }
}

async fn copy(log: &mut Option<SerialLog>) -> std::io::Result<()> {
    match log {
        Some(log) => log.copy().await,
        None => pending().await,
    }
}
