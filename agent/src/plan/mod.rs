//! From a manifest to what must be done on this machine; pure.
//!
//! ```text
//!  text ── orlop_crd ── VirtualMachineInstance ── fields (refused?) ── machine, disks, nets ── RunPlan
//! ```

pub mod blame;
mod data;
mod disks;
pub mod fields;
mod machine;
mod nets;
pub mod seed;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use orlop_api::config::{BootConfig, VmConfig};
use orlop_crd::VirtualMachineInstance;
use orlop_crd::manifest::Document;
use orlop_crd::vmi::{Architecture, StartStrategy};
use orlop_oci::{Credentials, PullPolicy};

use crate::net::NetSpec;
use data::Data;
pub use nets::tap_name;
use volumes::Around;

/// Grace period where the manifest says nothing, in seconds (KubeVirt's default).
const GRACE_PERIOD_SECONDS: i64 = 30;
/// Longest label of a host name (RFC 1123).
const HOST_NAME_MAX_CHARS: usize = 63;
/// Annotations that name an instance type.
const INSTANCE_TYPE: [&str; 2] = ["kubevirt.io/instancetype-name", "kubevirt.io/cluster-instancetype-name"];

/// Everything that a run needs, decided.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// Name of the VM.
    pub name: String,
    /// Its namespace; `default` where the manifest has none.
    pub namespace: String,
    /// Its host name.
    pub hostname: String,
    /// What the VMM is told; files and taps appear in it by the names below.
    pub config: VmConfig,
    /// Descriptors that the VMM is started with, by name.
    pub files: BTreeMap<String, FileWant>,
    /// Networks to set up, by the name of the network card.
    pub nets: BTreeMap<String, NetSpec>,
    /// How long the guest may take to power off, in seconds.
    pub grace_period_seconds: u64,
    /// Build the machine, but do not run it yet.
    pub start_paused: bool,
    /// A reset ends the machine.
    pub end_on_reset: bool,
}

/// A file to open before the VMM starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileWant {
    /// One that must be there.
    Existing {
        /// Absolute path.
        path: PathBuf,
        /// For writing too.
        writable: bool,
        /// The manifest's field, for errors.
        field: String,
    },
    /// One in a directory that stands in for an image; symbolic links may not lead out of it.
    Inside {
        /// Absolute path of the directory.
        directory: PathBuf,
        /// Path in it.
        path: PathBuf,
        /// The manifest's field, for errors.
        field: String,
    },
    /// One that is made, sparse, when it is not there.
    CreateIfAbsent {
        /// Absolute path.
        path: PathBuf,
        /// Length in bytes when made.
        len_bytes: u64,
        /// The manifest's field, for errors.
        field: String,
    },
    /// One that is made, a copy of another, when it is not there.
    CopyIfAbsent {
        /// Absolute path; its directory is made as well.
        path: PathBuf,
        /// Absolute path of what it is a copy of.
        template: PathBuf,
        /// The manifest's field, for errors.
        field: String,
    },
    /// An empty one without a name, which ends with the VM.
    Scratch {
        /// Length in bytes.
        len_bytes: u64,
        /// The manifest's field, for errors.
        field: String,
    },
    /// A disk that is made of data of the manifest, without a name.
    Generated(Generated),
    /// The disk in a container disk.
    ImageDisk {
        /// The image.
        image: ImageWant,
        /// Where it is in the image; unset: the only file in `/disk`.
        path: Option<String>,
        /// A copy for this run, which the guest may write to.
        writable: bool,
        /// The manifest's field, for errors.
        field: String,
    },
    /// A file of an image, read-only.
    ImageFile {
        /// The image.
        image: ImageWant,
        /// Where it is in the image.
        path: String,
        /// The manifest's field, for errors.
        field: String,
    },
}

impl FileWant {
    /// The image that it is in.
    pub fn image(&self) -> Option<&ImageWant> {
        match self {
            Self::ImageDisk { image, .. } | Self::ImageFile { image, .. } => Some(image),
            _ => None,
        }
    }
}

/// An image and how to come by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageWant {
    /// As the manifest names it.
    pub name: String,
    /// When to ask for it where it comes from.
    pub policy: PullPolicy,
    /// Who we are there.
    pub credentials: Credentials,
}

/// The content of a generated disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Name of the volume, by which guests find it.
    pub label: String,
    /// The files by their paths, with `/` between names.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A field that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl Refusal {
    /// Refuses `path` because of `reason`.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Why a manifest cannot be run here; says all that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not exactly one machine in it.
    #[error("a run needs exactly one VirtualMachineInstance or VirtualMachine; the file holds {0}")]
    Machines(usize),
    /// The object has no name, or one that cannot be a name.
    #[error("metadata.name: {0}")]
    Name(String),
    /// Fields that cannot be carried out.
    #[error("{}", .0.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
}

/// What a manifest says, sorted.
struct Manifest {
    vmi: VirtualMachineInstance,
    data: Data,
}

