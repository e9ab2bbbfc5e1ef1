//! What is behind each volume.

use std::path::{Path, PathBuf};

use orlop_crd::firmware::ImagePullPolicy;
use orlop_crd::k8s_openapi::api::core::v1::DownwardAPIVolumeFile;
use orlop_crd::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orlop_crd::quantity;
use orlop_crd::volumes::{ContainerDiskSource, HostDisk, HostDiskType, SysprepSource, Volume};
use orlop_oci::{Credentials, PullPolicy, Source};

use super::data::{Data, Values};
use super::seed::{self, Identity};
use super::{FileWant, Generated, ImageWant, Refusal};

/// A disk is a whole number of sectors.
const SECTOR_BYTES: u64 = 512;
/// The longest file of ext4, in bytes: a disk that is made here is a sparse file.
const DISK_MAX_BYTES: u64 = 16 << 40;
/// Label of a disk with data where the manifest has none (KubeVirt).
const DATA_LABEL: &str = "cfgdata";
/// Label by which Windows setup finds its answers (KubeVirt).
const SYSPREP_LABEL: &str = "unattendCD";
/// Files that Windows setup looks for; one of them must be there.
const ANSWERS: [&str; 2] = ["autounattend.xml", "unattend.xml"];
/// Longest label, in bytes (ECMA-119 §8.4.7).
const LABEL_MAX_BYTES: usize = 32;
/// Key of a pull secret (type `kubernetes.io/dockerconfigjson`).
const PULL_SECRET_KEY: &str = ".dockerconfigjson";

/// What volumes draw on beside themselves.
pub struct Around<'a> {
    /// Documents of the same file.
    pub data: &'a Data,
    /// Who the guest is.
    pub identity: &'a Identity<'a>,
    /// The machine's labels and annotations.
    pub metadata: &'a ObjectMeta,
}

/// The file behind a volume, and whether the guest may only read it; `None` for kinds that the table of fields refuses.
/// `path` is the volume's field.
pub fn file(
    volume: &Volume,
    read_only: bool,
    around: &Around<'_>,
    path: &str,
) -> Result<Option<(FileWant, bool)>, Refusal> {
    if let Some(disk) = &volume.host_disk {
        return host_disk(disk, read_only, &format!("{path}.hostDisk")).map(|want| Some((want, read_only)));
    }
    if let Some(disk) = &volume.empty_disk {
        let path = format!("{path}.emptyDisk.capacity");
        let bytes = quantity::bytes(&disk.capacity).map_err(|e| Refusal::new(&path, e.to_string()))?;
        let want = FileWant::Scratch { len_bytes: whole_sectors(bytes, &path)?, field: path };
        return Ok(Some((want, read_only)));
    }
    if let Some(disk) = &volume.container_disk {
        let want = container_disk(disk, read_only, around.data, &format!("{path}.containerDisk"))?;
        return Ok(Some((want, read_only)));
    }
    // Nobody reads what a guest writes into a generated disk.
    Ok(generated(volume, around, path)?.map(|disk| (FileWant::Generated(disk), true)))
}

