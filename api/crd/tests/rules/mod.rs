//! The rules as data: what is changed in a spec that keeps them all, and what is said then.

mod compute;
mod kept;
mod machines;
mod networks;
mod pod;
mod storage;

use orlop_crd::admission::CauseType;
use serde_json::Value;

pub use kept::narrowly;
pub use machines::machine;

/// One broken rule.
pub struct Rule {
    /// Paths and new values.
    pub changes: Changes,
    /// What is expected: reason, field, message.
    pub causes: Vec<(CauseType, &'static str, &'static str)>,
}

pub type Changes = Vec<(&'static str, Value)>;

fn rule<const N: usize, const M: usize>(
    changes: [(&'static str, Value); N],
    causes: [(CauseType, &'static str, &'static str); M],
) -> Rule {
    Rule { changes: changes.into(), causes: causes.into() }
}

/// Rules of an instance.
pub fn instance() -> Vec<Rule> {
    let rules = [
        storage::disks(),
        storage::volumes(),
        networks::networks(),
        compute::memory(),
        compute::processors(),
        compute::machine_rules(),
        compute::platform(),
        pod::pod(),
    ];
    rules.into_iter().flatten().collect()
}
