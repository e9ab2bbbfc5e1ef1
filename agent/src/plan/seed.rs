//! The cloud-init seed: what a NoCloud data source finds on its disk.

use std::collections::BTreeMap;

use orlop_crd::k8s_openapi::api::core::v1::Secret;
use orlop_crd::volumes::CloudInitNoCloudSource;
use serde::Serialize;

use super::Refusal;

/// The files of the seed, before they become a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// `meta-data`, as JSON.
    pub meta_data: String,
    /// `user-data`.
    pub user_data: Vec<u8>,
    /// `network-config`, where the manifest gives one.
    pub network_config: Option<Vec<u8>>,
}

/// `meta-data` in the form that KubeVirt writes.
#[derive(Serialize)]
struct MetaData<'a> {
    #[serde(rename = "instance-id")]
    instance_id: &'a str,
    #[serde(rename = "local-hostname")]
    local_hostname: &'a str,
    #[serde(rename = "public-keys", skip_serializing_if = "BTreeMap::is_empty")]
    public_keys: BTreeMap<String, &'a str>,
}

/// Who the guest is.
pub struct Identity<'a> {
    /// The machine's UUID.
    pub uuid: &'a str,
    /// Its host name.
    pub hostname: &'a str,
    /// SSH public keys for its first user.
    pub public_keys: &'a [String],
}

/// Puts the seed of one volume together. `path` is the volume's field, for errors.
pub fn plan(
    source: &CloudInitNoCloudSource,
    secrets: &BTreeMap<String, Secret>,
    identity: &Identity<'_>,
    path: &str,
) -> Result<Seed, Refusal> {
    let CloudInitNoCloudSource {
        network_data,
        network_data_base64,
        network_data_secret_ref,
        secret_ref,
        user_data,
        user_data_base64,
    } = source;
    let user_data = one_of(
        [(user_data.as_deref(), "userData"), (user_data_base64.as_deref(), "userDataBase64")],
        secret_ref.as_ref().map(|r| (r.name.as_str(), "secretRef")),
        &["userdata", "userData"],
        secrets,
        path,
    )?;
    let network_config = one_of(
        [(network_data.as_deref(), "networkData"), (network_data_base64.as_deref(), "networkDataBase64")],
        network_data_secret_ref.as_ref().map(|r| (r.name.as_str(), "networkDataSecretRef")),
        &["networkdata", "networkData"],
        secrets,
        path,
    )?;
    let meta_data = MetaData {
        instance_id: identity.uuid,
        local_hostname: identity.hostname,
        public_keys: identity
            .public_keys
            .iter()
            .enumerate()
            .map(|(index, key)| (index.to_string(), key.as_str()))
            .collect(),
    };
    let meta_data = serde_json::to_string(&meta_data).map_err(|e| Refusal::new(path, e.to_string()))?;
    Ok(Seed { meta_data, user_data: user_data.unwrap_or_default(), network_config })
}

/// The data from exactly one of: plain text, base64, or a key of a secret.
fn one_of(
    [(plain, plain_name), (base64, base64_name)]: [(Option<&str>, &str); 2],
    secret: Option<(&str, &str)>,
    keys: &[&str],
    secrets: &BTreeMap<String, Secret>,
    path: &str,
) -> Result<Option<Vec<u8>>, Refusal> {
    let given = usize::from(plain.is_some()) + usize::from(base64.is_some()) + usize::from(secret.is_some());
    if given > 1 {
        return Err(Refusal::new(path, format!("give only one of {plain_name}, {base64_name} and a secret")));
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
    let Some((name, field)) = secret else { return Ok(None) };
    let path = format!("{path}.{field}");
    let found = find_secret(secrets, name, &path)?;
    let value = keys.iter().find_map(|key| value_of(found, key));
    value.map(Some).ok_or_else(|| {
        Refusal::new(path, format!("secret '{name}' has none of the keys {}", keys.join(", ")))
    })
}

/// The secret `name`, from the same manifest.
pub fn find_secret<'a>(
    secrets: &'a BTreeMap<String, Secret>,
    name: &str,
    path: &str,
) -> Result<&'a Secret, Refusal> {
    secrets.get(name).ok_or_else(|| {
        Refusal::new(
            path,
            format!("there is no Secret '{name}': without a cluster, put it into the same file"),
        )
    })
}

/// The value of a key, from `stringData` or `data`.
fn value_of(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    let text = secret.string_data.as_ref().and_then(|data| data.get(key));
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    text.map(|text| text.clone().into_bytes()).or_else(|| bytes.map(|bytes| bytes.0.clone()))
}

/// Every value of a secret as text, a line each: SSH public keys.
pub fn lines_of(secret: &Secret) -> Vec<String> {
    let texts = secret.string_data.iter().flatten().map(|(_, text)| text.clone());
    let bytes = secret.data.iter().flatten().map(|(_, b)| String::from_utf8_lossy(&b.0).into_owned());
    texts
        .chain(bytes)
        .flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity<'static> {
        Identity { uuid: "u-1", hostname: "vm", public_keys: &[] }
    }

    fn source(change: impl FnOnce(&mut CloudInitNoCloudSource)) -> CloudInitNoCloudSource {
        let mut source = CloudInitNoCloudSource::default();
        change(&mut source);
        source
    }

    #[test]
    fn the_meta_data_is_kubevirts() {
        let keys = ["ssh-ed25519 AAAA me".to_owned()];
        let identity = Identity { public_keys: &keys, ..identity() };
        let seed = plan(&source(|_| {}), &BTreeMap::new(), &identity, "p").unwrap();
        assert_eq!(
            seed.meta_data,
            r#"{"instance-id":"u-1","local-hostname":"vm","public-keys":{"0":"ssh-ed25519 AAAA me"}}"#
        );
    }

    #[test]
    fn user_data_comes_from_text_base64_or_a_secret_but_one_only() {
        let plain = source(|s| s.user_data = Some("#cloud-config".into()));
        let coded = source(|s| s.user_data_base64 = Some("I2Nsb3VkLWNv\nbmZpZw==".into()));
        let referred = source(|s| s.secret_ref = Some(serde_json::from_str(r#"{"name":"s"}"#).unwrap()));
        let secret: Secret =
            serde_json::from_str(r##"{"stringData":{"userdata":"#cloud-config"}}"##).unwrap();
        let secrets = BTreeMap::from([("s".to_owned(), secret)]);
        for source in [&plain, &coded, &referred] {
            let seed = plan(source, &secrets, &identity(), "p").unwrap();
            assert_eq!(seed.user_data, b"#cloud-config");
        }
        let both = source(|s| (s.user_data, s.user_data_base64) = (Some("a".into()), Some("b".into())));
        assert!(plan(&both, &secrets, &identity(), "p").unwrap_err().to_string().contains("only one"));
        let none = plan(&referred, &BTreeMap::new(), &identity(), "p").unwrap_err();
        assert!(none.to_string().starts_with("p.secretRef: there is no Secret 's'"), "{none}");
        let bad = source(|s| s.user_data_base64 = Some("***".into()));
        assert!(plan(&bad, &secrets, &identity(), "p").unwrap_err().to_string().contains("not base64"));
    }
}
