//! Block and network, against QEMU with io_uring on an I/O thread and with vhost-net: the same guest, disk and tap.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::guest::Guest;
use crate::load::net::{self, Direction};
use crate::load::{DONE, DURATION, RESULT};
use crate::report::Row;
use crate::setup::{GUEST_ADDRESS, Setup};
use crate::vmm::Vmm;

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

/// Measures what `wanted` says, by name; one boot per machine.
pub fn measure(setup: &Setup, runs: usize, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<Row>> {
    let block_runs = if wanted("block") { runs } else { 0 };
    let net_runs = if wanted("net") { runs } else { 0 };
    let of = |vmm: Vmm| {
        once(setup, vmm, block_runs, net_runs).with_context(|| format!("I/O under {}", vmm.name()))
    };
    let (ours, qemu) = (of(Vmm::Orlop)?, of(Vmm::QemuQ35)?);
    let row = |(name, unit, divisor): (&str, &str, f64)| {
        let scaled = |series: &Series| -> Option<Vec<f64>> {
            Some(series.get(name)?.iter().map(|value| value / divisor).collect())
        };
        Some(Row::new(name, unit, &scaled(&ours)?, Vmm::QemuQ35.name(), &scaled(&qemu)?))
    };
    Ok(UNITS.into_iter().filter_map(row).collect())
}

fn once(setup: &Setup, vmm: Vmm, block_runs: usize, net_runs: usize) -> anyhow::Result<Series> {
    let script = format!(
        "ip address add {GUEST_ADDRESS}/24 dev eth0; ip link set eth0 up; bench-load /dev/vda {block_runs}"
    );
    let mut guest = Guest::start(vmm.command(setup, Some(&script))?)?;
    guest.wait_for(DONE)?;
    let mut series = results(guest.said());
    for _ in 0..net_runs {
        let directions = [("net-rx", Direction::Rx), ("net-tx", Direction::Tx), ("net-rr", Direction::Echo)];
        for (name, direction) in directions {
            let rate = net::drive(GUEST_ADDRESS, direction, DURATION).context(name)?;
            series.entry(name.to_owned()).or_default().push(rate);
        }
    }
    Ok(series)
}

/// The results among what a guest said.
fn results(said: &str) -> Series {
    let mut series = Series::new();
    for line in said.lines() {
        let Some((name, value)) = line.strip_prefix(RESULT).and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        if let Ok(value) = value.trim().parse() {
            series.entry(name.to_owned()).or_default().push(value);
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_among_what_a_guest_says() {
        let said = "orlop-init: ready\r\nbench: block-seqread-1m 12.50\r\nnoise\r\nbench: block-seqread-1m 13\r\nbench: done\r\n";
        assert_eq!(results(said), Series::from([("block-seqread-1m".to_owned(), vec![12.5, 13.0])]));
    }
}
