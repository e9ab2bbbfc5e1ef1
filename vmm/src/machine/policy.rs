//! Which request is allowed in which state, and what it leads to. No I/O, no locks, no clock.
//!
//! ```text
//!   NotCreated ── create ──▶ Created ── boot ──▶ Running ◀── resume ── Paused
//!                               │                │  │ ▲ ── pause ──────▶ │
//!                               │                │  └─┘ reset            │ reset (stays paused)
//!                               └── shutdown ──▶ Stopped ◀── shutdown ───┘
//!                                                   ▲
//!        the guest: power off, triple fault, fault ─┘   (a guest's reset goes round to Running)
//! ```
//!
//! The state changes when a step has been carried out, not when it is decided: a step that fails leaves it.

use orlop_api::config::VmConfig;
use orlop_api::event::Initiator;
use orlop_api::state::VmState;

use super::handle::Refusal;
use super::outcome::Outcome;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Create { config: Box<VmConfig>, boot: bool },
    Boot,
    Pause,
    Resume,
    PowerButton,
    Reset,
    Shutdown,
    Balloon { target_bytes: u64 },
    Link { id: String, up: bool },
    Insert { id: String, fd: String },
    Eject { id: String, force: bool },
    Size { id: String, size_bytes: u64 },
}

impl Command {
    /// The request's name, as refusals show it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Boot => "boot",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::PowerButton => "power button",
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Balloon { .. } => "balloon",
            Self::Link { .. } => "link",
            Self::Insert { .. } => "insert",
            Self::Eject { .. } => "eject",
            Self::Size { .. } => "size",
        }
    }
}

/// What the guest did that concerns the whole machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestAct {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// A vCPU met a triple fault.
    TripleFault { vcpu: u32 },
    /// KVM cannot run a vCPU on.
    Fault { vcpu: u32, detail: String },
    /// Its kernel says that it panicked.
    Panic { crash_loaded: bool },
    /// A disk's request waits for the machine to be stopped and to go on.
    DiskError { device: String, detail: String },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Build the machine, and start it if `boot` says so.
    Create { config: Box<VmConfig>, boot: bool },
    /// Start the vCPUs for the first time.
    Boot,
    /// Stop the vCPUs and drain the devices.
    Pause,
    /// Let devices and vCPUs go on.
    Resume,
    /// Put everything back to power-on; `run` says whether vCPUs start.
    Reset { by: Initiator, run: bool },
    /// Tell the guest that its power button was pressed.
    PowerButton,
    /// Set the balloon's target.
    Balloon { target_bytes: u64 },
    /// Plug a cable in or out.
    Link { id: String, up: bool },
    /// Put the descriptor `fd` into a drive.
    Insert { id: String, fd: String },
    /// Take the medium out of a drive.
    Eject { id: String, force: bool },
    /// Make a disk longer.
    Size { id: String, size_bytes: u64 },
    /// Record the guest's panic.
    Panic { crash_loaded: bool },
    /// End.
    Stop(Outcome),
    /// Nothing: it is settled already.
    Nothing,
}

/// What a client's `command` leads to in `state`.
pub(super) fn on_command(state: VmState, command: Command) -> Result<Step, Refusal> {
    use VmState::{Created, NotCreated, Paused, Running, Stopped};
    let request = command.name();
    match (state, command) {
        (Stopped, _) => Err(Refusal::Gone),
        (_, Command::Shutdown) => Ok(Step::Stop(Outcome::Client)),
        (NotCreated, Command::Create { config, boot }) => Ok(Step::Create { config, boot }),
        (Created, Command::Boot) => Ok(Step::Boot),
        (Running, Command::Pause) => Ok(Step::Pause),
        (Paused, Command::Resume) => Ok(Step::Resume),
        (Running, Command::PowerButton) => Ok(Step::PowerButton),
        (Running, Command::Reset) => Ok(Step::Reset { by: Initiator::Client, run: true }),
        (Paused, Command::Reset) => Ok(Step::Reset { by: Initiator::Client, run: false }),
        (Created | Running | Paused, Command::Balloon { target_bytes }) => Ok(Step::Balloon { target_bytes }),
        (Created | Running | Paused, Command::Link { id, up }) => Ok(Step::Link { id, up }),
        (Created | Running | Paused, Command::Insert { id, fd }) => Ok(Step::Insert { id, fd }),
        (Created | Running | Paused, Command::Eject { id, force }) => Ok(Step::Eject { id, force }),
        (Created | Running | Paused, Command::Size { id, size_bytes }) => Ok(Step::Size { id, size_bytes }),
        (state, _) => Err(Refusal::NotAllowed { request, state }),
    }
}

