//! Options of disks, as a guest sees them: errors of the host by policy, sector sizes, caches, sharing, growing, drives
//! without a medium.

use std::path::{Path, PathBuf};

use orlop_api::config::{BlockSize, CdromConfig, DiskBus, DiskIo, ErrorPolicy, FileSource, ImageFormat};
use orlop_api::control::{DiskSize, Medium};
use orlop_api::event::EventKind;
use orlop_api::problem::Reason;
use orlop_api::state::VmState;
use orlop_kit::{Guest, KernelKind, Vm, host, scratch};

const BUSES: [(DiskBus, &str); 3] =
    [(DiskBus::Virtio, "on-virtio"), (DiskBus::Scsi, "on-scsi"), (DiskBus::Sata, "on-sata")];

async fn sparse(file: &Path, size: &str) {
    host(&format!("truncate -s {size} {}", file.display())).await;
}

/// Takes a mount away when dropped.
struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        // The VMM may still hold it; it goes with the VMM then.
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

/// A small file system of the host's, which can be filled and given room again.
struct Small(PathBuf);

impl Small {
    async fn mount(vm: &mut Vm, size: &str) -> Self {
        let place = vm.file("small");
        host(&format!("mkdir {0}; mount -t tmpfs -o size={size} tmpfs {0}", place.display())).await;
        vm.keep(Unmount(place.display().to_string()));
        Self(place)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    async fn fill(&self) {
        host(&format!("dd if=/dev/zero of={}/filler bs=64k 2>/dev/null || true", self.0.display())).await;
    }

    async fn make_room(&self) {
        host(&format!("rm {}/filler", self.0.display())).await;
    }
}

/// What the guest calls the SCSI disk whose name in the machine is `id`, which is its serial number as well.
async fn name_of(vm: &mut Vm, id: &str) -> String {
    if id == "on-virtio" {
        return "vda".to_owned();
    }
    vm.run(&format!("for d in /sys/block/sd*; do grep -q {id} $d/device/vpd_pg80 && basename $d; done; true"))
        .await
}

/// A guest with a disk on each bus, called like the bus, on files that `file` names.
fn three(file: impl Fn(&str) -> PathBuf) -> Guest {
    BUSES.iter().fold(Guest::linux(KernelKind::BzImage), |guest, (bus, id)| {
        guest.disk_on(*bus, id, file(id)).with(|config| {
            config.disks.last_mut().expect("it was just added").serial = Some((*id).to_owned());
        })
    })
}

#[tokio::test]
async fn a_full_host_pauses_the_machine_and_the_write_goes_on_with_it() {
    let mut vm = Vm::process(&[]).await;
    let small = Small::mount(&mut vm, "40M").await;
    for (_, id) in BUSES {
        sparse(&small.file(id), "16M").await;
    }
    let guest = three(|id| small.file(id)).with(|config| {
        config.disks[0].error_policy = ErrorPolicy::Stop;
        config.disks[1].error_policy = ErrorPolicy::StopWhenFull;
        config.disks[2].error_policy = ErrorPolicy::Stop;
    });
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    vm.run("head -c 4m /dev/urandom >/run/data").await;
    let written = vm.run("sha256sum </run/data").await;
    let mut last = 0;
    for (_, id) in BUSES {
        let disk = name_of(&mut vm, id).await;
        small.fill().await;
        vm.console().send(&format!("dd if=/run/data of=/dev/{disk} bs=1M conv=fsync 2>/dev/null\n")).await;
        let stopped = vm
            .wait_event(|event| {
                event.seq > last && matches!(&event.what, EventKind::DiskError { device, .. } if device == id)
            })
            .await;
        let EventKind::DiskError { detail, .. } = &stopped.what else { unreachable!("it was asked for") };
        assert!(detail.starts_with("write at byte ") && detail.contains("No space left"), "{detail}");
        last = vm.wait_event(|event| event.seq > stopped.seq && event.what == EventKind::Paused).await.seq;
        assert_eq!(vm.client.info().await.expect("an answer").state, VmState::Paused);
        // Without room it is stopped again.
        vm.client.resume().await.expect("it can be tried");
        let again = vm.wait_event(|event| event.seq > last && event.what == EventKind::Paused).await;
        small.make_room().await;
        vm.client.resume().await.expect("there is room");
        // The command that was stopped ends, and well.
        vm.expect("orlop-init: exit 0").await;
        last = again.seq;
        let file = small.file(id);
        assert_eq!(host(&format!("head -c 4m {} | sha256sum", file.display())).await, written);
        assert_eq!(vm.counter(id, "write_errors").await, 0, "the guest was told of an error");
    }
}

#[tokio::test]
async fn a_machine_that_is_reset_while_a_write_is_held_starts_afresh() {
    let mut vm = Vm::process(&[]).await;
    let small = Small::mount(&mut vm, "40M").await;
    for (_, id) in BUSES {
        sparse(&small.file(id), "16M").await;
    }
    let guest = three(|id| small.file(id))
        .with(|config| config.disks.iter_mut().for_each(|disk| disk.error_policy = ErrorPolicy::Stop));
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    let mut last = 0;
    for (_, id) in BUSES {
        let disk = name_of(&mut vm, id).await;
        small.fill().await;
        vm.console().send(&format!("dd if=/dev/urandom of=/dev/{disk} bs=1M count=4 conv=fsync\n")).await;
        last = vm.wait_event(|event| event.seq > last && event.what == EventKind::Paused).await.seq;
        vm.client.reset().await.expect("a paused machine can be reset");
        small.make_room().await;
        vm.client.resume().await.expect("it goes on");
        vm.expect("orlop-init: commands").await;
        let disk = name_of(&mut vm, id).await;
        vm.run(&format!("dd if=/dev/zero of=/dev/{disk} bs=1M count=4 conv=fsync 2>/dev/null")).await;
    }
}

#[tokio::test]
async fn errors_are_reported_or_passed_over_as_the_policy_says() {
    let mut vm = Vm::process(&[]).await;
    let small = Small::mount(&mut vm, "16M").await;
    for name in ["report", "ignore"] {
        sparse(&small.file(name), "16M").await;
    }
    let guest = Guest::linux(KernelKind::BzImage)
        .disk("report", small.file("report"))
        .disk("ignore", small.file("ignore"))
        .with(|config| config.disks[1].error_policy = ErrorPolicy::Ignore);
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    small.fill().await;
    let write =
        |disk: &str| format!("dd if=/dev/urandom of=/dev/{disk} bs=1M count=2 conv=fsync 2>/dev/null");
    assert_ne!(vm.try_run(&write("vda")).await.1, 0, "the error was not reported");
    assert_eq!(vm.try_run(&write("vdb")).await.1, 0, "the error was not passed over");
    assert!(vm.counter("report", "write_errors").await > 0);
    assert_eq!(vm.counter("ignore", "write_errors").await, 0);
    assert_eq!(vm.client.info().await.expect("an answer").state, VmState::Running);
}

#[tokio::test]
async fn sector_sizes_are_those_that_were_asked_for() {
    let mut vm = Vm::process(&[]).await;
    let custom = |logical_bytes, physical_bytes, discard_bytes| {
        Some(BlockSize::Custom { logical_bytes, physical_bytes, discard_bytes })
    };
    for (_, id) in BUSES {
        sparse(&vm.file(id), "16777728").await;
    }
    sparse(&vm.file("storage"), "16M").await;
    let storage = host(&format!("stat -c %o {}", vm.file("storage").display())).await;
    let guest = three(|id| vm.file(id)).disk("storage", vm.file("storage")).with(|config| {
        config.disks[0].block_size = custom(4096, 8192, Some(65536));
        config.disks[1].block_size = custom(4096, 4096, None);
        config.disks[2].block_size = custom(512, 4096, None);
        config.disks[3].block_size = Some(BlockSize::Storage {});
    });
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    let storage: u32 = storage.parse().expect("a number");
    for (id, logical, physical, sectors) in [
        ("on-virtio", 4096, 8192, 32768),
        ("on-scsi", 4096, 4096, 32768),
        ("on-sata", 512, 4096, 32769),
        ("storage", storage.min(4096), storage, 32768),
    ] {
        let disk = if id == "storage" { "vdb".to_owned() } else { name_of(&mut vm, id).await };
        let seen = vm
            .run(&format!(
                "cd /sys/block/{disk}; echo $(cat queue/logical_block_size queue/physical_block_size size); cd /"
            ))
            .await;
        assert_eq!(seen, format!("{logical} {physical} {sectors}"), "{id}");
        vm.run(&format!(
            "dd if=/dev/urandom of=/run/data bs=64k count=16 2>/dev/null; dd if=/run/data of=/dev/{disk} bs=64k seek=1 \
             conv=fsync 2>/dev/null"
        ))
        .await;
        let seen = vm.run("sha256sum </run/data").await;
        let read = format!("dd if={} bs=64k skip=1 count=16 2>/dev/null | sha256sum", vm.file(id).display());
        assert_eq!(host(&read).await, seen, "{id}");
    }
    assert_eq!(vm.run("cat /sys/block/vda/queue/discard_granularity").await, "65536");
}

#[tokio::test]
async fn a_disk_without_a_write_cache_makes_each_write_durable() {
    let mut vm = Vm::process(&[]).await;
    for (_, id) in BUSES {
        sparse(&vm.file(id), "16M").await;
    }
    let guest = three(|id| vm.file(id)).with(|config| {
        config.disks.iter_mut().for_each(|disk| disk.write_through = true);
        // The other way to the host as well: a system call for each request.
        config.disks[0].io = DiskIo::Synchronous;
    });
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    for (_, id) in BUSES {
        let disk = name_of(&mut vm, id).await;
        assert_eq!(
            vm.run(&format!("cat /sys/block/{disk}/queue/write_cache")).await,
            "write through",
            "{id}"
        );
        vm.run(&format!("dd if=/dev/urandom of=/dev/{disk} bs=64k count=4 conv=fsync 2>/dev/null")).await;
        assert!(vm.counter(id, "write_bytes").await >= 256 << 10);
        // There is nothing for the guest to flush: the host makes each write durable by itself.
        assert_eq!(vm.counter(id, "flush_requests").await, 0, "{id}: the guest thinks that there is a cache");
    }
}

#[tokio::test]
async fn machines_that_share_a_disk_see_each_others_writes_and_nobody_else_gets_in() {
    let directory = tempfile::tempdir_in(scratch()).expect("a directory");
    let image = directory.path().join("shared.raw");
    sparse(&image, "16M").await;
    let named = |name: &str, shared: bool| {
        let name = name.to_owned();
        Guest::linux(KernelKind::BzImage).disk("disk", &image).with(move |config| {
            config.name = name;
            config.disks[0].shared = shared;
        })
    };
    let mut first = Vm::shell(&named("first", true)).await;
    let mut second = Vm::shell(&named("second", true)).await;
    first.run("echo from-the-first | dd of=/dev/vda conv=sync,fsync 2>/dev/null").await;
    assert_eq!(second.run("head -c 14 /dev/vda").await, "from-the-first");
    second.run("echo from-the-second | dd of=/dev/vda seek=8 conv=sync,fsync 2>/dev/null").await;
    assert_eq!(first.run("dd if=/dev/vda skip=8 count=1 2>/dev/null | head -c 15").await, "from-the-second");
    let third = Vm::process(&[]).await;
    let alone = named("third", false);
    let reader = alone.clone().with(|config| config.disks[0].read_only = true);
    for guest in [&alone, &reader] {
        let refused = third.client.create(&guest.config, false).await.expect_err("others write to it");
        let problem = refused.problem().expect("a problem").clone();
        assert_eq!(problem.field.as_deref(), Some("disks[0]"));
        assert!(
            problem.detail.contains("'first'") && problem.detail.contains("'second'"),
            "{}",
            problem.detail
        );
    }
    drop((first.kill().await, second.kill().await));
    third.client.create(&alone.config, false).await.expect("nobody has it any more");
    let fourth = Vm::process(&[]).await;
    let refused =
        fourth.client.create(&named("fourth", true).config, false).await.expect_err("it has a writer");
    let problem = refused.problem().expect("a problem").clone();
    assert!(problem.detail.contains("in use by 'third', which does not share it"), "{}", problem.detail);
    // Only raw images: what qcow2 says of itself has one writer.
    for format in [ImageFormat::Qcow2, ImageFormat::Detect] {
        let guest = named("fourth", true).with(|config| config.disks[0].format = format);
        let refused = fourth.client.create(&guest.config, false).await.expect_err("qcow2 is not shared");
        let problem = refused.problem().expect("a problem").clone();
        assert_eq!((problem.reason, problem.field.as_deref()), (Reason::Invalid, Some("disks[0].shared")));
    }
}

/// A drive that is empty at power-on takes a medium.
async fn an_empty_drive_takes_a_medium_on(bus: DiskBus) {
    let directory = tempfile::tempdir_in(scratch()).expect("a directory");
    let medium = directory.path().join("medium.iso");
    let path = medium.display().to_string();
    host(&format!(
        "t=$(mktemp -d {path}.XXXXXX) && echo medium >$t/data && xorriso -as mkisofs -quiet -R -V ORLOP -o {path} $t && rm \
         -r $t"
    ))
    .await;
    let starter = ["sh", "-c", "exec 7<\"$0\"; exec \"$@\"", &path];
    let mut vm = Vm::process_in(directory, &starter, &["--fd", "medium=7"]).await;
    let guest = Guest::linux(KernelKind::BzImage).cdrom_on(bus, "cd", "/none").with(|config| {
        config.disks[0].source = None;
        config.disks[0].cdrom = Some(CdromConfig::default());
    });
    vm.start(&guest).await;
    vm.expect("orlop-init: commands").await;
    assert_ne!(vm.try_run("dd if=/dev/sr0 of=/dev/null bs=2k count=1").await.1, 0, "there is nothing in it");
    vm.client.insert("cd", &Medium { fd: "medium".into() }).await.expect("it takes a medium");
    let read = "mount -r -t iso9660 /dev/sr0 /mnt && cat /mnt/data; umount /mnt";
    assert_eq!(vm.run(read).await, "medium");
}

#[tokio::test]
async fn an_empty_drive_takes_a_medium_on_scsi() {
    an_empty_drive_takes_a_medium_on(DiskBus::Scsi).await;
}

#[tokio::test]
async fn an_empty_drive_takes_a_medium_on_sata() {
    an_empty_drive_takes_a_medium_on(DiskBus::Sata).await;
}

#[tokio::test]
async fn disks_on_scsi_and_sata_grow() {
    let mut vm = Vm::process(&[]).await;
    for id in ["on-scsi", "on-sata"] {
        sparse(&vm.file(id), "16M").await;
    }
    let guest = [(DiskBus::Scsi, "on-scsi"), (DiskBus::Sata, "on-sata")]
        .into_iter()
        .fold(Guest::linux(KernelKind::BzImage), |guest, (bus, id)| guest.disk_on(bus, id, vm.file(id)));
    let serials = |config: &mut orlop_api::config::VmConfig| {
        config.disks.iter_mut().for_each(|disk| disk.serial = Some(disk.id.clone()));
    };
    vm.start(&guest.with(serials)).await;
    vm.expect("orlop-init: commands").await;
    let larger = DiskSize { size_bytes: 48 << 20 };
    // SCSI tells it with the next command; the guest looks again when it is asked to.
    let scsi = name_of(&mut vm, "on-scsi").await;
    vm.client.set_size("on-scsi", larger).await.expect("it grows");
    vm.run(&format!(
        "until [ $(cat /sys/block/{scsi}/size) = 98304 ]; do echo 1 >/sys/block/{scsi}/device/rescan; done"
    ))
    .await;
    vm.run(&format!("echo end | dd of=/dev/{scsi} bs=4k seek=12287 conv=sync,fsync 2>/dev/null")).await;
    // ATA has no word for it: the size is another one after a reset.
    vm.client.set_size("on-sata", larger).await.expect("it grows");
    let sata = name_of(&mut vm, "on-sata").await;
    assert_eq!(vm.run(&format!("cat /sys/block/{sata}/size")).await, "32768");
    vm.client.reset().await.expect("it runs");
    vm.expect("orlop-init: commands").await;
    let sata = name_of(&mut vm, "on-sata").await;
    assert_eq!(vm.run(&format!("cat /sys/block/{sata}/size")).await, "98304");
    vm.run(&format!("echo end | dd of=/dev/{sata} bs=4k seek=12287 conv=sync,fsync 2>/dev/null")).await;
    for id in ["on-scsi", "on-sata"] {
        assert_eq!(host(&format!("tail -c 4096 {} | head -c 3", vm.file(id).display())).await, "end");
    }
}

#[tokio::test]
async fn a_block_device_is_a_logical_unit() {
    let mut vm = Vm::process(&[]).await;
    let file = vm.file("backing");
    sparse(&file, "16M").await;
    let device = host(&format!("modprobe loop; losetup --find --show {}", file.display())).await;
    vm.keep(Detach(device.clone()));
    vm.start(&Guest::linux(KernelKind::BzImage).disk_on(DiskBus::Scsi, "lun", &device)).await;
    vm.expect("orlop-init: commands").await;
    let seen = vm
        .run("dd if=/dev/urandom of=/run/data bs=1M count=4 2>/dev/null; dd if=/run/data of=/dev/sda bs=1M conv=fsync \
              2>/dev/null; sha256sum </run/data")
        .await;
    assert_eq!(host(&format!("sync {device}; head -c 4m {device} | sha256sum")).await, seen);
}

/// Gives a loop device back when dropped.
struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        // In use, it goes when the VMM does.
        let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[tokio::test]
async fn options_that_do_not_fit_are_refused_by_field() {
    let vm = Vm::process(&[]).await;
    let image = vm.file("disk.raw");
    sparse(&image, "1M").await;
    type Change = fn(&mut orlop_api::config::DiskConfig);
    let cases: [(&str, Change); 6] = [
        ("disks[0].source", |disk| disk.source = None),
        ("disks[0].block_size.custom.logical_bytes", |disk| {
            disk.block_size =
                Some(BlockSize::Custom { logical_bytes: 8192, physical_bytes: 8192, discard_bytes: None });
        }),
        ("disks[0].block_size.custom.physical_bytes", |disk| {
            disk.block_size =
                Some(BlockSize::Custom { logical_bytes: 4096, physical_bytes: 512, discard_bytes: None });
        }),
        ("disks[0].block_size.custom.discard_bytes", |disk| {
            disk.block_size = Some(BlockSize::Custom {
                logical_bytes: 4096,
                physical_bytes: 4096,
                discard_bytes: Some(512),
            });
        }),
        ("disks[0].shared", |disk| {
            disk.shared = true;
            disk.overlay = Some(FileSource::Path("/overlay".into()));
        }),
        ("disks[0].error_policy", |disk| {
            (disk.bus, disk.cdrom) = (DiskBus::Sata, Some(CdromConfig::default()));
            disk.error_policy = ErrorPolicy::Stop;
        }),
    ];
    for (field, change) in cases {
        let guest = Guest::linux(KernelKind::BzImage)
            .disk("disk", &image)
            .with(|config| change(&mut config.disks[0]));
        let refused = vm.client.create(&guest.config, false).await.expect_err("it does not fit");
        let problem = refused.problem().expect("a problem").clone();
        assert_eq!((problem.reason, problem.field.as_deref()), (Reason::Invalid, Some(field)));
    }
}
