//! The suite that every virtio device passes, with both engines, several queues, limits, and read-only.

mod guest;

use guest::{GET_ID, IN, OK, OUT, SETUP, Setup, header, image, parts, pattern, status};
use orlop_disk::{EngineKind, Format, Options};
use orlop_virtio::conformance::Fixture;
use orlop_virtio_blk::{Limits, RateLimit};

fn fixture(setup: Setup) -> Fixture {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (parts, _) = parts(&image(dir.path(), setup.size_bytes), setup);
    let mut turn = 0;
    Fixture::new(parts, move |driver| {
        // The image lives as long as the fixture.
        let _ = &dir;
        turn += 1;
        let queue = (turn % u64::from(setup.queues)) as u16;
        if setup.options.read_only {
            let used = driver.request(queue, &header(GET_ID, 0), 21);
            assert_eq!((status(&used), &used.data[..10]), (OK, &b"ORLOP-0001"[..]));
            return;
        }
        let sector = turn * 37 % 1000 * 8;
        let data = pattern(sector, 4096, turn);
        let write = driver.request(queue, &[&header(OUT, sector)[..], &data].concat(), 1);
        assert_eq!(status(&write), OK);
        let read = driver.request(queue, &header(IN, sector), 4097);
        assert_eq!(status(&read), OK);
        assert!(read.data[..4096] == data);
    })
}

mod io_uring {
    use super::*;
    orlop_virtio::conformance_suite!(|| fixture(Setup { queues: 3, ..SETUP }));
}

mod synchronous {
    use super::*;
    orlop_virtio::conformance_suite!(|| fixture(Setup { engine: EngineKind::Synchronous, ..SETUP }));
}

mod direct {
    use super::*;
    const DIRECT: Options = Options { read_only: false, direct: true, shared: false };
    orlop_virtio::conformance_suite!(|| fixture(Setup { options: DIRECT, queues: 2, ..SETUP }));
}

mod overlay {
    use super::*;
    const QCOW2: Format = Format::Qcow2;
    orlop_virtio::conformance_suite!(|| fixture(Setup { format: QCOW2, queues: 3, ..SETUP }));
}

mod overlay_synchronous {
    use super::*;
    const QCOW2: Format = Format::Qcow2;
    const SYNCHRONOUS: EngineKind = EngineKind::Synchronous;
    orlop_virtio::conformance_suite!(|| fixture(Setup { format: QCOW2, engine: SYNCHRONOUS, ..SETUP }));
}

mod limited {
    use super::*;
    const LIMIT: Option<RateLimit> = Some(RateLimit { per_second: 10_000, burst: Some(1) });
    const LIMITS: Limits = Limits { bytes: None, operations: LIMIT };
    orlop_virtio::conformance_suite!(|| fixture(Setup { limits: LIMITS, ..SETUP }));
}

mod read_only {
    use super::*;
    const READ_ONLY: Options = Options { read_only: true, direct: false, shared: false };
    orlop_virtio::conformance_suite!(|| fixture(Setup { options: READ_ONLY, ..SETUP }));
}
