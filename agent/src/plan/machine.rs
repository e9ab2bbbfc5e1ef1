//! Processors, memory, firmware or kernel, and the devices without a volume or network.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use orlop_api::config::{
    BalloonConfig, BootConfig, BootProtocol, ClockConfig, CpuConfig, FileSource, FirmwareConfig,
    KernelConfig, MemoryBacking, MemoryConfig, RngConfig, SerialConfig, SmbiosChassis, SmbiosConfig,
    SmbiosSystem, VariableStoreConfig, VmConfig,
};
use orlop_crd::VirtualMachineInstanceSpec;
use orlop_crd::devices::PanicDeviceModel;
use orlop_crd::firmware::{Bootloader, Efi, KernelBoot, KernelBootContainer};
use orlop_crd::quantity;
use orlop_crd::vmi::StartStrategy;

use super::data::Data;
use super::{FileWant, Refusal, volumes};

/// Guest memory is a whole number of pages.
const PAGE_BYTES: u64 = 4096;
/// What a guest may have of it, in bytes.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
/// The most vCPUs of a machine.
const VCPUS_MAX: u64 = 64;
/// The longest command line of a kernel, in bytes, with what is added to it (Linux: COMMAND_LINE_SIZE less its NUL).
const CMDLINE_MAX_BYTES: usize = 2047;
/// KubeVirt's serial console, on the guest's side.
const CONSOLE_ARGUMENT: &str = "console=ttyS0";
/// Where Debian's packages `seabios` and `ovmf` have their firmware.
const BIOS: &str = "/usr/share/seabios/bios-256k.bin";
const UEFI: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const UEFI_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The build with a system management mode, and a store with Secure Boot on and the keys of Microsoft and Debian in it.
const SECURE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const SECURE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// Where variable stores are kept that outlive a run, a directory for each namespace.
const STATE: &str = "/var/lib/orlop";
/// How long firmware offers its boot menu to somebody who starts a machine paused, in milliseconds (as KubeVirt does).
const MENU_MS: u16 = 10_000;

/// Everything but disks, network cards, name and identity.
pub fn plan(
    spec: &VirtualMachineInstanceSpec,
    namespace: &str,
    name: &str,
    data: &Data,
    files: &mut BTreeMap<String, FileWant>,
    refusals: &mut Vec<Refusal>,
) -> VmConfig {
    let domain = &spec.domain;
    let devices = &domain.devices;
    check_choices(spec, refusals);
    let topology = domain.topology();
    let vcpus =
        [topology.sockets, topology.cores, topology.threads].map(u64::from).into_iter().product::<u64>();
    if vcpus > VCPUS_MAX {
        let reason = format!("{vcpus} vCPUs (sockets × cores × threads): at most {VCPUS_MAX} are possible");
        refusals.push(Refusal::new("spec.domain.cpu", reason));
    }
    let serial = devices.autoattach_serial_console.unwrap_or(true);
    VmConfig {
        name: String::new(),
        uuid: None,
        cpus: CpuConfig { sockets: topology.sockets, cores: topology.cores, threads: topology.threads },
        memory: memory(spec, refusals),
        boot: match domain.firmware.as_ref().and_then(|f| f.kernel_boot.as_ref()) {
            Some(boot) => BootConfig::Kernel(kernel(boot, serial, data, files, refusals)),
            None => {
                let variables = Path::new(STATE).join(namespace).join(format!("{name}.variables.fd"));
                BootConfig::Firmware(firmware(spec, variables, files, refusals))
            }
        },
        smbios: smbios(spec),
        clock: ClockConfig {
            offset_seconds: domain
                .clock
                .as_ref()
                .and_then(|c| c.utc.as_ref()?.offset_seconds)
                .map_or(0, i64::from),
        },
        serial: SerialConfig { enabled: serial, ..SerialConfig::default() },
        disks: Vec::new(),
        nets: Vec::new(),
        console: None,
        rng: devices.rng.as_ref().map(|_| RngConfig::default()),
        vsock: None,
        balloon: devices.autoattach_mem_balloon.unwrap_or(true).then(BalloonConfig::default),
        panic: !devices.panic_devices.is_empty(),
    }
}

