//! Exit codes of this program.

/// The run failed on this machine: no KVM, a file that is missing, a network that cannot be made.
pub const FAILED: u8 = 1;
/// The command line or the manifest is wrong.
pub const USAGE: u8 = 2;
/// The VMM was killed by a signal.
pub const KILLED: u8 = 137;

/// For `--help`.
pub const HELP: &str = "\
Exit codes:
  0    the guest powered off
  1    this machine refuses: no KVM, a file or network that cannot be had
  2    the command line or the manifest is wrong
  3-31 the machine ended otherwise, as orlop-vmm --help says; 20: it was ended without having powered off
  137  the VMM was killed by a signal";
