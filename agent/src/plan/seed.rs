//! cloud-init data: what the data sources NoCloud and ConfigDrive find on their disks.

use std::collections::BTreeMap;

use orlop_crd::VirtualMachineInstanceSpec;
use orlop_crd::k8s_openapi::api::core::v1::LocalObjectReference;
use orlop_crd::volumes::{CloudInitConfigDriveSource, CloudInitNoCloudSource};
use serde::Serialize;

use super::data::{Data, Values};
use super::{Generated, Refusal};

/// By this volume name the NoCloud data source finds its disk.
const NO_CLOUD: &str = "cidata";
/// By this one the ConfigDrive data source does.
const CONFIG_DRIVE: &str = "config-2";

/// Who the guest is.
pub struct Identity<'a> {
    /// Name of the VM.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The machine's UUID.
    pub uuid: &'a str,
    /// Its host name.
    pub hostname: &'a str,
    /// The instance type that it was made from, where it was.
    pub instance_type: Option<&'a str>,
    /// SSH public keys for its first user.
    pub public_keys: &'a PublicKeys,
}

/// SSH public keys by the way on which they travel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKeys {
    no_cloud: Vec<String>,
    config_drive: Vec<String>,
}

type Numbered<'a> = BTreeMap<String, &'a str>;

fn numbered(keys: &[String]) -> Numbered<'_> {
    keys.iter().enumerate().map(|(index, key)| (index.to_string(), key.as_str())).collect()
}

/// `meta-data` in the form that KubeVirt writes.
#[derive(Serialize)]
struct NoCloudMetaData<'a> {
    #[serde(rename = "instance-type", skip_serializing_if = "Option::is_none")]
    instance_type: Option<&'a str>,
    #[serde(rename = "instance-id")]
    instance_id: &'a str,
    #[serde(rename = "local-hostname")]
    local_hostname: &'a str,
    #[serde(rename = "public-keys", skip_serializing_if = "BTreeMap::is_empty")]
    public_keys: Numbered<'a>,
}

/// `meta_data.json` in the form that KubeVirt writes.
#[derive(Serialize)]
struct ConfigDriveMetaData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_type: Option<&'a str>,
    instance_id: String,
    hostname: &'a str,
    uuid: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    public_keys: Numbered<'a>,
}

