//! Chains of images: overlays over a base that many share, growing, and who holds what.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orlop_disk::kit::{Content, Exercise, Shape, check, on_a_small_tmpfs, run, small_tmpfs};
use orlop_disk::{
    Chain, Disk, EngineKind, Format, GrowError, Image, OpenError, Operation, Options, Source, open_engine,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

fn image(path: &Path, format: Format) -> Image {
    Image { source: Source::Path(path.into()), format: Some(format) }
}

fn disk(images: Vec<Image>, overlay: Option<&Path>, holder: &str) -> Result<Disk, OpenError> {
    let overlay = overlay.map(|path| Source::Path(path.into()));
    Disk::open_chain(Chain { images, overlay, options: Options::default(), holder: holder.into() })
}

fn base(dir: &Path) -> (PathBuf, Vec<u8>) {
    let content: Vec<u8> = (0..3_u32 << 20).map(|i| (i / 512 * 7 + i) as u8 | 1).collect();
    let path = dir.join("base.raw");
    std::fs::write(&path, &content).unwrap();
    (path, content)
}

#[test]
fn an_overlay_takes_the_writes_and_the_base_stays_as_it_was() {
    for kind in [EngineKind::Auto, EngineKind::Synchronous] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (path, content) = base(dir.path());
        let mut model = content.clone();
        let overlay = dir.path().join("overlay.qcow2");
        for seed in 0..3 {
            let opened = disk(vec![image(&path, Format::Raw)], Some(&overlay), "vm").unwrap();
            assert_eq!((opened.format(), opened.size_bytes()), (Format::Qcow2, 3 << 20));
            let mut exercise = Exercise::new(opened, model, kind, seed);
            exercise.compare();
            (0..80).for_each(|_| exercise.round());
            exercise.compare();
            model = exercise.model.clone();
            drop(exercise);
            assert_eq!(check(&std::fs::read(&overlay).unwrap()), Default::default());
        }
        assert!(std::fs::read(&path).unwrap() == content);
    }
}

/// As a device does it: complete all, commit, wait for the event. Each write takes several steps.
#[test]
fn who_waits_for_the_event_is_told_of_all_that_is_done() {
    const DEADLINE_MS: i32 = 20_000;
    for kind in [EngineKind::Auto, EngineKind::Synchronous] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (path, _) = base(dir.path());
        let overlay = dir.path().join("overlay.qcow2");
        let disk = Arc::new(disk(vec![image(&path, Format::Raw)], Some(&overlay), "vm").unwrap());
        let (mut engine, _) = open_engine::<Vec<u8>>(&disk, 8, kind);
        let epoll = Epoll::new().unwrap();
        let event = engine.event().expect("one to wait for");
        epoll.ctl(ControlOperation::Add, event, EpollEvent::new(EventSet::IN, 0)).unwrap();
        for round in 0..48_u64 {
            let from = |token: u64| vec![(round + token) as u8; 512];
            let offset = |token: u64| (round << 16) + token * 1024;
            let operations = (0..8).map(|t| (t, Operation::Write { offset: offset(t), from: from(t) }));
            operations.for_each(|(token, write)| assert!(engine.submit(token, write).is_ok()));
            let mut left = 8;
            loop {
                while let Some(done) = engine.complete() {
                    done.result.unwrap();
                    left -= 1;
                }
                engine.commit().unwrap();
                if left == 0 {
                    break;
                }
                let told = epoll.wait(DEADLINE_MS, &mut [EpollEvent::default()]).unwrap();
                assert_eq!(told, 1, "{left} of round {round} never came");
            }
        }
    }
}

