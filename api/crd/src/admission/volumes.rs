//! Volumes by themselves.

use std::collections::HashMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::LocalObjectReference;

use super::cause::{CauseType, Causes, Path};
use super::site::Site;
use super::spec;
use crate::choice::ChoiceError;
use crate::volumes::{HostDisk, HostDiskType, Volume};

/// Bytes of inline cloud-init data, so that objects stay small for all who watch them.
const MAX_INLINE_BYTES: usize = 2048;

pub(super) fn check(at: &Path, volumes: &[Volume], site: &Site, causes: &mut Causes) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (index, volume) in volumes.iter().enumerate() {
        let field = at.index(index);
        let other = *first.entry(&volume.name).or_insert(index);
        if other != index {
            let message = format!("{field} and {} must not have the same Name.", at.index(other));
            causes.invalid(field.child("name"), message);
        }
        if let Err(ChoiceError::None(_) | ChoiceError::Several(_)) = volume.source() {
            causes.invalid(&field, format!("{field} must have exactly one source type set"));
        }
        source(&field, volume, site, causes);
        cloud_init(&field, volume, causes);
        references(&field, volume, causes);
    }
    let at_most_one = [
        ("serviceAccount", volumes.iter().filter(|volume| volume.service_account.is_some()).count()),
        ("downwardMetric", volumes.iter().filter(|volume| volume.downward_metrics.is_some()).count()),
        ("memory dump", volumes.iter().filter(|volume| volume.memory_dump.is_some()).count()),
    ];
    for (name, count) in at_most_one {
        if count > 1 {
            causes.invalid(at, format!("{at} must have max one {name} volume set"));
        }
    }
}

fn source(field: &Path, volume: &Volume, site: &Site, causes: &mut Causes) {
    if let Some(source) = &volume.data_volume {
        if !site.has_data_volumes {
            let message =
                "DataVolume api is not present in cluster. CDI must be installed for DataVolume support.";
            causes.invalid(field, message);
        }
        if source.name.is_empty() {
            causes.required(field.child("name"), "DataVolume 'name' must be set");
        }
    }
    if volume.downward_metrics.is_some() && !site.gate("DownwardMetrics") {
        let message = "downwardMetrics disks are not allowed: DownwardMetrics feature gate is not enabled.";
        causes.invalid(field, message);
    }
    if let Some(disk) = &volume.host_disk {
        if !site.gate("HostDisk") {
            causes.invalid(field, "HostDisk feature gate is not enabled");
        }
        host_disk(field, disk, causes);
    }
    let path = volume.container_disk.as_ref().and_then(|disk| disk.path.as_deref());
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        spec::image_path(&field.child("containerDisk"), path, causes);
    }
}

fn host_disk(field: &Path, disk: &HostDisk, causes: &mut Causes) {
    let path = field.child("hostDisk.path");
    if disk.path.is_empty() {
        causes.push(CauseType::NotFound, &path, format!("{path} is required for hostDisk volume"));
    }
    if disk.r#type == HostDiskType::Disk && super::memory::bytes(disk.capacity.as_ref()) != 0 {
        let capacity = field.child("hostDisk.capacity");
        let message = format!(
            "{capacity} is allowed to pass only with {} equal to 'DiskOrCreate'",
            field.child("hostDisk.type")
        );
        causes.invalid(&capacity, message);
    }
}

/// One part of cloud-init's data, in its three forms.
struct Data<'v> {
    inline: Option<&'v str>,
    base64: Option<&'v str>,
    secret: Option<&'v LocalObjectReference>,
}

impl Data<'_> {
    fn count(&self) -> usize {
        let secret = self.secret.is_some_and(|secret| !secret.name.is_empty());
        [self.inline.is_some(), self.base64.is_some(), secret].iter().filter(|&&set| set).count()
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn cloud_init(field: &Path, volume: &Volume, causes: &mut Causes) {
    let (name, user, network) = match (&volume.cloud_init_no_cloud, &volume.cloud_init_config_drive) {
        (Some(source), _) => (
            "cloudInitNoCloud",
            (&source.user_data, &source.user_data_base64, &source.secret_ref),
            (&source.network_data, &source.network_data_base64, &source.network_data_secret_ref),
        ),
        (None, Some(source)) => (
            "cloudInitConfigDrive",
            (&source.user_data, &source.user_data_base64, &source.secret_ref),
            (&source.network_data, &source.network_data_base64, &source.network_data_secret_ref),
        ),
        (None, None) => return,
    };
    let field = field.child(name);
    let mut count = 0;
    let parts = [
        ("userData", "userdata", "userdatasource", "UserDataSecretRef", user),
        ("networkData", "networkdata", "networkdata source", "NetworkDataSecretRef", network),
    ];
    for (key, word, sources, reference, (inline, base64, secret)) in parts {
        let data = Data { inline: given(inline), base64: given(base64), secret: secret.as_ref() };
        count += data.count();
        let mut len = data.inline.map_or(0, str::len);
        if let Some(text) = data.base64 {
            match decoded_len(text) {
                Some(decoded) => len = len.max(decoded),
                None => {
                    let base64 = field.child(&format!("{key}Base64"));
                    let message = format!("{base64}.{name}.{key}Base64 is not a valid base64 value.");
                    causes.invalid(&base64, message);
                }
            }
        }
        if data.count() > 1 {
            causes.invalid(&field, format!("{field} must have only one {sources} set."));
        }
        if len > MAX_INLINE_BYTES {
            let message = format!(
                "{field} {word} exceeds {MAX_INLINE_BYTES} byte limit. Should use {reference} for larger data."
            );
            causes.invalid(&field, message);
        }
    }
    if count == 0 {
        let message = format!("{field} must have at least one userdatasource or one networkdatasource set.");
        causes.invalid(&field, message);
    }
}

/// The length of what base64 stands for.
fn decoded_len(text: &str) -> Option<usize> {
    let bytes: ByteString = serde_json::from_value(serde_json::Value::from(text)).ok()?;
    Some(bytes.0.len())
}

/// Volumes that name another object.
fn references(field: &Path, volume: &Volume, causes: &mut Causes) {
    let names = [
        ("configMap.name", volume.config_map.as_ref().map(|source| &source.name)),
        ("secret.secretName", volume.secret.as_ref().map(|source| &source.secret_name)),
        (
            "serviceAccount.serviceAccountName",
            volume.service_account.as_ref().map(|source| &source.service_account_name),
        ),
    ];
    for (name, value) in names {
        if value.is_some_and(|value| given(value).is_none()) {
            let field = field.child(name);
            causes.invalid(&field, format!("{field} is a required field"));
        }
    }
}