/// What both kinds of volume say.
struct Given<'a> {
    user: [Option<&'a str>; 2],
    user_secret: Option<&'a LocalObjectReference>,
    network: [Option<&'a str>; 2],
    network_secret: Option<&'a LocalObjectReference>,
}

/// The disk of a `cloudInitNoCloud` volume. `path` is the volume's field, for errors.
pub fn no_cloud(
    source: &CloudInitNoCloudSource,
    data: &Data,
    identity: &Identity<'_>,
    path: &str,
) -> Result<Generated, Refusal> {
    let CloudInitNoCloudSource {
        network_data,
        network_data_base64,
        network_data_secret_ref,
        secret_ref,
        user_data,
        user_data_base64,
    } = source;
    let given = Given {
        user: [user_data.as_deref(), user_data_base64.as_deref()],
        user_secret: secret_ref.as_ref(),
        network: [network_data.as_deref(), network_data_base64.as_deref()],
        network_secret: network_data_secret_ref.as_ref(),
    };
    let meta_data = NoCloudMetaData {
        instance_type: identity.instance_type,
        instance_id: identity.uuid,
        local_hostname: identity.hostname,
        public_keys: numbered(&identity.public_keys.no_cloud),
    };
    let files = files(&given, &meta_data, ["meta-data", "user-data", "network-config"], data, path)?;
    Ok(Generated { label: NO_CLOUD.to_owned(), files })
}

/// The disk of a `cloudInitConfigDrive` volume.
pub fn config_drive(
    source: &CloudInitConfigDriveSource,
    data: &Data,
    identity: &Identity<'_>,
    path: &str,
) -> Result<Generated, Refusal> {
    let CloudInitConfigDriveSource {
        network_data,
        network_data_base64,
        network_data_secret_ref,
        secret_ref,
        user_data,
        user_data_base64,
    } = source;
    let given = Given {
        user: [user_data.as_deref(), user_data_base64.as_deref()],
        user_secret: secret_ref.as_ref(),
        network: [network_data.as_deref(), network_data_base64.as_deref()],
        network_secret: network_data_secret_ref.as_ref(),
    };
    let meta_data = ConfigDriveMetaData {
        instance_type: identity.instance_type,
        instance_id: format!("{}.{}", identity.name, identity.namespace),
        hostname: identity.hostname,
        uuid: identity.uuid,
        public_keys: numbered(&identity.public_keys.config_drive),
    };
    let names = [
        "openstack/latest/meta_data.json",
        "openstack/latest/user_data",
        "openstack/latest/network_data.json",
    ];
    let files = files(&given, &meta_data, names, data, path)?;
    Ok(Generated { label: CONFIG_DRIVE.to_owned(), files })
}

/// The files by their `names`: meta-data, user data, and network data where there is any.
fn files(
    given: &Given<'_>,
    meta_data: &impl Serialize,
    names: [&str; 3],
    data: &Data,
    path: &str,
) -> Result<Values, Refusal> {
    let Given { user, user_secret, network, network_secret } = given;
    let keys = ["userdata", "userData"];
    let user = one_of(*user, *user_secret, ["userData", "userDataBase64", "secretRef"], keys, data, path)?;
    let fields = ["networkData", "networkDataBase64", "networkDataSecretRef"];
    let keys = ["networkdata", "networkData"];
    let network = one_of(*network, *network_secret, fields, keys, data, path)?;
    let meta_data = serde_json::to_vec(meta_data).map_err(|e| Refusal::new(path, e.to_string()))?;
    let all = [Some(meta_data), Some(user.unwrap_or_default()), network];
    Ok(names.into_iter().zip(all).filter_map(|(name, bytes)| Some((name.to_owned(), bytes?))).collect())
}

/// The data from exactly one of: plain text, base64, or a key of a Secret. `fields` are the three's names.
fn one_of(
    [plain, base64]: [Option<&str>; 2],
    secret: Option<&LocalObjectReference>,
    [plain_name, base64_name, secret_name]: [&str; 3],
    keys: [&str; 2],
    data: &Data,
    path: &str,
) -> Result<Option<Vec<u8>>, Refusal> {
    let given = usize::from(plain.is_some()) + usize::from(base64.is_some()) + usize::from(secret.is_some());
    if given > 1 {
        let reason = format!("give only one of {plain_name}, {base64_name} and {secret_name}");
        return Err(Refusal::new(path, reason));
    }
    if let Some(text) = plain {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    if let Some(text) = base64 {
        let compact: String = text.split_ascii_whitespace().collect();
        return data_encoding::BASE64
            .decode(compact.as_bytes())
            .map(Some)
            .map_err(|e| Refusal::new(format!("{path}.{base64_name}"), format!("not base64: {e}")));
    }
    let Some(LocalObjectReference { name }) = secret else { return Ok(None) };
    let path = format!("{path}.{secret_name}");
    let mut found = data.secret(name, &path)?;
    keys.iter().find_map(|key| found.remove(*key)).map(Some).ok_or_else(|| {
        Refusal::new(path, format!("Secret '{name}' has none of the keys {}", keys.join(", ")))
    })
}

/// The keys that the noCloud and configDrive methods bring into the guest; each needs its volume to travel in.
pub fn public_keys(
    spec: &VirtualMachineInstanceSpec,
    data: &Data,
    refusals: &mut Vec<Refusal>,
) -> PublicKeys {
    let mut keys = PublicKeys::default();
    for (index, credential) in spec.access_credentials.iter().enumerate() {
        let Some(ssh) = &credential.ssh_public_key else { continue };
        let path = format!("spec.accessCredentials[{index}].sshPublicKey");
        let Some(secret) = &ssh.source.secret else {
            refusals.push(Refusal::new(format!("{path}.source"), "say which secret holds the keys"));
            continue;
        };
        let method = &ssh.propagation_method;
        let lines = match data.secret(&secret.secret_name, &format!("{path}.source.secret.secretName")) {
            Ok(values) => values.values().flat_map(|value| lines(value)).collect::<Vec<_>>(),
            Err(refusal) => {
                refusals.push(refusal);
                continue;
            }
        };
        let has = |wanted: fn(&orlop_crd::volumes::Volume) -> bool| spec.volumes.iter().any(wanted);
        let (there, volume, list) = match (&method.no_cloud, &method.config_drive) {
            (Some(_), None) => {
                (has(|v| v.cloud_init_no_cloud.is_some()), "cloudInitNoCloud", &mut keys.no_cloud)
            }
            (None, Some(_)) => {
                (has(|v| v.cloud_init_config_drive.is_some()), "cloudInitConfigDrive", &mut keys.config_drive)
            }
            (None, None) if method.qemu_guest_agent.is_some() => continue,
            _ => {
                let reason = "say one way for the keys to reach the guest: noCloud: {} or configDrive: {}";
                refusals.push(Refusal::new(format!("{path}.propagationMethod"), reason));
                continue;
            }
        };
        list.extend(lines);
        if !there {
            let reason = format!("the keys need a {volume} volume to travel in");
            refusals.push(Refusal::new(format!("{path}.propagationMethod"), reason));
        }
    }
    keys
}

/// SSH public keys, a line each.
fn lines(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(public_keys: &PublicKeys) -> Identity<'_> {
        Identity { name: "a", namespace: "ns", uuid: "u-1", hostname: "vm", instance_type: None, public_keys }
    }

    fn source(change: impl FnOnce(&mut CloudInitNoCloudSource)) -> CloudInitNoCloudSource {
        let mut source = CloudInitNoCloudSource::default();
        change(&mut source);
        source
    }

    fn data(secret: &str) -> Data {
        let secret = serde_json::from_str(secret).unwrap();
        Data { secrets: BTreeMap::from([("s".to_owned(), secret)]), ..Data::default() }
    }

    fn text<'a>(disk: &'a Generated, name: &str) -> &'a str {
        std::str::from_utf8(&disk.files[name]).unwrap()
    }

    #[test]
    fn the_meta_data_is_kubevirts() {
        let keys = PublicKeys {
            no_cloud: vec!["ssh-ed25519 AAAA me".into()],
            config_drive: vec!["ssh-ed25519 BBBB you".into()],
        };
        let disk = no_cloud(&source(|_| {}), &Data::default(), &identity(&keys), "p").unwrap();
        assert_eq!(disk.label, "cidata");
        assert_eq!(
            text(&disk, "meta-data"),
            r#"{"instance-id":"u-1","local-hostname":"vm","public-keys":{"0":"ssh-ed25519 AAAA me"}}"#
        );
        assert_eq!(
            disk.files.keys().collect::<Vec<_>>(),
            ["meta-data", "user-data"],
            "no network-config unasked"
        );
        let typed = Identity { instance_type: Some("u1.small"), ..identity(&keys) };
        let drive =
            config_drive(&CloudInitConfigDriveSource::default(), &Data::default(), &typed, "p").unwrap();
        assert_eq!(drive.label, "config-2");
        assert_eq!(
            text(&drive, "openstack/latest/meta_data.json"),
            r#"{"instance_type":"u1.small","instance_id":"a.ns","hostname":"vm","uuid":"u-1","public_keys":{"0":"ssh-ed25519 BBBB you"}}"#
        );
        let none = PublicKeys::default();
        let bare =
            config_drive(&CloudInitConfigDriveSource::default(), &Data::default(), &identity(&none), "p");
        assert_eq!(
            text(&bare.unwrap(), "openstack/latest/meta_data.json"),
            r#"{"instance_id":"a.ns","hostname":"vm","uuid":"u-1"}"#
        );
    }

    #[test]
    fn user_data_comes_from_text_base64_or_a_secret_but_one_only() {
        let keys = PublicKeys::default();
        let plain = source(|s| s.user_data = Some("#cloud-config".into()));
        let coded = source(|s| s.user_data_base64 = Some("I2Nsb3VkLWNv\nbmZpZw==".into()));
        let referred = source(|s| s.secret_ref = Some(serde_json::from_str(r#"{"name":"s"}"#).unwrap()));
        let of = |source: &CloudInitNoCloudSource, data: &Data| no_cloud(source, data, &identity(&keys), "p");
        for key in ["userdata", "userData"] {
            let data = data(&format!(r##"{{"stringData":{{"{key}":"#cloud-config"}}}}"##));
            for source in [&plain, &coded, &referred] {
                assert_eq!(of(source, &data).unwrap().files["user-data"], b"#cloud-config");
            }
        }
        let refusal =
            |source: &CloudInitNoCloudSource, data: &Data| of(source, data).unwrap_err().to_string();
        let both = source(|s| (s.user_data, s.user_data_base64) = (Some("a".into()), Some("b".into())));
        assert!(refusal(&both, &Data::default()).contains("only one"));
        assert!(refusal(&referred, &Data::default()).starts_with("p.secretRef: there is no Secret 's'"));
        assert!(refusal(&referred, &data(r#"{"stringData":{"x":""}}"#)).contains("none of the keys"));
        let bad = source(|s| s.user_data_base64 = Some("***".into()));
        assert!(refusal(&bad, &Data::default()).contains("not base64"));
    }

    #[test]
    fn a_config_drive_has_network_data_from_every_form() {
        let keys = PublicKeys::default();
        let data = data(r#"{"data":{"networkData":"e30="}}"#);
        for json in [
            r#"{"networkData":"{}","userData":"u"}"#,
            r#"{"networkDataBase64":"e30=","userDataBase64":"dQ=="}"#,
            r#"{"networkDataSecretRef":{"name":"s"},"userData":"u"}"#,
        ] {
            let source: CloudInitConfigDriveSource = serde_json::from_str(json).unwrap();
            let drive = config_drive(&source, &data, &identity(&keys), "p").unwrap();
            assert_eq!(text(&drive, "openstack/latest/network_data.json"), "{}");
            assert_eq!(text(&drive, "openstack/latest/user_data"), "u");
        }
    }
}