/// Values that are carried out only when they are the ones that this machine has.
fn check_choices(spec: &VirtualMachineInstanceSpec, refusals: &mut Vec<Refusal>) {
    let domain = &spec.domain;
    if let Some(kind) = domain.machine.as_ref().and_then(|m| m.r#type.as_deref())
        && !(kind.is_empty() || kind == "q35" || kind.starts_with("pc-q35"))
    {
        let reason = format!("'{kind}' is not there: the machine is a q35");
        refusals.push(Refusal::new("spec.domain.machine.type", reason));
    }
    if let Some(model) = domain.cpu.as_ref().and_then(|c| c.model.as_deref())
        && !matches!(model, "" | "host-model" | "host-passthrough")
    {
        let reason =
            format!("'{model}': named models are not there yet; leave it out or say host-passthrough");
        refusals.push(Refusal::new("spec.domain.cpu.model", reason));
    }
    let acpi = domain.features.as_ref().and_then(|f| f.acpi.as_ref()?.enabled);
    if acpi == Some(false) {
        refusals.push(Refusal::new("spec.domain.features.acpi.enabled", "the machine always has ACPI"));
    }
    for (index, device) in domain.devices.panic_devices.iter().enumerate() {
        if !matches!(device.model, None | Some(PanicDeviceModel::Isa)) {
            let path = format!("spec.domain.devices.panicDevices[{index}].model");
            refusals.push(Refusal::new(path, "only the isa model is there"));
        }
    }
}

fn memory(spec: &VirtualMachineInstanceSpec, refusals: &mut Vec<Refusal>) -> MemoryConfig {
    let path = "spec.domain.memory.guest";
    let size_bytes = match spec.domain.guest_memory() {
        None => {
            refusals.push(Refusal::new(path, "say how much memory the guest has, for example 1Gi"));
            0
        }
        Some(quantity) => match quantity::bytes(quantity) {
            Ok(bytes) if !MEMORY_BYTES.contains(&bytes) => {
                let reason =
                    format!("{bytes} bytes: a guest has 1Mi to 1Ti; units are written as in 512Mi or 4Gi");
                refusals.push(Refusal::new(path, reason));
                0
            }
            // KubeVirt's users write 1024M; a guest's memory is whole pages.
            Ok(bytes) => bytes / PAGE_BYTES * PAGE_BYTES,
            Err(error) => {
                refusals.push(Refusal::new(path, error.to_string()));
                0
            }
        },
    };
    let page_size =
        spec.domain.memory.as_ref().and_then(|m| m.hugepages.as_ref()).map(|h| h.page_size.as_deref());
    let backing = match page_size {
        None => MemoryBacking::Anonymous,
        Some(Some("2Mi")) => MemoryBacking::Hugetlb2M,
        Some(Some("1Gi")) => MemoryBacking::Hugetlb1G,
        Some(other) => {
            let reason = format!("'{}' is not a page size: say 2Mi or 1Gi", other.unwrap_or(""));
            refusals.push(Refusal::new("spec.domain.memory.hugepages.pageSize", reason));
            MemoryBacking::Anonymous
        }
    };
    MemoryConfig { size_bytes, backing }
}

/// What the guest's SMBIOS tables show.
fn smbios(spec: &VirtualMachineInstanceSpec) -> SmbiosConfig {
    let serial = spec.domain.firmware.as_ref().and_then(|firmware| firmware.serial.clone());
    let chassis = spec.domain.chassis.clone().unwrap_or_default();
    SmbiosConfig {
        system: SmbiosSystem { serial: serial.unwrap_or_default(), ..SmbiosSystem::default() },
        chassis: SmbiosChassis {
            manufacturer: chassis.manufacturer.unwrap_or_default(),
            version: chassis.version.unwrap_or_default(),
            serial: chassis.serial.unwrap_or_default(),
            asset: chassis.asset.unwrap_or_default(),
            sku: chassis.sku.unwrap_or_default(),
        },
    }
}

/// Stock firmware; a BIOS where the manifest says nothing, as on KubeVirt. `variables` is where UEFI's would be kept.
fn firmware(
    spec: &VirtualMachineInstanceSpec,
    variables: PathBuf,
    files: &mut BTreeMap<String, FileWant>,
    refusals: &mut Vec<Refusal>,
) -> FirmwareConfig {
    let path = "spec.domain.firmware.bootloader";
    let bootloader = spec.domain.firmware.as_ref().and_then(|firmware| firmware.bootloader.clone());
    let Bootloader { bios, efi } = bootloader.unwrap_or_default();
    if bios.is_some() && efi.is_some() {
        refusals.push(Refusal::new(path, "say either bios or efi"));
    }
    let mut want = |name: &str, want: FileWant| {
        files.insert(name.into(), want);
        FileSource::Fd(name.into())
    };
    let field = |name: &str| format!("{path}.{name}");
    let existing = |file: &str, name: &str| FileWant::Existing {
        path: file.into(),
        writable: false,
        field: field(name),
    };
    let (code, variables, smm) = match efi {
        None => (want("firmware", existing(BIOS, "bios")), None, false),
        Some(Efi { persistent, secure_boot }) => {
            let secure = secure_boot.unwrap_or(true);
            if secure && !has_smm(spec) {
                let reason = "SecureBoot requires SMM, which is currently disabled";
                refusals.push(Refusal::new(field("efi.secureBoot"), reason));
            }
            let (uefi, store) = if secure { (SECURE, SECURE_VARIABLES) } else { (UEFI, UEFI_VARIABLES) };
            let persistent = persistent.unwrap_or(false);
            let template = PathBuf::from(store);
            let kept = if persistent {
                FileWant::CopyIfAbsent { path: variables, template, field: field("efi.persistent") }
            } else {
                existing(store, "efi")
            };
            let source = want("firmware-variables", kept);
            let variables = VariableStoreConfig { source, persistent };
            (want("firmware", existing(uefi, "efi")), Some(variables), secure)
        }
    };
    let paused = spec.start_strategy == Some(StartStrategy::Paused);
    FirmwareConfig {
        code,
        variables,
        boot_order: Vec::new(),
        menu_ms: if paused { MENU_MS } else { 0 },
        serial_console: bios.and_then(|bios| bios.use_serial).unwrap_or(false),
        smm,
    }
}

/// Whether processors may have a system management mode: where Secure Boot needs it, that is what saying nothing means.
fn has_smm(spec: &VirtualMachineInstanceSpec) -> bool {
    let smm = spec.domain.features.as_ref().and_then(|features| features.smm.as_ref());
    smm.is_none_or(|smm| smm.enabled != Some(false))
}

/// The names of disks and network cards that have a boot order, first things first.
pub fn boot_order(spec: &VirtualMachineInstanceSpec, refusals: &mut Vec<Refusal>) -> Vec<String> {
    let devices = &spec.domain.devices;
    let disks = devices
        .disks
        .iter()
        .enumerate()
        .map(|(index, disk)| (disk.boot_order, format!("disk-{}", disk.name), format!("disks[{index}]")));
    let cards =
        devices.interfaces.iter().enumerate().map(|(index, card)| {
            (card.boot_order, format!("net-{}", card.name), format!("interfaces[{index}]"))
        });
    let mut order: BTreeMap<u32, String> = BTreeMap::new();
    for (number, name, field) in disks.chain(cards) {
        let Some(number) = number else { continue };
        let path = format!("spec.domain.devices.{field}.bootOrder");
        if number == 0 {
            refusals.push(Refusal::new(path, "a boot order is at least 1"));
        } else if let Some(other) = order.insert(number, name) {
            refusals.push(Refusal::new(path, format!("{number} is the boot order of {other} already")));
        }
    }
    order.into_values().collect()
}

fn kernel(
    boot: &KernelBoot,
    serial: bool,
    data: &Data,
    files: &mut BTreeMap<String, FileWant>,
    refusals: &mut Vec<Refusal>,
) -> KernelConfig {
    let path = "spec.domain.firmware.kernelBoot";
    let container = boot.container.as_ref();
    let mut want = |name: &str, field: &str, inside: Option<&str>| -> Option<FileSource> {
        let (container, inside) = (container?, inside?);
        match kernel_file(container, inside, &format!("{path}.container"), field, data) {
            Ok(file) => {
                files.insert(name.into(), file);
                Some(FileSource::Fd(name.into()))
            }
            Err(refusal) => {
                refusals.push(refusal);
                None
            }
        }
    };
    let kernel = want("kernel", "kernelPath", container.and_then(|c| c.kernel_path.as_deref()));
    let initramfs = want("initramfs", "initrdPath", container.and_then(|c| c.initrd_path.as_deref()));
    if container.and_then(|c| c.kernel_path.as_deref()).is_none() {
        let reason = "a kernel is needed: give container.image (an image, or a directory of this machine) and \
                      container.kernelPath in it";
        refusals.push(Refusal::new(path, reason));
    }
    let arguments = boot.kernel_args.as_deref().unwrap_or("");
    let cmdline = if serial && !arguments.contains("console=") {
        format!("{arguments} {CONSOLE_ARGUMENT}").trim_start().to_owned()
    } else {
        arguments.to_owned()
    };
    let field = "spec.domain.firmware.kernelBoot.kernelArgs";
    if cmdline.len() > CMDLINE_MAX_BYTES {
        let reason = format!(
            "a command line of {} bytes is too long; at most {CMDLINE_MAX_BYTES} are possible",
            cmdline.len()
        );
        refusals.push(Refusal::new(field, reason));
    }
    if cmdline.contains(|c: char| c.is_control()) {
        refusals.push(Refusal::new(field, "a command line is one line, without control characters"));
    }
    KernelConfig {
        kernel: kernel.unwrap_or(FileSource::Fd("kernel".into())),
        initramfs,
        cmdline,
        protocol: BootProtocol::Auto,
    }
}

/// The file `inside` of an image, or of the directory that stands in for one, never outside of it. `path` is the
/// container's field, `field` the file's in it.
fn kernel_file(
    container: &KernelBootContainer,
    inside: &str,
    path: &str,
    field: &str,
    data: &Data,
) -> Result<FileWant, Refusal> {
    let field = format!("{path}.{field}");
    let relative = Path::new(inside.trim_start_matches('/'));
    if relative.as_os_str().is_empty() || relative.components().any(|c| !matches!(c, Component::Normal(_))) {
        return Err(Refusal::new(field, format!("'{inside}' is not a path inside the image")));
    }
    let KernelBootContainer { image, image_pull_policy, image_pull_secret, initrd_path: _, kernel_path: _ } =
        container;
    if Path::new(image).is_absolute() {
        return Ok(FileWant::Inside { directory: image.into(), path: relative.to_owned(), field });
    }
    let image = volumes::image(image, *image_pull_policy, image_pull_secret.as_deref(), data, path)?;
    Ok(FileWant::ImageFile { image, path: inside.to_owned(), field })
}
