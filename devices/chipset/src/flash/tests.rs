//! The chip as OVMF's driver uses it, and as nobody should.

use super::*;
use crate::testing::{read_byte, survives_every_access, survives_every_mutation};

#[derive(Default)]
struct Chip {
    bytes: Mutex<Vec<u8>>,
    shown: Mutex<Vec<bool>>,
    broken: Mutex<bool>,
}

impl FlashMemory for Chip {
    fn len_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..data.len()]);
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
        if *self.broken.lock().unwrap() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn show(&self, shown: bool) {
        self.shown.lock().unwrap().push(shown);
    }
}

fn flash() -> (Flash, Arc<Chip>) {
    let chip = Arc::new(Chip { bytes: Mutex::new(vec![0xA5; 8192]), ..Chip::default() });
    (Flash::new(chip.clone()), chip)
}

#[test]
fn a_driver_tells_it_from_rom_and_from_ram() {
    let (flash, chip) = flash();
    // As OVMF's `QemuFlashDetected` does it.
    flash.write(0, &[CLEAR_STATUS]);
    assert_eq!(read_byte(&flash, 0), 0xA5);
    flash.write(0, &[READ_STATUS]);
    assert_eq!(read_byte(&flash, 0), 0);
    flash.write(0, &[READ_ARRAY]);
    assert_eq!(read_byte(&flash, 0), 0xA5);
    assert_eq!(*chip.shown.lock().unwrap(), [false, true]);
    flash.write(0, &[READ_IDENTIFIERS]);
    assert_eq!((read_byte(&flash, 0), read_byte(&flash, 1)), (0x89, 0x15));
}

#[test]
fn programming_takes_bits_away_and_erasing_brings_them_back() {
    let (flash, chip) = flash();
    for (at, byte) in [(5, 0x0F), (6, 0x00)] {
        flash.write(at, &[0x10]);
        flash.write(at, &[byte]);
        assert_eq!(read_byte(&flash, at), STATUS_READY);
    }
    flash.write(5, &[READ_ARRAY]);
    assert_eq!((read_byte(&flash, 5), read_byte(&flash, 6), read_byte(&flash, 7)), (0x05, 0x00, 0xA5));
    flash.write(4097, &[ERASE]);
    flash.write(4097, &[ERASE_CONFIRM]);
    flash.write(0, &[READ_ARRAY]);
    let bytes = chip.bytes.lock().unwrap();
    assert!(bytes[4096..].iter().all(|b| *b == 0xFF));
    assert_eq!(bytes[0], 0xA5);
    // Shown once for each of the two rounds, whatever was written between.
    assert_eq!(*chip.shown.lock().unwrap(), [false, true, false, true]);
}

#[test]
fn an_erase_that_is_not_confirmed_is_an_error_in_the_status() {
    let (flash, chip) = flash();
    flash.write(0, &[ERASE]);
    flash.write(0, &[READ_ARRAY]);
    assert_eq!(read_byte(&flash, 0), STATUS_READY | STATUS_ERRORS);
    flash.write(0, &[CLEAR_STATUS]);
    flash.write(0, &[READ_STATUS]);
    assert_eq!(read_byte(&flash, 0), STATUS_CLEARED);
    assert!(chip.bytes.lock().unwrap().iter().all(|b| *b == 0xA5));
}

#[test]
fn a_host_that_cannot_keep_it_is_an_error_in_the_status() {
    let (flash, chip) = flash();
    *chip.broken.lock().unwrap() = true;
    flash.write(0, &[0x40]);
    flash.write(0, &[0]);
    assert_eq!(read_byte(&flash, 0), STATUS_READY | STATUS_PROGRAM_ERROR);
    flash.write(0, &[ERASE]);
    flash.write(0, &[ERASE_CONFIRM]);
    assert_eq!(read_byte(&flash, 0), STATUS_READY | STATUS_ERRORS);
    assert_eq!(flash.failures(), 2);
}

#[test]
fn nothing_beyond_the_chip_is_touched() {
    let (flash, _) = flash();
    survives_every_access(&flash);
    for mode in [READ_ARRAY, READ_STATUS, 0x10, ERASE] {
        for offset in [8188, 8191, 8192, u64::MAX] {
            flash.write(0, &[mode]);
            flash.write(offset, &[ERASE_CONFIRM; 8]);
            flash.read(offset, &mut [0; 8]);
        }
    }
}

#[test]
fn a_command_in_progress_survives_saving() {
    let (flash, _) = flash();
    flash.write(0, &[0x10]);
    let record = flash.save().unwrap();
    let (other, chip) = self::flash();
    other.restore(&record).unwrap();
    assert_eq!(other.save().unwrap(), record);
    assert_eq!(*chip.shown.lock().unwrap(), [false]);
    other.write(7, &[0]);
    assert_eq!(chip.bytes.lock().unwrap()[7], 0);
    survives_every_mutation(&record, |record| other.restore(record));
    let wrong = Record::write("", &FlashState { mode: 5, status: STATUS_READY }).unwrap();
    assert!(other.restore(&wrong).is_err());
    other.reset();
    assert_eq!(read_byte(&other, 7), 0);
}

#[test]
fn outside_system_management_mode_the_array_is_read_and_nothing_is_written() {
    let (flash, chip) = flash();
    let flash = Arc::new(flash);
    let outside = GuardedFlash::new(Arc::clone(&flash));
    for command in [CLEAR_STATUS, ERASE, ERASE_CONFIRM, PROGRAM[0], 0, READ_STATUS] {
        outside.write(0, &[command]);
        assert_eq!(read_byte(&outside, 0), 0xA5);
    }
    assert!(chip.bytes.lock().unwrap().iter().all(|b| *b == 0xA5));
    assert_eq!((outside.refused(), chip.shown.lock().unwrap().len()), (6, 0));
    // In the middle of a command of somebody inside.
    flash.write(0, &[ERASE]);
    outside.write(0, &[ERASE_CONFIRM]);
    assert_eq!((read_byte(&outside, 0), read_byte(&*flash, 0)), (0xA5, STATUS_READY));
    flash.write(0, &[ERASE_CONFIRM]);
    assert_eq!((read_byte(&outside, 0), read_byte(&*flash, 0)), (0xFF, STATUS_READY));
    survives_every_access(&outside);
}
