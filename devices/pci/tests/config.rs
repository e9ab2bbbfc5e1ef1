//! Configuration space: what a guest's probing finds.

use orlop_pci::{BarMove, COMMAND, CONFIG_BYTES, ConfigSpace, Identity, LayoutError};
use proptest::prelude::*;

fn space() -> ConfigSpace {
    let identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: [1, 0x80, 0],
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    };
    let mut space = ConfigSpace::new(identity);
    space.add_bar64(0, 0x8000, 0x1_0000_0000).unwrap();
    space.add_bar32(2, 0x1000, 0xe000_0000).unwrap();
    space
}

fn dword(space: &ConfigSpace, offset: u16) -> u32 {
    let mut word = [0; 4];
    space.read(offset, &mut word);
    u32::from_le_bytes(word)
}

fn enable_memory(space: &mut ConfigSpace) -> Vec<BarMove> {
    space.write(COMMAND, &[2])
}

#[test]
fn the_header_identifies_the_function() {
    let space = space();
    assert_eq!(dword(&space, 0), 0x1042_1af4);
    assert_eq!(dword(&space, 8), 0x0180_0001);
    assert_eq!(dword(&space, 0x2c), 0x1100_1af4);
    assert_eq!(dword(&space, 0x3c) >> 8, 0, "an interrupt pin");
    assert_eq!(dword(&space, 0x100), 0, "something in the extended space");
}

#[test]
fn size_probing_shows_length_and_type() {
    let mut space = space();
    for (register, low, high) in [(0x10, 0xffff_8004, Some(0xffff_ffff)), (0x18, 0xffff_f000, None)] {
        space.write(register, &[0xff; 4]);
        assert_eq!(dword(&space, register), low);
        if let Some(high) = high {
            space.write(register + 4, &[0xff; 4]);
            assert_eq!(dword(&space, register + 4), high);
        }
    }
    space.write(0x1c, &[0xff; 4]);
    assert_eq!(dword(&space, 0x1c), 0, "a BAR that is not there");
}

#[test]
fn bars_answer_while_memory_decoding_is_on() {
    let mut space = space();
    assert_eq!(space.windows(), []);
    let on = enable_memory(&mut space);
    assert_eq!(
        on,
        [
            BarMove { bar: 0, len: 0x8000, from: None, to: Some(0x1_0000_0000) },
            BarMove { bar: 2, len: 0x1000, from: None, to: Some(0xe000_0000) },
        ]
    );
    assert_eq!(space.windows(), [(0, 0x1_0000_0000, 0x8000), (2, 0xe000_0000, 0x1000)]);
    assert_eq!(enable_memory(&mut space), [], "nothing changes the second time");
    assert_eq!(space.write(COMMAND, &[0]).len(), 2);
    assert_eq!(space.windows(), []);
}

#[test]
fn a_moved_bar_says_from_where_to_where() {
    let mut space = space();
    enable_memory(&mut space);
    let moves = space.write(0x18, &0xd000_0fffu32.to_le_bytes());
    let expected = BarMove { bar: 2, len: 0x1000, from: Some(0xe000_0000), to: Some(0xd000_0000) };
    assert_eq!(moves, [expected]);
}

#[test]
fn a_bar_that_is_being_probed_or_unassigned_answers_nowhere() {
    let mut space = space();
    enable_memory(&mut space);
    assert_eq!(space.write(0x18, &[0xff; 4])[0].to, None);
    assert_eq!(space.write(0x18, &[0; 4]), [], "from nowhere to nowhere");
    space.write(0x10, &[0xff; 4]);
    assert_eq!(space.write(0x14, &[0xff; 4])[0].to, None);
}

#[test]
fn capabilities_form_a_list_with_masks() {
    let mut space = space();
    let first = space.add_capability(0x11, &[1, 2, 3], &[0, 0xf0]).unwrap();
    let second = space.add_capability(0x09, &[9; 20], &[]).unwrap();
    assert_eq!(u32::from(first), dword(&space, 0x34));
    assert_eq!(dword(&space, first), 0x0201_0011 | u32::from(second) << 8);
    assert_eq!(dword(&space, 4) >> 20 & 1, 1, "status says nothing of the list");
    space.write(first, &[0xff; 4]);
    assert_eq!(dword(&space, first), 0xf201_0011 | u32::from(second) << 8);
    assert!(second.is_multiple_of(4) && second > first);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut space = space();
    assert!(matches!(space.add_capability(9, &[0; 256], &[]), Err(LayoutError::Capability { .. })));
    for (bar, len, address) in [
        (0, 0x1000, 0),
        (1, 0x1000, 0),
        (6, 16, 0),
        (255, 16, 0),
        (3, 8, 0),
        (3, 0x3000, 0),
        (3, 0x1000, 0x800),
    ] {
        assert!(matches!(space.add_bar32(bar, len, address), Err(LayoutError::Bar { .. })), "{bar} {len}");
    }
    assert!(space.add_bar32(3, 0x1000, 0xffff_ffff_f000).is_err(), "above 4 GiB");
    assert!(space.add_bar64(5, 0x1000, 0x1000).is_err(), "no register for the upper half");
    assert!(space.add_bar64(3, 0x1000, 0x1000).is_ok());
}

#[test]
fn reset_brings_the_first_addresses_back() {
    let mut space = space();
    enable_memory(&mut space);
    space.write(0x10, &[0; 8]);
    space.reset();
    assert_eq!(space.windows(), []);
    enable_memory(&mut space);
    assert_eq!(space.windows()[0], (0, 0x1_0000_0000, 0x8000));
}

#[test]
fn a_state_of_another_function_is_refused() {
    let mut space = space();
    let good = space.save();
    for at in 0..CONFIG_BYTES {
        let mut bad = good.clone();
        bad.bytes[at] ^= 0xff;
        let before = space.save();
        if space.restore("test", &bad).is_err() {
            assert_eq!(before, space.save(), "a refused state left something behind");
        }
    }
    let mut bad = good.clone();
    bad.bytes[0] = 0;
    assert!(space.restore("test", &bad).is_err());
    bad = good.clone();
    bad.bytes.pop();
    assert!(space.restore("test", &bad).is_err());
    space.restore("test", &good).unwrap();
    assert_eq!(space.save(), good);
}

proptest! {
    #[test]
    fn moves_always_lead_from_the_old_windows_to_the_new(
        writes in prop::collection::vec((0u16..300, prop::collection::vec(any::<u8>(), 1..=4)), 1..100)
    ) {
        let mut space = space();
        let mut places = std::collections::BTreeMap::new();
        for (offset, data) in writes {
            for moved in space.write(offset, &data) {
                prop_assert_eq!(places.get(&moved.bar).copied(), moved.from);
                match moved.to {
                    Some(to) => places.insert(moved.bar, to),
                    None => places.remove(&moved.bar),
                };
            }
            let windows: Vec<_> = space.windows().into_iter().map(|(bar, at, _)| (bar, at)).collect();
            prop_assert_eq!(windows, places.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(dword(&space, 0), 0x1042_1af4);
        }
    }
}
