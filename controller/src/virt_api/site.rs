//! The cluster's settings, kept as the one `KubeVirt` object says them.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use orlop_crd::admission::Site;
use orlop_crd::kubevirt::KubeVirt;
use orlop_crd::kubevirt::configuration::KubeVirtConfiguration;
use tokio::sync::watch;

/// Components that may do what users may not, by the names of their service accounts.
const PLATFORM: [&str; 3] = ["virt-api", "virt-controller", "virt-handler"];
/// What tells that CDI is installed.
const DATA_VOLUMES: &str = "datavolumes.cdi.kubevirt.io";

/// The settings as they are now.
pub type Settings = watch::Receiver<Arc<Site>>;

/// Follows the `KubeVirt` object, wherever it is. Without one the defaults hold.
pub async fn watch(client: Client, namespace: &str) -> anyhow::Result<Settings> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found = definitions.get_opt(DATA_VOLUMES).await.context("cannot ask whether CDI is installed")?;
    let has_data_volumes = found.is_some();
    let users = platform_users(namespace);
    let site = move |configuration: &KubeVirtConfiguration| {
        let mut site = Site::new(configuration, has_data_volumes);
        site.platform_users.clone_from(&users);
        Arc::new(site)
    };
    let (sender, settings) = watch::channel(site(&KubeVirtConfiguration::default()));
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("kubevirt.io", "v1", "KubeVirt"),
        "kubevirts",
    );
    let objects: Api<DynamicObject> = Api::all_with(client, &kind);
    tokio::spawn(async move {
        let mut events = pin!(watcher(objects, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => match configuration(&object) {
                    Ok(configuration) => {
                        // Nobody listens any more only when the process ends.
                        let _ = sender.send(site(&configuration));
                    }
                    Err(error) => tracing::warn!("the KubeVirt object is not understood: {error}"),
                },
                Ok(Event::Delete(_)) => {
                    let _ = sender.send(site(&KubeVirtConfiguration::default()));
                }
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => tracing::warn!("cannot watch KubeVirt objects: {error}"),
            }
        }
    });
    Ok(settings)
}

fn configuration(object: &DynamicObject) -> serde_json::Result<KubeVirtConfiguration> {
    let object: KubeVirt = serde_json::from_value(serde_json::to_value(object)?)?;
    Ok(object.spec.configuration.unwrap_or_default())
}

fn platform_users(namespace: &str) -> BTreeSet<String> {
    PLATFORM.iter().map(|name| format!("system:serviceaccount:{namespace}:{name}")).collect()
}
