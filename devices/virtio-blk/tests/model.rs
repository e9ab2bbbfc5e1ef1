//! Any sequence of requests leaves the disk as a plain array would be, and a driver that talks nonsense in between
//! changes nothing.

mod guest;

use guest::*;
use orlop_disk::{EngineKind, Options};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SECTORS: u64 = 64;

#[derive(Debug, Clone)]
enum Deed {
    Read {
        sector: u64,
        len: usize,
    },
    Write {
        sector: u64,
        len: usize,
        seed: u64,
    },
    Zero {
        sector: u64,
        sectors: u32,
        flags: u32,
    },
    Flush,
    /// Readable bytes as they come, and so many writable ones.
    Nonsense(Vec<u8>, usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    // Mostly within the disk and in whole sectors.
    let sector = || prop_oneof![9 => 0..SECTORS, 1 => any::<u64>()];
    let len = || prop_oneof![9 => (1..17_usize).prop_map(|n| n * 512), 1 => 0..3000_usize];
    let sectors = prop_oneof![9 => 1..17_u32, 1 => any::<u32>()];
    let nonsense = (prop::collection::vec(any::<u8>(), 1..60), 0..600_usize);
    prop_oneof![
        4 => (sector(), len()).prop_map(|(sector, len)| Deed::Read { sector, len }),
        4 => (sector(), len(), any::<u64>()).prop_map(|(sector, len, seed)| Deed::Write { sector, len, seed }),
        2 => (sector(), sectors, 0..3_u32).prop_map(|(sector, sectors, flags)| Deed::Zero { sector, sectors, flags }),
        1 => Just(Deed::Flush),
        1 => nonsense.prop_map(|(mut bytes, writable)| {
            // No type that writes: 0x..80 in the type's lowest byte is none.
            bytes[0] |= 0x80;
            Deed::Nonsense(bytes, writable)
        }),
    ]
}

/// The bytes of the disk that a transfer covers, if it can be.
fn range(sector: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(sector).ok()?.checked_mul(512)?;
    let end = start.checked_add(len)?;
    (len > 0 && len.is_multiple_of(512) && end <= SECTORS as usize * 512).then_some(start..end)
}

/// Carries `deed` out on both, and compares the answers.
fn act(guest: &mut Guest, model: &mut [u8], deed: &Deed) {
    match deed {
        Deed::Read { sector, len } => {
            let (status, data) = guest.read(*sector, *len);
            match range(*sector, *len) {
                Some(range) => assert!(status == OK && data == model[range]),
                None => assert_eq!(status, IOERR),
            }
        }
        Deed::Write { sector, len, seed } => {
            let mut data = pattern(*sector % 1000, len.next_multiple_of(8), *seed);
            data.truncate(*len);
            let status = guest.write(*sector, &data);
            match range(*sector, *len) {
                Some(range) => {
                    assert_eq!(status, OK);
                    model[range].copy_from_slice(&data);
                }
                None => assert_eq!(status, IOERR),
            }
        }
        Deed::Zero { sector, sectors, flags } => {
            let status = guest.command(WRITE_ZEROES, 0, &segment(*sector, *sectors, *flags));
            match range(*sector, *sectors as usize * 512) {
                _ if *flags > 1 => assert_eq!(status, UNSUPP),
                Some(range) => {
                    assert_eq!(status, OK);
                    model[range].fill(0);
                }
                None => assert_eq!(status, IOERR),
            }
        }
        Deed::Flush => assert_eq!(guest.command(FLUSH, 0, &[]), OK),
        Deed::Nonsense(readable, writable) => {
            let used = guest.driver.request(0, readable, *writable);
            assert!(used.data.last().is_none_or(|status| [IOERR, UNSUPP].contains(status)));
        }
    }
}

fn check(options: Options, engine: EngineKind) {
    let setup = Setup { size_bytes: SECTORS * 512, options, engine, ..SETUP };
    let guest = std::cell::RefCell::new((Guest::new(setup), vec![0; SECTORS as usize * 512]));
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let verdict = TestRunner::new(config).run(&prop::collection::vec(deed(), 1..40), |deeds| {
        let (guest, model) = &mut *guest.borrow_mut();
        deeds.iter().for_each(|deed| act(guest, model, deed));
        let same = std::fs::read(&guest.path).unwrap() == *model;
        prop_assert!(same && !guest.driver.is_broken());
        Ok(())
    });
    verdict.unwrap();
}

#[test]
fn a_disk_by_io_uring_is_a_plain_array() {
    check(Options::default(), EngineKind::Auto);
}

#[test]
fn a_disk_around_the_page_cache_is_a_plain_array() {
    check(Options { direct: true, ..Options::default() }, EngineKind::Auto);
}

#[test]
fn a_disk_by_plain_calls_is_a_plain_array() {
    check(Options::default(), EngineKind::Synchronous);
}
