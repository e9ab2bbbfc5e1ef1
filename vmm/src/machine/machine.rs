//! The living machine: everything that was built, and what can be done with it. Used by one thread, which may wait.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use orlop_api::device::{DeviceInfo, DeviceKind};
use orlop_api::vcpu::VcpuInfo;
use orlop_chipset::Serial;
use orlop_pci::Bdf;
use orlop_virtio::Ram;

use super::boot::{BootError, BootSource};
use super::inspect;
use super::memory;
use super::plan::Plan;
use super::platform::Platform;
use super::registry::{Controls, Live, Member};
use super::vcpu::{Alarm, Buses, Start, VcpuHandle};
use super::windows::PciWindows;
use crate::kvm::{ChipsAtPowerOn, KvmError, MemorySlots, MsiSender, Vm};

/// A device in its place.
pub struct DeviceSeat {
    /// Its name.
    pub id: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Where it is.
    pub bdf: Bdf,
    /// Itself.
    pub function: Arc<dyn Live>,
    /// What can be changed.
    pub controls: Controls,
    /// The devices behind it.
    pub members: Vec<Member>,
}

/// A machine. Dropping it ends its threads; fields are dropped in order: what reaches guest memory before the memory.
pub struct Machine {
    pub(super) vcpus: Vec<VcpuHandle>,
    pub(super) platform: Platform,
    pub(super) devices: Vec<DeviceSeat>,
    pub(super) windows: Arc<PciWindows>,
    pub(super) msi: Arc<MsiSender>,
    pub(super) alarm: Arc<Alarm>,
    pub(super) boot: BootSource,
    pub(super) plan: Plan,
    pub(super) chips: ChipsAtPowerOn,
    #[expect(dead_code, reason = "held for what its end does")]
    pub(super) keep: Keep,
    pub(super) ram: Arc<Ram>,
    pub(super) vm: Arc<Vm>,
}

/// What a machine only holds on to.
#[expect(dead_code, reason = "held for what their ends do")]
pub struct Keep {
    /// The address spaces.
    pub(super) buses: Arc<Buses>,
    /// Guest memory as KVM knows it.
    pub(super) memory_slots: Arc<MemorySlots>,
}

/// A reset that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory could not be emptied.
    #[error("guest memory cannot be emptied: {0}")]
    Memory(#[from] std::io::Error),
    /// The kernel could not be loaded again.
    #[error("the kernel cannot be loaded again: {0}")]
    Boot(#[from] BootError),
}

impl Machine {
    /// Puts every vCPU to power-on, the first one where it is to `start`. None runs.
    pub(super) fn at_start(&self, start: Start) -> Result<(), KvmError> {
        let starts = std::iter::once(start).chain(std::iter::repeat(Start::Wait));
        self.vcpus.iter().zip(starts).try_for_each(|(vcpu, start)| vcpu.reset(start))
    }

    /// Lets the vCPUs run.
    pub fn run(&self) {
        self.vcpus.iter().for_each(VcpuHandle::run);
    }

    /// Stops the vCPUs and waits until all stand still.
    fn halt(&self) {
        let waiting: Vec<Receiver<()>> = self.vcpus.iter().map(VcpuHandle::stop).collect();
        for stopped in waiting {
            // A vCPU thread that is gone stands still as well.
            let _ = stopped.recv();
        }
    }

    /// Stops the vCPUs, then drains every device. On return nothing touches guest memory.
    pub fn pause(&self) {
        self.halt();
        for (_, function) in self.platform.root.functions() {
            function.pause();
        }
    }

    /// Goes on after [`Self::pause`].
    pub fn resume(&self) {
        for (_, function) in self.platform.root.functions() {
            function.resume();
        }
        self.run();
    }

    /// Puts everything back to power-on and loads what is started anew. The vCPUs stand still after it.
    pub fn reset(&mut self) -> Result<(), ResetError> {
        self.halt();
        self.platform.reset();
        self.vm.reset_chips(&self.chips)?;
        memory::discard(&self.ram)?;
        let start = self.boot.load(&self.ram, &self.plan)?;
        self.at_start(start)?;
        self.alarm.clear();
        Ok(())
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.platform.press_power_button();
    }

    /// The device by the name `id`.
    pub fn device(&self, id: &str) -> Option<&DeviceSeat> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// The device by the name `id` behind another one.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.devices.iter().flat_map(|device| &device.members).find(|member| member.id == id)
    }

    /// The balloon, where there is one.
    pub fn balloon(&self) -> Option<&DeviceSeat> {
        self.devices.iter().find(|device| device.controls.balloon.is_some())
    }

    /// The serial port, where there is one.
    pub fn serial(&self) -> Option<Arc<Serial>> {
        self.platform.serial.clone()
    }

    /// Size of guest memory in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.plan.layout.ram_bytes()
    }

    /// Every device as it is now.
    pub fn inspect_devices(&self) -> Vec<DeviceInfo> {
        let mut infos = vec![inspect::platform(&self.msi, &self.windows, &self.platform)];
        infos.extend(self.devices.iter().flat_map(inspect::device));
        infos
    }

    /// Every vCPU as it is now.
    pub fn inspect_vcpus(&self) -> Vec<VcpuInfo> {
        self.vcpus.iter().zip(0..).map(|(vcpu, index)| inspect::vcpu(index, vcpu)).collect()
    }
}