/// The disk that is made of data of the manifest.
fn generated(volume: &Volume, around: &Around<'_>, path: &str) -> Result<Option<Generated>, Refusal> {
    let Around { data, identity, metadata } = *around;
    if let Some(source) = &volume.cloud_init_no_cloud {
        return seed::no_cloud(source, data, identity, &format!("{path}.cloudInitNoCloud")).map(Some);
    }
    if let Some(source) = &volume.cloud_init_config_drive {
        return seed::config_drive(source, data, identity, &format!("{path}.cloudInitConfigDrive")).map(Some);
    }
    if let Some(source) = &volume.sysprep {
        return sysprep(source, data, &format!("{path}.sysprep")).map(Some);
    }
    let (files, label, path) = if let Some(source) = &volume.config_map {
        let path = format!("{path}.configMap");
        let name = source.name.as_deref().unwrap_or_default();
        let optional = source.optional == Some(true) && !data.config_maps.contains_key(name);
        let files = if optional { Values::new() } else { data.config_map(name, &format!("{path}.name"))? };
        (files, &source.volume_label, path)
    } else if let Some(source) = &volume.secret {
        let path = format!("{path}.secret");
        let name = source.secret_name.as_deref().unwrap_or_default();
        let optional = source.optional == Some(true) && !data.secrets.contains_key(name);
        let files = if optional { Values::new() } else { data.secret(name, &format!("{path}.secretName"))? };
        (files, &source.volume_label, path)
    } else if let Some(source) = &volume.downward_api {
        let path = format!("{path}.downwardAPI");
        (downward(&source.fields, metadata, identity, &path)?, &source.volume_label, path)
    } else {
        return Ok(None);
    };
    Ok(Some(Generated { label: label_of(label.as_deref(), &path)?, files }))
}

fn label_of(label: Option<&str>, path: &str) -> Result<String, Refusal> {
    let label = label.filter(|label| !label.is_empty()).unwrap_or(DATA_LABEL);
    if label.len() > LABEL_MAX_BYTES || !label.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        let reason = format!("'{label}' is no label: use 1 to {LABEL_MAX_BYTES} ASCII characters");
        return Err(Refusal::new(format!("{path}.volumeLabel"), reason));
    }
    Ok(label.to_owned())
}

fn sysprep(source: &SysprepSource, data: &Data, path: &str) -> Result<Generated, Refusal> {
    let files = match (&source.config_map, &source.secret) {
        (Some(map), None) => data.config_map(&map.name, &format!("{path}.configMap.name"))?,
        (None, Some(secret)) => data.secret(&secret.name, &format!("{path}.secret.name"))?,
        _ => return Err(Refusal::new(path, "give one of configMap and secret")),
    };
    if !files.keys().any(|key| ANSWERS.iter().any(|answer| key.eq_ignore_ascii_case(answer))) {
        return Err(Refusal::new(path, format!("it needs a key {}", ANSWERS.join(" or "))));
    }
    Ok(Generated { label: SYSPREP_LABEL.to_owned(), files })
}

/// A file for each field, with what the machine itself says: without a cluster there is no pod around it.
fn downward(
    fields: &[DownwardAPIVolumeFile],
    metadata: &ObjectMeta,
    identity: &Identity<'_>,
    path: &str,
) -> Result<Values, Refusal> {
    let mut files = Values::new();
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{path}.fields[{index}]");
        let names: Vec<&str> = field.path.split('/').collect();
        if names
            .iter()
            .any(|name| matches!(*name, "" | "." | "..") || name.len() > 255 || name.contains('\0'))
        {
            return Err(Refusal::new(format!("{at}.path"), format!("'{}' is no relative path", field.path)));
        }
        let Some(wanted) = &field.field_ref else {
            return Err(Refusal::new(at, "resources of a container need a cluster: give a fieldRef"));
        };
        let value = downward_value(&wanted.field_path, metadata, identity);
        let value = value.ok_or_else(|| {
            let reason = format!("'{}' needs a cluster", wanted.field_path);
            Refusal::new(format!("{at}.fieldRef.fieldPath"), reason)
        })?;
        let is_below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if files
            .keys()
            .any(|other| *other == field.path || is_below(other, &field.path) || is_below(&field.path, other))
        {
            return Err(Refusal::new(
                format!("{at}.path"),
                format!("'{}' is in the way of another", field.path),
            ));
        }
        files.insert(field.path.clone(), value.into_bytes());
    }
    Ok(files)
}

