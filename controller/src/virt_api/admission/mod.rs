//! Which objects are looked at, and the way of one through: decode, look up what it refers to, decide, answer.

mod decide;
mod lookup;
mod review;

use std::sync::Arc;

use kube::Client;

use self::lookup::{LookupError, Referred};
use self::review::{Answer, Request, Review, ReviewError};
use super::site::Settings;

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Fill in what nobody said.
    Mutate,
    /// Say whether it may be.
    Validate,
}

/// Kinds of object, as far as deciding goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VirtualMachine.
    Machine,
    /// VirtualMachineInstance.
    Instance,
    /// VirtualMachineInstanceReplicaSet.
    ReplicaSet,
    /// VirtualMachineInstancePreset.
    Preset,
    /// VirtualMachineInstanceMigration.
    Migration,
    /// Instance types of a namespace and of the cluster.
    Instancetype,
    /// Preferences of a namespace and of the cluster.
    Preference,
}

/// A webhook: when the API server asks, and under which path.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique within its configuration; messages to users name it.
    pub name: &'static str,
    /// KubeVirt's path.
    pub path: &'static str,
    /// What is done.
    pub task: Task,
    /// With what.
    pub kind: Kind,
    /// API group.
    pub group: &'static str,
    /// Its versions.
    pub versions: &'static [&'static str],
    /// CREATE, UPDATE.
    pub operations: &'static [&'static str],
    /// Resources, with their subresources.
    pub resources: &'static [&'static str],
}

const KUBEVIRT: &str = "kubevirt.io";
const KUBEVIRT_VERSIONS: &[&str] = &["v1alpha3", "v1"];
const INSTANCETYPE: &str = "instancetype.kubevirt.io";
const INSTANCETYPE_VERSIONS: &[&str] = &["v1beta1"];
const WRITE: &[&str] = &["CREATE", "UPDATE"];

/// A rule for kubevirt.io.
const fn rule(
    name: &'static str,
    path: &'static str,
    (task, kind): (Task, Kind),
    operations: &'static [&'static str],
    resources: &'static [&'static str],
) -> Rule {
    Rule { name, path, task, kind, group: KUBEVIRT, versions: KUBEVIRT_VERSIONS, operations, resources }
}

/// A rule that validates what is in instancetype.kubevirt.io.
const fn beta(
    name: &'static str,
    path: &'static str,
    kind: Kind,
    resources: &'static [&'static str],
) -> Rule {
    let (group, versions) = (INSTANCETYPE, INSTANCETYPE_VERSIONS);
    Rule { name, path, task: Task::Validate, kind, group, versions, operations: WRITE, resources }
}

