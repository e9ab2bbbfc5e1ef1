//! Where io_uring is forbidden, as container runtimes do it, disks work all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use orlop_disk::{Disk, EngineKind, Operation, Options, open_engine};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Forbids `io_uring_setup` to this thread.
fn forbid_io_uring() {
    let rules = BTreeMap::from([(libc::SYS_io_uring_setup, vec![])]);
    let forbidden = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, forbidden, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    apply_filter(&program).unwrap();
}

#[test]
fn without_io_uring_plain_calls_take_over_and_say_why() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(8192).unwrap();
    forbid_io_uring();
    let disk = Arc::new(Disk::open(image.path(), Options::default()).unwrap());
    let (mut engine, refused) = open_engine::<Vec<u8>>(&disk, 8, EngineKind::Auto);
    assert_eq!(engine.name(), "synchronous");
    assert_eq!(refused.unwrap().raw_os_error(), Some(libc::EPERM));
    assert!(engine.event().is_none());
    assert!(engine.submit(1, Operation::Write { offset: 4096, from: vec![7; 512] }).is_ok());
    engine.commit().unwrap();
    engine.complete().unwrap().result.unwrap();
    assert_eq!(std::fs::read(image.path()).unwrap()[4096..4608], [7; 512]);
}
