//! What of a controller is in a snapshot.

use orlop_pci::ConfigState;
use orlop_scsi::UnitState;
use orlop_state::State;
use serde::{Deserialize, Serialize};

use crate::ata::{QueuedError, Settings};
use crate::registers::{Hba, Port, irq};

/// Saved state of a controller, version 1. Nothing is running: the controller is drained before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AhciState {
    /// The configuration space.
    pub config: ConfigState,
    /// Global HBA control.
    pub control: u32,
    /// Interrupt status.
    pub interrupts: u32,
    /// The ports, the same number where the state is restored.
    pub ports: Vec<PortState>,
    /// The drives by port, the same where the state is restored.
    pub drives: Vec<DriveState>,
}

/// A port's registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// PxCLB, PxCLBU.
    pub list: u64,
    /// PxFB, PxFBU.
    pub received: u64,
    /// PxIS.
    pub interrupts: u32,
    /// PxIE.
    pub enabled: u32,
    /// PxCMD, as far as the driver writes it.
    pub command: u32,
    /// PxTFD.
    pub task_file: u32,
    /// PxSCTL.
    pub control: u32,
    /// PxSERR.
    pub errors: u32,
    /// PxSACT.
    pub active: u32,
    /// PxCI.
    pub issued: u32,
    /// An error stopped the port until ST is cleared.
    pub halted: bool,
    /// The link is held in reset.
    pub link_reset: bool,
    /// SRST is set in the device.
    pub soft_reset: bool,
    /// A signature waits until the driver receives frames.
    pub signature_waits: bool,
}

/// A drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveState {
    /// Medium, tray and cache.
    pub unit: UnitState,
    /// What the driver has set.
    pub settings: Settings,
    /// The queued command that failed last.
    pub queued_error: Option<QueuedError>,
}

impl State for AhciState {
    const KIND: &'static str = "ahci";
    const VERSION: u16 = 1;
}

impl Port {
    pub(crate) fn save(&self) -> PortState {
        PortState {
            list: self.list,
            received: self.received,
            interrupts: self.interrupts,
            enabled: self.enabled,
            command: self.command,
            task_file: self.task_file,
            control: self.control,
            errors: self.errors,
            active: self.active,
            issued: self.issued,
            halted: self.halted,
            link_reset: self.link_reset,
            soft_reset: self.soft_reset,
            signature_waits: self.signature_waits,
        }
    }

    /// The same port with what was saved; bits that no driver could have set are dropped, and that is an error.
    pub(crate) fn restored(&self, state: &PortState) -> Option<Self> {
        let fits = state.list & 0x3ff == 0
            && state.received & 0xff == 0
            && state.interrupts & !irq::CLEARABLE == 0
            && state.enabled & !irq::ALL == 0
            && state.command & !Self::KEPT == 0
            && state.control & !0xfff == 0
            && state.task_file & !0xffff == 0
            && (state.issued | state.active == 0 || state.command & 1 != 0);
        let PortState { list, received, interrupts, enabled, command, task_file, .. } = *state;
        let PortState { control, errors, active, issued, halted, link_reset, .. } = *state;
        fits.then_some(Self {
            present: self.present,
            list,
            received,
            interrupts,
            enabled,
            command,
            task_file,
            control,
            errors,
            active,
            issued,
            running: 0,
            halted,
            stopping: false,
            link_reset,
            soft_reset: state.soft_reset,
            signature_waits: state.signature_waits,
        })
    }
}

impl Hba {
    /// Takes over registers; says what cannot be.
    pub(crate) fn restore(&mut self, state: &AhciState) -> Result<(), String> {
        let AhciState { config: _, control, interrupts, ports, drives: _ } = state;
        if ports.len() != self.ports.len() {
            return Err(format!("{} ports where there are {}", ports.len(), self.ports.len()));
        }
        if *control & !2 != 1 << 31 {
            return Err(format!("the global control {control:#x}"));
        }
        let restored = self.ports.iter().zip(ports).zip(0..).map(|((port, state), number)| {
            port.restored(state).ok_or_else(|| format!("a register of port {number}"))
        });
        self.ports = restored.collect::<Result<_, _>>()?;
        (self.control, self.interrupts, self.resetting) = (*control, *interrupts, false);
        Ok(())
    }
}
