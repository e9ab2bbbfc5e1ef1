//! The one helper for everything that a developer of Orlop does.

mod command;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that a developer of Orlop does, in one place.
///
/// Nothing needs to be installed beforehand but Debian 12 or newer and the Rust toolchain: what a command needs it fetches
/// from Debian's archive, once, into a cache outside the checkout ($ORLOP_CACHE, else ~/.cache/orlop).
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(command::demo::Arguments),
    Test(command::test::Arguments),
    Node(command::node::Arguments),
    Cluster(command::cluster::Arguments),
    Image(command::image::Arguments),
    Bench(command::bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => command::demo::run(&arguments),
        Command::Test(arguments) => command::test::run(&arguments),
        Command::Node(arguments) => command::node::run(&arguments),
        Command::Cluster(arguments) => command::cluster::run(&arguments),
        Command::Image(arguments) => command::image::run(&arguments),
        Command::Bench(arguments) => command::bench::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("orlop: {e:#}");
            ExitCode::FAILURE
        }
    }
}
