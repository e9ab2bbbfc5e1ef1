//! How the API server knows our kinds: group, version, plural.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::instancetype::{
    VirtualMachineClusterInstancetype, VirtualMachineClusterPreference, VirtualMachineInstancetype,
    VirtualMachinePreference,
};
use crate::kubevirt::KubeVirt;
use crate::preset::VirtualMachineInstancePreset;
use crate::replica_set::VirtualMachineInstanceReplicaSet;
use crate::vm::VirtualMachine;
use crate::vmi::VirtualMachineInstance;
use crate::vmim::VirtualMachineInstanceMigration;

/// The API group of machines.
pub const GROUP: &str = "kubevirt.io";

/// The API group of instance types and preferences.
pub const INSTANCETYPE_GROUP: &str = "instancetype.kubevirt.io";

/// `apiVersion` of a machine: both are served and mean the same.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ApiVersion {
    /// The version to use, and the one that is stored.
    #[default]
    #[serde(rename = "kubevirt.io/v1")]
    V1,
    /// Deprecated.
    #[serde(rename = "kubevirt.io/v1alpha3")]
    V1Alpha3,
}

/// `apiVersion` of an instance type or a preference.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum InstancetypeApiVersion {
    /// The only version.
    #[default]
    #[serde(rename = "instancetype.kubevirt.io/v1beta1")]
    V1Beta1,
}

/// What the API server knows of a kind, and where its metadata is.
macro_rules! resource {
    ($type:ident, $api_version:literal, $group:expr, $version:literal, $plural:literal, $scope:ident) => {
        impl Resource for $type {
            const API_VERSION: &'static str = $api_version;
            const GROUP: &'static str = $group;
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl Metadata for $type {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(VirtualMachine, "kubevirt.io/v1", GROUP, "v1", "virtualmachines", NamespaceResourceScope);
resource!(
    VirtualMachineInstance,
    "kubevirt.io/v1",
    GROUP,
    "v1",
    "virtualmachineinstances",
    NamespaceResourceScope
);
resource!(
    VirtualMachineInstanceReplicaSet,
    "kubevirt.io/v1",
    GROUP,
    "v1",
    "virtualmachineinstancereplicasets",
    NamespaceResourceScope
);
resource!(
    VirtualMachineInstanceMigration,
    "kubevirt.io/v1",
    GROUP,
    "v1",
    "virtualmachineinstancemigrations",
    NamespaceResourceScope
);
resource!(
    VirtualMachineInstancePreset,
    "kubevirt.io/v1",
    GROUP,
    "v1",
    "virtualmachineinstancepresets",
    NamespaceResourceScope
);
resource!(KubeVirt, "kubevirt.io/v1", GROUP, "v1", "kubevirts", NamespaceResourceScope);
resource!(
    VirtualMachineInstancetype,
    "instancetype.kubevirt.io/v1beta1",
    INSTANCETYPE_GROUP,
    "v1beta1",
    "virtualmachineinstancetypes",
    NamespaceResourceScope
);
resource!(
    VirtualMachineClusterInstancetype,
    "instancetype.kubevirt.io/v1beta1",
    INSTANCETYPE_GROUP,
    "v1beta1",
    "virtualmachineclusterinstancetypes",
    ClusterResourceScope
);
resource!(
    VirtualMachinePreference,
    "instancetype.kubevirt.io/v1beta1",
    INSTANCETYPE_GROUP,
    "v1beta1",
    "virtualmachinepreferences",
    NamespaceResourceScope
);
resource!(
    VirtualMachineClusterPreference,
    "instancetype.kubevirt.io/v1beta1",
    INSTANCETYPE_GROUP,
    "v1beta1",
    "virtualmachineclusterpreferences",
    ClusterResourceScope
);
