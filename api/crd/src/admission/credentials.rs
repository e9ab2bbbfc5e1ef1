//! Credentials that are brought into the guest.

use super::cause::{Causes, Path};
use super::spec::MAX_LIST;
use crate::access::{SshPublicKeyAccessCredential, UserPasswordAccessCredential};
use crate::vmi::VirtualMachineInstanceSpec;

pub(super) fn check(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    if spec.access_credentials.len() > MAX_LIST {
        causes.invalid(at, format!("{at} list exceeds the {MAX_LIST} element limit in length"));
        return;
    }
    for (index, credential) in spec.access_credentials.iter().enumerate() {
        let at = at.index(index);
        if let Some(keys) = &credential.ssh_public_key {
            ssh(&at, keys, spec, causes);
        }
        if let Some(passwords) = &credential.user_password {
            password(&at, passwords, causes);
        }
        if credential.ssh_public_key.is_some() == credential.user_password.is_some() {
            causes.invalid(&at, format!("{at} must have exactly one access credential type set"));
        }
    }
}

fn ssh(
    at: &Path,
    keys: &SshPublicKeyAccessCredential,
    spec: &VirtualMachineInstanceSpec,
    causes: &mut Causes,
) {
    let method = at.child("sshPublicKey.propagationMethod");
    let ways = &keys.propagation_method;
    let has_no_cloud = spec.volumes.iter().any(|volume| volume.cloud_init_no_cloud.is_some());
    if ways.no_cloud.is_some() && !has_no_cloud {
        let message =
            format!("{at} requires a noCloud volume to exist when the noCloud propagationMethod is in use.");
        causes.invalid(&method, message);
    }
    let has_drive = spec.volumes.iter().any(|volume| volume.cloud_init_config_drive.is_some());
    if ways.config_drive.is_some() && !has_drive {
        let message = format!(
            "{at} requires a configDrive volume to exist when the configDrive propagationMethod is in use."
        );
        causes.invalid(&method, message);
    }
    if ways.qemu_guest_agent.as_ref().is_some_and(|agent| agent.users.is_empty()) {
        let message = format!("{at} requires at least one user to be present in the users list");
        causes.invalid(method.child("qemuGuestAgent.users"), message);
    }
    if keys.source.secret.is_none() {
        causes.invalid(at.child("sshPublicKey.source"), format!("{at} must have exactly one source set"));
    }
    let set = [ways.no_cloud.is_some(), ways.config_drive.is_some(), ways.qemu_guest_agent.is_some()];
    if set.iter().filter(|&&set| set).count() != 1 {
        causes.invalid(&method, format!("{at} must have exactly one propagationMethod set"));
    }
}

fn password(at: &Path, passwords: &UserPasswordAccessCredential, causes: &mut Causes) {
    if passwords.source.secret.is_none() {
        causes.invalid(at.child("userPassword.source"), format!("{at} must have exactly one source set"));
    }
    if passwords.propagation_method.qemu_guest_agent.is_none() {
        let message = format!("{at} must have exactly one propagationMethod set");
        causes.invalid(at.child("userPassword.propagationMethod"), message);
    }
}
