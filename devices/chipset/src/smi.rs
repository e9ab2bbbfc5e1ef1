//! System management interrupts of an ICH9 (datasheet §13.8.3.13 SMI_EN, §13.7.1 APM ports): firmware enables them,
//! locks that, and raises one by a write to a port. What it may ask for more goes through fw_cfg (QEMU
//! `include/hw/i386/ich9.h`, `ICH9_LPC_SMI_F_*`).
//!
//! Every interrupt goes to all processors, as on a chipset; "broadcast" is therefore the one feature there is, and it
//! changes nothing whether firmware asks for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use crate::fw_cfg::Held;
use crate::registers::{ByteRegisters, on_the_bus};
use crate::{Content, Interrupt};

/// SMI_EN: interrupts are raised at all; a write to the control port raises one. Nothing else raises any here.
const GLOBAL: u8 = 1 << 0;
const BY_PORT: u8 = 1 << 5;

/// Every interrupt goes to every processor.
const BROADCAST: u64 = 1 << 0;
/// Bytes of a set of features.
const FEATURES_BYTES: usize = 8;

/// The names under which fw_cfg shows what there is, what firmware wants, and whether it has it.
const SUPPORTED_FILE: &str = "etc/smi/supported-features";
const REQUESTED_FILE: &str = "etc/smi/requested-features";
const OK_FILE: &str = "etc/smi/features-ok";

/// The source of system management interrupts.
pub struct Smi {
    inner: Mutex<Inner>,
    line: Arc<dyn Interrupt>,
    raised: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Inner {
    enable: u8,
    locked: bool,
    control: u8,
    status: u8,
    requested: u64,
    agreed: bool,
}

/// Saved state of [`Smi`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmiState {
    /// Low byte of SMI_EN.
    pub enable: u8,
    /// Whether [`Smi::lock`] holds.
    pub locked: bool,
    /// The control port.
    pub control: u8,
    /// The status port.
    pub status: u8,
    /// The features that firmware asked for.
    pub requested: u64,
    /// Whether it has them for good.
    pub agreed: bool,
}

impl State for SmiState {
    const KIND: &'static str = "smi";
    const VERSION: u16 = 1;
}

