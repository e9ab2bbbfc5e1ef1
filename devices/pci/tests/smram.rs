//! System management RAM: what firmware does to set it up, and what a guest may not do once it is locked.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use orlop_pci::{Bridge, Function, Smram, TSEG_MAX_BYTES, host_bridge};

const TOP: u64 = 0x2000_0000;
const MIB: u64 = 1 << 20;

type Hidden = Arc<Mutex<Vec<Option<Range<u64>>>>>;

fn bridge() -> (Bridge, Hidden) {
    let hidden = Hidden::default();
    let log = Arc::clone(&hidden);
    let hide = Box::new(move |range| log.lock().unwrap().push(range));
    (host_bridge(0xb000_0000, 256, Box::new(|_| {}), Some(Smram { top: TOP, hide })), hidden)
}

fn take(hidden: &Hidden) -> Vec<Option<Range<u64>>> {
    std::mem::take(&mut *hidden.lock().unwrap())
}

fn byte(bridge: &Bridge, offset: u16) -> u8 {
    let mut byte = [0];
    bridge.config_read(offset, &mut byte);
    byte[0]
}

/// As OVMF's `SmmAccessPei` does it: TSEG of the extended size, closed, then enabled.
fn set_up(bridge: &Bridge) {
    let mut extended = [0; 2];
    bridge.config_write(0x50, &[0xff; 2]);
    bridge.config_read(0x50, &mut extended);
    assert_eq!(u64::from(u16::from_le_bytes(extended)) * MIB, TSEG_MAX_BYTES);
    assert_eq!(byte(bridge, 0x9e) & 0x38, 0x38);
    let base = u32::try_from(TOP - TSEG_MAX_BYTES).unwrap();
    bridge.config_write(0xac, &base.to_le_bytes());
    bridge.config_write(0x9e, &[byte(bridge, 0x9e) | 0x07]);
    bridge.config_write(0x9d, &[byte(bridge, 0x9d) & !0x10 | 0x08]);
}

#[test]
fn firmware_opens_and_closes_it_until_it_is_locked() {
    let (bridge, hidden) = bridge();
    assert_eq!((byte(&bridge, 0x9d), byte(&bridge, 0x9e)), (0x02, 0x38));
    set_up(&bridge);
    let all = Some(TOP - TSEG_MAX_BYTES..TOP);
    assert_eq!(take(&hidden), std::slice::from_ref(&all));
    bridge.config_write(0x9e, &[0x3e]);
    bridge.config_write(0x9e, &[0x3f]);
    assert_eq!(take(&hidden), [None, all]);
    bridge.config_write(0x9d, &[byte(&bridge, 0x9d) | 0x10]);
    assert_eq!((byte(&bridge, 0x9d), byte(&bridge, 0x9e), take(&hidden)), (0x1a, 0x3f, vec![]));
}

#[test]
fn what_is_locked_stays_locked_until_the_machine_is_reset() {
    let (bridge, hidden) = bridge();
    set_up(&bridge);
    bridge.config_write(0x9d, &[0x1a]);
    take(&hidden);
    let before: Vec<u8> = (0..=255).map(|offset| byte(&bridge, offset)).collect();
    // Each register by itself, both in one word with their neighbours, and the size that nobody enabled.
    let attempts: [(u16, &[u8]); 8] = [
        (0x9d, &[0x00]),
        (0x9d, &[0x5a & !0x10]),
        (0x9e, &[0x00]),
        (0x9e, &[0x39]),
        (0x9c, &[0; 4]),
        (0xac, &[0; 4]),
        (0xae, &[0xff; 2]),
        (0x9e, &[0x38, 0]),
    ];
    for (count, (offset, data)) in (1..).zip(attempts) {
        bridge.config_write(offset, data);
        assert_eq!(bridge.refused(), count, "{offset:#x} {data:x?}");
    }
    // Writing what is there, and what can never be, asks for nothing.
    bridge.config_write(0x9c, &[0xff; 4]);
    bridge.config_write(0x9d, &[0x1a, 0x3f]);
    bridge.config_write(0x50, &[0x01, 0x00]);
    let after: Vec<u8> = (0..=255).map(|offset| byte(&bridge, offset)).collect();
    assert_eq!((after, take(&hidden), bridge.refused()), (before, vec![], 8));
    bridge.reset();
    assert_eq!((byte(&bridge, 0x9d), byte(&bridge, 0x9e), take(&hidden)), (0x02, 0x38, vec![None]));
    set_up(&bridge);
    assert_eq!(take(&hidden).len(), 1);
}

