//! Task management functions (virtio 1.3 §5.6.6.2, SAM-5 §7). Pure: what a function waits for and what it answers.

/// The function is done.
pub(crate) const COMPLETE: u8 = 0;
/// There is no such target (`VIRTIO_SCSI_S_BAD_TARGET`).
pub(crate) const BAD_TARGET: u8 = 3;
/// The function found what it asked about.
pub(crate) const SUCCEEDED: u8 = 10;
/// The function is not known.
pub(crate) const REJECTED: u8 = 11;
/// There is a target, but no such unit.
pub(crate) const INCORRECT_LUN: u8 = 12;

/// What a function leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This answer, now.
    Answer(u8),
    /// [`COMPLETE`], as soon as nothing of the target is in flight; then the unit is reset if `reset` says so.
    WhenIdle { reset: bool },
}

/// What is in flight on the target that a function is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// Anything at all.
    pub(crate) any: bool,
    /// The command that the function names.
    pub(crate) named: bool,
}

/// What `function` leads to. A command in flight cannot be called back, so that aborting it means to wait for its end.
pub(crate) fn outcome(function: u32, in_flight: InFlight) -> Outcome {
    match function {
        // ABORT TASK
        0 if in_flight.named => Outcome::WhenIdle { reset: false },
        // CLEAR ACA
        0 | 2 => Outcome::Answer(COMPLETE),
        // ABORT TASK SET, CLEAR TASK SET
        1 | 3 => Outcome::WhenIdle { reset: false },
        // I_T NEXUS RESET, LOGICAL UNIT RESET
        4 | 5 => Outcome::WhenIdle { reset: true },
        // QUERY TASK, QUERY TASK SET
        6 => Outcome::Answer(if in_flight.named { SUCCEEDED } else { COMPLETE }),
        7 => Outcome::Answer(if in_flight.any { SUCCEEDED } else { COMPLETE }),
        _ => Outcome::Answer(REJECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_waits_only_for_what_is_in_flight() {
        let idle = InFlight { any: false, named: false };
        let busy = InFlight { any: true, named: true };
        assert_eq!(outcome(0, idle), Outcome::Answer(COMPLETE));
        assert_eq!(outcome(0, busy), Outcome::WhenIdle { reset: false });
        assert_eq!(outcome(5, idle), Outcome::WhenIdle { reset: true });
        assert_eq!(
            (outcome(6, idle), outcome(6, busy)),
            (Outcome::Answer(COMPLETE), Outcome::Answer(SUCCEEDED))
        );
        assert_eq!(outcome(8, busy), Outcome::Answer(REJECTED));
        assert_eq!(outcome(u32::MAX, busy), Outcome::Answer(REJECTED));
    }
}
