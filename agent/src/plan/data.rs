//! Secrets and ConfigMaps: without a cluster, further documents of the same file.

use std::collections::BTreeMap;

use orlop_crd::k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::Refusal;

/// Longest key, in bytes (Kubernetes, `IsConfigMapKey`).
const KEY_MAX_BYTES: usize = 253;

/// What the documents beside the machine hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data {
    /// By name.
    pub secrets: BTreeMap<String, Secret>,
    /// By name.
    pub config_maps: BTreeMap<String, ConfigMap>,
}

/// Keys with their values.
pub type Values = BTreeMap<String, Vec<u8>>;

impl Data {
    /// Every key of the Secret `name`. `path` is the field that names it, for errors.
    pub fn secret(&self, name: &str, path: &str) -> Result<Values, Refusal> {
        let found = self.secrets.get(name).ok_or_else(|| absent("Secret", name, path))?;
        let bytes = found.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        // Kubernetes lets stringData win.
        let text =
            found.string_data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        checked(bytes.chain(text).collect(), "Secret", name, path)
    }

    /// Every key of the ConfigMap `name`.
    pub fn config_map(&self, name: &str, path: &str) -> Result<Values, Refusal> {
        let found = self.config_maps.get(name).ok_or_else(|| absent("ConfigMap", name, path))?;
        let text = found.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        let bytes = found.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        checked(text.chain(bytes).collect(), "ConfigMap", name, path)
    }
}

fn absent(kind: &str, name: &str, path: &str) -> Refusal {
    Refusal::new(path, format!("there is no {kind} '{name}': without a cluster, put it into the same file"))
}

/// Keys become names of files: they are the names that an API server takes.
fn checked(values: Values, kind: &str, name: &str, path: &str) -> Result<Values, Refusal> {
    let good = |key: &str| {
        let chars = key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
        chars && !key.is_empty() && key.len() <= KEY_MAX_BYTES && key != "." && key != ".."
    };
    match values.keys().find(|key| !good(key)) {
        None => Ok(values),
        Some(bad) => {
            let reason = format!(
                "{kind} '{name}' has the key '{bad}': use 1 to {KEY_MAX_BYTES} letters, digits, '-', '.' and '_'"
            );
            Err(Refusal::new(path, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_both_forms_and_are_names_of_files() {
        let secret = r#"{"data":{"a":"QQ==","b":"Qg=="},"stringData":{"b":"text"}}"#;
        let map = r#"{"data":{"x":"1"},"binaryData":{"y":"AAE="}}"#;
        let bad = r#"{"data":{"../x":"1"}}"#;
        let data = Data {
            secrets: [("s".to_owned(), serde_json::from_str(secret).unwrap())].into(),
            config_maps: [("m", map), ("bad", bad)]
                .map(|(name, text)| (name.to_owned(), serde_json::from_str(text).unwrap()))
                .into(),
        };
        let values = |pairs: &[(&str, &[u8])]| -> Values {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect()
        };
        assert_eq!(data.secret("s", "p").unwrap(), values(&[("a", b"A"), ("b", b"text")]));
        assert_eq!(data.config_map("m", "p").unwrap(), values(&[("x", b"1"), ("y", &[0, 1])]));
        assert!(data.config_map("bad", "p").unwrap_err().to_string().contains("the key '../x'"));
        assert!(
            data.config_map("s", "p").unwrap_err().to_string().starts_with("p: there is no ConfigMap 's'")
        );
    }
}
