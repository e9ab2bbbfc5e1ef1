//! The fixed devices of the board: what every machine of this kind has, and where it answers.

use std::sync::Arc;

use orlop_bus::{BusDevice, BusError};
use orlop_chipset::{
    Clock, DebugPort, HostClock, I8042, Interrupt, MemorySizes, PmTimer, PowerEvent, PowerManagement,
    PowerSink, PvPanic, ResetControl, Rtc, Serial, SerialSink, SystemPortA, ports,
};
use orlop_firmware::layout::{ECAM_BYTES, ECAM_START};
use orlop_pci::{Bdf, ConfigPorts, Ecam, PciRoot, host_bridge, lpc};

use super::console::Console;
use super::plan::Plan;
use super::policy::GuestAct;
use super::vcpu::{Alarm, Buses};
use crate::kvm::Vm;

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
    /// Builds the board that `plan` describes and places it on `buses`.
    pub fn new(
        plan: &Plan,
        vm: &Vm,
        buses: &Buses,
        root: Arc<PciRoot>,
        alarm: &Arc<Alarm>,
        console: &Console,
    ) -> Result<Self, BusError> {
        let clock: Arc<dyn Clock> = Arc::new(HostClock::default());
        let power = power_sink(Arc::clone(alarm));
        let (low, high) = (&plan.layout.low, &plan.layout.high);
        let memory = MemorySizes { low: low.end - low.start, high: high.end - high.start };
        let config_ports = Arc::new(ConfigPorts::new(Arc::clone(&root)));
        let serial = plan.config.serial.enabled.then(|| {
            let line = line(vm, ports::SERIAL_GSI);
            Arc::new(Serial::new(line, Arc::new(Output(console.clone()))))
        });
        let board = Self {
            serial,
            power: Arc::new(PowerManagement::new(line(vm, ports::GED_GSI), Arc::clone(&power))),
            timer: Arc::new(PmTimer::new(Arc::clone(&clock))),
            rtc: Arc::new(Rtc::new(clock, plan.config.clock.offset_seconds, memory)),
            reset_control: Arc::new(ResetControl::new(config_ports.clone(), Arc::clone(&power))),
            config_ports,
            root,
        };
        board.place(buses, power, plan.config.panic)?;
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
        buses.memory.insert(ECAM_START, ECAM_BYTES, Arc::new(Ecam(Arc::clone(&self.root))))
    }

    /// The two bridges, which the bus has whatever else it has.
    pub fn bridges() -> [(Bdf, orlop_pci::Bridge); 2] {
        [(HOST_BRIDGE, host_bridge(ECAM_START, BUSES)), (LPC, lpc(PM_BASE))]
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
    }
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
