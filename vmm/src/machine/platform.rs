//! The fixed devices of the board: what every machine of this kind has, and where it answers.

mod ecam;
mod firmware;
mod smm;

use std::sync::Arc;

use orlop_bus::{BusDevice, BusError};
use orlop_chipset::{
    Clock, DebugPort, HostClock, I8042, Interrupt, Inventory, Pm1, PmTimer, PowerEvent, PowerManagement,
    PowerSink, PvPanic, ResetControl, Rtc, Serial, SerialSink, SystemPortA, ports,
};
use orlop_firmware::acpi;
use orlop_firmware::layout::ECAM_START;
use orlop_pci::{Bdf, Bridge, ConfigPorts, PciRoot, RootError, host_bridge, lpc};
use orlop_virtio::Ram;

use self::ecam::EcamWindow;
use self::firmware::{FirmwareBoard, Wires};
use super::boot::BootSource;
use super::console::Console;
use super::plan::{BootPlan, Plan};
use super::policy::GuestAct;
use super::vcpu::{Alarm, Buses};
use crate::kvm::{KvmError, MemorySlots, Vm};

/// Buses behind ECAM.
const BUSES: u16 = 256;
/// The power management block of the LPC bridge, around [`ports::PM_TIMER`].
const PM_BASE: u16 = 0x600;
/// Where Q35 has its LPC bridge.
const LPC: Bdf = Bdf { bus: 0, device: 0x1f, function: 0 };
/// Where every PC has its host bridge.
const HOST_BRIDGE: Bdf = Bdf { bus: 0, device: 0, function: 0 };

/// The board of one machine.
pub struct Platform {
    /// The PCI bus.
    pub root: Arc<PciRoot>,
    /// The serial port, where there is one.
    pub serial: Option<Arc<Serial>>,
    power: Arc<PowerManagement>,
    timer: Arc<PmTimer>,
    rtc: Arc<Rtc>,
    reset_control: Arc<ResetControl>,
    config_ports: Arc<ConfigPorts>,
    ecam: Arc<EcamWindow>,
    bridges: [Arc<Bridge>; 2],
    firmware: Option<FirmwareBoard>,
}

/// What a board is built among.
pub struct Surroundings<'a> {
    /// The virtual machine.
    pub vm: &'a Vm,
    /// The address spaces.
    pub buses: &'a Buses,
    /// Guest memory that devices reach.
    pub ram: &'a Arc<Ram>,
    /// All guest memory, as KVM knows it.
    pub slots: &'a Arc<MemorySlots>,
    /// Who is told of the guest's acts.
    pub alarm: &'a Arc<Alarm>,
    /// Where serial output goes.
    pub console: &'a Console,
    /// Where firmware's messages go.
    pub firmware_log: &'a Console,
}

