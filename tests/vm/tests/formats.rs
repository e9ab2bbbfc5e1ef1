//! Image formats under real guests, with `qemu-img` as the judge of what is left.

use std::path::{Path, PathBuf};

use orlop_api::config::{FileSource, ImageConfig, ImageFormat};
use orlop_api::control::DiskSize;
use orlop_api::event::EventKind;
use orlop_api::problem::Reason;
use orlop_disk::kit::Exercise;
use orlop_disk::{Chain, Disk, EngineKind, Format, Image, Options, Source};
use orlop_kit::{Guest, KernelKind, Vm, host, path, scratch};

/// What `qemu-img` says in a word: whole, with clusters that are lost, or corrupt.
async fn judged(image: &Path) -> String {
    let check = format!(
        "qemu-img check -q -f qcow2 {}; case $? in 0) echo whole;; 3) echo leaks;; *) echo corrupt;; esac",
        image.display()
    );
    host(&format!("{{ {check}; }} 2>/dev/null")).await
}

/// A new qcow2 image, made by `qemu-img create` with these `arguments` behind the name.
async fn created(image: &Path, arguments: &str) {
    host(&format!("qemu-img create -q -f qcow2 {} {arguments}", image.display())).await;
}

fn qcow2(guest: Guest, image: &Path) -> Guest {
    guest.disk("disk0", image).with(|config| {
        if let Some(disk) = config.disks.last_mut() {
            disk.format = ImageFormat::Qcow2;
        }
    })
}

async fn shell(guest: &Guest) -> Vm {
    let mut vm = Vm::process(&[]).await;
    vm.start(guest).await;
    vm.expect("orlop-init: commands").await;
    vm
}

async fn powered_off(mut vm: Vm) {
    vm.console().send("poweroff -f\n").await;
    assert_eq!(vm.exit().await.code, Some(0));
}

/// Random operations on `chain`, whose disk reads as `raw` does; then `qemu-img` compares the two.
async fn exercise(images: &[(&Path, Format)], raw: &Path, seed: u64) {
    let model = std::fs::read(raw).expect("the raw disk");
    let chain = images
        .iter()
        .map(|(path, format)| Image { source: Source::Path(path.to_path_buf()), format: Some(*format) });
    let chain =
        Chain { images: chain.collect(), overlay: None, options: Options::default(), holder: "test".into() };
    let disk = Disk::open_chain(chain).expect("an image that qemu-img made");
    let mut exercise = Exercise::new(disk, model, EngineKind::Auto, seed);
    exercise.compare();
    (0..100).for_each(|_| exercise.round());
    exercise.compare();
    std::fs::write(raw, &exercise.model).expect("room for it");
    drop(exercise);
    let (image, _) = images.first().expect("an image");
    assert_eq!(judged(image).await, "whole", "{}", image.display());
    host(&format!("qemu-img compare -q -f qcow2 -F raw {} {}", image.display(), raw.display())).await;
}

#[tokio::test]
async fn qemu_img_agrees_on_images_of_every_shape_that_it_makes() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let (raw, image) = (place.path().join("raw"), place.path().join("image"));
    for (seed, shape) in (1..).zip([
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=4k,compat=0.10",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "preallocation=metadata",
        "preallocation=full,cluster_size=8k",
        "lazy_refcounts=on",
    ]) {
        host(&format!("rm -f {0} {1}; truncate -s 7M {0}", raw.display(), image.display())).await;
        created(&image, &format!("7M -o {shape}")).await;
        exercise(&[(&image, Format::Qcow2)], &raw, seed).await;
        exercise(&[(&image, Format::Qcow2)], &raw, seed + 100).await;
    }
}

