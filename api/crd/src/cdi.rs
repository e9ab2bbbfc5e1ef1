//! DataVolumes of the Containerized Data Importer (`cdi.kubevirt.io/v1beta1`), as machines contain them.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimSpec, TypedLocalObjectReference, TypedObjectReference, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// A DataVolume that is created with a machine.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeTemplateSpec {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: Option<String>,
    /// `DataVolume`.
    pub kind: Option<String>,
    /// Its name; owner and labels are added.
    pub metadata: Option<ObjectMeta>,
    /// What it holds.
    pub spec: DataVolumeSpec,
    /// Not used.
    pub status: Option<DataVolumeTemplateDummyStatus>,
}

/// Not used; it stands where a DataVolume has its status.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeTemplateDummyStatus {}

/// A claim and what it is filled with.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSpec {
    /// Stages of an import in several steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<DataVolumeCheckpoint>,
    /// `kubevirt` for a disk image (the default), or `archive` for a tar of files.
    pub content_type: Option<String>,
    /// The last checkpoint is the last of all.
    pub final_checkpoint: Option<bool>,
    /// Allocate all space at once.
    pub preallocation: Option<bool>,
    /// Priority class of the pods that do the work.
    pub priority_class_name: Option<String>,
    /// The claim. Excludes `storage`.
    pub pvc: Option<PersistentVolumeClaimSpec>,
    /// What it is filled with.
    pub source: Option<DataVolumeSource>,
    /// An object that says what it is filled with. Excludes `source`.
    pub source_ref: Option<DataVolumeSourceRef>,
    /// The claim, with what is missing taken from the storage profile.
    pub storage: Option<StorageSpec>,
}

/// What a claim is filled with. Exactly one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeSource {
    /// Nothing: an empty disk.
    pub blank: Option<DataVolumeBlankImage>,
    /// A Google Cloud Storage object.
    pub gcs: Option<DataVolumeSourceGcs>,
    /// A file from a web server.
    pub http: Option<DataVolumeSourceHttp>,
    /// A disk of oVirt.
    pub imageio: Option<DataVolumeSourceImageIo>,
    /// A copy of a claim.
    pub pvc: Option<DataVolumeSourcePvc>,
    /// A container image that holds a disk.
    pub registry: Option<DataVolumeSourceRegistry>,
    /// An S3 object.
    pub s3: Option<DataVolumeSourceS3>,
    /// A volume snapshot.
    pub snapshot: Option<DataVolumeSourceSnapshot>,
    /// What a client uploads.
    pub upload: Option<DataVolumeSourceUpload>,
    /// A disk of VMware.
    pub vddk: Option<DataVolumeSourceVddk>,
}

/// An empty disk; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeBlankImage {}

/// What a client uploads; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeSourceUpload {}

/// A Google Cloud Storage object.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceGcs {
    /// Secret with the credentials.
    pub secret_ref: Option<String>,
    /// Where it is.
    pub url: String,
}

/// A file from a web server.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceHttp {
    /// ConfigMap with certificates to trust.
    pub cert_config_map: Option<String>,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_headers: Vec<String>,
    /// Secrets with headers to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_extra_headers: Vec<String>,
    /// Secret with user and password for basic authentication.
    pub secret_ref: Option<String>,
    /// Where it is.
    pub url: String,
}

/// A disk of oVirt.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceImageIo {
    /// ConfigMap with certificates to trust.
    pub cert_config_map: Option<String>,
    /// Id of the disk.
    pub disk_id: String,
    /// Trust any certificate. Unset: `false`.
    pub insecure_skip_verify: Option<bool>,
    /// Secret with the credentials.
    pub secret_ref: Option<String>,
    /// URL of the engine.
    pub url: String,
}

/// A copy of a claim.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeSourcePvc {
    /// Name of the claim.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// A container image that holds a disk.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceRegistry {
    /// ConfigMap with certificates to trust.
    pub cert_config_map: Option<String>,
    /// An OpenShift image stream. Excludes `url`.
    pub image_stream: Option<String>,
    /// Which of several platforms.
    pub platform: Option<PlatformOptions>,
    /// `pod`: the importer pulls (the default). `node`: the node does.
    pub pull_method: Option<String>,
    /// Secret with the credentials.
    pub secret_ref: Option<String>,
    /// `docker://` and the image.
    pub url: Option<String>,
}

/// An S3 object.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceS3 {
    /// ConfigMap with certificates to trust.
    pub cert_config_map: Option<String>,
    /// Secret with the credentials.
    pub secret_ref: Option<String>,
    /// Where it is.
    pub url: String,
}

/// A volume snapshot.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeSourceSnapshot {
    /// Name of the snapshot.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// A disk of VMware.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceVddk {
    /// Path of the disk.
    pub backing_file: Option<String>,
    /// ConfigMap with further arguments.
    pub extra_args: Option<String>,
    /// Image with the VDDK library.
    #[serde(rename = "initImageURL")]
    pub init_image_url: Option<String>,
    /// Secret with the credentials.
    pub secret_ref: Option<String>,
    /// Thumbprint of the host's certificate.
    pub thumbprint: Option<String>,
    /// vCenter or ESXi host.
    pub url: Option<String>,
    /// UUID of the machine that the disk belongs to.
    pub uuid: Option<String>,
}

/// Selects one of several platforms of an image.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct PlatformOptions {
    /// For example `amd64`.
    pub architecture: Option<String>,
}

/// An object that says what a claim is filled with.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeSourceRef {
    /// `DataSource`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace. Unset: that of the DataVolume.
    pub namespace: Option<String>,
}

/// One stage of an import in several steps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeCheckpoint {
    /// Snapshot to import.
    pub current: String,
    /// Snapshot that came before it.
    pub previous: String,
}

/// A claim; what is missing is taken from the storage profile.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// For example `ReadWriteOnce`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// Snapshot or claim to start from.
    pub data_source: Option<TypedLocalObjectReference>,
    /// Object to start from.
    pub data_source_ref: Option<TypedObjectReference>,
    /// Size.
    pub resources: Option<VolumeResourceRequirements>,
    /// Volumes to choose from.
    pub selector: Option<LabelSelector>,
    /// Storage class.
    pub storage_class_name: Option<String>,
    /// File system or block device.
    pub volume_mode: Option<VolumeMode>,
    /// A certain volume.
    pub volume_name: Option<String>,
}

/// How a claim is used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VolumeMode {
    /// As a block device.
    Block,
    /// As a file system.
    #[default]
    Filesystem,
    /// As the storage profile says.
    FromStorageProfile,
}
