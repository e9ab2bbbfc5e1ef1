//! The root: two ways to the same registers, and windows that follow them.

use std::sync::{Arc, Mutex};

use orlop_bus::BusDevice;
use orlop_pci::{Bdf, Bridge, ConfigPorts, Ecam, Function, PciRoot, RootError, Windows, host_bridge, lpc};

#[derive(Default)]
struct Places(Mutex<Vec<(u8, u64)>>);

impl Windows for Places {
    fn map(&self, _: &Arc<dyn Function>, bar: u8, address: u64, _: u64) {
        self.0.lock().unwrap().push((bar, address));
    }
    fn unmap(&self, _: &Arc<dyn Function>, bar: u8, address: u64) {
        let mut places = self.0.lock().unwrap();
        let at = places.iter().position(|place| *place == (bar, address));
        places.remove(at.expect("a window that is not there was taken away"));
    }
}

const HOST: Bdf = Bdf { bus: 0, device: 0, function: 0 };
const LPC: Bdf = Bdf { bus: 0, device: 0x1f, function: 0 };
const ECAM: u64 = 0xb000_0000;

fn root() -> (Arc<PciRoot>, Arc<Places>) {
    let places = Arc::new(Places::default());
    let root = PciRoot::new(places.clone());
    root.insert(HOST, Arc::new(host_bridge(ECAM, 256, Box::new(|_| {}), None))).unwrap();
    root.insert(LPC, Arc::new(lpc(0x600, None))).unwrap();
    (root, places)
}

fn port_read(ports: &ConfigPorts, bdf: Bdf, register: u8) -> u32 {
    let devfn = u32::from(bdf.device << 3 | bdf.function);
    let address = 1 << 31 | u32::from(bdf.bus) << 16 | devfn << 8 | u32::from(register & !3);
    ports.write(0, &address.to_le_bytes());
    let mut data = [0; 4];
    ports.read(4, &mut data);
    u32::from_le_bytes(data)
}