#[tokio::test]
async fn qemu_img_agrees_on_compressed_images_with_snapshots_and_overlays() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let file = |name: &str| place.path().join(name);
    let (raw, base, image) = (file("raw"), file("base"), file("image"));
    // Half of it can be compressed, a quarter is zeroes.
    host(&format!(
        "{{ seq 1 400000 | head -c 2m; head -c 1m /dev/urandom; head -c 1m /dev/zero; }} >{}",
        base.display()
    ))
    .await;
    for (seed, options) in (1..).zip(["", "-o compression_type=zstd", "-o cluster_size=4k"]) {
        let convert =
            format!("qemu-img convert -c -f raw -O qcow2 {options} {} {}", base.display(), image.display());
        host(&format!("{convert}; cp {} {}", base.display(), raw.display())).await;
        host(&format!("qemu-img snapshot -c before {}", image.display())).await;
        exercise(&[(&image, Format::Qcow2)], &raw, seed).await;
        // The snapshot is what it was.
        let old = file("old");
        let revert =
            format!("qemu-img convert -l before -f qcow2 -O raw {} {}", image.display(), old.display());
        host(&format!("{revert} && cmp {} {}", old.display(), base.display())).await;
    }
    for (seed, compat) in (10..).zip(["1.1", "0.10"]) {
        host(&format!("rm {0}; cp {1} {2}", image.display(), base.display(), raw.display())).await;
        created(&image, &format!("-o compat={compat} -F raw -b {}", base.display())).await;
        exercise(&[(&image, Format::Qcow2), (&base, Format::Raw)], &raw, seed).await;
    }
}

#[tokio::test]
async fn a_file_system_in_a_qcow2_image_is_whole_on_the_host() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let image = place.path().join("disk.qcow2");
    created(&image, "256M").await;
    let mut vm = shell(&qcow2(Guest::linux(KernelKind::BzImage), &image)).await;
    let tools = vm.try_run("mke2fs -q /dev/vda && mount /dev/vda /mnt").await;
    assert_eq!(tools.1, 0, "{}", tools.0);
    let seen = vm
        .run("head -c 24m /dev/urandom >/mnt/data && for i in $(seq 50); do mkdir /mnt/d$i; echo $i >/mnt/d$i/f; done \
              && sync && echo 3 >/proc/sys/vm/drop_caches && sha256sum </mnt/data")
        .await;
    vm.run("umount /mnt").await;
    powered_off(vm).await;
    assert_eq!(judged(&image).await, "whole");
    let raw = place.path().join("raw");
    host(&format!("qemu-img convert -f qcow2 -O raw {} {}", image.display(), raw.display())).await;
    host(&format!("/sbin/e2fsck -fn {}", raw.display())).await;
    assert_eq!(
        host(&format!("/sbin/debugfs -R 'cat /data' {} 2>/dev/null | sha256sum", raw.display())).await,
        seen
    );
}

#[tokio::test]
async fn two_machines_share_a_base_and_each_has_its_own_writes() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let file = |name: &str| place.path().join(name);
    let base = file("base");
    host(&format!("seq 1 2000000 | head -c 8m >{}", base.display())).await;
    let before = host(&format!("sha256sum <{}", base.display())).await;
    let guest = |overlay: &PathBuf| {
        let overlay = path(overlay);
        Guest::linux(KernelKind::BzImage).disk("disk0", &base).with(move |config| {
            if let Some(disk) = config.disks.last_mut() {
                disk.overlay = Some(overlay);
            }
        })
    };
    let overlays = [file("one"), file("two")];
    let mut first = shell(&guest(&overlays[0])).await;
    let mut second = shell(&guest(&overlays[1])).await;
    for (vm, byte) in [(&mut first, "1"), (&mut second, "2")] {
        let write = format!(
            "yes {byte} | head -c 100k | dd of=/dev/vda bs=1k seek=1001 conv=notrunc,fsync 2>/dev/null"
        );
        vm.run(&write).await;
        assert_eq!(vm.run("dd if=/dev/vda bs=1k skip=1001 count=1 2>/dev/null | head -n 1").await, byte);
        assert_eq!(vm.run("head -n 3 /dev/vda | tail -n 1").await, "3");
    }
    powered_off(first).await;
    powered_off(second).await;
    assert_eq!(host(&format!("sha256sum <{}", base.display())).await, before);
    for overlay in &overlays {
        assert_eq!(judged(overlay).await, "whole");
        // An overlay of ours is one for others as well: 100 KiB of it differ from its base.
        let compared =
            format!("qemu-img compare -f qcow2 -F raw {} {}; true", overlay.display(), base.display());
        assert!(host(&compared).await.contains("mismatch at offset 1025024"), "the overlay finds its base");
        let kib: u64 =
            host(&format!("du -k {} | cut -f1", overlay.display())).await.parse().expect("a number");
        assert!(kib < 1024, "the overlay takes {kib} KiB");
    }
}

