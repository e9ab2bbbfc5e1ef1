//! Runs the benchmarks where it is: in a node, started by `cargo xtask bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use orlop_benches::setup::Setup;
use orlop_benches::{boot, exits, firmware, formats, io, memory, plot, report, start};

/// The names that may be asked for.
const NAMES: [&str; 8] = ["start", "boot", "firmware", "memory", "exits", "block", "formats", "net"];

/// Measures Orlop beside QEMU and bare KVM.
#[derive(Debug, Parser)]
#[command(name = "orlop-bench")]
struct Arguments {
    /// What to measure: start, boot, firmware, memory, exits, block, formats, net; everything when none is named.
    names: Vec<String>,
    /// How often each is measured; medians are shown.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the results go: results.json, table.md, exits.json, ratios.png.
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { names, runs, out } = Arguments::parse();
    for name in &names {
        ensure!(NAMES.contains(&name.as_str()), "there is no benchmark '{name}', but: {}", NAMES.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let setup = Setup::new()?;
    let mut rows = Vec::new();
    let mut rise = None;
    if wanted("start") {
        eprintln!("process start to the API's first answer …");
        rows.extend(start::measure(&setup, runs)?);
    }
    if wanted("boot") {
        eprintln!("process start to the first line of init …");
        rows.extend(boot::measure(&setup, runs)?);
    }
    if wanted("firmware") {
        eprintln!("process start to boot loader and prompt by stock firmware …");
        rows.extend(firmware::measure(&setup, runs)?);
    }
    if wanted("memory") {
        eprintln!("memory beside the guest's …");
        rows.extend(memory::measure(&setup, runs)?);
    }
    if wanted("exits") {
        eprintln!("exits during boot …");
        let found = exits::measure(&setup, runs)?;
        rows.push(found.row);
        rise = found.rise;
        std::fs::write(out.join("exits.json"), serde_json::to_string_pretty(&found.exits)? + "\n")?;
    }
    if wanted("block") || wanted("net") {
        eprintln!("disk and network …");
        rows.extend(io::measure(&setup, runs, &wanted)?);
    }
    if wanted("formats") {
        eprintln!("image formats …");
        rows.extend(formats::measure(&setup, runs)?);
    }
    let table = report::table(&rows);
    print!("{table}");
    std::fs::write(out.join("table.md"), &table)?;
    std::fs::write(out.join("results.json"), serde_json::to_string_pretty(&rows)? + "\n")?;
    plot::ratios(&rows, "ours by theirs; the line is the peer", &out.join("ratios.png"))?;
    if let Some(rise) = rise {
        eprintln!("{rise}\nexplain it and keep the new number: cargo xtask bench exits --keep");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
