//! What the VMM blames, in the manifest's words; pure.

use orlop_api::problem::Problem;

use super::{FileWant, RunPlan};

/// The fields of the VMM's configuration that come from one of the manifest's, the longer first.
const FIELDS: &[(&str, &str)] = &[
    ("boot.kernel.kernel", "spec.domain.firmware.kernelBoot.container.kernelPath"),
    ("boot.kernel.initramfs", "spec.domain.firmware.kernelBoot.container.initrdPath"),
    ("boot.kernel.cmdline", "spec.domain.firmware.kernelBoot.kernelArgs"),
    ("boot.firmware", "spec.domain.firmware.bootloader"),
    ("memory", "spec.domain.memory.guest"),
    ("cpus", "spec.domain.cpu"),
    ("smbios", "spec.domain.chassis"),
    ("uuid", "spec.domain.firmware.uuid"),
];

/// Advice of the VMM that helps nobody here: this program has no such option, and Linux needs paging.
const NOT_HERE: &str = ", or give --allow-software-kvm for guests without paging";

/// The manifest's field behind `field` of the VMM's configuration, where there is one: disks and cards are in the
/// manifest's order.
fn field(field: &str) -> Option<String> {
    for (list, path) in [("disks[", "disks["), ("nets[", "interfaces[")] {
        if let Some((number, _)) = field.strip_prefix(list).and_then(|rest| rest.split_once(']')) {
            return Some(format!("spec.domain.devices.{path}{number}]"));
        }
    }
    let known = FIELDS.iter().find(|(own, _)| field.starts_with(own));
    known.map(|(_, path)| (*path).to_owned())
}

/// The name by which people know the file that the VMM has as descriptor `name`.
fn file(want: &FileWant) -> Option<String> {
    match want {
        FileWant::Existing { path, .. }
        | FileWant::CreateIfAbsent { path, .. }
        | FileWant::CopyIfAbsent { path, .. } => Some(path.display().to_string()),
        FileWant::Inside { directory, path, .. } => Some(directory.join(path).display().to_string()),
        FileWant::ImageFile { image, path, .. } => Some(format!("{path} of {}", image.name)),
        FileWant::ImageDisk { image, .. } => Some(image.name.clone()),
        FileWant::Scratch { .. } | FileWant::Generated(_) => None,
    }
}

/// Why the VMM cannot start the machine of `plan`: the manifest's field, the file, and what is wrong.
pub fn explain(plan: &RunPlan, problem: &Problem) -> String {
    let mut detail = problem.detail.replace(NOT_HERE, "");
    for (name, want) in &plan.files {
        if let Some(file) = file(want) {
            detail = detail.replace(&format!("disk image {name} "), &format!("disk image {file} "));
            detail = detail.replace(&format!("disk image {name}:"), &format!("disk image {file}:"));
        }
    }
    let own = problem.field.as_deref().unwrap_or_default();
    if let Some(part) =
        own.strip_prefix("boot.kernel.").filter(|part| !detail.contains('/') && *part != "cmdline")
        && let Some(file) = plan.files.get(part).and_then(file)
    {
        detail = format!("{file}: {detail}");
    }
    match field(own) {
        Some(path) => format!("{path}: {detail}"),
        None if own.is_empty() => detail,
        None => format!("{own}: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use orlop_api::problem::Reason;

    use super::super::tests::{BOOT, plan_text, vmi};
    use super::*;

    #[test]
    fn blame_is_put_in_the_manifests_words() {
        let text = vmi(
            &BOOT.replace("devices: {}", "devices: {disks: [{name: root, disk: {bus: virtio}}]}"),
            "volumes: [{name: root, hostDisk: {path: /srv/root.raw, type: Disk}}]",
        );
        let plan = plan_text(&text).unwrap();
        let problem = |field: &str, detail: &str| {
            let problem = Problem::new(Reason::HostFailure, detail.to_owned());
            explain(&plan, &problem.with_field(field.to_owned()))
        };
        for (field, detail, expected) in [
            (
                "disks[0]",
                "disk image disk-root is empty",
                "spec.domain.devices.disks[0]: disk image /srv/root.raw is empty",
            ),
            ("nets[1].mtu", "no", "spec.domain.devices.interfaces[1]: no"),
            (
                "boot.kernel.kernel",
                "kernel is neither",
                "spec.domain.firmware.kernelBoot.container.kernelPath: /i/k: kernel is neither",
            ),
            ("memory.size_bytes", "too much", "spec.domain.memory.guest: too much"),
            ("serial.log", "no", "serial.log: no"),
            ("", "use the node, or give --allow-software-kvm for guests without paging", "use the node"),
        ] {
            assert_eq!(problem(field, detail), expected);
        }
    }
}
