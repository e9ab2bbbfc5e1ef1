//! The controller as a PCI function.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_pci::{BarMove, ConfigSpace, Doorbell, Function, Identity, Msi, MsiSink};
use orlop_state::{Record, State, StateError};

use crate::state::{AhciState, DriveState};
use crate::thread::Thread;
use crate::{ABAR, ABAR_BYTES, BuildError, Controller, Counters, Ram, Shared, TellFault, ThreadHook};

/// ICH9's AHCI controller, as Q35 shows it (ICH9 datasheet §15.1; QEMU's subsystem).
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x2922,
    revision: 2,
    class: [0x01, 0x06, 0x01],
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// What the controller needs from the machine around it.
pub struct Platform {
    /// Guest memory.
    pub ram: Arc<Ram>,
    /// Delivers its interrupts.
    pub msi: Arc<dyn MsiSink>,
    /// Runs first on its thread.
    pub hook: ThreadHook,
    /// Where its BAR is after power-on: a multiple of [`ABAR_BYTES`] below 4 GiB.
    pub bar_address: u64,
}

/// The controller in a machine. Its thread exists from construction to drop.
///
/// [`Function::save`] returns one record, `ahci`.
pub struct Ahci {
    config: Mutex<ConfigSpace>,
    /// Offset of the MSI capability.
    msi: u16,
    shared: Arc<Shared>,
    thread: Thread,
}

impl Ahci {
    /// Puts the controller into a machine and starts its thread.
    pub fn new(controller: Controller, platform: Platform) -> Result<Arc<Self>, BuildError> {
        let Controller { name, drives, hba, wake } = controller;
        let Platform { ram, msi, hook, bar_address } = platform;
        let mut config = ConfigSpace::new(IDENTITY);
        config.add_bar32(ABAR, ABAR_BYTES, bar_address)?;
        let capability = Msi::add_capability(&mut config)?;
        // MAP: AHCI mode; PCS: ports enabled, by the driver (ICH9 datasheet §15.1.32, §15.1.33).
        config.set(0x90, &[0x40, 0, 0, 0], &[0, 0, 0x3f, 0]);
        let shared = Arc::new(Shared {
            hba: Mutex::new(hba),
            ram,
            drives,
            msi: Msi::new(msi),
            counters: Counters::default(),
            wake,
            on_fault: Default::default(),
        });
        let thread = Thread::spawn(Arc::clone(&shared), &name, hook).map_err(BuildError::Thread)?;
        Ok(Arc::new(Self { config: Mutex::new(config), msi: capability, shared, thread }))
    }

    /// Calls `tell` for every guest fault, on the thread that finds it; `tell` must not call the device. Only the first
    /// call counts.
    pub fn on_fault(&self, tell: TellFault) {
        let _ = self.shared.on_fault.set(tell);
    }

    /// What the controller counted since power-on.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { commands, interrupts, task_file_errors, faults } = &self.shared.counters;
        vec![
            ("commands", commands.load(Relaxed)),
            ("interrupts", interrupts.load(Relaxed)),
            ("task_file_errors", task_file_errors.load(Relaxed)),
            ("guest_faults", faults.load(Relaxed)),
        ]
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power-on, with nothing in flight.
    fn reset_all(&self) {
        self.shared.hba().paused = true;
        self.thread.drain(true);
        self.shared.drives.iter().for_each(|drive| drive.reset());
        let mut config = self.config();
        config.reset();
        self.shared.msi.update(&config, self.msi);
        let mut hba = self.shared.hba();
        hba.paused = false;
        hba.reset();
    }

    fn restore_into(&self, records: &[Record]) -> Result<(), StateError> {
        let invalid = |reason: String| StateError::Invalid { kind: AhciState::KIND, reason };
        let [record] = records else {
            return Err(invalid(format!("{} records instead of one", records.len())));
        };
        let state: AhciState = record.read()?;
        if state.drives.len() != self.shared.drives.len() {
            let (was, is) = (state.drives.len(), self.shared.drives.len());
            return Err(invalid(format!("{was} drives where there are {is}")));
        }
        let mut config = self.config();
        config.restore(AhciState::KIND, &state.config)?;
        for (number, (drive, saved)) in self.shared.drives.iter().zip(&state.drives).enumerate() {
            drive.restore(saved).map_err(|reason| invalid(format!("drive {number}: {reason}")))?;
        }
        let mut hba = self.shared.hba();
        hba.restore(&state).map_err(invalid)?;
        hba.paused = true;
        self.shared.msi.update(&config, self.msi);
        Ok(())
    }
}

impl Function for Ahci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<BarMove> {
        let mut config = self.config();
        let moves = config.write(offset, data);
        self.shared.msi.update(&config, self.msi);
        moves
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match bar {
            ABAR => self.shared.hba().read(offset, data),
            _ => data.fill(0xff),
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        if bar != ABAR {
            return;
        }
        let effect = self.shared.hba().write(offset, data);
        if effect.wake {
            // Fails only when the count is at its end, and then the thread has not looked yet.
            let _ = self.shared.wake.write(1);
        }
        if effect.interrupt {
            self.shared.interrupt();
        }
    }

    fn windows(&self) -> Vec<(u8, u64, u64)> {
        self.config().windows()
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }

    fn reset(&self) {
        self.reset_all();
    }

    fn pause(&self) {
        self.shared.hba().paused = true;
        self.thread.drain(false);
    }

    fn resume(&self) {
        let interrupt = {
            let mut hba = self.shared.hba();
            hba.paused = false;
            hba.pending()
        };
        if interrupt {
            // What was signalled to a machine that is gone is signalled again.
            self.shared.interrupt();
        }
        let _ = self.shared.wake.write(1);
    }

    fn save(&self) -> Result<Vec<Record>, StateError> {
        let drives: Vec<DriveState> = self.shared.drives.iter().map(|drive| drive.save()).collect();
        let config = self.config().save();
        let hba = self.shared.hba();
        if !hba.paused || hba.ports.iter().any(|port| port.running != 0) {
            let reason = "the controller is not paused".to_owned();
            return Err(StateError::Invalid { kind: AhciState::KIND, reason });
        }
        let state = AhciState {
            config,
            control: hba.control,
            interrupts: hba.interrupts,
            ports: hba.ports.iter().map(crate::registers::Port::save).collect(),
            drives,
        };
        Ok(vec![Record::write("", &state)?])
    }

    fn restore(&self, records: &[Record]) -> Result<(), StateError> {
        self.reset_all();
        let result = self.restore_into(records);
        if result.is_err() {
            self.reset_all();
        }
        result
    }
}
