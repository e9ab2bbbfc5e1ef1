//! Both engines on real files: what is written is what is read, whatever the alignment and the file system.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use orlop_disk::kit::{on_a_small_tmpfs, small_tmpfs};
use orlop_disk::{Completion, Disk, Engine, EngineKind, Memory, Operation, Options, open_engine};

const KINDS: [EngineKind; 2] = [EngineKind::Auto, EngineKind::Synchronous];

/// Memory that begins at an odd address and is cut into pieces of these lengths.
struct Odd {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
}

// SAFETY: the vector's elements stay where they are, and nothing else refers to them.
#[expect(unsafe_code, reason = "implements Memory")]
unsafe impl Memory for Odd {
    fn iovecs(&self) -> std::io::Result<Vec<libc::iovec>> {
        let mut at = self.bytes.as_ptr().cast_mut().wrapping_add(1);
        Ok(self
            .cuts
            .iter()
            .map(|&len| {
                let piece = libc::iovec { iov_base: at.cast(), iov_len: len };
                at = at.wrapping_add(len);
                piece
            })
            .collect())
    }
}

impl Odd {
    fn new(content: &[u8], cuts: &[usize]) -> Self {
        assert_eq!(content.len(), cuts.iter().sum::<usize>());
        Self { bytes: [&[0], content].concat(), cuts: cuts.to_vec() }
    }
}

fn image(dir: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.join("disk.raw");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(path: &Path, options: Options) -> Arc<Disk> {
    Arc::new(Disk::open(path, options).unwrap())
}

fn engine<M: Memory>(disk: &Arc<Disk>, kind: EngineKind) -> Box<dyn Engine<M>> {
    let (engine, refused) = open_engine(disk, 16, kind);
    assert!(refused.is_none(), "io_uring is not permitted here: {refused:?}");
    engine
}

fn run<M: Memory>(engine: &mut dyn Engine<M>, operation: Operation<M>) -> Completion<M> {
    assert!(engine.submit(7, operation).is_ok());
    engine.commit().unwrap();
    engine.wait();
    let completion = engine.complete().unwrap();
    assert_eq!(completion.token, 7);
    assert_eq!(engine.in_flight(), 0);
    completion
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 7 + i) as u8 ^ seed).collect()
}

#[test]
fn what_is_written_is_read_back() {
    for kind in KINDS {
        for direct in [false, true] {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let disk = open(&image(dir.path(), &[0; 1 << 20]), Options { direct, ..Options::default() });
            let mut engine = engine::<Vec<u8>>(&disk, kind);
            let data = pattern(64 << 10, 3);
            run(&mut *engine, Operation::Write { offset: 4096, from: data.clone() }).result.unwrap();
            run(&mut *engine, Operation::Flush).result.unwrap();
            let read = run(&mut *engine, Operation::Read { offset: 4096, to: vec![0; 64 << 10] });
            read.result.unwrap();
            assert!(read.memory.unwrap() == data, "{kind:?} direct={direct}");
        }
    }
}

#[test]
fn misaligned_memory_is_bounced_around_the_page_cache() {
    for kind in KINDS {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = image(dir.path(), &[0; 1 << 20]);
        let disk = open(&path, Options { direct: true, ..Options::default() });
        let mut engine = engine::<Odd>(&disk, kind);
        let data = pattern(200 << 10, 9);
        let cuts = [1, 511, (100 << 10) + 3, (100 << 10) - 515];
        let write = Operation::Write { offset: 8192, from: Odd::new(&data, &cuts) };
        run(&mut *engine, write).result.unwrap();
        assert!(std::fs::read(&path).unwrap()[8192..][..data.len()] == data);
        let read = Operation::Read { offset: 8192, to: Odd::new(&vec![0; data.len()], &cuts) };
        let read = run(&mut *engine, read);
        read.result.unwrap();
        assert!(read.memory.unwrap().bytes[1..] == data, "{kind:?}");
    }
}

#[test]
fn more_pieces_than_one_call_takes_are_transferred() {
    for direct in [false, true] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = image(dir.path(), &[0; 1 << 20]);
        let disk = open(&path, Options { direct, ..Options::default() });
        let mut engine = engine::<Odd>(&disk, EngineKind::Auto);
        let data = pattern(3000 * 8 + 64, 1);
        let cuts: Vec<usize> = [vec![8; 3000], vec![576 - 512; 1]].concat();
        let padded = [data.clone(), vec![5; 24_576 - data.len()]].concat();
        let cuts = [cuts, vec![24_576 - data.len()]].concat();
        let write = Operation::Write { offset: 0, from: Odd::new(&padded, &cuts) };
        run(&mut *engine, write).result.unwrap();
        assert!(std::fs::read(&path).unwrap()[..padded.len()] == padded);
    }
}

