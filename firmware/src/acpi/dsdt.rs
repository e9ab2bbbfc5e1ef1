//! The differentiated system description table: what a driver cannot find out by itself, in AML.

use acpi_tables::aml::BufferData;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, Byte, CreateDWordField, DWord, Device, EISAName, Else,
    Equal, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local,
    Memory32Fixed, Method, Name, NotEqual, Notify, OpRegion, OpRegionSpace, Or, Package, Path,
    ResourceTemplate, Return, Scope, Store, Uuid, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, Power, Uart};
use crate::layout::{ECAM_BYTES, PCI_IO, PCI_LAST_BUS};

const HEADER_BYTES: u32 = 36;
/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// Status of the generic event device: the power button was pressed.
const EVENT_POWER_BUTTON: Byte = 1 << 3;
/// Notification of a pressed power button (ACPI 6.5 §4.8.3.1.2).
const NOTIFY_PRESSED: Byte = 0x80;

/// Parts of PCIe that the operating system may control by itself (PCI firmware 3.3 §4.5.1): power management events,
/// error reporting, capability structure. Hot-plug is not among them: it comes through ACPI.
const OSC_CONTROL: DWord = 1 << 2 | 1 << 3 | 1 << 4;
/// First word of `_OSC`: unrecognised UUID, capabilities masked.
const OSC_BAD_UUID: DWord = 1 << 2;
const OSC_MASKED: DWord = 1 << 4;
const OSC_UUID: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";

/// PCI's `_DSM` (PCI firmware 3.3 §4.6): functions 0 (which there are) and 5 (whether firmware's BARs may be ignored).
const DSM_UUID: &str = "e5c937d0-3553-4d7a-9117-ea4d19c3434d";
const DSM_FUNCTIONS: Byte = 1 << 0 | 1 << 5;
const DSM_KEEP_BARS: Byte = 5;

/// The table.
pub(super) fn table(platform: &Platform) -> Vec<u8> {
    let mut body = Vec::new();
    processors(&mut body, platform.apic_ids.len());
    pci_root(&mut body, platform);
    motherboard(&mut body, platform);
    clock(&mut body, platform.rtc_port);
    if let Some(uart) = platform.serial {
        serial(&mut body, uart);
    }
    power(&mut body, &platform.power);
    if let Some(port) = platform.pvpanic_port {
        pvpanic(&mut body, port);
    }
    let mut table = Sdt::new(*b"DSDT", HEADER_BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&Scope::raw(Path::new("_SB_"), body));
    let off = Package::new(vec![&platform.power.s5, &ZERO, &ZERO, &ZERO]);
    table.append_slice(&super::bytes(&Name::new("_S5_".into(), &off)));
    table.as_slice().to_vec()
}

/// One device object for each processor, tied to the MADT by its unique id (§5.2.12.2). A name has room for three
/// digits; more processors than that do not fit the BIOS area anyway.
fn processors(sink: &mut Vec<u8>, count: usize) {
    for uid in (0..=0xFFFu32).take(count) {
        Device::new(
            Path::new(&format!("C{uid:03X}")),
            vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &uid)],
        )
        .to_aml_bytes(sink);
    }
}

fn pci_root(sink: &mut Vec<u8>, platform: &Platform) {
    let space = &platform.pci;
    let [low_io, high_io] = &PCI_IO;
    let bus = AddressSpace::<u16>::new_bus_number(0, PCI_LAST_BUS.into());
    let configuration = IO::new(0xCF8, 0xCF8, 1, 8);
    let io = [low_io, high_io].map(|io| AddressSpace::<u16>::new_io(*io.start(), *io.end(), None));
    let memory32: Vec<_> = space
        .memory32
        .iter()
        .map(|range| {
            let (start, last) = (low(range.start), low(range.end - 1));
            AddressSpace::<u32>::new_memory(AddressSpaceCacheable::NotCacheable, true, start, last, None)
        })
        .collect();
    let memory64 = AddressSpace::<u64>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        space.memory64.start,
        space.memory64.end - 1,
        None,
    );
    let mut resources: Vec<&dyn Aml> = vec![&bus, &configuration];
    resources.extend(io.iter().map(|io| io as &dyn Aml));
    resources.extend(memory32.iter().map(|memory| memory as &dyn Aml));
    resources.push(&memory64);
    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            // No pin interrupts: every device signals by message.
            &Name::new("_PRT".into(), &Package::new(vec![])),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            &OperatingSystemCapabilities,
            &DeviceSpecificMethod,
        ],
    )
    .to_aml_bytes(sink);
}