/// What a guest's `act` leads to in `state`; `reboot` says whether a reset goes round. An act can arrive late, when
/// a client's request has already overtaken it.
pub(super) fn on_guest(state: VmState, act: GuestAct, reboot: bool) -> Step {
    match (state, act) {
        (VmState::NotCreated | VmState::Created | VmState::Stopped, _) => Step::Nothing,
        (_, GuestAct::PowerOff) => Step::Stop(Outcome::PowerOff),
        (_, GuestAct::TripleFault { vcpu }) => Step::Stop(Outcome::TripleFault { vcpu }),
        (_, GuestAct::Fault { vcpu, detail }) => Step::Stop(Outcome::GuestFault { vcpu, detail }),
        (_, GuestAct::Panic { crash_loaded }) => Step::Panic { crash_loaded },
        (VmState::Running, GuestAct::DiskError { .. }) => Step::Pause,
        (VmState::Paused, GuestAct::DiskError { .. }) => Step::Nothing,
        (_, GuestAct::Reset) if !reboot => Step::Stop(Outcome::Reset),
        (state, GuestAct::Reset) => Step::Reset { by: Initiator::Guest, run: state == VmState::Running },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VmState::{Created, NotCreated, Paused, Running, Stopped};
    use orlop_api::config::{BootConfig, FileSource, KernelConfig, MemoryBacking, MemoryConfig};

    const STATES: [VmState; 5] = [NotCreated, Created, Running, Paused, Stopped];

    fn config() -> Box<VmConfig> {
        let kernel = KernelConfig {
            kernel: FileSource::Path("/k".into()),
            initramfs: None,
            cmdline: String::new(),
            protocol: Default::default(),
        };
        Box::new(VmConfig {
            name: "a".into(),
            uuid: None,
            cpus: Default::default(),
            memory: MemoryConfig { size_bytes: 1 << 20, backing: MemoryBacking::Anonymous },
            boot: BootConfig::Kernel(kernel),
            smbios: Default::default(),
            clock: Default::default(),
            serial: Default::default(),
            disks: vec![],
            nets: vec![],
            console: None,
            rng: None,
            vsock: None,
            balloon: None,
            panic: false,
        })
    }

    fn commands() -> Vec<Command> {
        vec![
            Command::Create { config: config(), boot: true },
            Command::Boot,
            Command::Pause,
            Command::Resume,
            Command::PowerButton,
            Command::Reset,
            Command::Shutdown,
            Command::Balloon { target_bytes: 4096 },
            Command::Link { id: "net0".into(), up: false },
            Command::Insert { id: "cd".into(), fd: "iso".into() },
            Command::Eject { id: "cd".into(), force: false },
            Command::Size { id: "disk0".into(), size_bytes: 4096 },
        ]
    }

    /// One row per state, one column per command of [`commands`]: `y` allowed, `-` refused, `g` gone.
    #[test]
    fn every_command_is_allowed_exactly_where_the_table_says() {
        let table = ["y-----y-----", "-y----yyyyyy", "--y-yyyyyyyy", "---y-yyyyyyy", "gggggggggggg"];
        for (state, row) in STATES.into_iter().zip(table) {
            let shown: String = commands()
                .into_iter()
                .map(|command| match on_command(state, command) {
                    Ok(_) => 'y',
                    Err(Refusal::Gone) => 'g',
                    Err(_) => '-',
                })
                .collect();
            assert_eq!(shown, row, "in state {state}");
        }
    }

    #[test]
    fn a_refusal_names_request_and_state() {
        let refusal = on_command(Paused, Command::PowerButton).unwrap_err();
        assert_eq!(refusal, Refusal::NotAllowed { request: "power button", state: Paused });
        assert_eq!(refusal.to_string(), "a machine that is paused does not allow 'power button'");
    }

    #[test]
    fn a_reset_of_a_paused_machine_leaves_it_paused() {
        let step = on_command(Paused, Command::Reset);
        assert_eq!(step, Ok(Step::Reset { by: Initiator::Client, run: false }));
        let step = on_command(Running, Command::Reset);
        assert_eq!(step, Ok(Step::Reset { by: Initiator::Client, run: true }));
    }

    #[test]
    fn the_guest_ends_the_machine_where_one_runs() {
        let acts = [
            (GuestAct::PowerOff, Outcome::PowerOff),
            (GuestAct::TripleFault { vcpu: 1 }, Outcome::TripleFault { vcpu: 1 }),
            (
                GuestAct::Fault { vcpu: 0, detail: "x".into() },
                Outcome::GuestFault { vcpu: 0, detail: "x".into() },
            ),
        ];
        for (act, outcome) in acts {
            for state in [Running, Paused] {
                assert_eq!(on_guest(state, act.clone(), true), Step::Stop(outcome.clone()));
            }
            for state in [NotCreated, Created, Stopped] {
                assert_eq!(on_guest(state, act.clone(), true), Step::Nothing);
            }
        }
    }

    #[test]
    fn a_guests_reset_goes_round_unless_told_otherwise() {
        assert_eq!(on_guest(Running, GuestAct::Reset, true), Step::Reset { by: Initiator::Guest, run: true });
        assert_eq!(on_guest(Paused, GuestAct::Reset, true), Step::Reset { by: Initiator::Guest, run: false });
        assert_eq!(on_guest(Running, GuestAct::Reset, false), Step::Stop(Outcome::Reset));
    }

    #[test]
    fn a_panic_is_recorded_and_the_machine_goes_on() {
        let act = GuestAct::Panic { crash_loaded: true };
        assert_eq!(on_guest(Running, act, true), Step::Panic { crash_loaded: true });
    }
}