#[test]
fn many_operations_are_in_flight_and_come_back_with_their_own_memory() {
    let dir = tempfile::tempdir().unwrap();
    let content = pattern(1 << 20, 0);
    let disk = open(&image(dir.path(), &content), Options::default());
    let mut engine = engine::<Vec<u8>>(&disk, EngineKind::Auto);
    for token in 0..16 {
        let read = Operation::Read { offset: token * 4096, to: vec![0; 4096] };
        assert!(engine.submit(token, read).is_ok());
    }
    let more = engine.submit(16, Operation::Flush);
    assert!(matches!(more, Err(Operation::Flush)), "a seventeenth has no room");
    engine.commit().unwrap();
    let mut seen = Vec::new();
    while engine.in_flight() > 0 {
        engine.wait();
        while let Some(done) = engine.complete() {
            done.result.unwrap();
            assert!(done.memory.unwrap() == content[done.token as usize * 4096..][..4096]);
            seen.push(done.token);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..16).collect::<Vec<_>>());
}

#[test]
fn the_event_is_readable_while_completions_wait() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&image(dir.path(), &[1; 4096]), Options::default());
    let mut engine = engine::<Vec<u8>>(&disk, EngineKind::Auto);
    let mut poll = libc::pollfd { fd: engine.event().unwrap(), events: libc::POLLIN, revents: 0 };
    assert!(engine.submit(1, Operation::Flush).is_ok());
    engine.commit().unwrap();
    #[expect(unsafe_code, reason = "poll(2)")]
    // SAFETY: one pollfd is given.
    let readable = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
    assert_eq!(readable, 1);
    assert_eq!(engine.complete().unwrap().token, 1);
    assert!(engine.complete().is_none());
    #[expect(unsafe_code, reason = "poll(2)")]
    // SAFETY: one pollfd is given.
    let readable = unsafe { libc::poll(&raw mut poll, 1, 0) };
    assert_eq!(readable, 0, "nothing waits any more");
}

#[test]
fn an_engine_that_is_dropped_waits_for_its_operations() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), &[0; 1 << 20]);
    let disk = open(&path, Options::default());
    let mut engine = engine::<Vec<u8>>(&disk, EngineKind::Auto);
    for token in 0..16 {
        let write = Operation::Write { offset: token * 65_536, from: vec![token as u8 + 1; 65_536] };
        assert!(engine.submit(token, write).is_ok());
    }
    engine.commit().unwrap();
    drop(engine);
    let stored = std::fs::read(&path).unwrap();
    assert!(stored.chunks(65_536).enumerate().all(|(i, c)| c.iter().all(|&b| usize::from(b) == i + 1)));
}

#[test]
fn an_operation_that_cannot_be_is_an_error_and_not_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), &[0; 8192]);
    for kind in KINDS {
        let disk = open(&path, Options::default());
        let mut engine = engine::<Vec<u8>>(&disk, kind);
        for operation in [
            Operation::Read { offset: 8192, to: vec![0; 512] },
            Operation::Read { offset: 4096, to: vec![0; 8192] },
            Operation::Read { offset: 1, to: vec![0; 512] },
            Operation::Write { offset: 0, from: vec![0; 100] },
            Operation::Write { offset: u64::MAX - 511, from: vec![0; 512] },
            Operation::Discard { offset: 0, len: 8704 },
            Operation::WriteZeroes { offset: 512, len: u64::MAX - 511, unmap: true },
        ] {
            let what = format!("{operation:?}");
            let error = run(&mut *engine, operation).result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{}", &what[..30]);
        }
        run(&mut *engine, Operation::Read { offset: 0, to: vec![] }).result.unwrap();
        drop(engine);
        let disk = {
            drop(disk);
            open(&path, Options { read_only: true, ..Options::default() })
        };
        let mut engine = self::engine::<Vec<u8>>(&disk, kind);
        let write = run(&mut *engine, Operation::Write { offset: 0, from: vec![0; 512] });
        assert_eq!(write.result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 8192);
}

#[test]
fn zeroes_are_written_on_every_file_system() {
    // ext4 and its like know every way to zero a range, tmpfs only punches.
    for dir in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        for kind in KINDS {
            for unmap in [false, true] {
                let dir = tempfile::tempdir_in(dir).unwrap();
                let path = image(dir.path(), &[0xff; 512 << 10]);
                let disk = open(&path, Options::default());
                let mut engine = engine::<Vec<u8>>(&disk, kind);
                let zeroes = Operation::WriteZeroes { offset: 4096, len: 300 << 10, unmap };
                run(&mut *engine, zeroes).result.unwrap();
                let stored = std::fs::read(&path).unwrap();
                assert_eq!(stored.len(), 512 << 10);
                let range = 4096..4096 + (300 << 10);
                let right = stored.iter().enumerate().all(|(i, &b)| (b == 0) == range.contains(&i));
                assert!(right, "{dir:?} {kind:?} unmap={unmap}");
            }
        }
    }
}