#[test]
fn no_setting_hides_anything_but_the_top_of_low_memory() {
    let (bridge, hidden) = bridge();
    let sizes = [1, 2, 8, 16];
    for control in 0..=0xffu8 {
        if control & 0x10 != 0 {
            continue;
        }
        for (extended, base) in (0..=0xffu8).zip((0..=u32::MAX).step_by(0x0ff7_0001)) {
            bridge.config_write(0xac, &base.to_le_bytes());
            bridge.config_write(0x9d, &[control, extended]);
        }
    }
    let seen = take(&hidden);
    assert!(seen.len() > 1000);
    for range in seen.into_iter().flatten() {
        assert_eq!(range.end, TOP);
        assert!(sizes.contains(&((range.end - range.start) / MIB)), "{range:x?}");
    }
    // The bits of the kind that there is not are never set.
    bridge.config_write(0x9d, &[0xef, 0xff]);
    assert_eq!((byte(&bridge, 0x9d), byte(&bridge, 0x9e)), (0x0a, 0x3f));
}

#[test]
fn a_saved_lock_is_a_lock() {
    let (bridge, _) = bridge();
    set_up(&bridge);
    bridge.config_write(0x9d, &[0x1a]);
    let saved = bridge.save().unwrap();
    let (other, hidden) = self::bridge();
    other.restore(&saved).unwrap();
    assert_eq!(take(&hidden), [Some(TOP - TSEG_MAX_BYTES..TOP)]);
    other.config_write(0x9d, &[0x02]);
    assert_eq!((byte(&other, 0x9d), other.refused()), (0x1a, 1));
}

#[test]
fn a_bridge_without_it_has_no_registers_for_it() {
    let bridge = host_bridge(0xb000_0000, 256, Box::new(|_| {}), None);
    bridge.config_write(0x9c, &[0xff; 4]);
    let registers = [0x50, 0x51, 0x9d, 0x9e].map(|offset| byte(&bridge, offset));
    assert_eq!((registers, bridge.refused()), ([0; 4], 0));
}

#[test]
fn the_lock_of_system_management_interrupts_is_set_once() {
    let locks: Arc<Mutex<Vec<bool>>> = Arc::default();
    let log = Arc::clone(&locks);
    let lpc = orlop_pci::lpc(0x600, Some(Box::new(move |locked| log.lock().unwrap().push(locked))));
    let take = || std::mem::take(&mut *locks.lock().unwrap());
    lpc.config_write(0xa0, &[0xef, 0xff]);
    assert_eq!((byte(&lpc, 0xa0), take()), (0, vec![]));
    lpc.config_write(0xa0, &[0x10, 0]);
    lpc.config_write(0xa0, &[0x10, 0]);
    lpc.config_write(0xa0, &[0; 4]);
    lpc.config_write(0xa0, &[0]);
    assert_eq!((byte(&lpc, 0xa0), take(), lpc.refused()), (0x10, vec![true], 2));
    let saved = lpc.save().unwrap();
    lpc.reset();
    assert_eq!((byte(&lpc, 0xa0), take()), (0, vec![false]));
    lpc.restore(&saved).unwrap();
    assert_eq!(take(), [true]);
    let without = orlop_pci::lpc(0x600, None);
    without.config_write(0xa0, &[0x10]);
    assert_eq!((byte(&without, 0xa0), without.refused()), (0, 0));
}
