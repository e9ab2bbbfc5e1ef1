//! Secure Boot: what nobody signed is refused, what Debian signed boots, and nobody but the firmware in system management
//! mode writes the variable store.

use std::path::{Path, PathBuf};

use orlop_kit::{FirmwareKind, Guest, Vm, copy_of, image, path, scratch};
use tempfile::TempDir;

/// What the boot loaders say first, and the guest that they start.
const UNSIGNED: &str = "orlop-grub: starting";
const SIGNED: &str = "orlop-signed-grub: starting";
const SHELL: &str = "orlop-init: commands";

/// A directory with a copy of the disk `name`.
fn disk(name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let disk = directory.path().join(name);
    copy_of(name, &disk);
    (directory, disk)
}

#[tokio::test]
async fn a_loader_that_nobody_signed_is_refused_and_the_firmware_stays_in_its_boot_manager() {
    let (directory, disk) = disk("hybrid.raw");
    let mut vm = Vm::boot(&Guest::firmware(FirmwareKind::SecureUefi).disk("root", disk)).await;
    vm.keep(directory);
    vm.expect("BdsDxe: failed to load Boot").await;
    let why = vm.expect("\n").await;
    assert!(why.contains("Access Denied") || why.contains("Security Violation"), "{why}");
    vm.expect("Press any key to enter the Boot Manager Menu").await;
    vm.console().send("\r").await;
    vm.expect("Boot Manager").await;
    assert!(!vm.console().text().contains(UNSIGNED));
    assert!(vm.counter("platform", "smis").await > 0);
    // The firmware tries once itself whether its interrupt stays enabled.
    assert_eq!(vm.counter("platform", "smi_refusals").await, 1);
    for none in ["flash_write_failures", "fw_cfg_faults", "locked_writes_refused"] {
        assert_eq!(vm.counter("platform", none).await, 0, "{none}");
    }
}

