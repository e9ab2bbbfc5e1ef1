//! The guest's end of the I/O benchmarks: `bench-load DEVICE RUNS all|read` measures the block device, then serves the network.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, bail};
use orlop_benches::load::block::{Load, PATTERNS};
use orlop_benches::load::{DONE, DURATION, RESULT, net};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, runs, which] = arguments.as_slice() else {
        bail!("usage: bench-load DEVICE RUNS all|read");
    };
    let runs: usize = runs.parse().context("RUNS is not a number")?;
    for _ in 0..runs {
        for pattern in PATTERNS.into_iter().filter(|pattern| which == "all" || !pattern.write) {
            let rate = Load::open(Path::new(device), pattern)?.run(DURATION)?;
            println!("{RESULT}{} {rate:.2}", pattern.name);
        }
    }
    println!("{DONE}");
    net::serve(&TcpListener::bind(("0.0.0.0", net::PORT)).context("cannot listen")?)
}
