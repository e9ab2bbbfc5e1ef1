//! The ACPI tables, byte for byte, and as ACPICA's compiler understands them.
//!
//! `ORLOP_BLESS=1 cargo test -p orlop-firmware --test acpi` rewrites the golden files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_firmware::acpi::{FixedHardware, PciSpace, Platform, Power, Table, Tables, Uart};
use orlop_firmware::layout::MemoryLayout;
use orlop_firmware::topology::Topology;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn platform(size_bytes: u64, topology: Topology) -> Platform {
    Platform {
        pci: PciSpace::of(&MemoryLayout::of(size_bytes).unwrap()),
        apic_ids: topology.apic_ids(),
        power: Power {
            sleep_control_port: 0x640,
            sleep_status_port: 0x641,
            s5: 5,
            event_status_port: 0x642,
            event_gsi: 9,
            reset_port: 0xCF9,
            reset_value: 6,
        },
        fixed: None,
        pm_timer_port: 0x608,
        rtc_port: 0x70,
        serial: Some(Uart { port: 0x3F8, gsi: 4 }),
        pvpanic_port: Some(0x505),
    }
}

/// One processor, all below 4 GiB.
fn small() -> Platform {
    platform(256 << 20, Topology::new(1, 1, 1).unwrap())
}

/// Three cores a socket, so that APIC ids have gaps; memory above 4 GiB; nothing optional.
fn large() -> Platform {
    Platform { serial: None, pvpanic_port: None, ..platform(65 << 30, Topology::new(2, 3, 2).unwrap()) }
}

/// A machine as firmware hands it on.
fn behind_firmware() -> Platform {
    let fixed = FixedHardware { pm1_event_port: 0x600, pm1_control_port: 0x604, sci_gsi: 10 };
    Platform { fixed: Some(fixed), ..small() }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Tables as text: name and address, then 32 bytes a line.
fn dump(tables: &Tables) -> String {
    let mut text = String::new();
    for Table { name, address, bytes } in &tables.tables {
        writeln!(text, "{name} {address:#x}").unwrap();
        for line in bytes.chunks(32) {
            line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

fn is_golden(name: &str, platform: &Platform) {
    let found = dump(&Tables::of(platform).unwrap());
    let path = golden(name);
    if std::env::var_os("ORLOP_BLESS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "the tables differ from {}; see the top of this file", path.display());
}

#[test]
fn the_tables_of_a_small_machine_are_stable() {
    is_golden("small.hex", &small());
}

#[test]
fn the_tables_of_a_large_machine_are_stable() {
    is_golden("large.hex", &large());
}

#[test]
fn the_tables_of_a_machine_behind_firmware_are_stable() {
    is_golden("firmware.hex", &behind_firmware());
}

#[test]
fn every_table_sums_to_zero_and_lies_in_the_bios_area() {
    for platform in [small(), large(), platform(1 << 20, Topology::new(64, 1, 1).unwrap())] {
        let tables = Tables::of(&platform).unwrap();
        assert_eq!(tables.tables[0].address, tables.rsdp);
        for Table { name, address, bytes } in &tables.tables {
            assert_eq!(bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)), 0, "{name}");
            assert_eq!(address % 16, 0, "{name}");
            assert!(*address >= 0xE_0000 && address + bytes.len() as u64 <= 0x10_0000, "{name}");
        }
        let pairs = tables.tables.windows(2);
        assert!(pairs.into_iter().all(|w| w[0].address + w[0].bytes.len() as u64 <= w[1].address));
    }
}

#[test]
fn the_tables_can_be_found_in_memory_from_the_root_pointer() {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let tables = Tables::of(&small()).unwrap();
    tables.write(&memory).unwrap();
    let signature = |address: u64| memory.read_obj::<[u8; 4]>(GuestAddress(address)).unwrap();
    let word = |address: u64| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
    assert_eq!(&memory.read_obj::<[u8; 8]>(GuestAddress(tables.rsdp)).unwrap(), b"RSD PTR ");
    let xsdt = word(tables.rsdp + 24);
    assert_eq!(&signature(xsdt), b"XSDT");
    let listed = [36, 44, 52].map(|offset| signature(word(xsdt + offset)));
    assert_eq!(listed, [*b"FACP", *b"APIC", *b"MCFG"]);
    let x_dsdt = word(word(xsdt + 36) + 140);
    assert_eq!(&signature(x_dsdt), b"DSDT");
}

#[test]
fn processors_beyond_the_reach_of_xapic_get_x2apic_entries() {
    let many = Platform { apic_ids: vec![0, 254, 255, 300], ..small() };
    let tables = Tables::of(&many).unwrap();
    let madt = &tables.tables.iter().find(|t| t.name == "APIC").unwrap().bytes;
    let mut rest = &madt[44..];
    let mut kinds = Vec::new();
    while let [kind, len, ..] = *rest {
        kinds.push(kind);
        rest = &rest[usize::from(len)..];
    }
    assert_eq!(kinds, [0, 0, 9, 9, 1, 4]);
}

#[test]
fn more_processors_than_the_bios_area_can_describe_are_refused() {
    let absurd = Platform { apic_ids: (0..10_000).collect(), ..small() };
    assert!(Tables::of(&absurd).unwrap_err().to_string().starts_with("ACPI tables of "));
}

/// Runs ACPICA's compiler, which Linux's interpreter is a sister of, and takes neither error nor warning.
fn iasl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("iasl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("iasl must be installed: Debian package acpica-tools");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "iasl {arguments:?}: {text}");
    for line in text.lines() {
        let complaint = ["Error", "Warning"].iter().any(|w| line.contains(w));
        let summary = line.contains("0 Errors, 0 Warnings");
        assert!(!complaint || summary, "iasl {arguments:?}: {text}");
    }
}

/// A table without what names its compiler, and without the sum over it.
fn anonymous(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[9] = 0;
    bytes[28..36].fill(0);
    bytes
}

#[test]
fn acpica_reads_the_tables_and_writes_the_same() {
    for platform in [small(), large(), behind_firmware()] {
        let directory = tempfile::tempdir().unwrap();
        for Table { name, bytes, .. } in &Tables::of(&platform).unwrap().tables {
            // Neither has the header that a compiled table has.
            if matches!(*name, "RSDP" | "FACS") {
                continue;
            }
            let (aml, dsl) = (format!("{name}.dat"), format!("{name}.dsl"));
            fs::write(directory.path().join(&aml), bytes).unwrap();
            iasl(directory.path(), &["-d", &aml]);
            fs::remove_file(directory.path().join(&aml)).unwrap();
            iasl(directory.path(), &["-oa", "-p", name, &dsl]);
            let again = fs::read(directory.path().join(format!("{name}.aml"))).unwrap();
            assert_eq!(anonymous(again), anonymous(bytes.clone()), "{name}");
        }
    }
}
