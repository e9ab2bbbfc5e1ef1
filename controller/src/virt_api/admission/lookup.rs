//! What deciding needs beyond the object: instance types, preferences, presets, the volumes that name them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use orlop_crd::admission::{Cause, CauseType, read};
use orlop_crd::instancetype::infer::{self, Found, InferError, Look, Name, Step};
use orlop_crd::instancetype::{VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec};
use orlop_crd::preset::VirtualMachineInstancePreset;
use orlop_crd::vm::VirtualMachine;
use orlop_crd::vmi::VirtualMachineInstance;
use orlop_crd::vmim::VirtualMachineInstanceMigration;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::review::Request;

/// A walk from a volume to the object that names an instance type has as many steps as CDI has kinds, and some to spare.
const STEPS_MAX: usize = 8;

/// What was found by the volume of a machine: a name, and perhaps a kind.
pub type Inferred = Result<(String, Option<String>), InferError>;

/// What an object refers to.
#[derive(Debug, Default)]
pub struct Referred {
    /// A machine's instance type.
    pub instancetype: Option<VirtualMachineInstancetypeSpec>,
    /// Its preference.
    pub preference: Option<VirtualMachinePreferenceSpec>,
    /// The instance type by its volume, where it asks for that.
    pub inferred_instancetype: Option<Inferred>,
    /// The preference by its volume, where it asks for that.
    pub inferred_preference: Option<Inferred>,
    /// The instance that a migration is of.
    pub instance: Option<VirtualMachineInstance>,
    /// The migrations of its namespace.
    pub migrations: Vec<VirtualMachineInstanceMigration>,
    /// The presets of an instance's namespace.
    pub presets: Vec<VirtualMachineInstancePreset>,
}

/// Why something was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The object is wrong to refer to it.
    #[error("{}", .0.message)]
    Refused(Cause),
    /// The API server did not say.
    #[error(transparent)]
    Asking(#[from] kube::Error),
}

/// What a new machine's volumes say about it.
pub async fn inferred(client: &Client, request: &Request) -> Result<Referred, LookupError> {
    let Ok(vm) = machine(request) else { return Ok(Referred::default()) };
    let mut referred = Referred::default();
    if let Some(volume) =
        vm.spec.instancetype.as_ref().and_then(|matcher| matcher.infer_from_volume.as_deref())
    {
        let labels = (infer::INSTANCETYPE_LABEL, infer::INSTANCETYPE_KIND_LABEL);
        referred.inferred_instancetype = Some(walk(client, &vm, volume, labels).await?);
    }
    if let Some(volume) = vm.spec.preference.as_ref().and_then(|matcher| matcher.infer_from_volume.as_deref())
    {
        let labels = (infer::PREFERENCE_LABEL, infer::PREFERENCE_KIND_LABEL);
        referred.inferred_preference = Some(walk(client, &vm, volume, labels).await?);
    }
    Ok(referred)
}

/// The instance type and the preference that a machine names.
pub async fn instancetype(client: &Client, request: &Request) -> Result<Referred, LookupError> {
    // The rules for words come first.
    let Ok(vm) = machine(request) else { return Ok(Referred::default()) };
    let namespace = request.namespace.as_str();
    let mut referred = Referred::default();
    if let Some(matcher) = &vm.spec.instancetype {
        let wanted = Wanted {
            kinds: ["VirtualMachineInstancetype", "VirtualMachineClusterInstancetype"],
            kind: matcher.kind.as_deref(),
            name: matcher.name.as_deref().unwrap_or_default(),
            revision: matcher.revision_name.as_deref(),
            field: "spec.instancetype",
        };
        referred.instancetype = Some(spec(client, namespace, &wanted).await?);
    }
    if let Some(matcher) = &vm.spec.preference {
        let wanted = Wanted {
            kinds: ["VirtualMachinePreference", "VirtualMachineClusterPreference"],
            kind: matcher.kind.as_deref(),
            name: matcher.name.as_deref().unwrap_or_default(),
            revision: matcher.revision_name.as_deref(),
            field: "spec.preference",
        };
        referred.preference = Some(spec(client, namespace, &wanted).await?);
    }
    Ok(referred)
}

