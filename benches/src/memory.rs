//! Memory beside the guest's own: what the process has resident, private and shared, less guest memory.

use std::fs;

use anyhow::{Context, ensure};

use crate::guest::{COMMANDS, Guest, with_patience};
use crate::report::Row;
use crate::setup::{MEMORY_MIB, Setup};
use crate::vmm::{Drive, Vmm};

/// Measures when the guest's drivers are loaded.
pub fn measure(setup: &Setup, runs: usize) -> anyhow::Result<Vec<Row>> {
    Ok(vec![beside("memory", setup, runs, &|| Ok(Drive::raw(&setup.disk)))?])
}

/// The same on a disk of its own for every machine, as the row `name`.
pub fn beside(
    name: &str,
    setup: &Setup,
    runs: usize,
    drive: &dyn Fn() -> anyhow::Result<Drive>,
) -> anyhow::Result<Row> {
    let vmms = [Vmm::Orlop, Vmm::QemuMicrovm];
    let mut mib = [const { Vec::new() }; 2];
    for _ in 0..runs {
        for (vmm, series) in vmms.into_iter().zip(&mut mib) {
            series.push(with_patience(|| {
                once(setup, vmm, drive()?).with_context(|| format!("memory of {}", vmm.name()))
            })?);
        }
    }
    let [ours, qemu] = &mib;
    Ok(Row::new(name, "MiB", ours, Vmm::QemuMicrovm.name(), qemu))
}

fn once(setup: &Setup, vmm: Vmm, drive: Drive) -> anyhow::Result<f64> {
    let mut guest = Guest::start(vmm.command_on(setup, None, drive)?)?;
    guest.wait_for(COMMANDS)?;
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", guest.process_id()))?;
    Ok(beside_guest_kib(&smaps, MEMORY_MIB << 10)? as f64 / 1024.0)
}

/// What is resident (`proc_pid_smaps(5)`: private and shared, clean and dirty) outside the mapping that holds the guest's
/// memory, which is the one of at least `guest_kib`.
fn beside_guest_kib(smaps: &str, guest_kib: u64) -> anyhow::Result<u64> {
    let (mut beside, mut guests) = (0, 0);
    for mapping in mappings(smaps) {
        if mapping.size_kib >= guest_kib {
            guests += 1;
            let slack = mapping.size_kib - guest_kib;
            ensure!(slack <= 4096, "the guest's memory is in a mapping {slack} KiB larger than it");
        } else {
            beside += mapping.resident_kib;
        }
    }
    ensure!(guests == 1, "{guests} mappings could be the guest's memory");
    Ok(beside)
}

struct Mapping {
    size_kib: u64,
    resident_kib: u64,
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(kib) = value.parse::<u64>() else { continue };
        match name {
            "Size:" => mappings.push(Mapping { size_kib: kib, resident_kib: 0 }),
            "Shared_Clean:" | "Shared_Dirty:" | "Private_Clean:" | "Private_Dirty:" => {
                if let Some(mapping) = mappings.last_mut() {
                    mapping.resident_kib += kib;
                }
            }
            _ => {}
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f00-7f10 rw-p 00000000 00:00 0
Size:             262144 kB
Rss:              100000 kB
Private_Dirty:    100000 kB
5500-5600 r-xp 00000000 08:01 77 /bin/x
Size:               1000 kB
Rss:                 700 kB
Shared_Clean:        400 kB
Private_Clean:       200 kB
Private_Dirty:       100 kB
";

    #[test]
    fn guest_memory_does_not_count() {
        assert_eq!(beside_guest_kib(SMAPS, 262_144).expect("one mapping is the guest's"), 700);
    }

    #[test]
    fn a_mapping_that_hides_more_than_guest_memory_is_an_error() {
        assert!(beside_guest_kib(SMAPS, 131_072).is_err());
        assert!(beside_guest_kib(SMAPS, 1 << 30).is_err());
    }
}
