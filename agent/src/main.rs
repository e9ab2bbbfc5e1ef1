//! `orlop-agent`: carries out VirtualMachineInstances on this machine.

fn main() -> std::process::ExitCode {
    orlop_agent::main()
}
