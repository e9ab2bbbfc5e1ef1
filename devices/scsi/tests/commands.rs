//! What commands lead to, and what no command ever leads to.

use orlop_disk::EngineKind;
use orlop_scsi::{
    Bay, DriveConfig, DriveKind, Kind, Medium, MediumError, Range, Sense, SharedBay, Step, Tray, Unit,
};
use proptest::prelude::*;

const DISK: Medium =
    Medium { size_bytes: 1 << 30, block_bytes: 512, physical_block_bytes: 4096, read_only: false };
const CD: Medium =
    Medium { size_bytes: 1 << 20, block_bytes: 2048, physical_block_bytes: 4096, read_only: true };

fn unit(kind: Kind) -> Unit {
    let medium = if kind == Kind::Disk { DISK } else { CD };
    let mut unit = Unit::new(kind, "SERIAL".into(), Some(medium));
    assert_eq!(unit.start(&[0; 6], &|_| Vec::new()), Err(Sense::RESET), "power on is told once");
    unit
}

fn start(unit: &mut Unit, cdb: &[u8]) -> Result<Step, Sense> {
    unit.start(cdb, &|len| vec![0; len])
}

fn data(unit: &mut Unit, cdb: &[u8]) -> Vec<u8> {
    match start(unit, cdb) {
        Ok(Step::Data(data)) => data,
        other => panic!("{cdb:x?}: {other:?}"),
    }
}