#[test]
fn overlays_of_many_machines_share_one_base() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (path, content) = base(dir.path());
    let names = ["a", "b", "c"].map(|name| dir.path().join(name));
    let open = |name: &PathBuf| disk(vec![image(&path, Format::Raw)], Some(name), "vm").unwrap();
    let mut all: Vec<Exercise> = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| Exercise::new(open(name), content.clone(), EngineKind::Auto, seed))
        .collect();
    for _ in 0..20 {
        all.iter_mut().for_each(Exercise::round);
    }
    all.iter_mut().for_each(Exercise::compare);
    let writer = Disk::open(&path, Options::default()).unwrap_err().to_string();
    assert!(writer.contains("in use by 'vm', 'vm', 'vm'"), "{writer}");
}

#[test]
fn a_chain_of_formats_is_one_disk() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (path, mut content) = base(dir.path());
    use Content::{Compressed, Data, Unallocated, Zero};
    let middle = Shape {
        size_bytes: 4 << 20,
        backing: Some("base.raw".into()),
        contents: vec![Unallocated, Data, Compressed, Zero, Unallocated],
        ..Shape::default()
    };
    let middle_path = dir.path().join("middle.qcow2");
    std::fs::write(&middle_path, middle.image()).unwrap();
    content.resize(4 << 20, 0);
    content[1 << 16..4 << 16].copy_from_slice(&middle.disk()[1 << 16..4 << 16]);
    let images = || vec![image(&middle_path, Format::Qcow2), image(&path, Format::Raw)];
    let overlay = dir.path().join("overlay");
    let opened = disk(images(), Some(&overlay), "vm").unwrap();
    let formats: Vec<Format> =
        std::iter::successors(Some(&opened), |disk| disk.backing()).map(Disk::format).collect();
    assert_eq!(formats, [Format::Qcow2, Format::Qcow2, Format::Raw]);
    let mut exercise = Exercise::new(opened, content.clone(), EngineKind::Auto, 5);
    exercise.compare();
    (0..100).for_each(|_| exercise.round());
    exercise.compare();
    drop(exercise);
    // The middle by itself, written to.
    let mut exercise = Exercise::new(disk(images(), None, "vm").unwrap(), content, EngineKind::Auto, 6);
    (0..100).for_each(|_| exercise.round());
    exercise.compare();
    drop(exercise);
    assert_eq!(check(&std::fs::read(&middle_path).unwrap()), Default::default());
    let refused =
        disk(vec![image(&path, Format::Raw), image(&middle_path, Format::Qcow2)], None, "vm").unwrap_err();
    assert!(
        refused.to_string().contains("names it") || refused.to_string().contains("no backing"),
        "{refused}"
    );
}

#[test]
fn an_image_over_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop.qcow2");
    std::fs::write(&path, Shape { backing: Some("loop.qcow2".into()), ..Shape::default() }.image()).unwrap();
    let loops = |count: usize| (0..count).map(|_| image(&path, Format::Qcow2)).collect();
    for count in [2, 3, 16] {
        assert!(disk(loops(count), None, "vm").is_err(), "{count}");
    }
    let refused = disk(loops(17), None, "vm").unwrap_err().to_string();
    assert!(refused.contains("chain of 17 images"), "{refused}");
}

#[test]
fn an_overlay_can_be_passed_as_descriptors() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (path, content) = base(dir.path());
    let overlay = dir.path().join("overlay");
    let writable = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&overlay)
            .unwrap()
    };
    let open = || {
        let base = Source::Fd(OwnedFd::from(std::fs::File::open(&path).unwrap()), "base".into());
        let images = vec![Image { source: base, format: None }];
        let overlay = Some(Source::Fd(writable().into(), "overlay".into()));
        Disk::open_chain(Chain { images, overlay, options: Options::default(), holder: "vm".into() }).unwrap()
    };
    let mut exercise = Exercise::new(open(), content, EngineKind::Auto, 3);
    (0..20).for_each(|_| exercise.round());
    let model = exercise.model.clone();
    drop(exercise);
    Exercise::new(open(), model, EngineKind::Auto, 4).compare();
    let header = std::fs::read(&overlay).unwrap();
    let name = path.display().to_string();
    assert!(header[..512].windows(name.len()).any(|part| part == name.as_bytes()), "others find the base");
}

