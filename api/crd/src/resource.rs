//! How the API server knows our kinds: group, version, plural.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vm::VirtualMachine;
use crate::vmi::VirtualMachineInstance;

/// The API group of machines.
pub const GROUP: &str = "kubevirt.io";

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

impl Resource for VirtualMachineInstance {
    const API_VERSION: &'static str = "kubevirt.io/v1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "VirtualMachineInstance";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "virtualmachineinstances";
    type Scope = NamespaceResourceScope;
}

impl Metadata for VirtualMachineInstance {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for VirtualMachine {
    const API_VERSION: &'static str = "kubevirt.io/v1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "VirtualMachine";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "virtualmachines";
    type Scope = NamespaceResourceScope;
}

impl Metadata for VirtualMachine {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
