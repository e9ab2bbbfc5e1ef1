//! Stock firmware, SeaBIOS and OVMF: it finds its machine, boots a disk, keeps its variables, and cannot do harm.

use std::path::{Path, PathBuf};

use orlop_api::config::{
    FileSource, SmbiosChassis, SmbiosConfig, SmbiosSystem, VariableStoreConfig, VmConfig,
};
use orlop_kit::{FirmwareKind, Guest, KernelKind, Vm, copy_of, path, scratch};
use tempfile::TempDir;

/// What the boot loader of the hybrid disk says first, and the guest on it.
const LOADER: &str = "orlop-grub: starting";
const SHELL: &str = "orlop-init: commands";

/// A directory with a copy of the hybrid disk.
fn hybrid() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let disk = directory.path().join("hybrid.raw");
    copy_of("hybrid.raw", &disk);
    (directory, disk)
}

/// A machine that boots the hybrid disk, up to the shell.
async fn up(kind: FirmwareKind, change: impl FnOnce(&mut VmConfig)) -> Vm {
    let (directory, disk) = hybrid();
    let mut vm = Vm::boot(&Guest::firmware(kind).disk("root", disk).with(change)).await;
    vm.keep(directory);
    vm.expect(LOADER).await;
    vm.expect(SHELL).await;
    vm
}

async fn power_off(mut vm: Vm) -> orlop_kit::Exit {
    vm.console().send("poweroff -f\n").await;
    let exit = vm.exit().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    exit
}

#[tokio::test]
async fn a_bios_boots_a_disk_and_says_what_it_does() {
    let mut vm = up(FirmwareKind::Bios, |_| {}).await;
    assert_eq!(vm.run("cat /sys/class/dmi/id/bios_vendor").await, "SeaBIOS");
    assert_eq!(vm.try_run("test -d /sys/firmware/efi").await.1, 1);
    assert!(vm.run("dmesg | grep -c 'ACPI: FACP'").await.parse::<u32>().unwrap() > 0);
    assert_eq!(vm.counter("platform", "fw_cfg_faults").await, 0);
    assert_eq!(vm.counter("platform", "ecam_moves_refused").await, 0);
    let exit = power_off(vm).await;
    assert!(exit.console.contains("SeaBIOS (version "), "{}", exit.console);
    assert!(exit.stderr.contains("firmware: SeaBIOS (version "), "{}", exit.stderr);
}

#[tokio::test]
async fn a_bios_offers_its_menu_and_boots_what_is_chosen() {
    let (directory, disk) = hybrid();
    let empty = directory.path().join("empty.raw");
    std::fs::File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    let mut guest = Guest::firmware(FirmwareKind::Bios).disk("empty", empty).disk("root", disk);
    guest.firmware_config().menu_ms = 60_000;
    guest.firmware_config().boot_order = vec!["root".into(), "empty".into()];
    let mut vm = Vm::boot(&guest).await;
    vm.expect("Press ESC for boot menu").await;
    vm.console().send("\x1b").await;
    // In the order that was asked for, not in that of the bus.
    vm.expect("1. Virtio disk PCI:00:02.0").await;
    vm.expect("2. Virtio disk PCI:00:01.0").await;
    vm.console().send("1").await;
    vm.expect(LOADER).await;
}

#[tokio::test]
async fn the_boot_order_decides_between_two_disks() {
    let (directory, disk) = hybrid();
    // A boot sector that says so and stops: mov dx, 0x3f8; then a byte each.
    let other = directory.path().join("other.raw");
    std::fs::write(&other, boot_sector(&say(b"other disk\n"))).unwrap();
    let mut guest = Guest::firmware(FirmwareKind::Bios).disk("root", disk).disk("other", other);
    guest.firmware_config().boot_order = vec!["other".into(), "root".into()];
    Vm::boot(&guest).await.expect("other disk").await;
    guest.firmware_config().boot_order.reverse();
    let mut vm = Vm::boot(&guest).await;
    vm.expect(LOADER).await;
    drop(directory);
}