/// Why a board cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Two devices of the board are in one place.
    #[error("the board has two devices in one place: {0}")]
    Bus(#[from] BusError),
    /// Two functions of the board are in one place.
    #[error("the board has two functions in one place: {0}")]
    Root(#[from] RootError),
    /// What firmware is told cannot be put into words.
    #[error("{0}")]
    Tables(String),
}

/// The guest's serial output, on its way to the hub.
struct Output(Console);

impl SerialSink for Output {
    fn output(&self, byte: u8) {
        self.0.output(&[byte]);
    }

    fn input_drained(&self) {
        self.0.want_input();
    }
}

impl Platform {
    /// Builds the board that `plan` describes, with the bridges on `root`, and places it on the buses of `around`.
    pub fn new(
        plan: &Plan,
        boot: &BootSource,
        root: Arc<PciRoot>,
        around: &Surroundings<'_>,
    ) -> Result<Self, PlatformError> {
        let clock: Arc<dyn Clock> = Arc::new(HostClock::default());
        let power = power_sink(Arc::clone(around.alarm));
        let (low, high) = (&plan.layout.low, &plan.layout.high);
        let inventory = Inventory {
            low: low.end - low.start,
            high: high.end - high.start,
            processors: plan.topology.vcpus(),
        };
        let config_ports = Arc::new(ConfigPorts::new(Arc::clone(&root)));
        let ecam = EcamWindow::new(&around.buses.memory, &root, plan.layout.clone())?;
        let moved = Arc::clone(&ecam);
        let smi = plan.smram.is_some().then(|| smm::source(around));
        let host =
            host_bridge(ECAM_START, BUSES, Box::new(move |to| moved.move_to(to)), smm::memory(plan, around));
        let bridges = [Arc::new(host), Arc::new(lpc(PM_BASE, smi.as_ref().map(smm::lock)))];
        for (bridge, place) in bridges.iter().zip([HOST_BRIDGE, LPC]) {
            root.insert(place, bridge.clone())?;
        }
        let firmware = match (boot, &plan.boot) {
            (BootSource::Firmware(source), BootPlan::Firmware(told)) => {
                let power = Arc::clone(&power);
                Some(FirmwareBoard::new(plan, told, source, Wires { ecam: &ecam, power, smi }, around)?)
            }
            _ => None,
        };
        let serial = plan.config.serial.enabled.then(|| {
            let line = line(around.vm, ports::SERIAL_GSI);
            Arc::new(Serial::new(line, Arc::new(Output(around.console.clone()))))
        });
        let board = Self {
            serial,
            power: Arc::new(PowerManagement::new(line(around.vm, ports::GED_GSI), Arc::clone(&power))),
            timer: Arc::new(PmTimer::new(Arc::clone(&clock))),
            rtc: Arc::new(Rtc::new(clock, plan.config.clock.offset_seconds, inventory)),
            reset_control: Arc::new(ResetControl::new(config_ports.clone(), Arc::clone(&power))),
            config_ports,
            root,
            ecam,
            bridges,
            firmware,
        };
        board.place(around.buses, power, plan.config.panic)?;
        Ok(board)
    }

    fn place(&self, buses: &Buses, power: PowerSink, panic: bool) -> Result<(), BusError> {
        let i8042 = Arc::new(I8042::new(Arc::clone(&power)));
        let mut devices: Vec<(std::ops::Range<u64>, Arc<dyn BusDevice>)> = vec![
            (ports::I8042, i8042),
            (ports::RTC, self.rtc.clone()),
            (ports::DEBUG, Arc::new(DebugPort)),
            (ports::SYSTEM_PORT_A, Arc::new(SystemPortA::new(Arc::clone(&power)))),
            (ports::PM_TIMER, self.timer.clone()),
            (ports::POWER_MANAGEMENT, self.power.clone()),
            (ports::PCI_CONFIG, self.reset_control.clone()),
        ];
        if let Some(serial) = &self.serial {
            devices.push((ports::SERIAL, serial.clone()));
        }
        if panic {
            devices.push((ports::PVPANIC, Arc::new(PvPanic::new(power))));
        }
        for (range, device) in devices {
            buses.ports.insert(range.start, range.end - range.start, device)?;
        }
        Ok(())
    }

    /// What it counts.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let firmware = self.firmware.iter().flat_map(FirmwareBoard::counters);
        let locked = self.bridges.iter().map(|bridge| bridge.refused()).sum();
        let own = [("ecam_moves_refused", self.ecam.refused()), ("locked_writes_refused", locked)];
        own.into_iter().chain(firmware).collect()
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.power.press_power_button();
    }

    /// Back to power-on. No vCPU runs.
    pub fn reset(&self) {
        self.root.reset();
        if let Some(serial) = &self.serial {
            serial.reset();
        }
        self.power.reset();
        self.timer.reset();
        self.rtc.reset();
        self.reset_control.reset();
        self.config_ports.reset();
        if let Some(firmware) = &self.firmware {
            firmware.reset();
        }
    }
}

/// The value of the reset control register that resets everything (ICH9 datasheet §13.7.5).
const RESET_VALUE: u8 = 0x06;

/// Power button, sleep and reset, as the ACPI tables tell them.
pub fn acpi_power() -> acpi::Power {
    let start = port(ports::POWER_MANAGEMENT.start);
    acpi::Power {
        sleep_control_port: start + port(PowerManagement::SLEEP_CONTROL),
        sleep_status_port: start + port(PowerManagement::SLEEP_STATUS),
        s5: PowerManagement::S5,
        event_status_port: start + port(PowerManagement::EVENT_STATUS),
        event_gsi: ports::GED_GSI,
        reset_port: port(ports::RESET_CONTROL),
        reset_value: RESET_VALUE,
    }
}

/// ACPI's fixed hardware, which is there for firmware and what it starts.
pub fn acpi_fixed() -> acpi::FixedHardware {
    let start = port(ports::PM1.start);
    acpi::FixedHardware {
        pm1_event_port: start,
        pm1_control_port: start + port(Pm1::CONTROL),
        sci_gsi: ports::SCI_GSI,
    }
}

/// The serial port, as the ACPI tables tell it.
pub fn acpi_serial() -> acpi::Uart {
    acpi::Uart { port: port(ports::SERIAL.start), gsi: ports::SERIAL_GSI }
}

/// An address of the port space, which has 2^16.
pub const fn port(address: u64) -> u16 {
    (address & 0xffff) as u16
}

fn line(vm: &Vm, gsi: u32) -> Arc<dyn Interrupt> {
    let line = vm.irq_line(gsi);
    Arc::new(move || line.pulse())
}

/// Tells the machine what the guest asked of the board.
fn power_sink(alarm: Arc<Alarm>) -> PowerSink {
    Arc::new(move |event| match event {
        PowerEvent::Shutdown => alarm.halt(GuestAct::PowerOff),
        PowerEvent::Reset => alarm.halt(GuestAct::Reset),
        PowerEvent::Panicked => alarm.tell_once(GuestAct::Panic { crash_loaded: false }),
        PowerEvent::CrashLoaded => alarm.tell_once(GuestAct::Panic { crash_loaded: true }),
    })
}