/// `_OSC`: grants [`OSC_CONTROL`] of whatever is asked for, and says if that is less.
struct OperatingSystemCapabilities;

impl Aml for OperatingSystemCapabilities {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
        Method::new(
            "_OSC".into(),
            4,
            true,
            vec![
                &CreateDWordField::new(&status, &Arg(3), &ZERO),
                &If::new(
                    &Equal::new(&Arg(0), &Uuid::new(OSC_UUID)),
                    vec![
                        &CreateDWordField::new(&control, &Arg(3), &8u8),
                        &Store::new(&Local(0), &control),
                        &And::new(&control, &Local(0), &OSC_CONTROL),
                        &If::new(
                            &NotEqual::new(&Local(0), &control),
                            vec![&Or::new(&status, &status, &OSC_MASKED)],
                        ),
                    ],
                ),
                &Else::new(vec![&Or::new(&status, &status, &OSC_BAD_UUID)]),
                &Return::new(&Arg(3)),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `_DSM`: the operating system keeps the BARs that it finds assigned.
struct DeviceSpecificMethod;

impl Aml for DeviceSpecificMethod {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Method::new(
            "_DSM".into(),
            4,
            true,
            vec![
                &If::new(
                    &Equal::new(&Arg(0), &Uuid::new(DSM_UUID)),
                    vec![
                        &If::new(
                            &Equal::new(&Arg(2), &ZERO),
                            vec![&Return::new(&BufferData::new(vec![DSM_FUNCTIONS]))],
                        ),
                        &If::new(&Equal::new(&Arg(2), &DSM_KEEP_BARS), vec![&Return::new(&ZERO)]),
                    ],
                ),
                &Return::new(&BufferData::new(vec![0])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What is taken although no driver claims it: the configuration space, and the ports of power management.
fn motherboard(sink: &mut Vec<u8>, platform: &Platform) {
    let power = &platform.power;
    let port = |port| IO::new(port, port, 1, 1);
    Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, low(platform.pci.ecam), low(ECAM_BYTES)),
                    &IO::new(platform.pm_timer_port, platform.pm_timer_port, 1, 4),
                    &port(power.sleep_control_port),
                    &port(power.sleep_status_port),
                    &port(power.event_status_port),
                ]),
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// The real-time clock, without an interrupt: it has no alarm.
fn clock(sink: &mut Vec<u8>, port: u16) {
    Device::new(
        "RTC0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(port, port, 1, 2)])),
        ],
    )
    .to_aml_bytes(sink);
}

fn serial(sink: &mut Vec<u8>, uart: Uart) {
    Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &1u8),
            &Name::new("_DDN".into(), &"COM1"),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&IO::new(uart.port, uart.port, 1, 8), &edge(uart.gsi)]),
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// The power button, and the generic event device that tells of it.
fn power(sink: &mut Vec<u8>, power: &Power) {
    let button = Path::new("PWRB");
    Device::new(
        "PWRB".into(),
        vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C")), &Name::new("_UID".into(), &ZERO)],
    )
    .to_aml_bytes(sink);
    Device::new(
        "GED0".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&edge(power.event_gsi)])),
            &OpRegion::new("GEDR".into(), OpRegionSpace::SystemIO, &power.event_status_port, &1u8),
            &Field::new(
                "GEDR".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![FieldEntry::Named(*b"ESTS", 8)],
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    // Reading clears: once, into a local.
                    &Store::new(&Local(0), &Path::new("ESTS")),
                    &And::new(&Local(1), &Local(0), &EVENT_POWER_BUTTON),
                    &If::new(
                        &Equal::new(&Local(1), &EVENT_POWER_BUTTON),
                        vec![&Notify::new(&button, &NOTIFY_PRESSED)],
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(sink);
}

fn pvpanic(sink: &mut Vec<u8>, port: u16) {
    Device::new(
        "PEVT".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            // Present, enabled, working; not shown to people.
            &Name::new("_STA".into(), &0xBu8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(port, port, 1, 1)])),
        ],
    )
    .to_aml_bytes(sink);
}

/// An edge-triggered, active-high interrupt of its own.
fn edge(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// An address or length below 4 GiB.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
