//! `cargo xtask image`: the guests that tests, samples and benchmarks boot.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use orlop_nested::images::{self, Image};

/// Build the guest images, or one of them, and say where they are
///
/// They are made of Debian packages, once, and cached outside the checkout. Without a name all are built, and the path
/// of the directory with all of their files is printed; --list names them. A disk there must not be written to: copy it
/// first (cp --sparse=always), or put an overlay on it.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask image                 build all, print their directory
  cargo xtask image debian          build one, print its files
  cargo xtask image --list")]
pub struct Arguments {
    /// One that --list names
    name: Option<String>,

    /// Say which images there are
    #[arg(long, conflicts_with = "name")]
    list: bool,
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for image in Image::ALL {
            println!("{:11} {}\n            {}", image.name(), image.purpose(), image.files().join(" "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(name) = &arguments.name else {
        println!("{}", images::directory()?.display());
        return Ok(ExitCode::SUCCESS);
    };
    let Some(image) = Image::ALL.into_iter().find(|image| image.name() == name) else {
        let names = Image::ALL.map(Image::name).join(", ");
        bail!("no image is called {name}; there are: {names}");
    };
    let directory = image.build()?;
    for file in image.files() {
        println!("{}", directory.join(file).display());
    }
    Ok(ExitCode::SUCCESS)
}
