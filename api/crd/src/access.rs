//! Credentials that are brought into the guest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Exactly one of the two is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AccessCredential {
    /// SSH keys.
    pub ssh_public_key: Option<SshPublicKeyAccessCredential>,
    /// Passwords.
    pub user_password: Option<UserPasswordAccessCredential>,
}

/// SSH keys that may log in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SshPublicKeyAccessCredential {
    /// How they reach the guest.
    pub propagation_method: SshPublicKeyPropagation,
    /// Where they are.
    pub source: SshPublicKeySource,
}

/// How SSH keys reach the guest. Exactly one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SshPublicKeyPropagation {
    /// By cloud-init's config drive, at boot.
    pub config_drive: Option<ConfigDriveSshPublicKeyPropagation>,
    /// By cloud-init's NoCloud disk, at boot.
    pub no_cloud: Option<NoCloudSshPublicKeyPropagation>,
    /// By the guest agent, at any time.
    pub qemu_guest_agent: Option<GuestAgentSshPublicKeyPropagation>,
}

/// Needs a `cloudInitConfigDrive` volume; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct ConfigDriveSshPublicKeyPropagation {}

/// Needs a `cloudInitNoCloud` volume; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct NoCloudSshPublicKeyPropagation {}

/// By the guest agent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct GuestAgentSshPublicKeyPropagation {
    /// Users whose keys are replaced; at least one.
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
}

/// Where SSH keys are.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct SshPublicKeySource {
    /// In a Secret, a key per entry.
    pub secret: Option<AccessCredentialSecretSource>,
}

/// Passwords of users.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UserPasswordAccessCredential {
    /// How they reach the guest.
    pub propagation_method: UserPasswordPropagation,
    /// Where they are.
    pub source: UserPasswordSource,
}

/// How passwords reach the guest.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UserPasswordPropagation {
    /// By the guest agent.
    pub qemu_guest_agent: Option<GuestAgentUserPasswordPropagation>,
}

/// By the guest agent; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct GuestAgentUserPasswordPropagation {}

/// Where passwords are.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct UserPasswordSource {
    /// In a Secret: user names as keys, passwords as values.
    pub secret: Option<AccessCredentialSecretSource>,
}

/// A Secret.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AccessCredentialSecretSource {
    /// Its name.
    pub secret_name: String,
}
