//! What one VMM process is told: a complete machine, without a word of the cluster.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A complete virtual machine. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Name, for people: it appears in events, metrics and logs. 1 to 253 characters of `a-z`, `0-9`, `-` and `.`.
    pub name: String,
    /// The machine's identity, as the guest's firmware tables show it. Drawn at random when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Processors.
    #[serde(default)]
    pub cpus: CpuConfig,
    /// Memory.
    pub memory: MemoryConfig,
    /// What the machine starts.
    pub boot: BootConfig,
    /// What the guest's SMBIOS tables show beside its identity.
    #[serde(default)]
    pub smbios: SmbiosConfig,
    /// The clock that the guest reads at power-on.
    #[serde(default)]
    pub clock: ClockConfig,
    /// The serial port, ttyS0.
    #[serde(default)]
    pub serial: SerialConfig,
    /// Block devices, in PCI order: the first is the guest's `vda`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskConfig>,
    /// Network cards, in PCI order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<NetConfig>,
    /// A virtio console with named ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleConfig>,
    /// A source of entropy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rng: Option<RngConfig>,
    /// A socket device between guest and host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// A memory balloon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonConfig>,
    /// A pvpanic device, through which the guest's kernel says that it panicked.
    #[serde(default)]
    pub panic: bool,
}

/// Processors and their topology; `sockets × cores × threads` is the number of vCPUs, 1 to 64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CpuConfig {
    /// Sockets.
    #[schema(minimum = 1)]
    pub sockets: u32,
    /// Cores per socket.
    #[schema(minimum = 1)]
    pub cores: u32,
    /// Threads per core.
    #[schema(minimum = 1)]
    pub threads: u32,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self { sockets: 1, cores: 1, threads: 1 }
    }
}

/// Guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Size in bytes: a multiple of 4096, at least 1 MiB.
    #[schema(minimum = 1048576)]
    pub size_bytes: u64,
    /// Where it comes from.
    #[serde(default)]
    pub backing: MemoryBacking,
}

/// Where guest memory comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryBacking {
    /// Private anonymous memory with transparent huge pages: the fastest on stock hosts.
    #[default]
    Anonymous,
    /// A memfd, for memory that another process must share.
    Memfd,
    /// Huge pages of 2 MiB from hugetlbfs.
    #[serde(rename = "hugetlb_2m")]
    Hugetlb2M,
    /// Huge pages of 1 GiB from hugetlbfs.
    #[serde(rename = "hugetlb_1g")]
    Hugetlb1G,
}

/// What the machine starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BootConfig {
    /// A kernel, directly: bzImage, 64-bit ELF, or ELF with a PVH note.
    Kernel(KernelConfig),
    /// Stock firmware, SeaBIOS or OVMF, which starts what it finds on the machine's disks and networks.
    Firmware(FirmwareConfig),
}

/// Stock firmware as distributions package it for QEMU's q35 machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FirmwareConfig {
    /// The code, for example `bios-256k.bin` or `OVMF_CODE_4M.fd`: a multiple of 4096 bytes, from 64 KiB to 16 MiB
    /// together with the variable store. The guest cannot write it.
    pub code: FileSource,
    /// UEFI firmware's variable store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<VariableStoreConfig>,
    /// Names of disks and network cards to boot from, the first one first; without any, firmware decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<String>,
    /// How long firmware offers its boot menu, in milliseconds; 0 is not at all.
    #[serde(default)]
    pub menu_ms: u16,
    /// A BIOS repeats its screen on the serial port. UEFI firmware does so in any case.
    #[serde(default)]
    pub serial_console: bool,
    /// The machine has a system management mode, as UEFI firmware with Secure Boot needs it (`OVMF_CODE_4M.secboot.fd`):
    /// only code that runs in that mode can write the variable store, and 16 MiB at the top of low memory are out of
    /// reach for devices, and for everything else once the firmware closes them. Needs `variables`, whole MiB of memory, at least
    /// 64, and a KVM with `KVM_CAP_X86_SMM`. Which loaders run is a matter of the keys in the variable store.
    #[serde(default)]
    pub smm: bool,
}

/// The flash chip in which UEFI firmware keeps its variables, boot entries among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariableStoreConfig {
    /// Its content, for example `OVMF_VARS_4M.fd` or what an earlier run left.
    pub source: FileSource,
    /// What the guest writes is kept in the file, across restarts; without it, the guest's changes last as long as the
    /// machine and the file is only read.
    #[serde(default)]
    pub persistent: bool,
}

/// What the guest's SMBIOS tables show, `/sys/class/dmi/id` on Linux. Each text has at most 256 bytes and no control
/// characters; an absent one is shown as not specified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmbiosConfig {
    /// The machine.
    pub system: SmbiosSystem,
    /// Its case.
    pub chassis: SmbiosChassis,
}