#[tokio::test]
async fn a_bios_starts_all_processors_and_sees_memory_above_4_gib() {
    let guest = |config: &mut VmConfig| {
        config.cpus.cores = 3;
        config.memory.size_bytes = 5 << 30;
    };
    let mut vm = up(FirmwareKind::Bios, guest).await;
    assert_eq!(vm.run("nproc").await, "3");
    let kib: u64 = vm.run("awk '/MemTotal/ {print $2}' /proc/meminfo").await.parse().unwrap();
    assert!(kib > 4_700_000, "{kib} KiB");
    // The disk's BAR is where the BIOS put it, and it works there.
    vm.run("dd if=/dev/vda of=/dev/null bs=1M count=8").await;
    power_off(vm).await;
}

#[tokio::test]
async fn a_guest_reboots_through_its_bios() {
    let mut vm = up(FirmwareKind::Bios, |_| {}).await;
    vm.console().send("reboot -f\n").await;
    vm.expect("SeaBIOS (version ").await;
    vm.expect(LOADER).await;
    vm.expect(SHELL).await;
    assert_eq!(vm.client.info().await.unwrap().resets, 1);
}

#[tokio::test]
async fn uefi_boots_a_disk_and_powers_off() {
    let mut vm = up(FirmwareKind::Uefi, |_| {}).await;
    vm.run("test -d /sys/firmware/efi").await;
    assert!(vm.run("dmesg | grep 'efi: EFI v'").await.contains("EFI v2."));
    assert_eq!(vm.counter("platform", "fw_cfg_faults").await, 0);
    assert_eq!(vm.counter("platform", "ecam_moves_refused").await, 0);
    let exit = power_off(vm).await;
    assert!(exit.console.contains("BdsDxe: starting Boot"), "{}", exit.console);
}

/// A boot entry "Orlop": active, a path of `len` bytes that ends at once (UEFI 2.10 §3.1.3), behind the attributes that
/// efivarfs wants: non-volatile, boot and runtime.
const ENTRY: &str =
    r"\x07\x00\x00\x00\x01\x00\x00\x00\x04\x00O\x00r\x00l\x00o\x00p\x00\x00\x00\x7f\xff\x04\x00";
const ENTRY_FILE: &str = "/sys/firmware/efi/efivars/Boot00AA-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const MOUNT: &str = "insmod /modules/efivarfs.ko; mount -t efivarfs efivarfs /sys/firmware/efi/efivars";

/// A machine with several processors whose variables are kept in `store`.
async fn with_store(store: &Path) -> Vm {
    let source = path(store);
    let mut vm = up(FirmwareKind::Uefi, |config| {
        config.cpus.cores = 2;
        let orlop_api::config::BootConfig::Firmware(firmware) = &mut config.boot else { panic!("firmware") };
        let variables = firmware.variables.as_mut().unwrap();
        (variables.source, variables.persistent) = (source, true);
    })
    .await;
    vm.run(MOUNT).await;
    vm
}

#[tokio::test]
async fn boot_entries_survive_a_restart_and_kill_minus_9() {
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let store = directory.path().join("variables.fd");
    copy_of("OVMF_VARS_4M.fd", &store);
    let mut vm = with_store(&store).await;
    assert_eq!(vm.run("nproc").await, "2");
    assert_eq!(vm.try_run(&format!("test -e {ENTRY_FILE}")).await.1, 1);
    vm.run(&format!("printf '{ENTRY}' > {ENTRY_FILE}")).await;
    assert_eq!(vm.counter("platform", "flash_write_failures").await, 0);
    vm.kill().await;
    let mut vm = with_store(&store).await;
    assert!(vm.run(&format!("hexdump -C {ENTRY_FILE}")).await.contains("|..........O.r.l.|"));
    power_off(vm).await;
}

#[tokio::test]
async fn a_store_that_is_not_persistent_is_fresh_each_time_and_never_written() {
    let template = std::fs::read(orlop_kit::image("OVMF_VARS_4M.fd")).unwrap();
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let store = directory.path().join("template.fd");
    std::fs::write(&store, &template).unwrap();
    let source = path(&store);
    let mut vm = up(FirmwareKind::Uefi, |config| {
        let orlop_api::config::BootConfig::Firmware(firmware) = &mut config.boot else { panic!("firmware") };
        firmware.variables.as_mut().unwrap().source = source;
    })
    .await;
    vm.run(MOUNT).await;
    vm.run(&format!("printf '{ENTRY}' > {ENTRY_FILE}")).await;
    // A reset is not a restart: the chip keeps what it has.
    vm.console().send("reboot -f\n").await;
    vm.expect(LOADER).await;
    vm.expect(SHELL).await;
    vm.run(MOUNT).await;
    vm.run(&format!("test -e {ENTRY_FILE}")).await;
    power_off(vm).await;
    assert!(std::fs::read(&store).unwrap() == template, "the template was written");
}