/// The instance that a new migration is of, and the other migrations.
pub async fn migration(client: &Client, request: &Request) -> Result<Referred, LookupError> {
    let Ok(new) = read::<VirtualMachineInstanceMigration>(&request.object) else {
        return Ok(Referred::default());
    };
    if request.operation != "CREATE" {
        return Ok(Referred::default());
    }
    let name = new.spec.vmi_name.unwrap_or_default();
    if name.is_empty() {
        return Ok(Referred::default());
    }
    let instances = kubevirt(client, &request.namespace, "VirtualMachineInstance", "virtualmachineinstances");
    let instance = instances.get_opt(&name).await?.and_then(typed);
    let kind = "VirtualMachineInstanceMigration";
    let migrations = kubevirt(client, &request.namespace, kind, "virtualmachineinstancemigrations");
    let migrations =
        migrations.list(&ListParams::default()).await?.items.into_iter().filter_map(typed).collect();
    Ok(Referred { instance, migrations, ..Referred::default() })
}

/// The presets of a new instance's namespace.
pub async fn presets(client: &Client, request: &Request) -> Result<Referred, LookupError> {
    if request.operation != "CREATE" {
        return Ok(Referred::default());
    }
    let kind = "VirtualMachineInstancePreset";
    let presets = kubevirt(client, &request.namespace, kind, "virtualmachineinstancepresets");
    let found = presets.list(&ListParams::default()).await?.items.into_iter().filter_map(typed).collect();
    Ok(Referred { presets: found, ..Referred::default() })
}

fn machine(request: &Request) -> Result<VirtualMachine, Vec<Cause>> {
    let mut vm: VirtualMachine = read(&request.object)?;
    // A new object need not name its namespace.
    vm.metadata.namespace = Some(request.namespace.clone());
    Ok(vm)
}

fn kubevirt(client: &Client, namespace: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("kubevirt.io", "v1", kind), plural);
    Api::namespaced_with(client.clone(), namespace, &kind)
}

fn typed<T: DeserializeOwned>(object: DynamicObject) -> Option<T> {
    serde_json::from_value(serde_json::to_value(object).ok()?).ok()
}

/// A reference to an instance type or a preference.
struct Wanted<'w> {
    /// The kind in a namespace, and the one of the cluster, which is the default.
    kinds: [&'w str; 2],
    kind: Option<&'w str>,
    name: &'w str,
    revision: Option<&'w str>,
    field: &'w str,
}

/// The spec of what is wanted: as it was kept when it was first applied, or as it is.
async fn spec<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    wanted: &Wanted<'_>,
) -> Result<T, LookupError> {
    let refused = |message: String| {
        LookupError::Refused(Cause { reason: CauseType::NotFound, message, field: wanted.field.to_owned() })
    };
    if let Some(revision) = wanted.revision.filter(|revision| !revision.is_empty()) {
        let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
        let found = revisions.get_opt(revision).await?;
        let data = found.map(|found| found.data.0);
        let data =
            data.ok_or_else(|| refused(format!("controllerrevisions.apps \"{revision}\" not found")))?;
        return of(&data).ok_or_else(|| refused(format!("ControllerRevision \"{revision}\" holds no spec")));
    }
    let [namespaced, cluster] = wanted.kinds;
    let is = |kind: &str| wanted.kind.is_some_and(|named| is_kind(named, kind));
    let kind = match wanted.kind {
        None | Some("") => cluster,
        Some(_) if is(cluster) => cluster,
        Some(_) if is(namespaced) => namespaced,
        Some(other) => return Err(refused(format!("got unexpected kind in InstancetypeMatcher: {other}"))),
    };
    let plural = plural(kind);
    let gvk = GroupVersionKind::gvk("instancetype.kubevirt.io", "v1beta1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    let api: Api<DynamicObject> = if kind == cluster {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let not_found = || refused(format!("{plural}.instancetype.kubevirt.io \"{}\" not found", wanted.name));
    let found = api.get_opt(wanted.name).await?.ok_or_else(not_found)?;
    of(&found.data).ok_or_else(|| refused(format!("{kind} \"{}\" is not understood", wanted.name)))
}