fn ecam_read(root: &Arc<PciRoot>, bdf: Bdf, register: u64) -> u32 {
    let place = u64::from(bdf.bus) << 20 | u64::from(bdf.device) << 15 | u64::from(bdf.function) << 12;
    let mut data = [0; 4];
    Ecam(root.clone()).read(place + register, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn both_mechanisms_show_the_same_registers() {
    let (root, _) = root();
    let ports = ConfigPorts::new(root.clone());
    for bdf in [HOST, LPC] {
        for register in (0..=252).step_by(4) {
            assert_eq!(port_read(&ports, bdf, register), ecam_read(&root, bdf, register.into()));
        }
    }
    assert_eq!(ecam_read(&root, HOST, 0), 0x29c0_8086);
    assert_eq!(ecam_read(&root, HOST, 0x60), 0xb000_0001);
    assert_eq!(ecam_read(&root, LPC, 0), 0x2918_8086);
    assert_eq!(ecam_read(&root, LPC, 0x40), 0x601);
    assert_eq!(ecam_read(&root, LPC, 0x44), 0x80);
}

#[test]
fn absent_functions_read_all_ones() {
    let (root, _) = root();
    let ports = ConfigPorts::new(root.clone());
    for bdf in [
        Bdf { bus: 0, device: 1, function: 0 },
        Bdf { bus: 0, device: 0x1f, function: 7 },
        Bdf { bus: 1, device: 0, function: 0 },
        Bdf { bus: 255, device: 31, function: 7 },
    ] {
        assert_eq!(port_read(&ports, bdf, 0), u32::MAX);
        assert_eq!(ecam_read(&root, bdf, 0), u32::MAX);
        root.config_write(bdf, 4, &[0xff; 4]);
    }
}

#[test]
fn reserved_bits_of_pciexbar_and_pam_cannot_be_set() {
    let (root, _) = root();
    root.config_write(HOST, 0x60, &[0xff; 8]);
    let low = ecam_read(&root, HOST, 0x60);
    let high = ecam_read(&root, HOST, 0x64);
    assert_eq!((low, high), (0xf000_0001, 0xf));
    root.config_write(HOST, 0x90, &[0xff; 7]);
    assert_eq!(ecam_read(&root, HOST, 0x90), 0x3333_3333);
}

#[test]
fn odd_sizes_and_places_are_split_and_survived() {
    let (root, _) = root();
    let (ports, ecam) = (ConfigPorts::new(root.clone()), Ecam(root.clone()));
    let mut data = [0; 8];
    ecam.read(0, &mut data[..7]);
    assert_eq!(data[..4], 0x29c0_8086u32.to_le_bytes());
    ecam.read(1, &mut data[..3]);
    assert_eq!(data[..3], [0x80, 0xc0, 0x29]);
    for size in 1..=8 {
        for offset in
            (0..64).chain(0x1f << 15..(0x1f << 15) + 0x1000).chain([(256 << 20) - 1, 256 << 20, u64::MAX])
        {
            ecam.read(offset, &mut data[..size]);
            ecam.write(offset, &data[..size]);
        }
        for offset in (0..16).chain([u64::MAX]) {
            ports.write(0, &0x8000_f8fcu32.to_le_bytes());
            ports.read(offset, &mut data[..size]);
            ports.write(offset, &data[..size]);
        }
    }
}

#[test]
fn the_address_port_is_a_dword_and_reads_back() {
    let (root, _) = root();
    let ports = ConfigPorts::new(root);
    ports.write(0, &0xffff_ffffu32.to_le_bytes());
    assert_eq!(ports.save(), 0x80ff_fffc);
    ports.write(0, &[0]);
    ports.write(3, &[6]); // port 0xCFB
    ports.write(1, &[6]); // port 0xCF9, the reset control register
    assert_eq!(ports.save(), 0x80ff_fffc);
    let mut byte = [0];
    ports.read(3, &mut byte);
    assert_eq!(byte, [0x80]);
    let mut data = [0; 4];
    ports.write(0, &0u32.to_le_bytes());
    ports.read(4, &mut data);
    assert_eq!(data, [0xff; 4], "configuration cycles are off");
    ports.restore(u32::MAX);
    assert_eq!(ports.save(), 0x80ff_fffc);
    ports.reset();
    assert_eq!(ports.save(), 0);
}

#[test]
fn a_place_is_taken_once_and_lies_on_bus_0() {
    let (root, _) = root();
    assert_eq!(root.insert(HOST, Arc::new(lpc(0, None))), Err(RootError::Taken(HOST)));
    for bdf in [Bdf { bus: 1, ..HOST }, Bdf { device: 32, ..HOST }, Bdf { function: 8, ..HOST }] {
        assert_eq!(root.insert(bdf, Arc::new(lpc(0, None))), Err(RootError::NoSuchPlace(bdf)));
    }
    assert_eq!(root.functions().into_iter().map(|(bdf, _)| bdf).collect::<Vec<_>>(), [HOST, LPC]);
}

#[test]
fn a_bridge_saves_what_was_written_and_refuses_another_ones_state() {
    let (root, _) = root();
    root.config_write(HOST, 0x90, &[0x11; 4]);
    let host: Arc<dyn Function> = root.function(HOST).unwrap();
    let saved = host.save().unwrap();
    root.reset();
    assert_eq!(ecam_read(&root, HOST, 0x90), 0x3333_3330);
    root.restore(HOST, &saved).unwrap();
    assert_eq!(ecam_read(&root, HOST, 0x90), 0x1111_1111);
    assert!(root.restore(LPC, &saved).is_err());
    assert!(root.restore(HOST, &[]).is_err());
    assert!(root.restore(Bdf { device: 9, ..HOST }, &saved).is_err());
    let bridge: &Bridge = &lpc(0, None);
    assert_eq!((bridge.windows().len(), bridge.doorbells().len()), (0, 0));
}

/// A function with one BAR.
mod with_bar {
    use super::*;
    use orlop_pci::{BarMove, ConfigSpace, Doorbell, Identity};
    use orlop_state::{Record, StateError};

    pub struct Card(pub Mutex<ConfigSpace>);

    impl Card {
        pub fn new() -> Self {
            let identity = Identity {
                vendor: 1,
                device: 2,
                revision: 0,
                class: [0xff, 0, 0],
                subsystem_vendor: 0,
                subsystem: 0,
            };
            let mut config = ConfigSpace::new(identity);
            config.add_bar32(0, 0x1000, 0xc000_0000).unwrap();
            Self(Mutex::new(config))
        }
    }

    impl Function for Card {
        fn config_read(&self, offset: u16, data: &mut [u8]) {
            assert!(matches!(data.len(), 1 | 2 | 4) && usize::from(offset % 4) + data.len() <= 4);
            self.0.lock().unwrap().read(offset, data);
        }
        fn config_write(&self, offset: u16, data: &[u8]) -> Vec<BarMove> {
            assert!(matches!(data.len(), 1 | 2 | 4) && usize::from(offset % 4) + data.len() <= 4);
            self.0.lock().unwrap().write(offset, data)
        }
        fn bar_read(&self, _: u8, _: u64, _: &mut [u8]) {}
        fn bar_write(&self, _: u8, _: u64, _: &[u8]) {}
        fn windows(&self) -> Vec<(u8, u64, u64)> {
            self.0.lock().unwrap().windows()
        }
        fn doorbells(&self) -> Vec<Doorbell> {
            Vec::new()
        }
        fn reset(&self) {
            self.0.lock().unwrap().reset();
        }
        fn pause(&self) {}
        fn resume(&self) {}
        fn save(&self) -> Result<Vec<Record>, StateError> {
            Ok(Vec::new())
        }
        fn restore(&self, _: &[Record]) -> Result<(), StateError> {
            self.0.lock().unwrap().write(4, &[2]);
            Ok(())
        }
    }
}

#[test]
fn windows_follow_the_registers() {
    let (root, places) = root();
    let bdf = Bdf { device: 3, ..HOST };
    root.insert(bdf, Arc::new(with_bar::Card::new())).unwrap();
    let now = || places.0.lock().unwrap().clone();
    assert_eq!(now(), []);
    root.config_write(bdf, 4, &[2]);
    assert_eq!(now(), [(0, 0xc000_0000)]);
    root.config_write(bdf, 0x10, &0xd000_0000u32.to_le_bytes());
    assert_eq!(now(), [(0, 0xd000_0000)]);
    // One access that changes the command register and what is before it.
    root.config_write(bdf, 3, &[0, 0, 0, 0]);
    assert_eq!(now(), []);
    root.restore(bdf, &[]).unwrap();
    assert_eq!(now(), [(0, 0xd000_0000)]);
    root.reset();
    assert_eq!(now(), []);
    root.config_write(bdf, 4, &[2]);
    assert_eq!(now(), [(0, 0xc000_0000)]);
}

#[test]
fn vcpus_that_move_a_bar_at_once_leave_one_window() {
    let (root, places) = root();
    let bdf = Bdf { device: 3, ..HOST };
    root.insert(bdf, Arc::new(with_bar::Card::new())).unwrap();
    root.config_write(bdf, 4, &[2]);
    std::thread::scope(|scope| {
        for base in [0xc000_0000u32, 0xd000_0000] {
            let root = &root;
            scope.spawn(move || {
                for step in 0..500 {
                    root.config_write(bdf, 0x10, &(base + step * 0x1000).to_le_bytes());
                }
            });
        }
    });
    let windows: Vec<_> = root.function(bdf).unwrap().windows().iter().map(|w| (w.0, w.1)).collect();
    assert_eq!(*places.0.lock().unwrap(), windows);
}

#[test]
fn pciexbar_moves_the_configuration_window() {
    let moves: Arc<Mutex<Vec<Option<u64>>>> = Arc::default();
    let log = Arc::clone(&moves);
    let bridge = host_bridge(ECAM, 256, Box::new(move |to| log.lock().unwrap().push(to)), None);
    let take = || std::mem::take(&mut *moves.lock().unwrap());
    // As OVMF does it: off, upper half, lower half with "enable". The number of buses stays.
    bridge.config_write(0x60, &0u32.to_le_bytes());
    assert_eq!(take(), [None]);
    bridge.config_write(0x64, &[0, 0, 0, 0]);
    bridge.config_write(0x60, &0xE000_0007u32.to_le_bytes());
    assert_eq!(take(), [Some(0xE000_0000)]);
    let mut register = [0; 4];
    bridge.config_read(0x60, &mut register);
    assert_eq!(u32::from_le_bytes(register), 0xE000_0001);
    // The same again, a neighbour, and a byte without effect move nothing.
    bridge.config_write(0x60, &0xE000_0001u32.to_le_bytes());
    bridge.config_write(0x5c, &[0xff; 4]);
    bridge.config_write(0x68, &[0xff; 4]);
    assert_eq!(take(), []);
    let saved = bridge.save().unwrap();
    bridge.reset();
    assert_eq!(take(), [Some(ECAM)]);
    bridge.restore(&saved).unwrap();
    assert_eq!(take(), [Some(0xE000_0000)]);
    bridge.config_write(0x64, &[0xff]);
    assert_eq!(take(), [Some(0xF_E000_0000)]);
}
