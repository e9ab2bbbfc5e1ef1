//! What the API server is told: which objects it is to ask about, and where.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use super::admission::{RULES, Rule, Task};

/// Who writes these objects, for server-side apply.
const MANAGER: &str = "virt-api";
/// KubeVirt's names.
const MUTATING: &str = "virt-api-mutator";
const VALIDATING: &str = "virt-api-validator";
/// How often they are put right, should somebody have changed or removed them.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the API server waits for an answer, in seconds.
const TIMEOUT_S: u32 = 10;

/// How the API server reaches this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// By a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// By an address.
    Url(String),
}

impl Endpoint {
    /// What the certificate is to be for.
    pub fn host_names(&self) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Service { namespace, name } => {
                Ok(vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}.svc.cluster.local")])
            }
            Self::Url(url) => {
                let Ok(parsed) = url.parse::<axum::http::Uri>() else { bail!("--url {url}: not a URL") };
                match (parsed.scheme_str(), parsed.host()) {
                    (Some("https"), Some(host)) => Ok(vec![host.trim_matches(['[', ']']).to_owned()]),
                    _ => bail!("--url {url}: not an HTTPS URL with a host"),
                }
            }
        }
    }

    fn client_config(&self, path: &str, authority: &str) -> Value {
        match self {
            Self::Service { namespace, name } => json!({
                "caBundle": authority,
                "service": { "namespace": namespace, "name": name, "path": path, "port": 443 },
            }),
            Self::Url(url) => json!({
                "caBundle": authority,
                "url": format!("{}{path}", url.trim_end_matches('/')),
            }),
        }
    }
}

/// Registers the webhooks and keeps them registered, for ever. The first time, a failure is an error.
pub async fn keep(client: Client, endpoint: &Endpoint, authority: String) -> anyhow::Result<()> {
    register(&client, endpoint, &authority).await?;
    loop {
        tokio::time::sleep(AGAIN).await;
        if let Err(error) = register(&client, endpoint, &authority).await {
            tracing::warn!("{error:#}");
        }
    }
}

async fn register(client: &Client, endpoint: &Endpoint, authority: &str) -> anyhow::Result<()> {
    for (task, kind, plural, name) in [
        (Task::Mutate, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", MUTATING),
        (Task::Validate, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", VALIDATING),
    ] {
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let api: Api<DynamicObject> =
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, plural));
        let object = object(task, kind, name, endpoint, authority);
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object))
            .await
            .with_context(|| format!("cannot write the {kind} {name}"))?;
    }
    Ok(())
}

/// The configuration of all rules of one task.
fn object(task: Task, kind: &str, name: &str, endpoint: &Endpoint, authority: &str) -> Value {
    let webhooks: Vec<Value> = RULES
        .iter()
        .filter(|rule| rule.task == task)
        .map(|rule| webhook(rule, endpoint, authority))
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": name, "labels": { "kubevirt.io": name } },
        "webhooks": webhooks,
    })
}

fn webhook(rule: &Rule, endpoint: &Endpoint, authority: &str) -> Value {
    json!({
        "name": rule.name,
        "clientConfig": endpoint.client_config(rule.path, authority),
        "rules": [{
            "apiGroups": [rule.group],
            "apiVersions": rule.versions,
            "operations": rule.operations,
            "resources": rule.resources,
            "scope": "*",
        }],
        // An object that nobody looked at could be anything.
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": TIMEOUT_S,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_host() {
        let names = |url: &str| Endpoint::Url(url.to_owned()).host_names();
        assert_eq!(names("https://10.77.0.1:8443").unwrap(), ["10.77.0.1"]);
        assert_eq!(names("https://[fd00::1]:8443/x").unwrap(), ["fd00::1"]);
        for bad in ["http://10.77.0.1", "10.77.0.1:8443", "https://", "a b"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_rule_is_in_exactly_one_configuration() {
        let endpoint = Endpoint::Service { namespace: "kubevirt".into(), name: "virt-api".into() };
        let count = |task| object(task, "x", "x", &endpoint, "")["webhooks"].as_array().map_or(0, Vec::len);
        assert_eq!(count(Task::Mutate) + count(Task::Validate), RULES.len());
        let names: std::collections::BTreeSet<_> = RULES.iter().map(|rule| (rule.task, rule.name)).collect();
        assert_eq!(names.len(), RULES.len(), "the API server wants names that differ");
    }
}
