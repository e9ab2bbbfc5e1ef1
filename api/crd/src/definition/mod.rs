//! The CustomResourceDefinitions of our kinds, made from the types.
//!
//! `deploy/crds` holds them as files; a test makes them anew and compares.

mod structural;

use k8s_openapi::Resource;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceScale,
    CustomResourceSubresourceStatus, CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde_json::Value;

use self::structural::{Descriptions, structural};
use crate::instancetype::{
    VirtualMachineClusterInstancetype, VirtualMachineClusterPreference, VirtualMachineInstancetype,
    VirtualMachinePreference,
};
use crate::kubevirt::KubeVirt;
use crate::manifest::schema;
use crate::preset::VirtualMachineInstancePreset;
use crate::replica_set::VirtualMachineInstanceReplicaSet;
use crate::vm::VirtualMachine;
use crate::vmi::VirtualMachineInstance;
use crate::vmim::VirtualMachineInstanceMigration;

/// What the API server answers to those who still use the old version.
const DEPRECATED: &str = "kubevirt.io/v1alpha3 is now deprecated and will be removed in a future release.";

const READY: &str = ".status.conditions[?(@.type=='Ready')].status";

/// How one kind is served, beyond its type.
struct Kind {
    short_names: &'static [&'static str],
    scope: Scope,
    versions: Versions,
    status: bool,
    scale: bool,
    columns: &'static [Column],
    plural: &'static str,
    group: &'static str,
    name: &'static str,
    schema: fn() -> Value,
}

#[derive(Clone, Copy)]
enum Scope {
    Namespaced,
    Cluster,
}

/// The versions of a kind; the first is the one to use.
#[derive(Clone, Copy)]
enum Versions {
    /// `v1`, stored, and `v1alpha3`.
    V1,
    /// The same two, of which the old one is stored.
    V1StoredAsAlpha,
    /// `v1beta1`.
    Beta,
}

/// A column of `kubectl get`: name, type, JSON path, and whether only `-o wide` shows it.
struct Column(&'static str, &'static str, &'static str, bool);

const AGE: Column = Column("Age", "date", ".metadata.creationTimestamp", false);

const REPLICA_COLUMNS: &[Column] = &[
    Column("Desired", "integer", ".spec.replicas", false),
    Column("Current", "integer", ".status.replicas", false),
    Column("Ready", "integer", ".status.readyReplicas", false),
    AGE,
];

impl Kind {
    /// A namespaced kind without columns and subresources.
    fn of<T: Resource + JsonSchema>(versions: Versions, short_names: &'static [&'static str]) -> Kind {
        Kind {
            short_names,
            scope: Scope::Namespaced,
            versions,
            status: false,
            scale: false,
            columns: &[],
            plural: T::URL_PATH_SEGMENT,
            group: T::GROUP,
            name: T::KIND,
            schema: schema::<T>,
        }
    }

    fn definition(&self) -> CustomResourceDefinition {
        let (namespaced, scope) = match self.scope {
            Scope::Namespaced => (true, "Namespaced"),
            Scope::Cluster => (false, "Cluster"),
        };
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        CustomResourceDefinition {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}", self.plural, self.group)),
                ..ObjectMeta::default()
            },
            spec: CustomResourceDefinitionSpec {
                group: self.group.to_owned(),
                names: CustomResourceDefinitionNames {
                    // So that `kubectl get all` shows machines.
                    categories: namespaced.then(|| owned(&["all"])),
                    kind: self.name.to_owned(),
                    list_kind: Some(format!("{}List", self.name)),
                    plural: self.plural.to_owned(),
                    short_names: (!self.short_names.is_empty()).then(|| owned(self.short_names)),
                    singular: Some(self.name.to_lowercase()),
                },
                scope: scope.to_owned(),
                versions: self.versions(),
                ..CustomResourceDefinitionSpec::default()
            },
            status: None,
        }
    }

    fn versions(&self) -> Vec<CustomResourceDefinitionVersion> {
        match self.versions {
            Versions::V1 => vec![self.version("v1", true), self.deprecated(false)],
            Versions::V1StoredAsAlpha => vec![self.version("v1", false), self.deprecated(true)],
            Versions::Beta => vec![self.version("v1beta1", true)],
        }
    }

    fn deprecated(&self, storage: bool) -> CustomResourceDefinitionVersion {
        CustomResourceDefinitionVersion {
            deprecated: Some(true),
            deprecation_warning: Some(DEPRECATED.to_owned()),
            schema: Some(self.validation(Descriptions::Dropped)),
            ..self.version("v1alpha3", storage)
        }
    }

    fn version(&self, name: &str, storage: bool) -> CustomResourceDefinitionVersion {
        let columns =
            self.columns.iter().map(|Column(name, kind, path, wide)| CustomResourceColumnDefinition {
                json_path: (*path).to_owned(),
                name: (*name).to_owned(),
                priority: wide.then_some(1),
                type_: (*kind).to_owned(),
                ..CustomResourceColumnDefinition::default()
            });
        let columns: Vec<_> = columns.collect();
        let subresources = CustomResourceSubresources {
            scale: self.scale.then(|| CustomResourceSubresourceScale {
                label_selector_path: Some(".status.labelSelector".to_owned()),
                spec_replicas_path: ".spec.replicas".to_owned(),
                status_replicas_path: ".status.replicas".to_owned(),
            }),
            status: self
                .status
                .then(|| CustomResourceSubresourceStatus(Value::Object(serde_json::Map::new()))),
        };
        CustomResourceDefinitionVersion {
            additional_printer_columns: (!columns.is_empty()).then_some(columns),
            name: name.to_owned(),
            schema: Some(self.validation(Descriptions::Kept)),
            served: true,
            storage,
            subresources: (self.status || self.scale).then_some(subresources),
            ..CustomResourceDefinitionVersion::default()
        }
    }

    fn validation(&self, descriptions: Descriptions) -> CustomResourceValidation {
        let schema = structural(&(self.schema)(), descriptions);
        let schema = serde_json::from_value::<JSONSchemaProps>(schema);
        CustomResourceValidation {
            open_api_v3_schema: Some(schema.expect("a structural schema is a schema")),
        }
    }
}