fn identity(config: &mut VmConfig) {
    config.uuid = Some("12345678-9abc-4def-8123-456789abcdef".into());
    config.smbios = SmbiosConfig {
        system: SmbiosSystem {
            manufacturer: "Example Works".into(),
            product: "Deck Machine".into(),
            version: "7".into(),
            serial: "SN-0001".into(),
            sku: "sku-1".into(),
            family: "Orlop".into(),
        },
        chassis: SmbiosChassis {
            manufacturer: "Case Works".into(),
            version: "c2".into(),
            serial: "CS-2".into(),
            asset: "asset 42".into(),
            sku: "sku-2".into(),
        },
    };
}

async fn shows_its_identity(vm: &mut Vm) {
    for (file, text) in [
        ("product_uuid", "12345678-9abc-4def-8123-456789abcdef"),
        ("sys_vendor", "Example Works"),
        ("product_name", "Deck Machine"),
        ("product_version", "7"),
        ("product_serial", "SN-0001"),
        ("product_sku", "sku-1"),
        ("product_family", "Orlop"),
        ("chassis_vendor", "Case Works"),
        ("chassis_version", "c2"),
        ("chassis_serial", "CS-2"),
        ("chassis_asset_tag", "asset 42"),
    ] {
        assert_eq!(vm.run(&format!("cat /sys/class/dmi/id/{file}")).await, text, "{file}");
    }
}

#[tokio::test]
async fn a_directly_booted_kernel_shows_the_identity_of_its_machine() {
    let mut vm = Vm::shell(&Guest::linux(KernelKind::BzImage).with(identity)).await;
    shows_its_identity(&mut vm).await;
    assert_eq!(vm.run("cat /sys/class/dmi/id/bios_vendor").await, "Orlop");
}

#[tokio::test]
async fn firmware_hands_the_identity_on() {
    for kind in [FirmwareKind::Bios, FirmwareKind::Uefi] {
        let mut vm = up(kind, identity).await;
        shows_its_identity(&mut vm).await;
    }
}

/// A machine that a client asks for and does not get: what it is told.
async fn refused(guest: &Guest) -> String {
    let vm = Vm::process(&[]).await;
    vm.client.create(&guest.config, false).await.expect_err("a machine").to_string()
}

#[tokio::test]
async fn firmware_that_cannot_be_is_refused_by_its_field() {
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let file = |name: &str, len: u64| {
        let path = directory.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(len).unwrap();
        path
    };
    let code = |source: FileSource| {
        let mut guest = Guest::firmware(FirmwareKind::Uefi);
        guest.firmware_config().code = source;
        guest
    };
    let variables = |source: FileSource| {
        let mut guest = Guest::firmware(FirmwareKind::Uefi);
        guest.firmware_config().variables.as_mut().unwrap().source = source;
        guest
    };
    let ordered = |order: &[&str]| {
        let mut guest = Guest::firmware(FirmwareKind::Bios);
        guest.firmware_config().boot_order = order.iter().map(|name| (*name).to_owned()).collect();
        guest
    };
    let managed = |store: Option<&str>| {
        let mut guest = Guest::firmware(FirmwareKind::Bios);
        let firmware = guest.firmware_config();
        firmware.smm = true;
        firmware.variables = store
            .map(|store| VariableStoreConfig { source: path(orlop_kit::image(store)), persistent: false });
        guest
    };
    let cases = [
        (managed(None), "boot.firmware.smm: firmware with a system management mode needs"),
        (managed(Some("OVMF_VARS_4M.fd")), "a BIOS has no use for a system management mode"),
        (code(path("/nonexistent/bios.bin")), "cannot open /nonexistent/bios.bin"),
        (code(path(file("short", 1000))), "firmware of 1000 bytes is not a multiple of 4096"),
        (code(path(file("empty", 0))), "firmware of 0 bytes"),
        (code(path(file("long", 17 << 20))), "firmware of 17825792 bytes"),
        (code(path(directory.path())), "firmware of 0 bytes"),
        (code(path("/dev/zero")), "firmware of 0 bytes"),
        (variables(path("/nonexistent/vars.fd")), "cannot open /nonexistent/vars.fd"),
        (variables(path(file("odd", 70_000))), "variable store of 70000 bytes"),
        (variables(path(file("large", 13 << 20))), "variable store of 13631488 bytes"),
        (ordered(&["nobody"]), "'nobody' is none of the machine's devices"),
        (ordered(&["x", "x"]), "'x' is in the order already"),
    ];
    for (guest, expected) in cases {
        let said = refused(&guest).await;
        assert!(said.contains(expected), "{said}, not {expected}");
    }
    let mut small = Guest::firmware(FirmwareKind::Bios);
    small.config.smbios.system.serial = "a\nb".into();
    assert!(refused(&small).await.contains("smbios.system.serial"));
}

