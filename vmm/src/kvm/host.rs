//! The device node: opened, or handed in, and checked before anything relies on it.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_CAP_MULTI_ADDRESS_SPACE, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

/// Where access to KVM comes from.
#[derive(Debug)]
pub enum KvmSource {
    /// A device node.
    Path(PathBuf),
    /// A descriptor that the process was started with.
    Descriptor(OwnedFd),
}

impl KvmSource {
    /// The same source once more; `None` when the process has no descriptor left.
    pub fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Path(path) => Some(Self::Path(path.clone())),
            Self::Descriptor(fd) => fd.try_clone().ok().map(Self::Descriptor),
        }
    }
}

/// Why KVM cannot be used, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no such node.
    #[error(
        "{0} does not exist: load the module kvm_amd or kvm_intel, and switch virtualization on in the firmware \
         (in a virtual machine: nested virtualization on its host)"
    )]
    Missing(PathBuf),
    /// The node may not be opened.
    #[error("no permission to open {0}: add this user to the group 'kvm', or hand it in with --fd kvm=N")]
    Permission(PathBuf),
    /// The node cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The node.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file does not answer as KVM does.
    #[error("{what} is not KVM: it answers {version} to KVM_GET_API_VERSION instead of {KVM_API_VERSION}")]
    NotKvm {
        /// The file.
        what: String,
        /// What it said.
        version: i32,
    },
    /// This KVM runs without hardware virtualization.
    #[error(
        "this machine's KVM is software only (module kvm_pvm, no svm or vmx in /proc/cpuinfo): Linux does not boot \
         on it. Run in the virtual node instead (cargo xtask node), or give --allow-software-kvm for guests without \
         paging"
    )]
    SoftwareOnly,
    /// The kernel is too old, or built without something.
    #[error("this kernel's KVM lacks {0}")]
    MissingCapability(&'static str),
    /// A call failed.
    #[error("{call} failed: {source}")]
    Call {
        /// The ioctl.
        call: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl KvmError {
    /// Puts the name of the ioctl to what the kernel said.
    pub(super) fn of(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Call { call, source: io::Error::from_raw_os_error(error.errno()) }
    }
}

/// What the VMM relies on, with the names of the KVM api document.
const NEEDED: [(Cap, &str); 16] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
];

/// A usable KVM.
pub struct HostKvm {
    pub(super) fd: Kvm,
}

impl HostKvm {
    /// Opens and checks KVM. One without hardware virtualization is refused unless `allow_software` says otherwise.
    pub fn open(source: KvmSource, allow_software: bool) -> Result<Self, KvmError> {
        let (what, fd) = match source {
            KvmSource::Path(path) => (path.display().to_string(), open_node(&path)?),
            KvmSource::Descriptor(fd) => ("the descriptor given as kvm".to_owned(), fd.into_raw_fd()),
        };
        #[expect(unsafe_code, reason = "kvm-ioctls takes an open node only as a raw descriptor")]
        // SAFETY: `fd` was released by its owner on the line that produced it and belongs to nobody else.
        let fd = unsafe { Kvm::from_raw_fd(fd) };
        let version = fd.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(KvmError::NotKvm { what, version });
        }
        if !allow_software && is_software_only() {
            return Err(KvmError::SoftwareOnly);
        }
        match NEEDED.iter().find(|(cap, _)| !fd.check_extension(*cap)) {
            Some((_, name)) => Err(KvmError::MissingCapability(name)),
            None => Ok(Self { fd }),
        }
    }

    /// The most vCPUs that one machine may have.
    pub fn vcpus_max(&self) -> u32 {
        u32::try_from(self.fd.get_max_vcpus()).unwrap_or(u32::MAX)
    }

    /// What CPUID leaves KVM can give a guest (KVM api §4.46).
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::of("KVM_GET_SUPPORTED_CPUID"))
    }

    /// Whether processors have a system management mode, with an address space of its own (KVM api §4.35, §8.2).
    pub fn has_smm(&self) -> bool {
        let spaces = self.fd.check_extension_raw(KVM_CAP_MULTI_ADDRESS_SPACE.into());
        self.fd.check_extension(Cap::X86Smm) && spaces > 1
    }

    /// Whether the local APIC's timer may run by TSC deadline.
    pub fn has_tsc_deadline(&self) -> bool {
        self.fd.check_extension(Cap::TscDeadlineTimer)
    }
}

fn open_node(path: &Path) -> Result<RawFd, KvmError> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => Ok(OwnedFd::from(file).into_raw_fd()),
        Err(e) => Err(match e.kind() {
            io::ErrorKind::NotFound => KvmError::Missing(path.to_owned()),
            io::ErrorKind::PermissionDenied => KvmError::Permission(path.to_owned()),
            _ => KvmError::Open { path: path.to_owned(), source: e },
        }),
    }
}

/// Whether this machine's KVM works without the processor's help: the module is kvm_pvm, and no hardware
/// virtualization is to be seen.
fn is_software_only() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "svm" || flag == "vmx"));
    Path::new("/sys/module/kvm_pvm").exists() && !hardware
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_is_named_with_what_to_do() {
        let error = HostKvm::open(KvmSource::Path("/nonexistent/kvm".into()), true).err().unwrap();
        assert!(matches!(error, KvmError::Missing(_)));
        assert!(error.to_string().starts_with("/nonexistent/kvm does not exist: load the module"));
    }

    #[test]
    fn a_file_that_is_not_kvm_is_refused() {
        let error = HostKvm::open(KvmSource::Path("/dev/null".into()), true).err().unwrap();
        assert!(matches!(error, KvmError::NotKvm { .. }), "{error}");
    }

    #[test]
    fn a_directory_cannot_be_opened() {
        let error = HostKvm::open(KvmSource::Path("/".into()), true).err().unwrap();
        assert!(matches!(error, KvmError::Open { .. }), "{error}");
    }
}
