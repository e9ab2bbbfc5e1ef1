//! Rules of disks and volumes.

use orlop_crd::admission::CauseType::{Invalid, NotFound, NotSupported, Required};
use serde_json::{Value, json};

use super::{Rule, rule};

pub fn disks() -> Vec<Rule> {
    let disk = "domain.devices.disks.0";
    vec![
        rule(
            [("domain.devices.disks.1", json!({ "name": "x", "disk": { "bus": "virtio" } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[1].name",
                "spec.domain.devices.disks[1].Name 'x' not found.",
            )],
        ),
        rule(
            [("domain.devices.disks.1", json!({ "name": "root", "disk": { "bus": "virtio" } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[1].name",
                "spec.domain.devices.disks[1] and spec.domain.devices.disks[0] must not have the same Name.",
            )],
        ),
        rule(
            [("domain.devices.disks.0.cdrom", json!({ "bus": "sata" }))],
            [(
                Invalid,
                "spec.domain.devices.disks[0]",
                "spec.domain.devices.disks[0] can only have a single target type defined",
            )],
        ),
        rule(
            [
                ("domain.devices.disks.0.bootOrder", json!(1)),
                ("domain.devices.interfaces.0.bootOrder", json!(1)),
            ],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].bootOrder",
                "Boot order for spec.domain.devices.interfaces[0].bootOrder already set for a different device.",
            )],
        ),
        rule(
            [("domain.devices.disks.0.bootOrder", json!(0))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].bootOrder",
                "spec.domain.devices.disks[0] must have a boot order > 0, if supplied",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.bootOrder", json!(0))],
            [(Invalid, "spec[0].bootOrder", "spec[0] must have a boot order > 0, if supplied")],
        ),
        rule(
            [("domain.devices.disks.0.disk.bus", json!("ide"))],
            [(Invalid, "spec.domain.devices.disks[0].disk.bus", "IDE bus is not supported")],
        ),
        rule(
            [("domain.devices.disks.0.disk.bus", json!("floppy"))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].disk.bus",
                "spec.domain.devices.disks[0] is set with an unrecognized bus floppy, must be one of: [virtio scsi sata usb]",
            )],
        ),
        rule(
            [(disk, json!({ "name": "root", "cdrom": { "bus": "virtio" } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].cdrom.bus",
                "Bus type virtio is invalid for CD-ROM device",
            )],
        ),
        rule(
            [(disk, json!({ "name": "root", "lun": { "bus": "scsi" } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].lun",
                "spec.domain.devices.disks[0].lun can only be mapped to a DataVolume or PersistentVolumeClaim volume.",
            )],
        ),
        rule(
            [(disk, json!({ "name": "root", "disk": { "bus": "sata", "readonly": true } }))],
            [(Invalid, "spec.domain.devices.disks[0].disk.bus", "sata hard-disks do not support read-only.")],
        ),
        rule(
            [(disk, json!({ "name": "root", "disk": { "bus": "sata" }, "dedicatedIOThread": true }))],
            [(
                NotSupported,
                "spec.domain.devices.disks.domain.devices.disks[0]",
                "IOThreads are not supported for disks on a sata bus",
            )],
        ),
        rule(
            [("domain.devices.disks.0.serial", json!("a b"))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].serial",
                "spec.domain.devices.disks[0] must be made up of the following characters [A-Za-z0-9_.+-], if specified",
            )],
        ),
        rule(
            [("domain.devices.disks.0.serial", json!("a".repeat(257)))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].serial",
                "spec.domain.devices.disks[0] must be less than or equal to 256 in length, if specified",
            )],
        ),
        rule(
            [("domain.devices.disks.0.cache", json!("x"))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].cache",
                "spec.domain.devices.disks[0].cache has invalid value x",
            )],
        ),
        rule(
            [("domain.devices.disks.0.io", json!("x"))],
            [(
                NotSupported,
                "spec.domain.devices.disks.domain.devices.disks[0].io",
                "Disk IO mode for spec.domain.devices.disks is not supported. Supported modes are: native, threads.",
            )],
        ),
        rule(
            [("domain.devices.disks.0.errorPolicy", json!("x"))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].errorPolicy",
                "spec.domain.devices.disks[0].errorPolicy has invalid value \"x\"",
            )],
        ),
        rule(
            [("domain.devices.disks.0.disk.pciAddress", json!("1"))],
            [(
                Invalid,
                "spec.domain.devices.disks.domain.devices.disks.disk[0].pciAddress",
                "disk spec.domain.devices.disks.domain.devices.disks.disk[0].name has malformed PCI address (1).",
            )],
        ),
        rule(
            [("domain.devices.disks.0.blockSize", json!({ "custom": { "logical": 513, "physical": 1024 } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].blockSize.custom.logical",
                "Provided size of 513 is not a power of 2",
            )],
        ),
        rule(
            [("domain.devices.disks.0.blockSize", json!({ "custom": { "logical": 256, "physical": 512 } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].blockSize.custom.logical",
                "Provided size of 256 is less than the supported minimum size of 512",
            )],
        ),
        rule(
            [(
                "domain.devices.disks.0.blockSize",
                json!({ "custom": { "logical": 512, "physical": 4_194_304 } }),
            )],
            [(
                Invalid,
                "spec.domain.devices.disks[0].blockSize.custom.physical",
                "Provided size of 4194304 is greater than the supported maximum size of 2097152",
            )],
        ),
        rule(
            [("domain.devices.disks.0.blockSize", json!({ "custom": { "logical": 1024, "physical": 512 } }))],
            [(
                Invalid,
                "spec.domain.devices.disks[0].blockSize.custom.logical",
                "Logical size 1024 must be the same or less than the physical size of 512",
            )],
        ),
        rule(
            [(
                "domain.devices.disks.0.blockSize",
                json!({ "custom": { "logical": 512, "physical": 512 }, "matchVolume": {} }),
            )],
            [(
                Invalid,
                "spec.domain.devices.disks[0].blockSize",
                "Block size matching can't be enabled together with a custom value",
            )],
        ),
    ]
}