fn downward_value(field: &str, metadata: &ObjectMeta, identity: &Identity<'_>) -> Option<String> {
    let one = |map: &Option<std::collections::BTreeMap<String, String>>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    // The form of Kubernetes' FormatMap.
    let all = |map: &Option<std::collections::BTreeMap<String, String>>| {
        let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
        Some(lines.collect::<Vec<_>>().join("\n"))
    };
    match field {
        "metadata.name" => Some(identity.name.to_owned()),
        "metadata.namespace" => Some(identity.namespace.to_owned()),
        "metadata.labels" => all(&metadata.labels),
        "metadata.annotations" => all(&metadata.annotations),
        _ => match field.strip_prefix("metadata.labels") {
            Some(rest) => one(&metadata.labels, rest),
            None => one(&metadata.annotations, field.strip_prefix("metadata.annotations")?),
        },
    }
}

fn container_disk(
    disk: &ContainerDiskSource,
    read_only: bool,
    data: &Data,
    path: &str,
) -> Result<FileWant, Refusal> {
    let ContainerDiskSource { image, image_pull_policy, image_pull_secret, path: inside } = disk;
    let image = self::image(image, *image_pull_policy, image_pull_secret.as_deref(), data, path)?;
    Ok(FileWant::ImageDisk { image, path: inside.clone(), writable: !read_only, field: path.to_owned() })
}

/// An image that a manifest names. `path` is the field that `image` and its options are in.
pub fn image(
    name: &str,
    policy: Option<ImagePullPolicy>,
    pull_secret: Option<&str>,
    data: &Data,
    path: &str,
) -> Result<ImageWant, Refusal> {
    let source: Source = name
        .parse()
        .map_err(|error: orlop_oci::SourceError| Refusal::new(format!("{path}.image"), error.to_string()))?;
    let credentials = match pull_secret {
        None => Credentials::Machine,
        Some(secret) => {
            let path = format!("{path}.imagePullSecret");
            let value = data.secret(secret, &path)?.remove(PULL_SECRET_KEY);
            let absent = || Refusal::new(path, format!("Secret '{secret}' has no key {PULL_SECRET_KEY}"));
            Credentials::Secret(value.ok_or_else(absent)?)
        }
    };
    let policy = match policy {
        None => source.default_policy(),
        Some(ImagePullPolicy::Always) => PullPolicy::Always,
        Some(ImagePullPolicy::IfNotPresent) => PullPolicy::IfNotPresent,
        Some(ImagePullPolicy::Never) => PullPolicy::Never,
    };
    Ok(ImageWant { name: name.to_owned(), policy, credentials })
}

fn host_disk(disk: &HostDisk, read_only: bool, path: &str) -> Result<FileWant, Refusal> {
    let file = PathBuf::from(&disk.path);
    if !Path::new(&disk.path).is_absolute() {
        return Err(Refusal::new(format!("{path}.path"), format!("'{}' is not an absolute path", disk.path)));
    }
    match (disk.r#type, &disk.capacity) {
        (HostDiskType::Disk, None) => {
            Ok(FileWant::Existing { path: file, writable: !read_only, field: format!("{path}.path") })
        }
        (HostDiskType::Disk, Some(_)) => {
            Err(Refusal::new(format!("{path}.capacity"), "goes with type: DiskOrCreate only"))
        }
        (HostDiskType::DiskOrCreate, Some(capacity)) => {
            let field = format!("{path}.capacity");
            let bytes = quantity::bytes(capacity).map_err(|e| Refusal::new(&field, e.to_string()))?;
            let len_bytes = whole_sectors(bytes, &field)?;
            Ok(FileWant::CreateIfAbsent { path: file, len_bytes, field: format!("{path}.path") })
        }
        (HostDiskType::DiskOrCreate, None) => {
            Err(Refusal::new(format!("{path}.capacity"), "DiskOrCreate needs a capacity, for example 1Gi"))
        }
    }
}

fn whole_sectors(bytes: u64, path: &str) -> Result<u64, Refusal> {
    match bytes.checked_next_multiple_of(SECTOR_BYTES) {
        Some(whole @ 1..=DISK_MAX_BYTES) => Ok(whole),
        _ => Err(Refusal::new(path, format!("{bytes} bytes is no size for a disk: up to 16Ti are possible"))),
    }
}
