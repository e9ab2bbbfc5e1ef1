//! Block and network, against QEMU with io_uring on an I/O thread and with vhost-net: the same guest, disk and tap.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::guest::{Guest, with_patience};
use crate::load::net::{self, Direction};
use crate::load::{DONE, DURATION, RESULT};
use crate::report::Row;
use crate::setup::{GUEST_ADDRESS, Setup};
use crate::vmm::{Drive, Vmm};

/// Series by name.
type Series = BTreeMap<String, Vec<f64>>;

/// What is measured, its unit, and how many of what was counted make one of it.
const UNITS: [(&str, &str, f64); 7] = [
    ("block-randread-4k", "IOPS", 1.0),
    ("block-randwrite-4k", "IOPS", 1.0),
    ("block-seqread-1m", "MiB/s", 1.0),
    ("block-seqwrite-1m", "MiB/s", 1.0),
    ("net-rx", "MiB/s", 1048576.0),
    ("net-tx", "MiB/s", 1048576.0),
    ("net-rr", "1/s", 1.0),
];

const DIRECTIONS: [(&str, Direction); 3] =
    [("net-rx", Direction::Rx), ("net-tx", Direction::Tx), ("net-rr", Direction::Echo)];

/// What is measured of a machine in one boot.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    block: bool,
    net: bool,
}

/// Measures what `wanted` says, by name: in every round each machine boots anew and is measured once, so that a drift of the
/// host hits all alike.
pub fn measure(setup: &Setup, runs: usize, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<Row>> {
    let wanted = Wanted { block: wanted("block"), net: wanted("net") };
    let (mut ours, mut qemu) = (Series::new(), Series::new());
    for _ in 0..runs {
        for (vmm, series) in [(Vmm::Orlop, &mut ours), (Vmm::QemuQ35, &mut qemu)] {
            let found = with_patience(|| {
                once(setup, vmm, wanted).with_context(|| format!("I/O under {}", vmm.name()))
            });
            for (name, value) in found? {
                series.entry(name).or_default().push(value);
            }
        }
    }
    let row = |(name, unit, divisor): (&str, &str, f64)| {
        let scaled = |series: &Series| -> Option<Vec<f64>> {
            Some(series.get(name)?.iter().map(|value| value / divisor).collect())
        };
        Some(Row::new(name, unit, &scaled(&ours)?, Vmm::QemuQ35.name(), &scaled(&qemu)?))
    };
    Ok(UNITS.into_iter().filter_map(row).collect())
}

fn once(setup: &Setup, vmm: Vmm, wanted: Wanted) -> anyhow::Result<Vec<(String, f64)>> {
    let block_runs = u8::from(wanted.block);
    let script = format!(
        "ip address add {GUEST_ADDRESS}/24 dev eth0; ip link set eth0 up; bench-load /dev/vda {block_runs} all"
    );
    let mut guest = Guest::start(vmm.command(setup, Some(&script))?)?;
    guest.wait_for(DONE)?;
    let mut found = results(guest.said());
    if wanted.net {
        for (name, direction) in DIRECTIONS {
            let rate = net::drive(GUEST_ADDRESS, direction, DURATION).context(name)?;
            found.push((name.to_owned(), rate));
        }
    }
    Ok(found)
}

/// Measures the block device alone on `drive`, with the patterns that `which` names: `all`, or those that `read`.
pub fn block(setup: &Setup, vmm: Vmm, drive: Drive, which: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let script = format!("bench-load /dev/vda 1 {which}");
    let mut guest = Guest::start(vmm.command_on(setup, Some(&script), drive)?)?;
    guest.wait_for(DONE)?;
    Ok(results(guest.said()))
}

/// The results among what a guest said.
fn results(said: &str) -> Vec<(String, f64)> {
    let parsed = said.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix(RESULT)?.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_among_what_a_guest_says() {
        let said = "orlop-init: ready\r\nbench: block-seqread-1m 12.50\r\nnoise\r\nbench: block-seqread-1m 13\r\nbench: done\r\n";
        assert_eq!(
            results(said),
            [("block-seqread-1m".to_owned(), 12.5), ("block-seqread-1m".to_owned(), 13.0)]
        );
    }
}
