//! The root: functions by number on bus 0, and the two ways in which a guest reaches their configuration spaces.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use orlop_bus::{BusDevice, read_from, value};
use orlop_state::{Record, StateError};

use crate::{BarMove, Bdf, Function, Windows};

/// Bytes of configuration space per function behind ECAM (PCI Express 5.0 §7.2.2).
const ECAM_FUNCTION_BYTES: u64 = 4096;
/// CONFIG_ADDRESS: configuration cycles are enabled (PCI 3.0 §3.2.2.3.2).
const ADDRESS_ENABLE: u32 = 1 << 31;
/// Bits of CONFIG_ADDRESS that are stored.
const ADDRESS_WRITABLE: u32 = 0x80ff_fffc;

/// A function that cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Another function is there.
    #[error("{0} is taken")]
    Taken(Bdf),
    /// Only bus 0 exists, with devices 0 to 31 and functions 0 to 7.
    #[error("{0} is not a place on bus 0")]
    NoSuchPlace(Bdf),
}

/// The functions on bus 0. Absent ones read as all ones.
pub struct PciRoot {
    functions: RwLock<BTreeMap<Bdf, Arc<dyn Function>>>,
    windows: Arc<dyn Windows>,
    /// Held while a change of a function and the moves that follow from it are carried out, so that two vCPUs that
    /// move BARs leave the windows as the registers say. Reads do not take it.
    moving: Mutex<()>,
}

impl PciRoot {
    /// An empty bus whose BARs are placed by `windows`.
    pub fn new(windows: Arc<dyn Windows>) -> Arc<Self> {
        Arc::new(Self { functions: RwLock::default(), windows, moving: Mutex::new(()) })
    }

    /// Places `function` and the windows that it has already.
    pub fn insert(&self, bdf: Bdf, function: Arc<dyn Function>) -> Result<(), RootError> {
        if bdf.bus != 0 || bdf.device > 31 || bdf.function > 7 {
            return Err(RootError::NoSuchPlace(bdf));
        }
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.contains_key(&bdf) {
            return Err(RootError::Taken(bdf));
        }
        functions.insert(bdf, Arc::clone(&function));
        drop(functions);
        for (bar, address, len) in function.windows() {
            self.windows.map(&function, bar, address, len);
        }
        Ok(())
    }

    /// The function at `bdf`.
    pub fn function(&self, bdf: Bdf) -> Option<Arc<dyn Function>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(&bdf).map(Arc::clone)
    }

    /// All functions, by number.
    pub fn functions(&self) -> Vec<(Bdf, Arc<dyn Function>)> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.iter().map(|(bdf, function)| (*bdf, Arc::clone(function))).collect()
    }

    /// Machine reset: resets every function and puts its windows where it says. Called with every vCPU stopped.
    pub fn reset(&self) {
        for (_, function) in self.functions() {
            self.change(&function, |f| f.reset());
        }
    }

    /// Restores the function at `bdf` and puts its windows where the state says.
    pub fn restore(&self, bdf: Bdf, records: &[Record]) -> Result<(), StateError> {
        let function = self.function(bdf).ok_or_else(|| StateError::Invalid {
            kind: "pci",
            reason: format!("there is no function at {bdf}"),
        })?;
        self.change(&function, |f| f.restore(records))
    }

    /// Carries out `change` and the moves of windows that follow from it.
    fn change<T>(&self, function: &Arc<dyn Function>, change: impl FnOnce(&dyn Function) -> T) -> T {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let before = function.windows();
        let result = change(&**function);
        let now = function.windows();
        for (bar, address, _) in before.iter().filter(|window| !now.contains(window)) {
            self.windows.unmap(function, *bar, *address);
        }
        for (bar, address, len) in now.iter().filter(|window| !before.contains(window)) {
            self.windows.map(function, *bar, *address, *len);
        }
        result
    }

    /// Reads the configuration space of `bdf`, any size and alignment.
    pub fn config_read(&self, bdf: Bdf, offset: u16, data: &mut [u8]) {
        let Some(function) = self.function(bdf) else { return data.fill(0xff) };
        for (at, piece) in pieces(offset, data.len()) {
            if let Some(data) = data.get_mut(piece) {
                function.config_read(at, data);
            }
        }
    }

    /// Writes the configuration space of `bdf`, any size and alignment, and carries out the moves that follow.
    pub fn config_write(&self, bdf: Bdf, offset: u16, data: &[u8]) {
        let Some(function) = self.function(bdf) else { return };
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, piece) in pieces(offset, data.len()) {
            let moves = data.get(piece).map(|data| function.config_write(at, data)).unwrap_or_default();
            self.carry_out(&function, &moves);
        }
    }

    fn carry_out(&self, function: &Arc<dyn Function>, moves: &[BarMove]) {
        for moved in moves {
            if let Some(from) = moved.from {
                self.windows.unmap(function, moved.bar, from);
            }
        }
        for moved in moves {
            if let Some(to) = moved.to {
                self.windows.map(function, moved.bar, to, moved.len);
            }
        }
    }
}

