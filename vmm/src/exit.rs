//! The exit codes of `orlop-vmm`: a contract with whoever starts it.

/// The guest powered itself off.
pub const POWERED_OFF: u8 = 0;
/// The VMM failed: the message on standard error says what to do.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The configuration is wrong: the message names the field.
pub const BAD_CONFIG: u8 = 3;
/// There is no usable `/dev/kvm`: the message says why.
pub const NO_KVM: u8 = 4;
/// Something on the host that the configuration names is missing, locked or refused: a disk, a tap, memory.
pub const HOST: u8 = 5;
/// The guest asked for a reset and `--no-reboot` was given.
pub const GUEST_RESET: u8 = 10;
/// The guest triple-faulted.
pub const TRIPLE_FAULT: u8 = 11;
/// KVM could not run the guest on: an internal error, or an instruction that it cannot emulate.
pub const GUEST_FAULT: u8 = 12;
/// Told to stop at once, by the API or by a signal.
pub const KILLED: u8 = 20;
/// A thread made a system call that it may not make; standard error names both.
pub const FORBIDDEN_CALL: u8 = 31;

/// The codes as `--help` and the README show them.
pub const HELP: &str = "\
Exit codes:
   0  the guest powered off
   1  the VMM failed; the message says what to do
   2  wrong command line
   3  wrong configuration; the message names the field
   4  no usable /dev/kvm; the message says why
   5  a disk, tap, file or memory of the host is missing, locked or refused
  10  the guest asked for a reset and --no-reboot was given
  11  the guest triple-faulted
  12  KVM could not run the guest on
  20  stopped at once, by the API or a signal
  31  a thread made a system call that it may not make";
