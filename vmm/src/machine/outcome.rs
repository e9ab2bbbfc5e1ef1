//! Why a machine ended.

use std::fmt;

use crate::exit;

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered itself off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset, and the VMM was told to end then.
    Reset,
    /// A vCPU met a triple fault (SDM vol 3 §6.15, interrupt 8).
    TripleFault {
        /// The vCPU.
        vcpu: u32,
    },
    /// A client of the API asked for the end.
    Client,
    /// A signal to the process asked for the end.
    Signal,
    /// KVM could not run the guest on.
    GuestFault {
        /// The vCPU.
        vcpu: u32,
        /// What KVM said, with the instruction pointer where it is known.
        detail: String,
    },
    /// The VMM could not go on.
    Failed(String),
}

impl Outcome {
    /// The exit code of a process whose machine ended so.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::PowerOff => exit::POWERED_OFF,
            Self::Reset => exit::GUEST_RESET,
            Self::TripleFault { .. } => exit::TRIPLE_FAULT,
            Self::GuestFault { .. } => exit::GUEST_FAULT,
            Self::Client | Self::Signal => exit::KILLED,
            Self::Failed(_) => exit::FAILED,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::Reset => f.write_str("the guest asked for a reset"),
            Self::TripleFault { vcpu } => write!(f, "vCPU {vcpu} met a triple fault"),
            Self::Client => f.write_str("a client asked for the end"),
            Self::Signal => f.write_str("a signal asked for the end"),
            Self::GuestFault { vcpu, detail } => write!(f, "vCPU {vcpu} cannot go on: {detail}"),
            Self::Failed(detail) => write!(f, "the VMM cannot go on: {detail}"),
        }
    }
}
