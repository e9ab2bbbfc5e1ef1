//! What this machine can do by itself.

use std::path::{Path, PathBuf};

/// Whether guests can run directly on this machine: the processor has SVM or VMX, `/dev/kvm` is there, and it is not
/// the software KVM (`kvm_pvm`) that answers every ioctl but boots no stock kernel.
#[must_use]
pub fn has_hardware_kvm() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Path::new("/dev/kvm").exists()
        && !Path::new("/sys/module/kvm_pvm").exists()
        && has_virtualisation_flag(&cpuinfo)
}

fn has_virtualisation_flag(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "svm" || flag == "vmx")
}

/// The root of the checkout that this crate was built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target directory for that checkout.
#[must_use]
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => checkout().join(dir),
        None => checkout().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_flag_counts_as_virtualisation() {
        assert!(has_virtualisation_flag("flags\t\t: fpu svm lm"));
        assert!(has_virtualisation_flag("flags\t\t: vmx"));
        assert!(!has_virtualisation_flag("flags\t\t: svm_lock fpu\nbugs: svm"));
    }
}
