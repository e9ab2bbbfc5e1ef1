//! `orlop-vmm`: one process, one virtual machine, directly on KVM.

fn main() -> std::process::ExitCode {
    orlop_vmm::cli::main()
}
