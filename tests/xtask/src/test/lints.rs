//! Format and lints.

use super::cargo;
use super::tally::Tally;

/// `cargo fmt --check` and `cargo clippy -D warnings`, each of which counts as one test.
pub fn run() -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    for arguments in [
        ["fmt", "--all", "--check"].as_slice(),
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"],
    ] {
        let passed = cargo().args(arguments).status()?.success();
        println!("cargo {} … {}", arguments.join(" "), if passed { "ok" } else { "FAILED" });
        tally += Tally::one(passed);
    }
    Ok(tally)
}