#[tokio::test]
async fn what_was_flushed_into_a_qcow2_image_survives_a_killed_vmm() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let image = place.path().join("disk.qcow2");
    for round in 0..3 {
        host(&format!("rm -f {}", image.display())).await;
        created(&image, if round == 1 { "64M -o cluster_size=4k" } else { "64M" }).await;
        let mut vm = shell(&qcow2(Guest::linux(KernelKind::BzImage), &image)).await;
        // A second writer keeps clusters coming while the first one says what is safe.
        vm.console().send("(while :; do dd if=/dev/urandom of=/dev/vda bs=64k seek=512 count=500 2>/dev/null; done) &\n").await;
        let count = 20 + round * 7;
        let write = "i=0; while :; do i=$((i+1)); printf '%08d' $i | dd of=/dev/vda bs=4k seek=$((i*5)) conv=sync,fsync \
                     2>/dev/null && echo \"safe <$i>\"; done";
        vm.console().send(&format!("{write}\n")).await;
        vm.expect(&format!("safe <{count}>")).await;
        let kept = vm.kill().await;
        let verdict = judged(&image).await;
        assert!(verdict == "whole" || verdict == "leaks", "{verdict}");
        let raw = place.path().join("raw");
        host(&format!("qemu-img convert -f qcow2 -O raw {} {}", image.display(), raw.display())).await;
        for i in 1..=count {
            let read =
                format!("dd if={} bs=4k skip={} count=1 2>/dev/null | head -c 8", raw.display(), i * 5);
            assert_eq!(host(&read).await, format!("{i:08}"), "record {i} was acknowledged");
        }
        // What is left is an image that goes on, and whose leaks can be mended.
        host(&format!("qemu-img check -q -r leaks -f qcow2 {}", image.display())).await;
        assert_eq!(judged(&image).await, "whole");
        drop(kept);
    }
}

#[tokio::test]
async fn disks_grow_while_the_guest_runs() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let (image, raw) = (place.path().join("disk.qcow2"), place.path().join("raw"));
    created(&image, "16M").await;
    host(&format!("truncate -s 16M {}", raw.display())).await;
    let guest = qcow2(Guest::linux(KernelKind::BzImage), &image).disk("disk1", &raw);
    let mut vm = shell(&guest).await;
    for (id, name, size) in [("disk0", "vda", 600_u64 << 20), ("disk1", "vdb", 48 << 20)] {
        assert_eq!(vm.run(&format!("cat /sys/block/{name}/size")).await, "32768");
        vm.client.set_size(id, DiskSize { size_bytes: size }).await.expect("it grows");
        let grown = EventKind::DiskSize { device: id.to_owned(), size_bytes: size };
        vm.wait_event(|event| event.what == grown).await;
        let sectors = (size / 512).to_string();
        let seen = format!("until [ $(cat /sys/block/{name}/size) = {sectors} ]; do :; done; echo grown");
        assert_eq!(vm.run(&seen).await, "grown");
        assert!(vm.counter(id, "config_interrupts").await >= 1);
        let last = size / 4096 - 1;
        vm.run(&format!("echo end | dd of=/dev/{name} bs=4k seek={last} conv=sync,fsync 2>/dev/null")).await;
        assert_eq!(
            vm.run(&format!("dd if=/dev/{name} bs=4k skip={last} 2>/dev/null | head -c 3")).await,
            "end"
        );
        let refused =
            vm.client.set_size(id, DiskSize { size_bytes: 4096 }).await.expect_err("it cannot shrink");
        let problem = refused.problem().expect("a problem").clone();
        assert_eq!((problem.reason, problem.field.as_deref()), (Reason::Invalid, Some("size_bytes")));
    }
    powered_off(vm).await;
    assert_eq!(judged(&image).await, "whole");
    assert_eq!(host(&format!("stat -c %s {}", raw.display())).await, (48_u64 << 20).to_string());
}