/// A disk whose boot sector has `code` at its start (real mode, loaded at 0x7c00).
fn boot_sector(code: &[u8]) -> Vec<u8> {
    let mut disk = code.to_vec();
    // A BIOS reads by cylinders: the disk has some.
    disk.resize(1 << 20, 0);
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

/// `mov dx, 0x3f8`, then `mov al, byte; out dx, al` for each byte, then `hlt; jmp` for good.
fn say(text: &[u8]) -> Vec<u8> {
    let mut code = vec![0xBA, 0xF8, 0x03];
    text.iter().for_each(|byte| code.extend([0xB0, *byte, 0xEE]));
    code.extend([0xF4, 0xEB, 0xFD]);
    code
}

#[tokio::test]
async fn a_malformed_descriptor_of_fw_cfg_is_counted_and_the_guest_goes_on() {
    // xor ax, ax; mov ds, ax
    let mut code = vec![0x31, 0xC0, 0x8E, 0xD8];
    // `mov eax, value; mov dx, port; out dx, eax`
    let out = |port: u16, value: u32| {
        let mut code = vec![0x66, 0xB8];
        code.extend(value.to_le_bytes());
        code.push(0xBA);
        code.extend(port.to_le_bytes());
        code.extend([0x66, 0xEF]);
        code
    };
    // A descriptor where there is no memory, then the one at 0x7d00, which asks for 4 GiB.
    code.extend([out(0x514, u32::MAX), out(0x518, u32::MAX)].concat());
    code.extend([out(0x514, 0), out(0x518, 0x7d00u32.swap_bytes())].concat());
    // mov al, [0x7d03]; add al, '0'; mov bl, al: the last byte of its control word
    code.extend([0xA0, 0x03, 0x7D, 0x04, b'0', 0x88, 0xC3]);
    code.extend([0xBA, 0xF8, 0x03, 0xB0, b'=', 0xEE, 0x88, 0xD8, 0xEE]);
    code.extend(say(b" went on"));
    let mut sector = boot_sector(&code);
    sector[0x100..0x108].copy_from_slice(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]);
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let disk = directory.path().join("hostile.raw");
    std::fs::write(&disk, sector).unwrap();
    let mut guest = Guest::firmware(FirmwareKind::Bios).disk("root", disk);
    guest.firmware_config().serial_console = false;
    let mut vm = Vm::boot(&guest).await;
    vm.expect("=1 went on").await;
    assert_eq!(vm.counter("platform", "fw_cfg_faults").await, 2);
}

#[tokio::test]
async fn a_bar_that_is_moved_onto_ram_answers_nowhere() {
    let mut vm = up(FirmwareKind::Bios, |_| {}).await;
    let refused = vm.counter("platform", "pci_windows_refused").await;
    let config = "/sys/bus/pci/devices/0000:00:01.0/config";
    let mut write = async |bytes: &str, register: u32| {
        vm.run(&format!("printf '{bytes}' | dd of={config} bs=4 seek={} conv=notrunc", register / 4)).await
    };
    // Memory decoding on, BAR 0 (64 bits) at 1 MiB.
    write(r"\x02\x00\x00\x00", 0x04).await;
    write(r"\x00\x00\x00\x00", 0x14).await;
    write(r"\x00\x00\x10\x00", 0x10).await;
    assert!(vm.counter("platform", "pci_windows_refused").await > refused);
    // What is there is RAM, as before: the guest lives.
    assert_eq!(vm.run("echo alive").await, "alive");
}
