//! The suite that every virtio device passes, for a disk with both engines and for a CD-ROM drive.

mod guest;

use guest::{CDROM, DISK, QUEUE, command, parts, ten};
use orlop_disk::EngineKind;
use orlop_virtio::conformance::Fixture;

fn disk(engine: EngineKind, queues: u16) -> Fixture {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (parts, _) = parts(dir.path(), engine, queues);
    let mut turn = 0u32;
    Fixture::new(parts, move |driver| {
        // The images live as long as the fixture.
        let _ = &dir;
        turn += 1;
        let queue = QUEUE + (turn % u32::from(queues)) as u16;
        let first = turn * 37 % 1000 * 8;
        let data: Vec<u8> = (0..4096u32).map(|at| (at.wrapping_mul(turn) >> 3) as u8).collect();
        let write = command(driver, queue, DISK, &ten(0x2a, first, 8), &data, 0);
        assert!(write.is_good(), "{write:?}");
        let read = command(driver, queue, DISK, &ten(0x28, first, 8), &[], 4096);
        assert!(read.is_good(), "{:?}", read.sense);
        assert!(read.data == data);
    })
}

mod io_uring {
    use super::*;
    orlop_virtio::conformance_suite!(|| disk(EngineKind::Auto, 3));
}

mod synchronous {
    use super::*;
    orlop_virtio::conformance_suite!(|| disk(EngineKind::Synchronous, 1));
}

mod cdrom {
    use super::*;

    fn drive() -> Fixture {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (parts, _) = parts(dir.path(), EngineKind::Auto, 1);
        Fixture::new(parts, move |driver| {
            let _ = &dir;
            // Hostile requests may have opened the tray.
            assert!(command(driver, QUEUE, CDROM, &[0x1b, 0, 0, 0, 3, 0], &[], 0).is_good());
            let read = command(driver, QUEUE, CDROM, &ten(0x28, 3, 2), &[], 4096);
            assert!(read.is_good() && read.data == [7; 4096], "{:?}", read.sense);
        })
    }

    orlop_virtio::conformance_suite!(drive);
}