#[tokio::test]
async fn two_writers_are_refused_with_the_name_of_the_first_and_readers_share() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let image = place.path().join("disk.qcow2");
    created(&image, "1M").await;
    let named = |name: &str, read_only: bool| {
        let name = name.to_owned();
        qcow2(Guest::linux(KernelKind::BzImage), &image).with(move |config| {
            config.name = name;
            config.disks[0].read_only = read_only;
        })
    };
    let (first, second) = (Vm::process(&[]).await, Vm::process(&[]).await);
    first.client.create(&named("shop.database", false).config, false).await.expect("the first may");
    for read_only in [false, true] {
        let refused = second.client.create(&named("shop.copy", read_only).config, false).await;
        let problem = refused.expect_err("the image is taken").problem().expect("a problem").clone();
        assert!(problem.detail.contains("in use by 'shop.database'"), "{}", problem.detail);
        assert_eq!(problem.field.as_deref(), Some("disks[0]"));
    }
    // QEMU respects it as well.
    let (said, code) = (host(&format!("qemu-img info {} 2>&1; true", image.display())).await, 0);
    assert!(said.contains("lock"), "{said} {code}");
    drop(first.kill().await);
    second.client.create(&named("shop.copy", true).config, false).await.expect("nobody writes any more");
    let third = Vm::process(&[]).await;
    third.client.create(&named("shop.third", true).config, false).await.expect("readers share");
    let fourth = Vm::process(&[]).await;
    let refused =
        fourth.client.create(&named("shop.fourth", false).config, false).await.expect_err("they read");
    let detail = refused.problem().expect("a problem").detail.clone();
    assert!(detail.contains("'shop.copy', 'shop.third'"), "{detail}");
}

#[tokio::test]
async fn a_corrupt_cluster_is_an_io_error_and_the_guest_goes_on() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let image = place.path().join("disk.qcow2");
    created(&image, "16M").await;
    host(&format!("qemu-io -f qcow2 -c 'write -P 7 0 128k' {}", image.display())).await;
    // The first L2 entry refers to the L1 table: its offset is at 40 of the header, that of the L2 table there.
    let mut bytes = std::fs::read(&image).expect("the image");
    let number = |bytes: &[u8], at: usize| {
        u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) & 0x00ff_ffff_ffff_fe00
    };
    let l1 = number(&bytes, 40);
    let l2 = number(&bytes, l1 as usize) as usize;
    bytes[l2..l2 + 8].copy_from_slice(&(1 << 63 | l1).to_be_bytes());
    std::fs::write(&image, bytes).expect("room for it");
    let mut vm = shell(&qcow2(Guest::linux(KernelKind::BzImage), &image)).await;
    let (output, code) = vm.try_run("dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct").await;
    assert_ne!(code, 0, "{output}");
    let (output, code) = vm.try_run("dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct").await;
    assert_ne!(code, 0, "{output}");
    vm.run("dd if=/dev/vda of=/dev/null bs=64k skip=1 count=1 iflag=direct 2>/dev/null").await;
    vm.run("dd if=/dev/zero of=/dev/vda bs=64k seek=1 count=1 oflag=direct 2>/dev/null").await;
    assert!(vm.counter("disk0", "image_corruptions").await >= 2);
    assert!(vm.counter("disk0", "read_errors").await >= 1 && vm.counter("disk0", "write_errors").await >= 1);
    powered_off(vm).await;
    let info = host(&format!("qemu-img info {}", image.display())).await;
    assert!(info.contains("corrupt: true"), "{info}");
    let again = Vm::process(&[]).await;
    let refused = again.client.create(&qcow2(Guest::linux(KernelKind::BzImage), &image).config, false).await;
    let problem = refused.expect_err("it is marked").problem().expect("a problem").clone();
    assert!(problem.detail.contains("marked as corrupt"), "{}", problem.detail);
}