#[test]
fn disks_grow_while_they_are_used() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (raw, content) = base(dir.path());
    let overlay = dir.path().join("overlay");
    let small = Shape {
        cluster_bits: 9,
        size_bytes: 64 << 10,
        contents: vec![Content::Data; 100],
        ..Shape::default()
    };
    let plain = dir.path().join("plain.qcow2");
    std::fs::write(&plain, small.image()).unwrap();
    for (opened, model) in [
        (disk(vec![image(&plain, Format::Qcow2)], None, "vm").unwrap(), small.disk()),
        (disk(vec![image(&raw, Format::Raw)], Some(&overlay), "vm").unwrap(), content.clone()),
    ] {
        let path = opened.path().to_owned();
        let mut exercise = Exercise::new(opened, model, EngineKind::Auto, 8);
        for times in 2..6 {
            (0..30).for_each(|_| exercise.round());
            let size = exercise.model.len() as u64 / 512 * 512 * times / (times - 1) / 512 * 512;
            exercise.grow(size);
            assert_eq!(exercise.disk.size_bytes(), size);
            exercise.compare();
        }
        (0..30).for_each(|_| exercise.round());
        exercise.compare();
        let shrunk = exercise.disk.grow(512).unwrap_err();
        assert!(matches!(shrunk, GrowError::Smaller { .. }), "{shrunk}");
        assert!(matches!(exercise.disk.grow(u64::MAX), Err(GrowError::Size { .. })));
        drop(exercise);
        assert_eq!(check(&std::fs::read(&path).unwrap()), Default::default(), "{path:?}");
    }
    let mut exercise =
        Exercise::new(Disk::open(&raw, Options::default()).unwrap(), content, EngineKind::Auto, 9);
    exercise.grow(5 << 20);
    (0..60).for_each(|_| exercise.round());
    exercise.compare();
}

#[test]
fn a_small_image_outgrows_its_tables() {
    // 512-byte clusters: a refcount table of one cluster counts 8 MiB.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("disk.qcow2");
    let shape = Shape { cluster_bits: 9, size_bytes: 20 << 20, ..Shape::default() };
    std::fs::write(&path, shape.image()).unwrap();
    let opened = Arc::new(disk(vec![image(&path, Format::Qcow2)], None, "vm").unwrap());
    let (mut engine, _) = orlop_disk::open_engine::<Vec<u8>>(&opened, 8, EngineKind::Auto);
    let part = |at: u64| -> Vec<u8> { (0..1 << 18).map(|i| (i / 512 + at / 7) as u8).collect() };
    for at in (0..20 << 20).step_by(1 << 18) {
        run(&mut *engine, Operation::Write { offset: at, from: part(at) }).result.unwrap();
    }
    for at in (0..20 << 20).step_by(1 << 18) {
        let read = run(&mut *engine, Operation::Read { offset: at, to: vec![0; 1 << 18] });
        assert!(read.result.is_ok() && read.memory.unwrap() == part(at), "{at}");
    }
    drop((engine, opened));
    assert_eq!(check(&std::fs::read(&path).unwrap()), Default::default());
}

#[test]
fn discarded_clusters_are_free_on_the_host_and_used_again() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("disk.qcow2");
    std::fs::write(&path, Shape { size_bytes: 64 << 20, ..Shape::default() }.image()).unwrap();
    let opened = Arc::new(disk(vec![image(&path, Format::Qcow2)], None, "vm").unwrap());
    let (mut engine, _) = orlop_disk::open_engine::<Vec<u8>>(&opened, 8, EngineKind::Auto);
    let mut longest = 0;
    for round in 0..6 {
        for at in (0..16 << 20).step_by(1 << 20) {
            run(&mut *engine, Operation::Write { offset: at, from: vec![round + 1; 1 << 20] })
                .result
                .unwrap();
        }
        run(&mut *engine, Operation::Flush).result.unwrap();
        let full = std::fs::metadata(&path).unwrap();
        assert!(full.blocks() * 512 >= 16 << 20);
        longest = longest.max(full.len());
        run(&mut *engine, Operation::Discard { offset: 0, len: 16 << 20 }).result.unwrap();
        run(&mut *engine, Operation::Flush).result.unwrap();
        let empty = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(empty < 2 << 20, "{empty} bytes are still taken in round {round}");
    }
    assert!(longest < 20 << 20, "the file grew to {longest} bytes for 16 MiB");
    drop((engine, opened));
    assert_eq!(check(&std::fs::read(&path).unwrap()), Default::default());
}

