//! Which system calls a thread of each kind may make, with what arguments where that is cheap to check.
//!
//! Tables of plain data; what is not in one is forbidden. `ioctl` is allowed request by request, memory is never made
//! executable, signals go to this process alone.

mod tables;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::ThreadKind;
use tables::{Allowed, KVM_FIRST};

/// The filter of `kind` as the kernel takes it; `otherwise` is what a forbidden call leads to.
pub fn program(kind: ThreadKind, otherwise: SeccompAction) -> Result<BpfProgram, seccompiler::Error> {
    let filter = SeccompFilter::new(rules(kind)?, otherwise, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

/// Rules by number of the call; a call without rules is allowed with any arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(kind: ThreadKind) -> Result<Rules, seccompiler::Error> {
    let Allowed { calls, requests, commands } = tables::of(kind);
    let mut rules: Rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    let not_executable = condition(2, SeccompCmpOp::MaskedEq(executable), 0)?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![not_executable.clone()])?]);
    }
    let here = condition(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![here])?]);
    rules.insert(libc::SYS_fcntl, any_of(commands.iter())?);
    // What is asked for most often is looked at first.
    let ordered =
        requests.iter().filter(|r| **r == KVM_FIRST).chain(requests.iter().filter(|r| **r != KVM_FIRST));
    rules.insert(libc::SYS_ioctl, any_of(ordered)?);
    Ok(rules)
}

/// A rule for each value that the second argument may have.
fn any_of<'a>(values: impl Iterator<Item = &'a u64>) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    values.map(|value| Ok(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, *value)?])?)).collect()
}

/// A condition on the lower half of argument `index`: the kernel takes ints and flags from there.
fn condition(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?)
}

#[cfg(test)]
mod tests {
    use super::super::kind::KINDS;
    use super::*;

    #[test]
    fn every_kind_has_a_filter_that_compiles() {
        for (kind, name) in KINDS {
            let program = program(kind, SeccompAction::Trap).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(program.len() < 1000, "{name}: {} instructions", program.len());
        }
    }

    #[test]
    fn nobody_may_open_files_start_programs_or_threads() {
        let forbidden = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_kill,
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_memfd_create,
            libc::SYS_io_uring_setup,
        ];
        for (kind, name) in KINDS {
            let rules = rules(kind).unwrap();
            for call in forbidden {
                assert!(!rules.contains_key(&call), "{name} may make call {call}");
            }
        }
    }
}