#[tokio::test]
async fn a_format_is_detected_once_and_reported() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let (image, raw) = (place.path().join("disk.qcow2"), place.path().join("raw"));
    created(&image, "16M").await;
    host(&format!("truncate -s 1M {}", raw.display())).await;
    let guest = Guest::linux(KernelKind::BzImage).disk("a", &image).disk("b", &raw).with(|config| {
        config.disks.iter_mut().for_each(|disk| disk.format = ImageFormat::Detect);
    });
    let vm = Vm::process(&[]).await;
    vm.client.create(&guest.config, false).await.expect("both are known");
    let config = vm.client.info().await.expect("an answer").config.expect("a machine");
    assert_eq!(config.disks[0].format, ImageFormat::Qcow2);
    assert_eq!(config.disks[1].format, ImageFormat::Raw);
}

#[tokio::test]
async fn what_an_image_names_is_not_opened_and_what_is_not_supported_is_named() {
    let place = tempfile::tempdir_in(scratch()).expect("a directory");
    let image = place.path().join("disk.qcow2");
    let shown = image.display();
    let cases = [
        (format!("qemu-img create -q -u -f qcow2 -F raw -b /etc/shadow {shown} 1M"), "'/etc/shadow'"),
        (format!("qemu-img create -q -f qcow2 -o data_file={shown}.data {shown} 1M"), "external data file"),
        (format!("qemu-img create -q -f qcow2 -o extended_l2=on {shown} 1M"), "extended L2 entries"),
        (
            format!(
                "qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,\
                 encrypt.iter-time=10 {shown} 1M"
            ),
            "LUKS encryption",
        ),
        (format!("qemu-img create -q -f vmdk {shown} 1M"), "not a qcow2 image"),
    ];
    let vm = Vm::process(&[]).await;
    for (create, said) in cases {
        host(&format!("rm -f {shown}*; {create}")).await;
        let refused = vm.client.create(&qcow2(Guest::linux(KernelKind::BzImage), &image).config, false).await;
        let problem = refused.expect_err("it is refused").problem().expect("a problem").clone();
        assert!(problem.detail.contains(said), "{}", problem.detail);
    }
    let detected = Guest::linux(KernelKind::BzImage)
        .disk("disk0", &image)
        .with(|config| config.disks[0].format = ImageFormat::Detect);
    let refused = vm.client.create(&detected.config, false).await.expect_err("vmdk is no raw disk");
    assert!(refused.problem().expect("a problem").detail.contains("vmdk"));
    // Named by the configuration, it is opened.
    let base = place.path().join("base");
    host(&format!(
        "rm -f {shown}; truncate -s 1M {0}; qemu-img create -q -f qcow2 -F raw -b {0} {shown}",
        base.display()
    ))
    .await;
    let named = qcow2(Guest::linux(KernelKind::BzImage), &image).with(|config| {
        let source = FileSource::Path(base.display().to_string());
        config.disks[0].backing = vec![ImageConfig { source, format: ImageFormat::Raw }];
    });
    vm.client.create(&named.config, false).await.expect("the configuration names it");
}