impl Smi {
    /// A source that interrupts all processors by `line`.
    pub fn new(line: Arc<dyn Interrupt>) -> Self {
        let (raised, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { inner: Mutex::default(), line, raised, refused }
    }

    /// Interrupts raised.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    /// Attempts to change what is locked or agreed on.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether interrupts, once enabled, stay so: `SMI_LOCK` of the LPC bridge.
    pub fn lock(&self, locked: bool) {
        self.inner().locked = locked;
    }

    /// Back to power-on.
    pub fn reset(&self) {
        *self.inner() = Inner::default();
    }

    /// The files of fw_cfg by which firmware settles how interrupts are delivered.
    pub fn files(smi: &Arc<Self>) -> [(&'static str, Content); 3] {
        let held = |len, held| Content::Held { len, held };
        [
            (SUPPORTED_FILE, Content::from(BROADCAST.to_le_bytes().to_vec())),
            (REQUESTED_FILE, held(FEATURES_BYTES, Arc::new(Requested(Arc::clone(smi))) as Arc<dyn Held>)),
            (OK_FILE, held(1, Arc::new(Agreed(Arc::clone(smi))))),
        ]
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        let Inner { enable, locked, control, status, requested, agreed } = *self.inner();
        Record::write("", &SmiState { enable, locked, control, status, requested, agreed })
    }

    /// Takes over a saved state.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let SmiState { enable, locked, control, status, requested, agreed } = record.read()?;
        if enable & !(GLOBAL | BY_PORT) != 0 || agreed && requested & !BROADCAST != 0 {
            let reason = format!("SMI_EN {enable:#x} or features {requested:#x} that do not exist");
            return Err(StateError::Invalid { kind: SmiState::KIND, reason });
        }
        *self.inner() = Inner { enable, locked, control, status, requested, agreed };
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn enable(&self, value: u8) {
        let mut inner = self.inner();
        let mut enable = value & (GLOBAL | BY_PORT);
        if inner.locked && (enable ^ inner.enable) & GLOBAL != 0 {
            enable ^= GLOBAL;
            self.refuse();
        }
        inner.enable = enable;
    }

    /// Takes a write to the control port.
    fn command(&self, value: u8) {
        let mut inner = self.inner();
        inner.control = value;
        let raise = inner.enable == GLOBAL | BY_PORT;
        drop(inner);
        if raise {
            self.raised.fetch_add(1, Ordering::Relaxed);
            self.line.pulse();
        }
    }
}

/// SMI_EN and SMI_STS, 32 bits each; nothing is pending for longer than the processors take to see it.
pub struct SmiEnable(pub Arc<Smi>);

on_the_bus!(SmiEnable);

impl ByteRegisters for SmiEnable {
    const LEN: u8 = 8;

    fn read_byte(&self, offset: u8) -> u8 {
        if offset == 0 { self.0.inner().enable } else { 0 }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        if offset == 0 {
            self.0.enable(value);
        }
    }
}

/// The control port, which raises an interrupt, and the status port, which only remembers.
pub struct ApmPorts(pub Arc<Smi>);

on_the_bus!(ApmPorts);

impl ByteRegisters for ApmPorts {
    const LEN: u8 = 2;

    fn read_byte(&self, offset: u8) -> u8 {
        let inner = self.0.inner();
        if offset == 0 { inner.control } else { inner.status }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        if offset == 0 {
            self.0.command(value);
        } else {
            self.0.inner().status = value;
        }
    }
}

/// The features that firmware asks for.
struct Requested(Arc<Smi>);

impl Held for Requested {
    fn read(&self) -> Vec<u8> {
        self.0.inner().requested.to_le_bytes().to_vec()
    }

    fn write(&self, offset: usize, data: &[u8]) -> bool {
        let mut inner = self.0.inner();
        let mut bytes = inner.requested.to_le_bytes();
        let place = offset.checked_add(data.len()).and_then(|end| bytes.get_mut(offset..end));
        match place {
            Some(place) if !inner.agreed => place.copy_from_slice(data),
            _ => {
                self.0.refuse();
                return false;
            }
        }
        inner.requested = u64::from_le_bytes(bytes);
        true
    }
}

/// Whether it has them: asking settles it, as far as there are such features.
struct Agreed(Arc<Smi>);

impl Held for Agreed {
    fn read(&self) -> Vec<u8> {
        let mut inner = self.0.inner();
        inner.agreed |= inner.requested & !BROADCAST == 0;
        vec![u8::from(inner.agreed)]
    }

    fn write(&self, _offset: usize, _data: &[u8]) -> bool {
        self.0.refuse();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{read_byte, survives_every_access, survives_every_mutation};
    use orlop_bus::BusDevice;

    fn source() -> (Arc<Smi>, Arc<AtomicU64>) {
        let edges = Arc::new(AtomicU64::new(0));
        let line = Arc::clone(&edges);
        let line = Arc::new(move || {
            line.fetch_add(1, Ordering::SeqCst);
        });
        (Arc::new(Smi::new(line)), edges)
    }

    #[test]
    fn a_write_to_the_control_port_interrupts_once_both_enables_are_set() {
        let (smi, edges) = source();
        let (enable, apm) = (SmiEnable(Arc::clone(&smi)), ApmPorts(Arc::clone(&smi)));
        // By the pre-set bit firmware would take it that there are no interrupts.
        assert_eq!(read_byte(&enable, 0), 0);
        for harmless in [0x00, 0x01, 0x20, 0xde] {
            enable.write(0, &[harmless, 0xff, 0xff, 0xff]);
            apm.write(0, &[7]);
        }
        assert_eq!(edges.load(Ordering::SeqCst), 0);
        enable.write(0, &0xffff_ffffu32.to_le_bytes());
        let mut register = [0xAA; 4];
        enable.read(0, &mut register);
        assert_eq!(u32::from_le_bytes(register), 0x21);
        apm.write(1, &[0x55]);
        assert_eq!(edges.load(Ordering::SeqCst), 0);
        apm.write(0, &[0x42]);
        assert_eq!((edges.load(Ordering::SeqCst), smi.raised()), (1, 1));
        assert_eq!((read_byte(&apm, 0), read_byte(&apm, 1)), (0x42, 0x55));
    }

    #[test]
    fn a_locked_enable_stays_until_the_machine_is_reset() {
        let (smi, edges) = source();
        let (enable, apm) = (SmiEnable(Arc::clone(&smi)), ApmPorts(Arc::clone(&smi)));
        enable.write(0, &[0x21]);
        smi.lock(true);
        for value in [0x20, 0x00, 0xfe] {
            enable.write(0, &[value]);
            assert_eq!(read_byte(&enable, 0) & 1, 1, "{value:#x}");
        }
        assert_eq!(smi.refused(), 3);
        enable.write(0, &[0x21]);
        apm.write(0, &[0]);
        assert_eq!((edges.load(Ordering::SeqCst), smi.refused()), (1, 3));
        smi.reset();
        assert_eq!(read_byte(&enable, 0), 0);
        enable.write(0, &[0x21]);
        enable.write(0, &[0x20]);
        assert_eq!((read_byte(&enable, 0), smi.refused()), (0x20, 3));
    }

    fn file<'a>(files: &'a [(&'static str, Content)], name: &str) -> &'a Arc<dyn Held> {
        match files.iter().find(|(file, _)| *file == name) {
            Some((_, Content::Held { held, .. })) => held,
            _ => panic!("{name}"),
        }
    }

    #[test]
    fn features_are_agreed_on_once_and_only_those_that_exist() {
        let (smi, _) = source();
        let files = Smi::files(&smi);
        let (requested, ok) = (file(&files, REQUESTED_FILE), file(&files, OK_FILE));
        assert!(requested.write(0, &7u64.to_le_bytes()));
        assert_eq!(ok.read(), [0]);
        assert!(requested.write(0, &[1]) && requested.write(7, &[0]));
        assert_eq!((ok.read(), requested.read()), (vec![1], 1u64.to_le_bytes().to_vec()));
        for (offset, data) in [(0, vec![0; 8]), (8, vec![0]), (usize::MAX, vec![0]), (1, vec![0; 8])] {
            assert!(!requested.write(offset, &data));
        }
        assert!(!ok.write(0, &[0]));
        assert_eq!((ok.read(), smi.refused()), (vec![1], 5));
        smi.reset();
        assert!(!requested.write(4, &[0; 5]) && requested.write(0, &[0; 8]));
        assert_eq!(ok.read(), [1]);
    }

    #[test]
    fn it_survives_saving_and_every_access() {
        let (smi, _) = source();
        let (enable, apm) = (SmiEnable(Arc::clone(&smi)), ApmPorts(Arc::clone(&smi)));
        enable.write(0, &[0x21]);
        apm.write(0, &[1, 2]);
        smi.lock(true);
        let record = smi.save().unwrap();
        let (other, _) = source();
        other.restore(&record).unwrap();
        assert_eq!(other.save().unwrap(), record);
        survives_every_mutation(&record, |record| other.restore(record));
        let state: SmiState = record.read().unwrap();
        for wrong in
            [SmiState { enable: 2, ..state.clone() }, SmiState { requested: 2, agreed: true, ..state }]
        {
            assert!(other.restore(&Record::write("", &wrong).unwrap()).is_err());
        }
        survives_every_access(&enable);
        survives_every_access(&apm);
    }
}
