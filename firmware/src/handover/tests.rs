//! What firmware makes of what it is told.

use std::collections::BTreeMap;

use super::*;
use crate::acpi::{FixedHardware, PciSpace, Platform, Power};
use crate::smbios::{Chassis, Description, System};

fn description(layout: &MemoryLayout) -> Description {
    Description {
        uuid: [7; 16],
        system: System::default(),
        chassis: Chassis::default(),
        sockets: 1,
        cores: 2,
        threads: 1,
        layout: layout.clone(),
    }
}

fn platform(layout: &MemoryLayout, ecam: u64) -> Platform {
    Platform {
        pci: PciSpace::programmed(layout, ecam, 40),
        apic_ids: (0..64).collect(),
        power: Power {
            sleep_control_port: 0x640,
            sleep_status_port: 0x641,
            s5: 5,
            event_status_port: 0x642,
            event_gsi: 9,
            reset_port: 0xCF9,
            reset_value: 6,
        },
        fixed: Some(FixedHardware { pm1_event_port: 0x600, pm1_control_port: 0x604, sci_gsi: 10 }),
        pm_timer_port: 0x608,
        rtc_port: 0x70,
        serial: None,
        pvpanic_port: None,
    }
}

#[test]
fn memory_and_boot_order_are_as_firmware_reads_them() {
    let layout = MemoryLayout::of(3 << 30).unwrap();
    let description = description(&layout);
    let boot_order = vec![BootDevice::VirtioNet { device: 10 }, BootDevice::VirtioBlk { device: 1 }];
    let machine = Machine {
        layout: &layout,
        processors: 2,
        smbios: &description,
        boot_order,
        menu_ms: 500,
        serial_console: Some(0x3f8),
    };
    let Handover { items, files } = Handover::of(&machine);
    assert_eq!(items[&5], [2, 0]);
    assert_eq!(items[&0x0e], [1, 0]);
    let order = b"/pci@i0cf8/ethernet@a/ethernet-phy@0\n/pci@i0cf8/scsi@1/disk@0,0\0";
    assert_eq!(files["bootorder"], order);
    assert_eq!(files["etc/boot-menu-wait"], [0xf4, 1]);
    assert_eq!(files["etc/sercon-port"], [0xf8, 3]);
    let map = &files["etc/e820"];
    assert_eq!(map.len(), 3 * 20);
    assert_eq!(map[..8], [0; 8]);
    assert_eq!(map[8..16], (2u64 << 30).to_le_bytes());
    assert_eq!(map[16..20], [1, 0, 0, 0]);
    assert_eq!(map[20..28], (4u64 << 30).to_le_bytes());
    assert_eq!(map[56..60], [2, 0, 0, 0]);
    assert_eq!(&files["etc/smbios/smbios-anchor"][..5], b"_SM3_");
    let quiet = Machine { boot_order: vec![], menu_ms: 0, serial_console: None, ..machine };
    let Handover { items, files } = Handover::of(&quiet);
    assert_eq!(items[&0x0e], [0, 0]);
    assert_eq!(files.len(), 3, "{:?}", files.keys());
}

/// Carries a script out as firmware does, files put one after the other from 0x1_0000_0000: the files as they are then.
fn carry_out(script: &[u8], mut files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, (u64, Vec<u8>)> {
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    let mut next = 1u64 << 32;
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap();
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    for entry in script.chunks(128) {
        let operands = &entry[4..];
        match word(entry) {
            0 => {}
            1 => {
                let file = name(operands);
                places.insert(file.clone(), next);
                next += files[&file].len().next_multiple_of(word(&operands[56..])) as u64;
            }
            2 => {
                let (at, place) = (word(&operands[112..]), places[&name(&operands[56..])]);
                assert_eq!(operands[116], 8);
                let pointer = &mut files.get_mut(&name(operands)).unwrap()[at..at + 8];
                let value = u64::from_le_bytes((&*pointer).try_into().unwrap()) + place;
                pointer.copy_from_slice(&value.to_le_bytes());
            }
            3 => {
                let (at, start, len) = (word(&operands[56..]), word(&operands[60..]), word(&operands[64..]));
                let file = files.get_mut(&name(operands)).unwrap();
                let sum = file[start..start + len].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                assert_eq!(file[at], 0, "OVMF counts what is there before");
                file[at] = sum.wrapping_neg();
            }
            other => panic!("command {other}"),
        }
    }
    files.into_iter().map(|(file, bytes)| (file.clone(), (places[&file], bytes))).collect()
}

#[test]
fn tables_put_anywhere_are_found_from_the_root_pointer() {
    let layout = MemoryLayout::of(256 << 20).unwrap();
    for ecam in [0xB000_0000, 0xE000_0000] {
        let tables = acpi(&platform(&layout, ecam)).unwrap();
        let files = BTreeMap::from([
            (FILE_RSDP.to_owned(), tables.rsdp.clone()),
            (FILE_TABLES.to_owned(), tables.tables.clone()),
        ]);
        let script = loader(&tables);
        assert_eq!(script.len(), LOADER_BYTES);
        let files = carry_out(&script, files);
        let (_, rsdp) = &files[FILE_RSDP];
        let (base, blob) = &files[FILE_TABLES];
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        let table = |address: u64| {
            let at = (address - base) as usize;
            let len = u32::from_le_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
            assert_eq!(sum(&blob[at..at + len]), 0);
            &blob[at..at + len]
        };
        let pointer = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let xsdt = table(pointer(rsdp, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let [fadt, madt, mcfg] = [36, 44, 52].map(|at| table(pointer(xsdt, at)));
        assert_eq!([&fadt[..4], &madt[..4], &mcfg[..4]], [b"FACP", b"APIC", b"MCFG"]);
        assert_eq!(&table(pointer(fadt, 140))[..4], b"DSDT");
        let facs = pointer(fadt, 132);
        assert_eq!((&blob[(facs - base) as usize..][..4], facs % 64), (&b"FACS"[..], 0));
        assert_eq!(pointer(mcfg, 44), ecam);
    }
}

#[test]
fn windows_lie_around_the_configuration_mechanism() {
    let layout = MemoryLayout::of(256 << 20).unwrap();
    let space = |ecam| PciSpace::programmed(&layout, ecam, 40);
    assert_eq!(space(0xB000_0000).memory32, [0x8000_0000..0xB000_0000, 0xC000_0000..0xFEC0_0000]);
    assert_eq!(space(0xE000_0000).memory32, [0x8000_0000..0xE000_0000, 0xF000_0000..0xFEC0_0000]);
    assert_eq!(space(0xB000_0000).memory64, 1 << 32..1 << 40);
    // Nowhere that makes sense: no window is negative.
    for nowhere in [0, u64::MAX] {
        let windows = space(nowhere).memory32;
        assert_eq!((windows.len(), windows[0].start, windows[0].end), (1, 0x8000_0000, 0xFEC0_0000));
    }
}