#[test]
fn two_writers_are_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    std::fs::write(&path, Shape::default().image()).unwrap();
    let open = |holder: &str| disk(vec![image(&path, Format::Qcow2)], None, holder);
    let first = open("ns1.database-0").unwrap();
    let refused = open("ns2.other").unwrap_err().to_string();
    assert!(refused.contains("in use by 'ns1.database-0'"), "{refused}");
    drop(first);
    let again = open("ns2.other").unwrap();
    let refused = open("x").unwrap_err().to_string();
    assert!(refused.contains("'ns2.other'") && !refused.contains("ns1"), "{refused}");
    drop(again);
    let long = "n".repeat(300);
    let _long = open(&long).unwrap();
    assert!(open("x").unwrap_err().to_string().contains(&"n".repeat(253)));
}

#[test]
fn the_name_of_a_process_that_was_killed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    std::fs::write(&path, [1; 4096]).unwrap();
    let held = disk(vec![image(&path, Format::Raw)], None, "first").unwrap();
    // A descriptor that outlives the disk keeps nothing: the lock goes with the disk.
    let kept = std::fs::File::open(&path).unwrap();
    drop(held);
    let second = disk(vec![image(&path, Format::Raw)], None, "second").unwrap();
    assert!(
        disk(vec![image(&path, Format::Raw)], None, "third").unwrap_err().to_string().contains("'second'")
    );
    drop((second, kept));
}

#[test]
fn a_full_file_system_is_an_error_and_the_image_stays_whole() {
    let name = "a_full_file_system_is_an_error_and_the_image_stays_whole";
    let Some(dir) = small_tmpfs() else {
        on_a_small_tmpfs(name, tempfile::tempdir().unwrap().path()).expect("it passes there");
        return;
    };
    let path = dir.join("disk.qcow2");
    std::fs::write(&path, Shape { cluster_bits: 12, size_bytes: 8 << 20, ..Shape::default() }.image())
        .unwrap();
    let opened = Arc::new(disk(vec![image(&path, Format::Qcow2)], None, "vm").unwrap());
    let (mut engine, _) = orlop_disk::open_engine::<Vec<u8>>(&opened, 8, EngineKind::Auto);
    let mut write = |at: u64, byte: u8| {
        run(&mut *engine, Operation::Write { offset: at << 16, from: vec![byte; 1 << 16] }).result
    };
    let results: Vec<bool> = (0..64).map(|at| write(at, 7).is_ok()).collect();
    let written = results.iter().filter(|ok| **ok).count();
    assert!((4..16).contains(&written), "{written} writes went into a mebibyte");
    let full = write(60, 1).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // Room again: the same disk goes on.
    run(&mut *engine, Operation::Discard { offset: 0, len: 2 << 16 }).result.unwrap();
    run(&mut *engine, Operation::Write { offset: 60 << 16, from: vec![9; 1 << 14] }).result.unwrap();
    run(&mut *engine, Operation::Flush).result.unwrap();
    let read = run(&mut *engine, Operation::Read { offset: 60 << 16, to: vec![0; 1 << 14] });
    assert!(read.result.is_ok() && read.memory.unwrap() == vec![9; 1 << 14]);
    assert_eq!(opened.corruptions(), 0);
    drop((engine, opened));
    assert_eq!(check(&std::fs::read(&path).unwrap()), Default::default());
}