fn of<T: DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.get("spec")?.clone()).ok()
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

/// Kinds may be written in any case, and as the plural.
fn is_kind(named: &str, kind: &str) -> bool {
    named.eq_ignore_ascii_case(kind) || named.eq_ignore_ascii_case(&plural(kind))
}

/// Walks from a machine's volume to the object with a label.
async fn walk(
    client: &Client,
    vm: &VirtualMachine,
    volume: &str,
    (label, kind_label): (&str, &str),
) -> Result<Inferred, LookupError> {
    let namespace = vm.metadata.namespace.clone().unwrap_or_default();
    let mut step = infer::start(vm, volume);
    for _ in 0..STEPS_MAX {
        step = match step {
            Ok(Step::Named(name, kind)) => return Ok(Ok((name, kind))),
            Err(error) => return Ok(Err(error)),
            Ok(Step::Look(look)) => look_at(client, look, &namespace, (label, kind_label)).await?,
        };
    }
    Ok(Err(InferError::VolumeType(volume.to_owned())))
}

async fn look_at(
    client: &Client,
    look: Look,
    namespace: &str,
    (label, kind_label): (&str, &str),
) -> Result<Result<Step, InferError>, LookupError> {
    let next = |found: Found<'_>| infer::next(&found, namespace, label, kind_label);
    let none = BTreeMap::new();
    match look {
        Look::Claim(name) => {
            let labels = claim(client, &name).await?;
            Ok(next(Found::Claim(labels.as_ref().unwrap_or(&none))))
        }
        Look::DataVolume(name) => {
            let found = cdi(client, &name, "DataVolume", "datavolumes").await?;
            let Some(object) = found else {
                return Ok(next(Found::Claim(claim(client, &name).await?.as_ref().unwrap_or(&none))));
            };
            let labels = object.metadata.labels.clone().unwrap_or_default();
            let Some(spec) = of(&object.data) else { return Ok(Err(InferError::Source)) };
            Ok(next(Found::DataVolume(&labels, &spec)))
        }
        Look::DataSource(name) => {
            let found = cdi(client, &name, "DataSource", "datasources").await?;
            let labels = found.as_ref().and_then(|object| object.metadata.labels.clone()).unwrap_or_default();
            let source = found.as_ref().and_then(|object| object.data.pointer("/spec/source/pvc"));
            let text = |field: &str| source?.get(field)?.as_str().map(str::to_owned);
            let name = text("name").map(|name| Name {
                namespace: text("namespace").unwrap_or_else(|| namespace.to_owned()),
                name,
            });
            Ok(next(Found::DataSource(&labels, name)))
        }
    }
}

/// The labels of a claim.
async fn claim(client: &Client, name: &Name) -> Result<Option<BTreeMap<String, String>>, LookupError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &name.namespace);
    Ok(claims.get_opt(&name.name).await?.map(|claim| claim.metadata.labels.unwrap_or_default()))
}

/// An object of CDI; none where CDI is not installed.
async fn cdi(
    client: &Client,
    name: &Name,
    kind: &str,
    plural: &str,
) -> Result<Option<DynamicObject>, LookupError> {
    let gvk = GroupVersionKind::gvk("cdi.kubevirt.io", "v1beta1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &name.namespace, &resource);
    Ok(api.get_opt(&name.name).await?)
}