/// All webhooks, by KubeVirt's names and paths.
pub static RULES: &[Rule] = &[
    rule(
        "virtualmachines-mutator.kubevirt.io",
        "/virtualmachines-mutate",
        (Task::Mutate, Kind::Machine),
        WRITE,
        &["virtualmachines", "virtualmachines/status"],
    ),
    rule(
        "virtualmachineinstances-mutator.kubevirt.io",
        "/virtualmachineinstances-mutate",
        (Task::Mutate, Kind::Instance),
        WRITE,
        &["virtualmachineinstances"],
    ),
    rule(
        "migrations-mutator.kubevirt.io",
        "/migration-mutate-create",
        (Task::Mutate, Kind::Migration),
        &["CREATE"],
        &["virtualmachineinstancemigrations"],
    ),
    rule(
        "virtualmachine-validator.kubevirt.io",
        "/virtualmachines-validate",
        (Task::Validate, Kind::Machine),
        WRITE,
        &["virtualmachines"],
    ),
    rule(
        "virtualmachineinstances-create-validator.kubevirt.io",
        "/virtualmachineinstances-validate-create",
        (Task::Validate, Kind::Instance),
        &["CREATE"],
        &["virtualmachineinstances"],
    ),
    rule(
        "virtualmachineinstances-update-validator.kubevirt.io",
        "/virtualmachineinstances-validate-update",
        (Task::Validate, Kind::Instance),
        &["UPDATE"],
        &["virtualmachineinstances"],
    ),
    rule(
        "virtualmachinereplicaset-validator.kubevirt.io",
        "/virtualmachinereplicaset-validate",
        (Task::Validate, Kind::ReplicaSet),
        WRITE,
        &["virtualmachineinstancereplicasets"],
    ),
    rule(
        "virtualmachinepreset-validator.kubevirt.io",
        "/vmipreset-validate",
        (Task::Validate, Kind::Preset),
        WRITE,
        &["virtualmachineinstancepresets"],
    ),
    rule(
        "migration-create-validator.kubevirt.io",
        "/migration-validate-create",
        (Task::Validate, Kind::Migration),
        &["CREATE"],
        &["virtualmachineinstancemigrations"],
    ),
    rule(
        "migration-update-validator.kubevirt.io",
        "/migration-validate-update",
        (Task::Validate, Kind::Migration),
        &["UPDATE"],
        &["virtualmachineinstancemigrations"],
    ),
    beta(
        "virtualmachineinstancetype-validator.instancetype.kubevirt.io",
        "/virtualmachineinstancetypes-validate",
        Kind::Instancetype,
        &["virtualmachineinstancetypes"],
    ),
    beta(
        "virtualmachineclusterinstancetype-validator.instancetype.kubevirt.io",
        "/virtualmachineclusterinstancetypes-validate",
        Kind::Instancetype,
        &["virtualmachineclusterinstancetypes"],
    ),
    beta(
        "virtualmachinepreference-validator.instancetype.kubevirt.io",
        "/virtualmachinepreferences-validate",
        Kind::Preference,
        &["virtualmachinepreferences"],
    ),
    beta(
        "virtualmachineclusterpreference-validator.instancetype.kubevirt.io",
        "/virtualmachineclusterpreferences-validate",
        Kind::Preference,
        &["virtualmachineclusterpreferences"],
    ),
];

/// Answers the API server's questions.
pub struct Admission {
    client: Client,
    site: Settings,
}

impl Admission {
    /// Answers by the settings of `site`; `client` reads what objects refer to.
    pub fn new(client: Client, site: Settings) -> Self {
        Self { client, site }
    }

    /// The answer to one question. An error is one of the asking, not of the object.
    pub async fn review(&self, rule: &Rule, body: &[u8]) -> Result<Review, ReviewError> {
        let request = Review::request(body)?;
        let answer = self.answer(rule, &request).await;
        Ok(Review::response(request.uid, &request.object, answer))
    }

    async fn answer(&self, rule: &Rule, request: &Request) -> Answer {
        let site = Arc::clone(&self.site.borrow());
        let referred = match self.look_up(rule, request).await {
            Ok(referred) => referred,
            Err(LookupError::Refused(cause)) => return Answer::Refused(vec![cause]),
            Err(LookupError::Asking(error)) => {
                tracing::warn!("{}: cannot look up what an object refers to: {error}", rule.name);
                return Answer::Failed(error.to_string());
            }
        };
        decide::decide(rule, request, &referred, &site)
    }

    /// Reads what deciding needs beyond the object.
    async fn look_up(&self, rule: &Rule, request: &Request) -> Result<Referred, LookupError> {
        if request.is_deleted() || !request.sub_resource.is_empty() {
            return Ok(Referred::default());
        }
        match (rule.kind, rule.task) {
            (Kind::Machine, Task::Mutate) => lookup::inferred(&self.client, request).await,
            (Kind::Machine, Task::Validate) => lookup::instancetype(&self.client, request).await,
            (Kind::Migration, Task::Validate) => lookup::migration(&self.client, request).await,
            (Kind::Instance, Task::Mutate) => lookup::presets(&self.client, request).await,
            _ => Ok(Referred::default()),
        }
    }
}