#[tokio::test]
async fn what_debian_signed_boots_to_a_kernel_that_knows_it() {
    let (directory, disk) = disk("secure.raw");
    let guest = Guest::firmware(FirmwareKind::SecureUefi).disk("root", disk);
    let mut vm = Vm::boot(&guest.with(|config| config.cpus.cores = 2)).await;
    vm.keep(directory);
    vm.expect(SIGNED).await;
    vm.expect(SHELL).await;
    let said = vm.run("dmesg | grep -i 'secure boot'").await;
    assert!(said.contains("Secure boot enabled"), "{said}");
    assert_eq!(vm.run("nproc").await, "2");
    // Attributes, then the value: Secure Boot is on, and the machine is not in setup mode.
    vm.run(MOUNT).await;
    for (name, value) in [("SecureBoot", "01"), ("SetupMode", "00")] {
        let file = format!("{EFIVARS}/{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        let shown = vm.run(&format!("hexdump -v -e '1/1 \"%02x\"' {file}")).await;
        assert_eq!(shown, format!("06000000{value}"), "{name}");
    }
    // The platform key belongs to somebody else: what this guest has not signed does not replace it.
    let key = format!("{EFIVARS}/PK-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    let before = vm.run(&format!("sha256sum {key}")).await;
    let (_, status) =
        vm.try_run(&format!("chattr -i {key} 2>&1; printf '\\x27\\x00\\x00\\x00' > {key}")).await;
    assert_ne!(status, 0);
    assert_eq!(vm.run(&format!("sha256sum {key}")).await, before);
    vm.console().send("poweroff -f\n").await;
    let exit = vm.exit().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

const EFIVARS: &str = "/sys/firmware/efi/efivars";
const MOUNT: &str = "insmod /modules/efivarfs.ko; mount -t efivarfs efivarfs /sys/firmware/efi/efivars";
/// A boot entry "Orlop": active, a path that ends at once (UEFI 2.10 §3.1.3), behind the attributes that efivarfs wants.
const ENTRY: &str =
    r"\x07\x00\x00\x00\x01\x00\x00\x00\x04\x00O\x00r\x00l\x00o\x00p\x00\x00\x00\x7f\xff\x04\x00";
const ENTRY_FILE: &str = "/sys/firmware/efi/efivars/Boot00AA-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A machine whose variables are kept in `store`, in which nobody has put keys: whatever is on the disk boots, and may do
/// what a hostile kernel does.
async fn without_keys(store: &Path) -> Vm {
    let (directory, disk) = disk("hybrid.raw");
    let mut guest = Guest::firmware(FirmwareKind::SecureUefi).disk("root", disk);
    let variables = guest.firmware_config().variables.as_mut().unwrap();
    (variables.source, variables.persistent) = (path(store), true);
    let mut vm = Vm::boot(&guest.with(|config| config.cpus.cores = 2)).await;
    vm.keep(directory);
    vm.expect(UNSIGNED).await;
    vm.expect(SHELL).await;
    vm.run(MOUNT).await;
    vm
}

/// The flash chip of OVMF's 4 MiB build, 528 KiB below its code; system management RAM of a machine with 256 MiB.
const FLASH: u64 = 0xFFC0_0000;
const SMRAM: u64 = (256 << 20) - (16 << 20);

#[tokio::test]
async fn a_hostile_kernel_does_not_get_around_the_firmware_and_what_that_writes_lasts() {
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let store = directory.path().join("variables.fd");
    copy_of("OVMF_VARS_4M.fd", &store);
    let template = std::fs::read(image("OVMF_VARS_4M.fd")).unwrap();
    let mut vm = without_keys(&store).await;
    let smis = vm.counter("platform", "smis").await;
    vm.run(&format!("printf '{ENTRY}' > {ENTRY_FILE}")).await;
    assert!(vm.counter("platform", "smis").await > smis);
    let before = std::fs::read(&store).unwrap();
    assert_ne!(before, template, "the firmware wrote nothing");

    let refused = vm.counter("platform", "flash_writes_refused").await;
    // The chip's commands by hand: program a byte, erase a block, in the store and in its spare half.
    for offset in [0x0, 0x50, 0x4_2000] {
        let address = FLASH + offset;
        for byte in [0x50, 0x40, 0x00, 0x20, 0xD0, 0xFF] {
            vm.run(&format!("devmem {address:#x} 8 {byte:#x}")).await;
        }
    }
    assert_eq!(vm.counter("platform", "flash_writes_refused").await, refused + 18);
    // System management RAM is not there for anybody else, and does not come back.
    let host = "/sys/bus/pci/devices/0000:00:00.0/config";
    let mut config = async |bytes: &str, register: u32| {
        vm.run(&format!("printf '{bytes}' | dd of={host} bs=1 seek={register} conv=notrunc 2>&1")).await
    };
    config(r"\x02", 0x9d).await;
    config(r"\x38", 0x9e).await;
    config(r"\x00\x00\x00\x00", 0xac).await;
    for address in [SMRAM, SMRAM + 0x1000, SMRAM + (8 << 20), (256 << 20) - 4] {
        vm.run(&format!("devmem {address:#x} 32 0")).await;
        assert_eq!(vm.run(&format!("devmem {address:#x} 32")).await, "0xFFFFFFFF", "{address:#x}");
    }
    assert_eq!(vm.counter("platform", "locked_writes_refused").await, 3);
    assert!(std::fs::read(&store).unwrap() == before, "the store was changed around the firmware");

    // The firmware is as before: it still writes, and what it writes lasts.
    vm.run(&format!("test -e {ENTRY_FILE}")).await;
    let other = ENTRY_FILE.replace("00AA", "00AB");
    vm.run(&format!("printf '{ENTRY}' > {other}")).await;
    vm.kill().await;
    let mut vm = without_keys(&store).await;
    for file in [ENTRY_FILE, &other] {
        assert!(vm.run(&format!("hexdump -C {file}")).await.contains("|..........O.r.l.|"));
    }
    // A reset in the middle of its work, most of which is done in system management mode: it starts as after power-on.
    vm.console().send(&format!("while :; do printf '{ENTRY}' > {other}; echo again; done\n")).await;
    vm.expect("again").await;
    vm.client.reset().await.unwrap();
    vm.expect(UNSIGNED).await;
    vm.expect(SHELL).await;
    vm.run(MOUNT).await;
    vm.run(&format!("test -e {ENTRY_FILE}")).await;
}