/// The machine, as SMBIOS shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmbiosSystem {
    /// Who made it; `Orlop` if nothing is said.
    pub manufacturer: String,
    /// What it is called; `Virtual Machine` if nothing is said.
    pub product: String,
    /// Which version of it.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Which of the product's configurations.
    pub sku: String,
    /// What it belongs to.
    pub family: String,
}

impl Default for SmbiosSystem {
    fn default() -> Self {
        Self {
            manufacturer: "Orlop".to_owned(),
            product: "Virtual Machine".to_owned(),
            version: String::new(),
            serial: String::new(),
            sku: String::new(),
            family: String::new(),
        }
    }
}

/// The machine's case, as SMBIOS shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmbiosChassis {
    /// Who made it.
    pub manufacturer: String,
    /// Which version of it.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its owner's number for it.
    pub asset: String,
    /// Which of the product's configurations.
    pub sku: String,
}

/// A kernel to start directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelConfig {
    /// The kernel image.
    pub kernel: FileSource,
    /// An initial RAM file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<FileSource>,
    /// The command line, at most 2047 bytes without a NUL.
    #[serde(default)]
    pub cmdline: String,
    /// How an ELF image is entered; bzImage ignores it.
    #[serde(default)]
    pub protocol: BootProtocol,
}

/// How an ELF kernel is entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootProtocol {
    /// PVH where the image has its note, the 64-bit Linux boot protocol otherwise.
    #[default]
    Auto,
    /// The 64-bit Linux boot protocol.
    Linux64,
    /// PVH: the image must carry the `XEN_ELFNOTE_PHYS32_ENTRY` note.
    Pvh,
}

/// A file on the host: by path, or as a descriptor that the VMM was started with (`--fd NAME=N`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileSource {
    /// An absolute path.
    Path(String),
    /// The name of a descriptor given with `--fd NAME=N`.
    Fd(String),
}

/// The guest's clock at power-on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClockConfig {
    /// Seconds added to UTC for the real-time clock.
    pub offset_seconds: i64,
}

/// The serial port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SerialConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// How much of its output is kept for readers that come later, in bytes: 4 KiB to 16 MiB.
    #[schema(minimum = 4096, maximum = 16777216)]
    pub backlog_bytes: u32,
    /// A file that all output is appended to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<FileSource>,
}

impl Default for SerialConfig {
    fn default() -> Self {
        Self { enabled: true, backlog_bytes: 64 << 10, log: None }
    }
}

/// A limit on a device's throughput: a token bucket that refills steadily.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Tokens per second: bytes or operations, as the field that holds it says. At least 1.
    #[schema(minimum = 1)]
    pub per_second: u64,
    /// How many tokens may be saved up while idle; a second's worth when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// A disk or a CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Name of the device, unique in the machine.
    pub id: String,
    /// An image or a block device; for a CD-ROM drive, the medium that is in it at power-on, none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FileSource>,
    /// The bus that the guest finds it on.
    #[serde(default)]
    pub bus: DiskBus,
    /// It is a CD-ROM drive. Not on the virtio bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<CdromConfig>,
    /// The format of `source`. Once the machine exists, `GET /vm` says what was detected.
    #[serde(default)]
    pub format: ImageFormat,
    /// The images that `source` is an overlay over, the nearest first, at most 15. They are only read, and many machines
    /// may share them. An image whose header names a backing image is refused unless that is given here; no name in a
    /// header is ever opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing: Vec<ImageConfig>,
    /// Where the guest's writes go, so that `source` is only read and many machines may share it: a qcow2 image over
    /// `source`. A file that is empty, or does not exist, is made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<FileSource>,
    /// The guest may not write.
    #[serde(default)]
    pub read_only: bool,
    /// Serial number that the guest sees, at most 20 ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Number of queues, 1 to 64.
    #[serde(default = "one")]
    pub queues: u16,
    /// Requests per queue, a power of two, 2 to 1024.
    #[serde(default = "two_hundred_fifty_six")]
    pub queue_size: u16,
    /// Bypass the host's page cache (`O_DIRECT`).
    #[serde(default)]
    pub direct: bool,
    /// Each write is durable before the guest hears that it is done, until the guest turns the disk's write cache on.
    #[serde(default)]
    pub write_through: bool,
    /// How requests reach the host.
    #[serde(default)]
    pub io: DiskIo,
    /// Other machines that say the same may write to the image at the same time; their guests agree among themselves. Raw
    /// images and block devices only, without an overlay.
    #[serde(default)]
    pub shared: bool,
    /// The sector sizes that the guest sees; those of the image when absent. Not for CD-ROM drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<BlockSize>,
    /// What becomes of a request that the host cannot carry out. CD-ROM drives only report.
    #[serde(default)]
    pub error_policy: ErrorPolicy,
    /// Bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<RateLimit>,
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_limit: Option<RateLimit>,
}