#[test]
fn reads_and_writes_of_every_length_name_the_same_blocks() {
    let mut unit = unit(Kind::Disk);
    let range = Range { offset: 512 * 0x1234, len: 512 * 3 };
    let six = |op| vec![op, 0, 0x12, 0x34, 3, 0];
    let ten = |op| vec![op, 0, 0, 0, 0x12, 0x34, 0, 0, 3, 0];
    let twelve = |op| vec![op, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 3, 0, 0];
    let sixteen = |op| vec![op, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 3, 0, 0];
    for cdb in [six(0x08), ten(0x28), twelve(0xa8), sixteen(0x88)] {
        assert_eq!(start(&mut unit, &cdb), Ok(Step::Read(range)), "{cdb:x?}");
    }
    for cdb in [six(0x0a), ten(0x2a), twelve(0xaa), sixteen(0x8a)] {
        assert_eq!(start(&mut unit, &cdb), Ok(Step::Write { range, durable: false }), "{cdb:x?}");
    }
    for cdb in [ten(0x2e), twelve(0xae), sixteen(0x8e)] {
        assert_eq!(start(&mut unit, &cdb), Ok(Step::Write { range, durable: true }), "{cdb:x?}");
    }
    let mut forced = ten(0x2a);
    forced[1] = 8;
    assert_eq!(start(&mut unit, &forced), Ok(Step::Write { range, durable: true }));
    // Zero blocks are 256 in the shortest form, and none in the others.
    let all = Range { offset: 0, len: 256 * 512 };
    assert_eq!(start(&mut unit, &[0x08, 0, 0, 0, 0, 0]), Ok(Step::Read(all)));
    let none = Range { offset: 0, len: 0 };
    assert_eq!(start(&mut unit, &[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Step::Read(none)));
}

#[test]
fn blocks_beyond_the_end_are_out_of_range() {
    let mut unit = unit(Kind::Disk);
    let last = (1_u32 << 21) - 1;
    let [a, b, c, d] = last.to_be_bytes();
    assert!(start(&mut unit, &[0x28, 0, a, b, c, d, 0, 0, 1, 0]).is_ok());
    for cdb in [
        vec![0x28, 0, a, b, c, d, 0, 0, 2, 0],
        vec![0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0],
        [&[0x88, 0][..], &[0xff; 12], &[0, 0]].concat(),
        [&[0x8f, 0][..], &[0xff; 12], &[0, 0]].concat(),
    ] {
        assert_eq!(start(&mut unit, &cdb), Err(Sense::OUT_OF_RANGE), "{cdb:x?}");
    }
}

#[test]
fn a_truncated_command_is_refused() {
    for kind in [Kind::Disk, Kind::Cdrom] {
        let mut unit = unit(kind);
        for (operation, len) in [(0x08, 6), (0x28, 10), (0xa8, 12), (0x88, 16), (0x12, 6), (0x9e, 16)] {
            for len in 1..len {
                let mut cdb = vec![0; len];
                cdb[0] = operation;
                assert_eq!(start(&mut unit, &cdb), Err(Sense::INVALID_FIELD), "{operation:x} of {len} bytes");
            }
        }
        assert_eq!(start(&mut unit, &[]), Err(Sense::INVALID_COMMAND));
    }
}

#[test]
fn a_unit_says_who_it_is() {
    let mut unit = unit(Kind::Disk);
    let standard = data(&mut unit, &[0x12, 0, 0, 0, 96, 0]);
    assert_eq!((standard[0], standard[1], standard[2], standard.len()), (0, 0, 5, 36));
    assert_eq!(&standard[8..16], b"ORLOP   ");
    assert_eq!(data(&mut unit, &[0x12, 1, 0x80, 0, 255, 0]), b"\0\x80\0\x06SERIAL");
    assert_eq!(data(&mut unit, &[0x12, 1, 0x00, 0, 5, 0]).len(), 5, "cut to what was asked for");
    let limits = data(&mut unit, &[0x12, 1, 0xb0, 0, 64, 0]);
    assert_eq!((limits.len(), limits[4]), (64, 1));
    assert_eq!(start(&mut unit, &[0x12, 1, 0x55, 0, 255, 0]), Err(Sense::INVALID_FIELD));
    assert_eq!(start(&mut unit, &[0x12, 0, 1, 0, 255, 0]), Err(Sense::INVALID_FIELD));
    let capacity = data(&mut unit, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(capacity, [0, 0x1f, 0xff, 0xff, 0, 0, 2, 0]);
    let capacity = data(&mut unit, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
    assert_eq!((capacity.len(), capacity[13], capacity[14]), (32, 3, 0x80));
    let luns = data(&mut unit, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]);
    assert_eq!(luns, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn unmap_takes_a_list_as_long_as_it_says() {
    let mut unit = unit(Kind::Disk);
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for (first, blocks) in [(8_u64, 16_u32), (100, 0)] {
        list.extend(first.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    let cdb = |len: u8| [0x42, 0, 0, 0, 0, 0, 0, 0, len, 0];
    let sent = |list: Vec<u8>| move |len: usize| list[..len.min(list.len())].to_vec();
    let ranges = vec![Range { offset: 4096, len: 8192 }];
    assert_eq!(unit.start(&cdb(40), &sent(list.clone())), Ok(Step::Discard(ranges)));
    assert_eq!(unit.start(&cdb(40), &sent(list[..39].to_vec())), Err(Sense::PARAMETER_LENGTH));
    assert_eq!(unit.start(&cdb(7), &sent(list.clone())), Err(Sense::PARAMETER_LENGTH));
    let mut beyond = list.clone();
    beyond[8] = 0xff;
    assert_eq!(unit.start(&cdb(40), &sent(beyond)), Err(Sense::OUT_OF_RANGE));
}

#[test]
fn write_same_makes_zeroes_and_nothing_else() {
    let mut unit = unit(Kind::Disk);
    let cdb = [0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0];
    let range = Range { offset: 4096, len: 4096 };
    assert_eq!(unit.start(&cdb, &|len| vec![0; len]), Ok(Step::WriteZeroes { range, unmap: true }));
    assert_eq!(unit.start(&cdb, &|len| vec![1; len]), Err(Sense::INVALID_PARAMETER));
    assert_eq!(unit.start(&cdb, &|_| vec![0; 511]), Err(Sense::PARAMETER_LENGTH));
    let endless = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0];
    assert_eq!(start(&mut unit, &endless), Err(Sense::INVALID_FIELD));
}

#[test]
fn the_write_cache_is_what_the_guest_makes_it() {
    let mut unit = unit(Kind::Disk);
    let page = data(&mut unit, &[0x1a, 8, 0x08, 0, 255, 0]);
    assert_eq!((page[4], page[6]), (0x08, 4));
    let select = |wce: u8, odd: u8| {
        let mut list = vec![0, 0, 0, 0, 0x08, 18, wce, odd];
        list.resize(24, 0);
        move |len: usize| list[..len].to_vec()
    };
    let cdb = [0x15, 0x10, 0, 0, 24, 0];
    assert_eq!(unit.start(&cdb, &select(0, 1)), Err(Sense::INVALID_PARAMETER));
    assert!(unit.write_cache());
    assert_eq!(unit.start(&cdb, &select(0, 0)), Ok(Step::Flush));
    let range = Range { offset: 0, len: 512 };
    let write = start(&mut unit, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(write, Ok(Step::Write { range, durable: true }));
}

#[test]
fn a_read_only_disk_refuses_everything_that_writes() {
    let mut unit = Unit::new(Kind::Disk, String::new(), Some(Medium { read_only: true, ..DISK }));
    let _ = start(&mut unit, &[0; 6]);
    for operation in [0x2a, 0x2e, 0x41, 0x42] {
        let cdb = [operation, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(start(&mut unit, &cdb), Err(Sense::WRITE_PROTECTED), "{operation:x}");
    }
    assert_eq!(data(&mut unit, &[0x1a, 0, 0x3f, 0, 4, 0])[2] & 0x80, 0x80);
}

#[test]
fn a_locked_tray_opens_for_nobody() {
    let mut unit = unit(Kind::Cdrom);
    data(&mut unit, &[0x1e, 0, 0, 0, 1, 0]);
    assert_eq!(start(&mut unit, &[0x1b, 0, 0, 0, 2, 0]), Err(Sense::LOCKED));
    data(&mut unit, &[0x1e, 0, 0, 0, 0, 0]);
    data(&mut unit, &[0x1b, 0, 0, 0, 2, 0]);
    assert_eq!(start(&mut unit, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Err(Sense::TRAY_OPEN));
    let status = data(&mut unit, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]);
    assert_eq!((status[4], status[5]), (3, 1), "the removal is told, the tray is open");
    data(&mut unit, &[0x1b, 0, 0, 0, 3, 0]);
    assert_eq!(start(&mut unit, &[0; 6]), Err(Sense::MEDIUM_CHANGED));
    assert!(start(&mut unit, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).is_ok());
}

#[test]
fn a_medium_has_one_data_track() {
    let mut unit = unit(Kind::Cdrom);
    let toc = data(&mut unit, &[0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 2, 0]);
    let msf = data(&mut unit, &[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255, 0]);
    // 512 blocks and two seconds are 8 seconds and 62 frames.
    assert_eq!(msf[8..12], [0, 0, 8, 62]);
}

fn bay(dir: &std::path::Path, name: &str, bytes: usize) -> Result<SharedBay<Vec<u8>>, MediumError> {
    let kind = DriveKind::Cdrom { medium: Some(disk(dir, name, bytes)), open: false };
    let bay = Bay::new(DriveConfig { kind, serial: "S".into(), engine: EngineKind::Synchronous }, 1)?;
    Ok(std::sync::Arc::new(std::sync::Mutex::new(bay)))
}

fn disk(dir: &std::path::Path, name: &str, bytes: usize) -> orlop_disk::Disk {
    std::fs::write(dir.join(name), vec![1; bytes]).unwrap();
    let options = orlop_disk::Options { read_only: true, direct: false, shared: false };
    orlop_disk::Disk::open(&dir.join(name), options).unwrap()
}

#[test]
fn the_host_asks_a_locked_tray_and_opens_another() {
    let dir = tempfile::tempdir().unwrap();
    let bay = bay(dir.path(), "a", 4096).unwrap();
    let command = |cdb: &[u8]| start(&mut bay.lock().unwrap().unit, cdb);
    let _ = command(&[0; 6]);
    command(&[0x1e, 0, 0, 0, 1, 0]).unwrap();
    assert_eq!(bay.eject(false), Err(MediumError::Locked));
    let asked = command(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]);
    assert_eq!(asked, Ok(Step::Data(vec![0, 6, 4, 0x10, 1, 2, 0, 0])), "an eject request is told");
    bay.eject(true).unwrap();
    assert!(bay.state().open && !bay.state().medium && !bay.state().locked);
    assert!(bay.lock().unwrap().engine.is_none(), "the image is let go of");
    let writer = orlop_disk::Disk::open(&dir.path().join("a"), orlop_disk::Options::default());
    drop(writer.expect("another may write to it now"));
    bay.insert(disk(dir.path(), "b", 2048 * 3)).unwrap();
    assert_eq!(command(&[0; 6]), Err(Sense::MEDIUM_CHANGED));
    let capacity = command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(capacity, Ok(Step::Data(vec![0, 0, 0, 2, 0, 0, 8, 0])));
    assert_eq!(bay.insert(disk(dir.path(), "c", 512)), Err(MediumError::Small));
}

proptest! {
    /// Whatever comes, a step stays inside the medium, and a CD-ROM is never written.
    #[test]
    fn no_command_leads_outside_the_medium(
        cdb in prop::collection::vec(any::<u8>(), 0..20),
        sent in prop::collection::vec(any::<u8>(), 0..600),
        cdrom: bool,
    ) {
        let mut unit = unit(if cdrom { Kind::Cdrom } else { Kind::Disk });
        let size = if cdrom { CD.size_bytes } else { DISK.size_bytes };
        let step = unit.start(&cdb, &|len| sent[..len.min(sent.len())].to_vec());
        let ranges = match step {
            Ok(Step::Read(range)) => vec![range],
            Ok(Step::Write { range, .. } | Step::WriteZeroes { range, .. }) => {
                prop_assert!(!cdrom);
                vec![range]
            }
            Ok(Step::Discard(ranges)) => ranges,
            Ok(Step::Data(data)) => {
                prop_assert!(data.len() <= 0x1000);
                vec![]
            }
            Ok(Step::Flush) | Err(_) => vec![],
        };
        for Range { offset, len } in ranges {
            prop_assert!(offset.checked_add(len).is_some_and(|end| end <= size));
        }
    }
}
