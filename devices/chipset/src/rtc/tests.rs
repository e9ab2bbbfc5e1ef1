use super::*;
use crate::testing::{TestClock, read_byte, survives_every_access, survives_every_mutation};
use orlop_bus::BusDevice;

const SIZES: Inventory = Inventory { processors: 3, low: 2 << 30, high: 4 << 30 };
/// 2026-11-23T13:45:59Z, a Monday.
const NOW: u64 = 1_795_441_559;

fn rtc_at(now: Duration) -> (Rtc, Arc<TestClock>) {
    let clock = TestClock::at(now);
    (Rtc::new(clock.clone(), 0, SIZES), clock)
}

fn rtc() -> (Rtc, Arc<TestClock>) {
    rtc_at(Duration::from_secs(NOW))
}

fn get(rtc: &Rtc, register: u8) -> u8 {
    rtc.write(0, &[register]);
    read_byte(rtc, 1)
}

fn set(rtc: &Rtc, register: u8, value: u8) {
    rtc.write(0, &[register]);
    rtc.write(1, &[value]);
}

fn time(rtc: &Rtc) -> [u8; 8] {
    [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|r| get(rtc, r))
}

#[test]
fn the_time_is_the_hosts_in_bcd() {
    let (rtc, clock) = rtc();
    assert_eq!(time(&rtc), [0x20, 0x26, 0x11, 0x23, 0x02, 0x13, 0x45, 0x59]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(time(&rtc)[5..], [0x13, 0x46, 0x00]);
}

#[test]
fn the_offset_is_added() {
    let rtc = Rtc::new(TestClock::at(Duration::from_secs(NOW)), -3600, SIZES);
    assert_eq!(get(&rtc, HOURS), 0x12);
    let rtc = Rtc::new(TestClock::at(Duration::ZERO), i64::MIN, SIZES);
    time(&rtc);
}

#[test]
fn binary_and_twelve_hours_can_be_chosen() {
    let (rtc, clock) = rtc();
    set(&rtc, REGISTER_B, B_BINARY);
    assert_eq!(time(&rtc), [20, 26, 11, 23, 2, 1 | PM, 45, 59]);
    clock.advance(Duration::from_secs(11 * 3600));
    assert_eq!(get(&rtc, HOURS), 12);
    clock.advance(Duration::from_secs(12 * 3600));
    assert_eq!(get(&rtc, HOURS), 12 | PM);
}

#[test]
fn setting_the_time_takes_effect_when_it_is_complete() {
    let (rtc, clock) = rtc();
    set(&rtc, REGISTER_B, B_24_HOURS | B_SET);
    clock.advance(Duration::from_secs(10));
    assert_eq!(get(&rtc, SECONDS), 0x59, "time stands still while it is set");
    for (register, value) in [(DAY, 0x29), (MONTH, 0x02), (YEAR, 0x28), (HOURS, 0x23), (MINUTES, 0x59)] {
        set(&rtc, register, value);
    }
    set(&rtc, REGISTER_B, B_24_HOURS);
    clock.advance(Duration::from_secs(1));
    assert_eq!(time(&rtc), [0x20, 0x28, 0x03, 0x01, 0x04, 0x00, 0x00, 0x00]);
}

#[test]
fn an_impossible_time_changes_nothing() {
    let (rtc, _clock) = rtc();
    let before = time(&rtc);
    for (register, value) in [(MONTH, 0x13), (MONTH, 0x1F), (DAY, 0x31), (HOURS, 0x24), (SECONDS, 0x60)] {
        set(&rtc, register, value);
        assert_eq!(time(&rtc), before);
    }
    set(&rtc, MINUTES, 0x46);
    assert_eq!(get(&rtc, MINUTES), 0x46);
}

#[test]
fn an_update_shows_shortly_before_the_second_changes() {
    let (rtc, clock) = rtc_at(Duration::from_secs(NOW) + Duration::from_millis(500));
    assert_eq!(get(&rtc, REGISTER_A), A_DEFAULT);
    clock.advance(Duration::from_millis(499));
    assert_eq!(get(&rtc, REGISTER_A), A_DEFAULT | A_UPDATE_IN_PROGRESS);
    clock.advance(Duration::from_millis(1));
    assert_eq!(get(&rtc, REGISTER_A), A_DEFAULT);
}

#[test]
fn firmware_finds_the_memory_sizes() {
    let (rtc, _clock) = rtc();
    let word = |register: u8| u16::from_le_bytes([get(&rtc, register), get(&rtc, register + 1)]);
    assert_eq!((word(0x15), word(0x17), word(0x30)), (640, 65535, 65535));
    assert_eq!(u64::from(word(0x34)) * (64 << 10) + (16 << 20), 2 << 30);
    assert_eq!(word(0x5B), 0);
    assert_eq!(get(&rtc, 0x5D), 1);
    let small =
        Rtc::new(TestClock::at(Duration::ZERO), 0, Inventory { processors: 3, low: 8 << 20, high: u64::MAX });
    assert_eq!((get(&small, 0x17), get(&small, 0x18)), (0x00, 0x1C));
    assert_eq!((get(&small, 0x34), get(&small, 0x5B)), (0, 0xff));
}

#[test]
fn memory_outlives_a_reset_but_modes_do_not() {
    let (rtc, _clock) = rtc();
    set(&rtc, 0x40, 0x5A);
    set(&rtc, REGISTER_B, 0xff);
    set(&rtc, REGISTER_D, 0);
    assert_eq!((get(&rtc, REGISTER_C), get(&rtc, REGISTER_D)), (0, D_VALID));
    rtc.reset();
    assert_eq!((get(&rtc, 0x40), get(&rtc, REGISTER_B)), (0x5A, B_24_HOURS));
    survives_every_access(&rtc);
}

#[test]
fn the_clock_survives_saving() {
    let (rtc, _clock) = rtc();
    set(&rtc, YEAR, 0x30);
    set(&rtc, 0x40, 0x5A);
    let record = rtc.save().unwrap();
    let (other, _clock) = self::rtc();
    other.restore(&record).unwrap();
    assert_eq!(other.save().unwrap(), record);
    assert_eq!(time(&other), time(&rtc));
    survives_every_mutation(&record, |record| other.restore(record));
    let state: RtcState = record.read().unwrap();
    let wrong = [
        RtcState { index: 0x80, ..state.clone() },
        RtcState { offset_seconds: i64::MIN, ..state.clone() },
        RtcState { ram: vec![0; 127], ..state },
    ];
    for state in wrong {
        assert!(matches!(
            other.restore(&Record::write("", &state).unwrap()),
            Err(StateError::Invalid { .. })
        ));
    }
}