/// Decides a run of the one machine in `documents`. `uuid` is used where the manifest has none.
pub fn plan(documents: Vec<Document>, uuid: uuid::Uuid) -> Result<RunPlan, PlanError> {
    let Manifest { vmi, data } = sort(documents)?;
    let name = vmi.metadata.name.clone().unwrap_or_default();
    check_name(&name)?;
    let namespace = vmi.metadata.namespace.clone().unwrap_or_else(|| "default".into());
    check_name(&namespace)?;
    let json = serde_json::to_value(&vmi.spec)
        .map_err(|e| PlanError::Refused(vec![Refusal::new("spec", e.to_string())]))?;
    let mut refusals: Vec<Refusal> =
        fields::refused(&json).into_iter().map(|(path, reason)| Refusal::new(path, reason)).collect();

    let spec = &vmi.spec;
    if spec.architecture.is_some_and(|a| a != Architecture::Amd64) {
        refusals.push(Refusal::new("spec.architecture", "this machine is amd64"));
    }
    let hostname = spec.hostname.clone().unwrap_or_else(|| host_name(&name));
    let uuid = match spec.domain.firmware.as_ref().and_then(|f| f.uuid.as_deref()) {
        Some(text) => uuid::Uuid::parse_str(text).unwrap_or_else(|error| {
            refusals.push(Refusal::new("spec.domain.firmware.uuid", error.to_string()));
            uuid
        }),
        None => uuid,
    }
    .to_string();
    let mut files = BTreeMap::new();
    let vcpus = spec.domain.topology().vcpus().unwrap_or(u32::MAX);
    let mut machine = machine::plan(spec, &namespace, &name, &data, &mut files, &mut refusals);
    let public_keys = seed::public_keys(spec, &data, &mut refusals);
    let identity = seed::Identity {
        name: &name,
        namespace: &namespace,
        uuid: &uuid,
        hostname: &hostname,
        instance_type: instance_type(&vmi),
        public_keys: &public_keys,
    };
    let around = Around { data: &data, identity: &identity, metadata: &vmi.metadata };
    machine.disks = disks::plan(spec, &around, vcpus, &mut files, &mut refusals);
    let (cards, nets) = nets::plan(spec, &format!("{namespace}/{name}"), vcpus, &mut refusals);
    machine.nets = cards;
    let boot_order = machine::boot_order(spec, &mut refusals);
    if let BootConfig::Firmware(firmware) = &mut machine.boot {
        firmware.boot_order = boot_order;
    }
    let grace_period = spec.termination_grace_period_seconds.unwrap_or(GRACE_PERIOD_SECONDS);
    let grace_period_seconds = u64::try_from(grace_period).unwrap_or_else(|_| {
        let reason = format!("{grace_period} is less than 0");
        refusals.push(Refusal::new("spec.terminationGracePeriodSeconds", reason));
        0
    });
    if !refusals.is_empty() {
        return Err(PlanError::Refused(refusals));
    }
    machine.name = name.clone();
    machine.uuid = Some(uuid);
    Ok(RunPlan {
        name,
        namespace,
        hostname,
        config: machine,
        files,
        nets,
        grace_period_seconds,
        start_paused: spec.start_strategy == Some(StartStrategy::Paused),
        end_on_reset: spec.domain.reboot_policy == Some(orlop_crd::domain::RebootPolicy::Terminate),
    })
}

impl RunPlan {
    /// Whether a machine with so much memory, in bytes, can carry it out at all.
    pub fn fits(&self, host_memory_bytes: u64) -> Result<(), Refusal> {
        let wanted = self.config.memory.size_bytes;
        if wanted <= host_memory_bytes {
            return Ok(());
        }
        let reason = format!("{} MiB: this machine has {} MiB in all", wanted >> 20, host_memory_bytes >> 20);
        Err(Refusal::new("spec.domain.memory.guest", reason))
    }
}

fn sort(documents: Vec<Document>) -> Result<Manifest, PlanError> {
    let mut machines = Vec::new();
    let mut data = Data::default();
    for document in documents {
        match document {
            Document::VirtualMachineInstance(vmi) => machines.push(*vmi),
            Document::VirtualMachine(vm) => machines.push(instance_of(*vm)),
            Document::Secret(secret) => {
                data.secrets.insert(secret.metadata.name.clone().unwrap_or_default(), *secret);
            }
            Document::ConfigMap(map) => {
                data.config_maps.insert(map.metadata.name.clone().unwrap_or_default(), *map);
            }
        }
    }
    let count = machines.len();
    match <[_; 1]>::try_from(machines) {
        Ok([vmi]) => Ok(Manifest { vmi, data }),
        Err(_) => Err(PlanError::Machines(count)),
    }
}

/// The instance that a machine makes: its template under its own name. A run starts it whatever its run strategy.
fn instance_of(vm: orlop_crd::VirtualMachine) -> VirtualMachineInstance {
    let template = vm.spec.template;
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.name = vm.metadata.name;
    metadata.namespace = vm.metadata.namespace;
    VirtualMachineInstance {
        metadata,
        spec: template.spec.unwrap_or_default(),
        ..VirtualMachineInstance::default()
    }
}

/// The host name where the manifest has none: the first label of the name, at most as long as one can be (KubeVirt).
fn host_name(name: &str) -> String {
    name.split('.').next().unwrap_or_default().chars().take(HOST_NAME_MAX_CHARS).collect()
}

/// The instance type that the machine was made from, as KubeVirt notes it on the instance.
fn instance_type(vmi: &VirtualMachineInstance) -> Option<&str> {
    let annotations = vmi.metadata.annotations.as_ref()?;
    INSTANCE_TYPE.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
}

/// A DNS label or subdomain, as Kubernetes wants names (RFC 1123): it becomes part of paths here.
fn check_name(name: &str) -> Result<(), PlanError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() <= 253 && name.chars().all(good) && edge(name.chars().next()) && edge(name.chars().last()) {
        return Ok(());
    }
    Err(PlanError::Name(format!(
        "'{name}' is not a name: use 1 to 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends"
    )))
}
