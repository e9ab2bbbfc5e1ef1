//! Exits from the guest to the VMM during boot, by reason. They repeat from run to run and from machine to machine, so the
//! number is kept in the repository, and a rise has to be explained by whoever causes it.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::guest::{Guest, READY, with_patience};
use crate::report::{Row, median};
use crate::setup::Setup;
use crate::vmm::{Vmm, api_socket};

/// The numbers that are kept.
const KEPT: &str = include_str!("../exits.json");

/// How much more than what is kept is no rise yet: 5 %.
const TOLERANCE: f64 = 1.05;

/// Exits by reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exits(pub BTreeMap<String, f64>);

impl Exits {
    fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// The median for every reason that occurred in any of `runs`.
    fn median(runs: &[Self]) -> Self {
        let reasons: std::collections::BTreeSet<&String> = runs.iter().flat_map(|run| run.0.keys()).collect();
        let of = |reason: &String| {
            let counts: Vec<f64> = runs.iter().map(|run| run.0.get(reason).copied().unwrap_or(0.0)).collect();
            (reason.clone(), median(&counts))
        };
        Self(reasons.into_iter().map(of).collect())
    }
}

/// What was found: the row, the exits by reason, and the comparison with what is kept.
pub struct Found {
    /// Ours beside bare KVM's.
    pub row: Row,
    /// Our medians by reason.
    pub exits: Exits,
    /// The rise that has to be explained.
    pub rise: Option<String>,
}

/// Measures up to the first line of init.
pub fn measure(setup: &Setup, runs: usize) -> anyhow::Result<Found> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(with_patience(|| count(setup)).context("exits of ours")?);
        bare.push(with_patience(|| count_bare(setup)).context("exits of bare KVM")?);
    }
    let totals: Vec<f64> = ours.iter().map(Exits::total).collect();
    let exits = Exits::median(&ours);
    let kept = serde_json::from_str(KEPT).context("benches/exits.json is not as it should be")?;
    let rise = rise(&exits, &kept);
    Ok(Found { row: Row::new("exits", "exits", &totals, Vmm::BareKvm.name(), &bare), exits, rise })
}

fn count(setup: &Setup) -> anyhow::Result<Exits> {
    let mut guest = Guest::start(Vmm::Orlop.command(setup, None)?)?;
    guest.wait_for(READY)?;
    let client = orlop_client::Client::new(api_socket(setup));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let vcpus = runtime.block_on(client.vcpus())?;
    let mut exits = Exits::default();
    for (reason, count) in vcpus.into_iter().flat_map(|vcpu| vcpu.exits) {
        *exits.0.entry(reason).or_default() += count as f64;
    }
    Ok(exits)
}

fn count_bare(setup: &Setup) -> anyhow::Result<f64> {
    let mut guest = Guest::start(Vmm::BareKvm.command(setup, None)?)?;
    guest.wait_for(" exits\n")?;
    let line =
        guest.said().lines().rev().find_map(|line| line.strip_prefix("bare-kvm: ")?.strip_suffix(" exits"));
    line.and_then(|count| count.parse().ok()).with_context(|| format!("bare-kvm said: {}", guest.said()))
}

/// What rose, by reason, where the total rose beyond the tolerance.
fn rise(now: &Exits, kept: &Exits) -> Option<String> {
    if now.total() <= kept.total() * TOLERANCE {
        return None;
    }
    let mut text = format!("exits during boot rose from {:.0} to {:.0}:", kept.total(), now.total());
    for (reason, count) in &now.0 {
        let before = kept.0.get(reason).copied().unwrap_or(0.0);
        if *count > before {
            text.push_str(&format!("\n  {reason}: {before:.0} to {count:.0}"));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(counts: &[(&str, f64)]) -> Exits {
        Exits(counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect())
    }

    #[test]
    fn a_rise_names_its_reasons() {
        let kept = exits(&[("io_in", 100.0), ("mmio_read", 100.0)]);
        let now = exits(&[("io_in", 90.0), ("mmio_read", 150.0), ("hlt", 3.0)]);
        let text = rise(&now, &kept).expect("it rose");
        assert!(text.contains("mmio_read: 100 to 150") && text.contains("hlt: 0 to 3"), "{text}");
        assert!(!text.contains("io_in"), "{text}");
    }

    #[test]
    fn noise_is_no_rise() {
        let kept = exits(&[("io_in", 100.0)]);
        assert_eq!(rise(&exits(&[("io_in", 104.0)]), &kept), None);
    }

    #[test]
    fn what_is_kept_can_be_read() {
        let kept: Exits = serde_json::from_str(KEPT).expect("the file in the repository");
        assert!(kept.total() > 0.0);
    }
}