/// Cuts an access into the pieces of 1, 2 or 4 bytes that [`Function::config_read`] takes: none crosses a 32-bit
/// boundary, none lies beyond the space.
fn pieces(offset: u16, len: usize) -> Vec<(u16, std::ops::Range<usize>)> {
    let mut pieces = Vec::new();
    let (mut at, mut done) = (usize::from(offset), 0usize);
    while done < len && at < 4096 {
        let to_boundary = 4usize.saturating_sub(at % 4);
        let step = match to_boundary.min(len.saturating_sub(done)) {
            3 => 1,
            step => step,
        };
        let end = done.saturating_add(step);
        if let Ok(at) = u16::try_from(at) {
            pieces.push((at, done..end));
        }
        at = at.saturating_add(step);
        done = end;
    }
    pieces
}

/// Enhanced configuration access: a window of 1 MiB per bus (PCI Express 5.0 §7.2.2).
pub struct Ecam(pub Arc<PciRoot>);

impl Ecam {
    fn target(offset: u64) -> Option<(Bdf, u16)> {
        let function = offset / ECAM_FUNCTION_BYTES;
        let bdf = Bdf {
            bus: u8::try_from(function >> 8).ok()?,
            device: u8::try_from(function >> 3 & 0x1f).ok()?,
            function: u8::try_from(function & 7).ok()?,
        };
        Some((bdf, u16::try_from(offset % ECAM_FUNCTION_BYTES).ok()?))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((bdf, offset)) = Self::target(offset) {
            self.0.config_read(bdf, offset, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((bdf, offset)) = Self::target(offset) {
            self.0.config_write(bdf, offset, data);
        }
    }
}

/// Configuration mechanism #1: eight ports from 0xCF8, CONFIG_ADDRESS and CONFIG_DATA (PCI 3.0 §3.2.2.3.2).
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    address: AtomicU32,
}

impl ConfigPorts {
    /// How many ports it takes.
    pub const PORTS: u64 = 8;

    /// The ports of `root`.
    pub fn new(root: Arc<PciRoot>) -> Self {
        Self { root, address: AtomicU32::new(0) }
    }

    /// CONFIG_ADDRESS, for a snapshot.
    pub fn save(&self) -> u32 {
        self.address.load(SeqCst)
    }

    /// Takes over a CONFIG_ADDRESS from [`Self::save`]; reserved bits are dropped.
    pub fn restore(&self, address: u32) {
        self.address.store(address & ADDRESS_WRITABLE, SeqCst);
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.address.store(0, SeqCst);
    }

    fn target(&self, port: u64) -> Option<(Bdf, u16)> {
        let address = self.address.load(SeqCst);
        let [register, devfn, bus, _] = address.to_le_bytes();
        let lane = u16::try_from(port.checked_sub(4)?).ok().filter(|lane| *lane < 4)?;
        let bdf = Bdf { bus, device: devfn >> 3, function: devfn & 7 };
        (address & ADDRESS_ENABLE != 0).then_some((bdf, u16::from(register).saturating_add(lane)))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if offset < 4 {
            let address = self.address.load(SeqCst).to_le_bytes();
            let here = usize::try_from(4u64.saturating_sub(offset)).unwrap_or(0).min(data.len());
            if let Some(data) = data.get_mut(..here) {
                read_from(&address, offset, data);
            }
        } else if let Some((bdf, register)) = self.target(offset) {
            self.root.config_read(bdf, register, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset == 0 && data.len() == 4 {
            let address = u32::try_from(value(data)).unwrap_or(0);
            self.address.store(address & ADDRESS_WRITABLE, SeqCst);
        } else if let Some((bdf, register)) = self.target(offset) {
            self.root.config_write(bdf, register, data);
        }
    }
}
