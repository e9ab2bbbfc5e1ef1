//! The tables that are plain structures: FADT, MADT, MCFG.

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, bytes};
use crate::layout::{IOAPIC_START, LAPIC_START, PCI_LAST_BUS};

/// Length of the header of every table (ACPI 6.5 §5.2.6).
const HEADER_BYTES: u32 = 36;
/// Where the real-time clock keeps the century.
const CENTURY_REGISTER: u8 = 0x32;
/// IA-PC boot architecture (§5.2.9.3): no VGA, no ASPM. Bit 1, a keyboard controller, is off: no driver looks for one.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;
const BOOT_ARCH_NO_ASPM: u16 = 1 << 4;

/// MADT structures (§5.2.12): type and length.
const LOCAL_APIC: [u8; 2] = [0, 8];
const IO_APIC: [u8; 2] = [1, 12];
const INTERRUPT_OVERRIDE: [u8; 2] = [2, 10];
const LOCAL_APIC_NMI: [u8; 2] = [4, 6];
const LOCAL_X2APIC: [u8; 2] = [9, 16];
/// Processors with ids from here on need an x2APIC structure; 255 is the broadcast id.
const X2APIC_IDS_START: u32 = 255;
const PROCESSOR_ENABLED: u32 = 1;
/// Flags: there are two 8259 as well, which have to be masked.
const PC_INTERRUPT_CONTROLLERS: u32 = 1;
/// Polarity and trigger of an override (§5.2.12.5).
const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
const ALL_PROCESSORS: u8 = 0xff;
/// Local interrupt pin that NMIs come in by.
const NMI_PIN: u8 = 1;

fn port(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, port.into())
}

fn byte_port(number: u16) -> GAS {
    port(number, 8, AccessSize::ByteAccess)
}

/// Fixed ACPI description table (§5.2.9), with the firmware ACPI control structure where there is fixed hardware.
pub(super) fn fadt(platform: &Platform, dsdt: u64, facs: Option<u64>) -> Vec<u8> {
    let power = &platform.power;
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // Both buttons are control method devices, or absent.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.century = CENTURY_REGISTER;
    fadt.iapc_boot_arch = (BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM).into();
    fadt.reset_reg = byte_port(power.reset_port);
    fadt.reset_value = power.reset_value;
    fadt.pm_tmr_blk = u32::from(platform.pm_timer_port).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port(platform.pm_timer_port, 32, AccessSize::DwordAccess);
    if let Some(fixed) = &platform.fixed {
        // Without an SMI command port the machine is in ACPI mode from the start (§4.8.2.5).
        fadt.sci_int = u16::from(fixed.sci_gsi).into();
        fadt.pm1a_evt_blk = u32::from(fixed.pm1_event_port).into();
        fadt.pm1_evt_len = 4;
        fadt.x_pm1a_evt_blk = port(fixed.pm1_event_port, 32, AccessSize::WordAccess);
        fadt.pm1a_cnt_blk = u32::from(fixed.pm1_control_port).into();
        fadt.pm1_cnt_len = 2;
        fadt.x_pm1a_cnt_blk = port(fixed.pm1_control_port, 16, AccessSize::WordAccess);
        fadt.x_firmware_ctrl = facs.unwrap_or(0).into();
    } else {
        fadt = fadt.flag(Flags::HwReducedAcpi);
        fadt.sleep_control_reg = byte_port(power.sleep_control_port);
        fadt.sleep_status_reg = byte_port(power.sleep_status_port);
    }
    bytes(&fadt.finalize())
}

/// Multiple APIC description table (§5.2.12). GSI n is ISA interrupt n, as in KVM's default routes, so the only interrupt
/// source override says how the system control interrupt is triggered.
pub(super) fn madt(platform: &Platform) -> Vec<u8> {
    let mut madt = Sdt::new(*b"APIC", HEADER_BYTES, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut body = Vec::new();
    body.extend(low_address(LAPIC_START));
    let flags = if platform.fixed.is_some() { PC_INTERRUPT_CONTROLLERS } else { 0 };
    body.extend(flags.to_le_bytes());
    for (uid, &apic_id) in (0u32..).zip(&platform.apic_ids) {
        match (u8::try_from(uid), u8::try_from(apic_id)) {
            (Ok(uid), Ok(id)) if apic_id < X2APIC_IDS_START => {
                body.extend(LOCAL_APIC);
                body.extend([uid, id]);
                body.extend(PROCESSOR_ENABLED.to_le_bytes());
            }
            _ => {
                body.extend(LOCAL_X2APIC);
                body.extend([0, 0]);
                for word in [apic_id, PROCESSOR_ENABLED, uid] {
                    body.extend(word.to_le_bytes());
                }
            }
        }
    }
    body.extend(IO_APIC);
    // Its id, then the first GSI it takes.
    body.extend([0, 0]);
    body.extend(low_address(IOAPIC_START));
    body.extend(0u32.to_le_bytes());
    if let Some(fixed) = &platform.fixed {
        body.extend(INTERRUPT_OVERRIDE);
        // Of the ISA bus.
        body.extend([0, fixed.sci_gsi]);
        body.extend(u32::from(fixed.sci_gsi).to_le_bytes());
        body.extend(ACTIVE_HIGH_LEVEL.to_le_bytes());
    }
    body.extend(LOCAL_APIC_NMI);
    body.extend([ALL_PROCESSORS, 0, 0, NMI_PIN]);
    madt.append_slice(&body);
    madt.as_slice().to_vec()
}

/// PCI configuration space (PCI firmware 3.3 §4.1.2): one segment, and the buses that are there.
pub(super) fn mcfg(ecam: u64) -> Vec<u8> {
    let mut mcfg = acpi_tables::mcfg::MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ecam, 0, 0, PCI_LAST_BUS);
    bytes(&mcfg)
}

/// An address below 4 GiB.
fn low_address(address: u64) -> [u8; 4] {
    u32::try_from(address).unwrap_or(u32::MAX).to_le_bytes()
}
