//! Groups of fields of which exactly one is set, seen as the choice that they are.
//!
//! KubeVirt's JSON spells a choice as sibling fields; the types keep that shape, and these accessors turn it
//! into an enum for whoever acts on it.

use thiserror::Error;

use crate::disks::{CdromTarget, Disk, DiskTarget, LunTarget};
use crate::network::{ClaimRequest, Interface, MultusNetwork, Network, PluginBinding, PodNetwork};
use crate::volumes::{
    CloudInitConfigDriveSource, CloudInitNoCloudSource, ConfigMapVolumeSource, ContainerDiskSource,
    ContainerPathVolumeSource, DataVolumeVolumeSource, DownwardApiVolumeSource, EmptyDiskSource,
    EphemeralVolumeSource, HostDisk, MemoryDumpVolumeSource, PersistentVolumeClaimVolumeSource,
    SecretVolumeSource, ServiceAccountVolumeSource, SysprepSource, Volume,
};

/// Why a group of fields is no choice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// No field of the group is set.
    #[error("none of {} is set", list(.0))]
    None(Vec<&'static str>),
    /// More than one field of the group is set.
    #[error("{} exclude each other", list(.0))]
    Several(Vec<&'static str>),
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The only one that is set.
fn one<T, const N: usize>(fields: [(&'static str, Option<T>); N]) -> Result<T, ChoiceError> {
    let names = fields.each_ref().map(|(name, _)| *name);
    let mut set: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    match (set.pop(), set.is_empty()) {
        (Some((_, value)), true) => Ok(value),
        (Some((last, _)), false) => {
            Err(ChoiceError::Several(set.iter().map(|(name, _)| *name).chain([last]).collect()))
        }
        (None, _) => Err(ChoiceError::None(names.to_vec())),
    }
}

/// The storage behind a volume; the variants are the fields of [`Volume`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is documented at the field of `Volume` of the same name")]
pub enum VolumeSource<'a> {
    CloudInitConfigDrive(&'a CloudInitConfigDriveSource),
    CloudInitNoCloud(&'a CloudInitNoCloudSource),
    ConfigMap(&'a ConfigMapVolumeSource),
    ContainerDisk(&'a ContainerDiskSource),
    ContainerPath(&'a ContainerPathVolumeSource),
    DataVolume(&'a DataVolumeVolumeSource),
    DownwardApi(&'a DownwardApiVolumeSource),
    DownwardMetrics,
    EmptyDisk(&'a EmptyDiskSource),
    Ephemeral(&'a EphemeralVolumeSource),
    HostDisk(&'a HostDisk),
    MemoryDump(&'a MemoryDumpVolumeSource),
    PersistentVolumeClaim(&'a PersistentVolumeClaimVolumeSource),
    Secret(&'a SecretVolumeSource),
    ServiceAccount(&'a ServiceAccountVolumeSource),
    Sysprep(&'a SysprepSource),
}

impl Volume {
    /// The volume's one source.
    pub fn source(&self) -> Result<VolumeSource<'_>, ChoiceError> {
        use VolumeSource as S;
        one([
            ("cloudInitConfigDrive", self.cloud_init_config_drive.as_ref().map(S::CloudInitConfigDrive)),
            ("cloudInitNoCloud", self.cloud_init_no_cloud.as_ref().map(S::CloudInitNoCloud)),
            ("configMap", self.config_map.as_ref().map(S::ConfigMap)),
            ("containerDisk", self.container_disk.as_ref().map(S::ContainerDisk)),
            ("containerPath", self.container_path.as_ref().map(S::ContainerPath)),
            ("dataVolume", self.data_volume.as_ref().map(S::DataVolume)),
            ("downwardAPI", self.downward_api.as_ref().map(S::DownwardApi)),
            ("downwardMetrics", self.downward_metrics.as_ref().map(|_| S::DownwardMetrics)),
            ("emptyDisk", self.empty_disk.as_ref().map(S::EmptyDisk)),
            ("ephemeral", self.ephemeral.as_ref().map(S::Ephemeral)),
            ("hostDisk", self.host_disk.as_ref().map(S::HostDisk)),
            ("memoryDump", self.memory_dump.as_ref().map(S::MemoryDump)),
            ("persistentVolumeClaim", self.persistent_volume_claim.as_ref().map(S::PersistentVolumeClaim)),
            ("secret", self.secret.as_ref().map(S::Secret)),
            ("serviceAccount", self.service_account.as_ref().map(S::ServiceAccount)),
            ("sysprep", self.sysprep.as_ref().map(S::Sysprep)),
        ])
    }
}

/// How an interface is attached to its network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attachment<'a> {
    /// Bridged.
    Bridge,
    /// Behind NAT.
    Masquerade,
    /// By passt.
    Passt,
    /// A passed-through function.
    Sriov,
    /// By a plugin.
    Plugin(&'a PluginBinding),
    /// By a binding that is no longer served; holds the field's name.
    Discontinued(&'static str),
}

impl Interface {
    /// The interface's one binding.
    pub fn attachment(&self) -> Result<Attachment<'_>, ChoiceError> {
        let gone = |set: bool, name| (name, set.then_some(Attachment::Discontinued(name)));
        one([
            ("binding", self.binding.as_ref().map(Attachment::Plugin)),
            ("bridge", self.bridge.as_ref().map(|_| Attachment::Bridge)),
            ("masquerade", self.masquerade.as_ref().map(|_| Attachment::Masquerade)),
            ("passtBinding", self.passt_binding.as_ref().map(|_| Attachment::Passt)),
            ("sriov", self.sriov.as_ref().map(|_| Attachment::Sriov)),
            gone(self.macvtap.is_some(), "macvtap"),
            gone(self.passt.is_some(), "passt"),
            gone(self.slirp.is_some(), "slirp"),
        ])
    }
}

/// What a network is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NetworkSource<'a> {
    /// The pod's own network.
    Pod(&'a PodNetwork),
    /// A secondary network.
    Multus(&'a MultusNetwork),
    /// A device from a claim.
    ResourceClaim(&'a ClaimRequest),
}

impl Network {
    /// The network's one source.
    pub fn source(&self) -> Result<NetworkSource<'_>, ChoiceError> {
        one([
            ("pod", self.pod.as_ref().map(NetworkSource::Pod)),
            ("multus", self.multus.as_ref().map(NetworkSource::Multus)),
            ("resourceClaim", self.resource_claim.as_ref().map(NetworkSource::ResourceClaim)),
        ])
    }
}

/// What a disk looks like to the guest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// A plain disk.
    Disk(&'a DiskTarget),
    /// A CD-ROM drive.
    Cdrom(&'a CdromTarget),
    /// A SCSI logical unit.
    Lun(&'a LunTarget),
}

impl Disk {
    /// The disk's target; a plain disk where none is set.
    pub fn target(&self) -> Result<Target<'_>, ChoiceError> {
        const PLAIN: &DiskTarget = &DiskTarget { bus: None, pci_address: None, readonly: None };
        let choice = one([
            ("disk", self.disk.as_ref().map(Target::Disk)),
            ("cdrom", self.cdrom.as_ref().map(Target::Cdrom)),
            ("lun", self.lun.as_ref().map(Target::Lun)),
        ]);
        match choice {
            Err(ChoiceError::None(_)) => Ok(Target::Disk(PLAIN)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{InterfaceBridge, InterfaceMasquerade};

    #[test]
    fn one_source_is_the_source() {
        let volume = Volume { empty_disk: Some(EmptyDiskSource::default()), ..Volume::default() };
        assert!(matches!(volume.source(), Ok(VolumeSource::EmptyDisk(_))));
    }

    #[test]
    fn two_bindings_are_named() {
        let interface = Interface {
            bridge: Some(InterfaceBridge {}),
            masquerade: Some(InterfaceMasquerade {}),
            ..Interface::default()
        };
        let error = interface.attachment().unwrap_err();
        assert_eq!(error, ChoiceError::Several(vec!["bridge", "masquerade"]));
        assert_eq!(error.to_string(), "`bridge`, `masquerade` exclude each other");
    }

    #[test]
    fn a_network_without_source_is_told_what_there_is() {
        let error = Network::default().source().unwrap_err();
        assert_eq!(error.to_string(), "none of `pod`, `multus`, `resourceClaim` is set");
    }

    #[test]
    fn a_disk_without_target_is_a_plain_disk() {
        assert_eq!(Disk::default().target(), Ok(Target::Disk(&DiskTarget::default())));
    }
}
