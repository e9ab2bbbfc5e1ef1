//! Machine configurations, in as few words as a test needs.

use orlop_api::config::{
    BootConfig, BootProtocol, CdromConfig, ConsoleConfig, ConsolePortConfig, CpuConfig, DiskBus, DiskConfig,
    DiskIo, ErrorPolicy, FileSource, FirmwareConfig, ImageFormat, KernelConfig, MemoryBacking, MemoryConfig,
    NetConfig, SerialConfig, SmbiosConfig, TapSource, VariableStoreConfig, VmConfig, VsockConfig,
};

use crate::image;

/// The kernel kinds that the VMM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// A distribution's bzImage.
    BzImage,
    /// The same kernel as 64-bit ELF, entered by the Linux boot protocol.
    Elf,
    /// The same ELF, entered by its PVH note.
    Pvh,
}

/// The distribution's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareKind {
    /// SeaBIOS.
    Bios,
    /// OVMF, with a variable store that lasts as long as the machine.
    Uefi,
    /// OVMF for Secure Boot, with a system management mode and a store in which Secure Boot is on; it lasts as long as the
    /// machine.
    SecureUefi,
}

/// A small Linux guest from the initramfs image, or another kernel.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The configuration so far; tests change it freely.
    pub config: VmConfig,
}

/// A file by its path.
pub fn path(path: impl AsRef<std::path::Path>) -> FileSource {
    FileSource::Path(path.as_ref().display().to_string())
}

impl Guest {
    /// The small Linux guest with 256 MiB and one vCPU, waiting for commands on its console.
    pub fn linux(kind: KernelKind) -> Self {
        let (file, protocol) = match kind {
            KernelKind::BzImage => ("bzImage", BootProtocol::Auto),
            KernelKind::Elf => ("vmlinux", BootProtocol::Linux64),
            KernelKind::Pvh => ("vmlinux", BootProtocol::Pvh),
        };
        let mut guest = Self::kernel(image(file), "console=ttyS0 quiet");
        let kernel = guest.kernel_config();
        kernel.initramfs = Some(path(image("initramfs.cpio")));
        kernel.protocol = protocol;
        guest
    }

    /// A machine with 256 MiB and one vCPU that starts by stock firmware, which boots its disks.
    pub fn firmware(kind: FirmwareKind) -> Self {
        let (code, variables) = match kind {
            FirmwareKind::Bios => ("bios-256k.bin", None),
            FirmwareKind::Uefi => ("OVMF_CODE_4M.fd", Some("OVMF_VARS_4M.fd")),
            FirmwareKind::SecureUefi => ("OVMF_CODE_4M.secboot.fd", Some("OVMF_VARS_4M.ms.fd")),
        };
        let variables =
            variables.map(|file| VariableStoreConfig { source: path(image(file)), persistent: false });
        Self::starting(BootConfig::Firmware(FirmwareConfig {
            code: path(image(code)),
            variables,
            boot_order: Vec::new(),
            menu_ms: 0,
            serial_console: true,
            smm: kind == FirmwareKind::SecureUefi,
        }))
    }

    /// How firmware is started; the guest has one.
    pub fn firmware_config(&mut self) -> &mut FirmwareConfig {
        match &mut self.config.boot {
            BootConfig::Firmware(firmware) => firmware,
            BootConfig::Kernel(_) => panic!("this guest starts a kernel"),
        }
    }

    fn kernel_config(&mut self) -> &mut KernelConfig {
        match &mut self.config.boot {
            BootConfig::Kernel(kernel) => kernel,
            BootConfig::Firmware(_) => panic!("this guest starts by firmware"),
        }
    }

    /// Any kernel, without an initramfs.
    pub fn kernel(file: impl AsRef<std::path::Path>, cmdline: &str) -> Self {
        Self::starting(BootConfig::Kernel(KernelConfig {
            kernel: path(file),
            initramfs: None,
            cmdline: cmdline.into(),
            protocol: BootProtocol::Auto,
        }))
    }