/// The definitions of all our kinds, in the order of their names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions: Vec<_> = kinds().iter().map(Kind::definition).collect();
    definitions.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    definitions
}

fn kinds() -> [Kind; 10] {
    let cluster = |kind: Kind| Kind { scope: Scope::Cluster, ..kind };
    [
        Kind {
            status: true,
            columns: &[
                AGE,
                Column("Status", "string", ".status.printableStatus", false),
                Column("Ready", "string", READY, false),
            ],
            ..Kind::of::<VirtualMachine>(Versions::V1, &["vm", "vms"])
        },
        // No status subresource, as upstream: clients and components write status with the object.
        Kind {
            columns: &[
                AGE,
                Column("Phase", "string", ".status.phase", false),
                Column("IP", "string", ".status.interfaces[0].ipAddress", false),
                Column("NodeName", "string", ".status.nodeName", false),
                Column("Ready", "string", READY, false),
                Column(
                    "Live-Migratable",
                    "string",
                    ".status.conditions[?(@.type=='LiveMigratable')].status",
                    true,
                ),
                Column("Paused", "string", ".status.conditions[?(@.type=='Paused')].status", true),
            ],
            ..Kind::of::<VirtualMachineInstance>(Versions::V1, &["vmi", "vmis"])
        },
        Kind {
            status: true,
            columns: &[
                Column("Phase", "string", ".status.phase", false),
                Column("VMI", "string", ".spec.vmiName", false),
            ],
            ..Kind::of::<VirtualMachineInstanceMigration>(Versions::V1, &["vmim", "vmims"])
        },
        Kind {
            status: true,
            scale: true,
            columns: REPLICA_COLUMNS,
            ..Kind::of::<VirtualMachineInstanceReplicaSet>(Versions::V1, &["vmirs", "vmirss"])
        },
        Kind::of::<VirtualMachineInstancePreset>(Versions::V1StoredAsAlpha, &["vmipreset", "vmipresets"]),
        Kind {
            status: true,
            columns: &[AGE, Column("Phase", "string", ".status.phase", false)],
            ..Kind::of::<KubeVirt>(Versions::V1, &["kv", "kvs"])
        },
        Kind::of::<VirtualMachineInstancetype>(
            Versions::Beta,
            &["vminstancetype", "vminstancetypes", "vmf", "vmfs"],
        ),
        cluster(Kind::of::<VirtualMachineClusterInstancetype>(
            Versions::Beta,
            &["vmclusterinstancetype", "vmclusterinstancetypes", "vmcf", "vmcfs"],
        )),
        Kind::of::<VirtualMachinePreference>(Versions::Beta, &["vmpref", "vmprefs", "vmp", "vmps"]),
        cluster(Kind::of::<VirtualMachineClusterPreference>(Versions::Beta, &["vmcp", "vmcps"])),
    ]
}