pub fn volumes() -> Vec<Rule> {
    let seed = |source: Value| [("volumes.1", json!({ "name": "seed", "cloudInitNoCloud": source }))];
    let field = "spec.volumes[1].cloudInitNoCloud";
    vec![
        rule(
            [("volumes.0", json!({ "name": "root" }))],
            [(Invalid, "spec.volumes[0]", "spec.volumes[0] must have exactly one source type set")],
        ),
        rule(
            [("volumes.0.emptyDisk", json!({ "capacity": "1Gi" }))],
            [(Invalid, "spec.volumes[0]", "spec.volumes[0] must have exactly one source type set")],
        ),
        rule(
            [("volumes.1", json!({ "name": "root", "emptyDisk": { "capacity": "1Gi" } }))],
            [(
                Invalid,
                "spec.volumes[1].name",
                "spec.volumes[1] and spec.volumes[0] must not have the same Name.",
            )],
        ),
        rule(
            seed(json!({ "userData": "x".repeat(2049) })),
            [(
                Invalid,
                field,
                "spec.volumes[1].cloudInitNoCloud userdata exceeds 2048 byte limit. Should use UserDataSecretRef for larger data.",
            )],
        ),
        rule(
            seed(json!({ "userData": "x", "networkData": "x".repeat(2049) })),
            [(
                Invalid,
                field,
                "spec.volumes[1].cloudInitNoCloud networkdata exceeds 2048 byte limit. Should use NetworkDataSecretRef for larger data.",
            )],
        ),
        rule(
            seed(json!({ "userDataBase64": "?" })),
            [(
                Invalid,
                "spec.volumes[1].cloudInitNoCloud.userDataBase64",
                "spec.volumes[1].cloudInitNoCloud.userDataBase64.cloudInitNoCloud.userDataBase64 is not a valid base64 value.",
            )],
        ),
        rule(
            seed(json!({ "userData": "a", "userDataBase64": "YQ==" })),
            [(Invalid, field, "spec.volumes[1].cloudInitNoCloud must have only one userdatasource set.")],
        ),
        rule(
            seed(json!({})),
            [(
                Invalid,
                field,
                "spec.volumes[1].cloudInitNoCloud must have at least one userdatasource or one networkdatasource set.",
            )],
        ),
        rule(
            [("volumes.0.containerDisk.path", json!("/"))],
            [(
                Invalid,
                "spec.volumes[0].containerDisk",
                "spec.volumes[0].containerDisk must not point to root",
            )],
        ),
        rule(
            [("volumes.0.containerDisk.path", json!("/disk/../x"))],
            [(
                Invalid,
                "spec.volumes[0].containerDisk",
                "spec.volumes[0].containerDisk must be an absolute path to a file without relative components",
            )],
        ),
        rule(
            [("volumes.0", json!({ "name": "root", "hostDisk": { "path": "", "type": "Disk" } }))],
            [(
                NotFound,
                "spec.volumes[0].hostDisk.path",
                "spec.volumes[0].hostDisk.path is required for hostDisk volume",
            )],
        ),
        rule(
            [("volumes.0", json!({ "name": "root", "hostDisk": { "path": "/x", "type": "x" } }))],
            [(
                Invalid,
                "spec.volumes[0].hostDisk.type",
                "spec.volumes[0].hostDisk.type has invalid value 'x', allowed are 'Disk' or 'DiskOrCreate'",
            )],
        ),
        rule(
            [(
                "volumes.0",
                json!({ "name": "root", "hostDisk": { "path": "/x", "type": "Disk", "capacity": "1Gi" } }),
            )],
            [(
                Invalid,
                "spec.volumes[0].hostDisk.capacity",
                "spec.volumes[0].hostDisk.capacity is allowed to pass only with spec.volumes[0].hostDisk.type equal to 'DiskOrCreate'",
            )],
        ),
        rule(
            [("volumes.0", json!({ "name": "root", "dataVolume": { "name": "" } }))],
            [(Required, "spec.volumes[0].name", "DataVolume 'name' must be set")],
        ),
        rule(
            [("volumes.0", json!({ "name": "root", "configMap": {} }))],
            [(
                Invalid,
                "spec.volumes[0].configMap.name",
                "spec.volumes[0].configMap.name is a required field",
            )],
        ),
        rule(
            [("volumes.0", json!({ "name": "root", "secret": {} }))],
            [(
                Invalid,
                "spec.volumes[0].secret.secretName",
                "spec.volumes[0].secret.secretName is a required field",
            )],
        ),
        rule(
            [("volumes.0", json!({ "name": "root", "downwardMetrics": {} }))],
            [(
                Invalid,
                "spec.volumes[0]",
                "downwardMetrics disks are not allowed: DownwardMetrics feature gate is not enabled.",
            )],
        ),
    ]
}