    fn starting(boot: BootConfig) -> Self {
        Self {
            config: VmConfig {
                name: "test".into(),
                uuid: None,
                cpus: CpuConfig::default(),
                memory: MemoryConfig { size_bytes: 256 << 20, backing: MemoryBacking::Anonymous },
                boot,
                smbios: SmbiosConfig::default(),
                clock: Default::default(),
                serial: SerialConfig::default(),
                disks: Vec::new(),
                nets: Vec::new(),
                console: None,
                rng: None,
                vsock: None,
                balloon: None,
                panic: false,
            },
        }
    }

    /// Runs `script` instead of waiting for commands, and powers off.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        self.kernel_config().cmdline.push_str(&format!(" orlop.run=\"{script}\""));
        self
    }

    /// More words for the kernel.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        let kernel = self.kernel_config();
        kernel.cmdline.push(' ');
        kernel.cmdline.push_str(argument);
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.config.memory.size_bytes = mib << 20;
        self
    }

    /// Topology.
    #[must_use]
    pub fn cpus(mut self, sockets: u32, cores: u32, threads: u32) -> Self {
        self.config.cpus = CpuConfig { sockets, cores, threads };
        self
    }

    /// Whatever else there is to change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut VmConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// A network card on the tap `tap`.
    #[must_use]
    pub fn net(mut self, id: &str, tap: &str) -> Self {
        self.config.nets.push(NetConfig {
            id: id.into(),
            tap: TapSource::Name(tap.into()),
            mac: None,
            mtu: None,
            queue_pairs: 1,
            queue_size: 256,
            offloads: true,
            link_up: true,
            rx_limit: None,
            tx_limit: None,
        });
        self
    }

    /// A virtio console with one port `name`, on a unix socket at `socket`.
    #[must_use]
    pub fn port(mut self, name: &str, socket: impl AsRef<std::path::Path>) -> Self {
        let port = ConsolePortConfig { name: name.into(), socket: socket.as_ref().display().to_string() };
        self.config.console.get_or_insert(ConsoleConfig { ports: Vec::new() }).ports.push(port);
        self
    }

    /// A socket device at `socket`.
    #[must_use]
    pub fn vsock(mut self, cid: u32, socket: impl AsRef<std::path::Path>) -> Self {
        self.config.vsock = Some(VsockConfig { cid, socket: socket.as_ref().display().to_string() });
        self
    }

    /// A disk on a raw file, on the virtio bus.
    #[must_use]
    pub fn disk(self, id: &str, file: impl AsRef<std::path::Path>) -> Self {
        self.disk_on(DiskBus::Virtio, id, file)
    }

    /// A CD-ROM drive on `bus` with a raw file in it.
    #[must_use]
    pub fn cdrom_on(self, bus: DiskBus, id: &str, file: impl AsRef<std::path::Path>) -> Self {
        self.disk_on(bus, id, file).with(|config| {
            let disk = config.disks.last_mut().expect("the disk that was just added");
            disk.cdrom = Some(CdromConfig::default());
        })
    }

    /// A disk on a raw file, on `bus`.
    #[must_use]
    pub fn disk_on(mut self, bus: DiskBus, id: &str, file: impl AsRef<std::path::Path>) -> Self {
        self.config.disks.push(DiskConfig {
            id: id.into(),
            source: Some(path(file)),
            bus,
            cdrom: None,
            format: ImageFormat::Raw,
            backing: Vec::new(),
            overlay: None,
            read_only: false,
            serial: None,
            queues: 1,
            queue_size: 256,
            direct: false,
            write_through: false,
            io: DiskIo::Auto,
            shared: false,
            block_size: None,
            error_policy: ErrorPolicy::Report,
            bandwidth_limit: None,
            operations_limit: None,
        });
        self
    }
}