#[test]
fn discarded_space_goes_back_to_the_file_system() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = image(dir.path(), &vec![1; 4 << 20]);
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let before = std::fs::metadata(&path).unwrap().blocks();
    let disk = open(&path, Options::default());
    let mut engine = engine::<Vec<u8>>(&disk, EngineKind::Auto);
    run(&mut *engine, Operation::Discard { offset: 0, len: 3 << 20 }).result.unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(after.len(), 4 << 20);
    assert!(after.blocks() <= before - (2 << 20) / 512, "{before} → {}", after.blocks());
}

#[test]
fn the_missing_part_of_the_last_sector_reads_as_zeroes() {
    for kind in KINDS {
        for direct in [false, true] {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let path = image(dir.path(), &[7; 4096 + 100]);
            let disk = open(&path, Options { read_only: true, direct, shared: false });
            assert_eq!(disk.size_bytes(), u64::from(disk.block_bytes()) + 4096);
            let last = disk.block_bytes() as usize;
            let mut engine = engine::<Vec<u8>>(&disk, kind);
            let read = run(&mut *engine, Operation::Read { offset: 4096, to: vec![1; last] });
            read.result.unwrap();
            assert_eq!(read.memory.unwrap(), [vec![7; 100], vec![0; last - 100]].concat());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 4196, "{kind:?} {direct}");
        }
    }
}

#[test]
fn an_image_that_was_cut_short_below_us_is_an_error() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), &[7; 8192]);
        let disk = open(&path, Options::default());
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let mut engine = engine::<Vec<u8>>(&disk, kind);
        let read = run(&mut *engine, Operation::Read { offset: 0, to: vec![1; 8192] });
        assert_eq!(read.result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_loop_device_is_a_disk() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = image(dir.path(), &pattern(1 << 20, 5));
    let losetup = Command::new("losetup").args(["--find", "--show"]).arg(&path).output().unwrap();
    assert!(losetup.status.success(), "losetup needs root: {}", String::from_utf8_lossy(&losetup.stderr));
    let device = String::from_utf8(losetup.stdout).unwrap().trim().to_owned();
    struct Detach(String);
    impl Drop for Detach {
        fn drop(&mut self) {
            let _ = Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }
    let _detach = Detach(device.clone());
    for kind in KINDS {
        for direct in [false, true] {
            let disk = open(Path::new(&device), Options { direct, read_only: false, shared: false });
            assert_eq!((disk.size_bytes(), disk.block_bytes()), (1 << 20, 512));
            let mut engine = engine::<Vec<u8>>(&disk, kind);
            let data = pattern(8192, 77);
            run(&mut *engine, Operation::Write { offset: 512, from: data.clone() }).result.unwrap();
            run(&mut *engine, Operation::Discard { offset: 65_536, len: 65_536 }).result.unwrap();
            let zeroes = Operation::WriteZeroes { offset: 131_072, len: 4096, unmap: true };
            run(&mut *engine, zeroes).result.unwrap();
            let read = run(&mut *engine, Operation::Read { offset: 512, to: vec![0; 8192] });
            read.result.unwrap();
            assert!(read.memory.unwrap() == data);
            let read = run(&mut *engine, Operation::Read { offset: 131_072, to: vec![1; 4096] });
            assert!(read.memory.unwrap() == vec![0; 4096], "{kind:?} {direct}");
        }
    }
}

fn survive_a_full_file_system(test: &str, kind: EngineKind) {
    let Some(dir) = small_tmpfs() else {
        on_a_small_tmpfs(test, tempfile::tempdir().unwrap().path()).expect("it passes there");
        return;
    };
    let path = dir.join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    let disk = open(&path, Options::default());
    let mut engine = engine::<Vec<u8>>(&disk, kind);
    run(&mut *engine, Operation::Write { offset: 0, from: vec![1; 4096] }).result.unwrap();
    let full = run(&mut *engine, Operation::Write { offset: 4096, from: vec![2; 2 << 20] });
    assert_eq!(full.result.unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(full.memory.is_some());
    let read = run(&mut *engine, Operation::Read { offset: 0, to: vec![0; 4096] });
    read.result.unwrap();
    assert_eq!(read.memory.unwrap(), vec![1; 4096]);
}

#[test]
fn a_full_file_system_is_reported_by_io_uring() {
    survive_a_full_file_system("a_full_file_system_is_reported_by_io_uring", EngineKind::Auto);
}

#[test]
fn a_full_file_system_is_reported_by_plain_calls() {
    survive_a_full_file_system("a_full_file_system_is_reported_by_plain_calls", EngineKind::Synchronous);
}