/// How a disk's requests reach the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskIo {
    /// By io_uring, many at once, where the host permits it; else by system calls.
    #[default]
    Auto,
    /// By a system call each, which the disk's thread waits for.
    Synchronous,
}

/// The sector sizes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockSize {
    /// Those of what the image lies on: a file system's block for both, or both of a block device's own.
    Storage {},
    /// These.
    Custom {
        /// The unit of addresses in bytes: a power of two from the image's own, mostly 512, to 4096.
        logical_bytes: u32,
        /// The unit in which the disk works best, in bytes: a power of two from the logical one to 2 MiB.
        physical_bytes: u32,
        /// The unit in which space is given back, in bytes: a multiple of the logical one, at most 2 MiB.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        discard_bytes: Option<u32>,
    },
}

/// What becomes of a request that the host cannot carry out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorPolicy {
    /// The guest gets an error.
    #[default]
    Report,
    /// The guest is told that it went well.
    Ignore,
    /// The machine is paused, with an event `disk_error`; the request is tried again when it is resumed.
    Stop,
    /// The same where the host has no room left, otherwise as `report`.
    StopWhenFull,
}

/// The bus of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskBus {
    /// A virtio block device of its own, `vda` in Linux.
    #[default]
    Virtio,
    /// A target of the machine's virtio SCSI controller, `sda` or `sr0` in Linux.
    Scsi,
    /// A port of the machine's AHCI controller, `sda` or `sr0` in Linux. At most 30.
    Sata,
}

/// What makes a disk a CD-ROM drive: the medium can be read only, and goes in and out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CdromConfig {
    /// Where the tray is at power-on.
    pub tray: TrayPosition,
}

/// Where a tray is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrayPosition {
    /// In: the guest can read the medium.
    #[default]
    Closed,
    /// Out, with the medium on it: the guest can read it once it has closed the tray.
    Open,
}

/// An image behind another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Where it is.
    pub source: FileSource,
    /// Its format.
    #[serde(default)]
    pub format: ImageFormat,
}

/// How an image stores a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// Byte by byte; a block device, an ISO image.
    #[default]
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
    /// Raw or qcow2, whichever it is when the machine is created. Only for an image that no guest could write to before,
    /// and only once: a guest can make a raw disk look like any format. Give the format that `GET /vm` reports from then on.
    Detect,
}

/// A virtio network card on a tap device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Name of the device, unique in the machine.
    pub id: String,
    /// The tap device.
    pub tap: TapSource,
    /// MAC address, `52:54:00:12:34:56`. Drawn at random (locally administered) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// MTU that the guest is told, 68 to 65535 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Pairs of receive and transmit queues, 1 to 32.
    #[serde(default = "one")]
    pub queue_pairs: u16,
    /// Packets per queue, a power of two, 2 to 1024.
    #[serde(default = "two_hundred_fifty_six")]
    pub queue_size: u16,
    /// Checksum and segmentation offloads.
    #[serde(default = "yes")]
    pub offloads: bool,
    /// Whether the cable is plugged in at power-on.
    #[serde(default = "yes")]
    pub link_up: bool,
    /// Bytes per second that the guest receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_limit: Option<RateLimit>,
    /// Bytes per second that the guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_limit: Option<RateLimit>,
}

/// A tap device: by interface name, or as descriptors (one per queue pair) that the VMM was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TapSource {
    /// An interface that exists in the VMM's network namespace.
    Name(String),
    /// Names of descriptors given with `--fd NAME=N`, one per queue pair.
    Fds(Vec<String>),
}

/// A virtio console with named ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleConfig {
    /// The ports, 1 to 31.
    pub ports: Vec<ConsolePortConfig>,
}

/// A named port of the virtio console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsolePortConfig {
    /// The name by which the guest finds it, for example `org.qemu.guest_agent.0`.
    pub name: String,
    /// A unix socket that the VMM listens on: one host peer at a time.
    pub socket: String,
}

/// A source of entropy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RngConfig {
    /// Bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

/// A socket device. A guest connection to host port P arrives at the unix socket `<socket>_P`; a host peer reaches the
/// guest's port P by connecting to `<socket>` and sending `CONNECT P\n`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context identifier, 3 to 4294967294.
    pub cid: u32,
    /// The unix socket.
    pub socket: String,
}

/// A memory balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalloonConfig {
    /// Bytes to take from the guest at power-on, a multiple of 4096.
    pub target_bytes: u64,
    /// Give memory back when the guest runs short of it.
    pub deflate_on_oom: bool,
    /// The guest reports free pages, which the host takes back at once.
    pub free_page_reporting: bool,
}

impl Default for BalloonConfig {
    fn default() -> Self {
        Self { target_bytes: 0, deflate_on_oom: true, free_page_reporting: true }
    }
}

fn one() -> u16 {
    1
}

fn two_hundred_fifty_six() -> u16 {
    256
}

fn yes() -> bool {
    true
}
