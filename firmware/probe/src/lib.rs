//! The probe: a guest of some kilobytes that programs devices as no honest driver would, and reports on the serial port.
//!
//! The command line says what it does: `probe=NAME,NAME,…`, see [`TESTS`]. Each result is a line, `probe: ok NAME` or
//! `probe: fail NAME: reason`; the last line is `probe: done` with the number of failures. Then the guest powers the
//! machine off through ACPI.
//!
//! It runs without interrupts, on the first processor alone, with memory mapped to itself.
#![cfg_attr(not(test), no_std)]

pub mod acpi;
pub mod blk;
pub mod exits;
pub mod hostile;
pub mod machine;
pub mod memory;
pub mod pci;
pub mod ports;
pub mod serial;
pub mod start_info;
pub mod virtio;

use core::panic::PanicInfo;

use machine::{Exception, Machine};
use serial::say;

/// Why a test failed.
pub type Failure = &'static str;

/// A test: what the command line calls it, and what it does.
pub struct Test {
    /// Name on the command line and in the report.
    pub name: &'static str,
    /// What it does; called with the machine in any state that another test left behind.
    pub run: fn(&mut Machine) -> Result<(), Failure>,
}

/// What the probe can do.
pub const TESTS: &[Test] = &[
    Test { name: "memory", run: memory::check },
    Test { name: "pci-list", run: pci::list },
    Test { name: "exits", run: exits::measure },
    Test { name: "blk", run: blk::check_all },
    Test { name: "hostile-ports", run: hostile::ports::run },
    Test { name: "hostile-pci", run: hostile::config::run },
    Test { name: "hostile-registers", run: hostile::registers::run },
    Test { name: "hostile-msix", run: hostile::msix::run },
    Test { name: "hostile-queues", run: hostile::queues::run },
    Test { name: "hostile-blk", run: hostile::requests::run },
];

/// Does what the command line says and powers the machine off.
pub fn run(mut machine: Machine) -> ! {
    say!("start");
    let mut failures = 0;
    let command_line = machine.command_line();
    for name in commands(command_line.as_str()) {
        let mut known = false;
        for test in TESTS.iter().filter(|test| selects(name, test.name)) {
            known = true;
            match (test.run)(&mut machine) {
                Ok(()) => say!("ok {}", test.name),
                Err(reason) => {
                    failures += 1;
                    say!("fail {}: {reason}", test.name);
                }
            }
        }
        match name {
            "reset" => machine.reset(),
            "panic" => machine.report_panic(),
            "triple-fault" => ports::triple_fault(),
            "hang" => ports::halt_forever(),
            _ if known => {}
            _ => {
                failures += 1;
                say!("fail {name}: there is no such test");
            }
        }
    }
    say!("done {failures}");
    machine.power_off()
}

/// Whether `name` on the command line means `test`: by its name, or `hostile-all` and `all` for many.
fn selects(name: &str, test: &str) -> bool {
    match name {
        "all" => true,
        "hostile-all" => test.starts_with("hostile-"),
        _ => name == test,
    }
}

/// The names in every `probe=NAME,NAME,…` of a command line.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("probe="))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
}

/// An exception is a failure of the probe itself, or of whoever runs it.
pub fn exception(exception: Exception) -> ! {
    let Exception { number, code, rip } = exception;
    say!("fail exception {number} code {code:#x} at {rip:#x}");
    ports::triple_fault()
}

/// A panic is a failure of the probe itself.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    say!("fail panic: {info}");
    ports::triple_fault()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_tests() {
        let line = "console=ttyS0 probe=memory,pci-list  quiet probe=,exits";
        assert_eq!(commands(line).collect::<Vec<_>>(), ["memory", "pci-list", "exits"]);
        assert_eq!(commands("quiet").count(), 0);
    }

    #[test]
    fn one_name_can_mean_many_tests() {
        assert!(selects("memory", "memory"));
        assert!(!selects("memory", "exits"));
        assert!(TESTS.iter().all(|t| selects("all", t.name)));
        assert_eq!(TESTS.iter().filter(|t| selects("hostile-all", t.name)).count(), 6);
    }
}
