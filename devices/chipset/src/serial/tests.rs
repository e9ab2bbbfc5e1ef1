use super::*;
use crate::testing::{read_byte, survives_every_access, survives_every_mutation};
use orlop_bus::BusDevice;
use std::sync::atomic::{AtomicUsize, Ordering};

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const INTERRUPT_ID: u64 = 2;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;

#[derive(Default)]
struct Terminal {
    output: Mutex<Vec<u8>>,
    drained: AtomicUsize,
    edges: AtomicUsize,
}

impl SerialSink for Terminal {
    fn output(&self, byte: u8) {
        self.output.lock().unwrap().push(byte);
    }
    fn input_drained(&self) {
        self.drained.fetch_add(1, Ordering::Relaxed);
    }
}

fn serial() -> (Serial, Arc<Terminal>) {
    let terminal = Arc::new(Terminal::default());
    let line = Arc::clone(&terminal);
    let interrupt = Arc::new(move || {
        line.edges.fetch_add(1, Ordering::Relaxed);
    });
    (Serial::new(interrupt, terminal.clone()), terminal)
}

fn read_all(serial: &Serial) -> Vec<u8> {
    let mut bytes = Vec::new();
    while read_byte(serial, LINE_STATUS) & 1 != 0 {
        bytes.push(read_byte(serial, DATA));
    }
    bytes
}

#[test]
fn output_reaches_the_sink() {
    let (serial, terminal) = serial();
    for byte in b"hello" {
        assert_eq!(read_byte(&serial, LINE_STATUS), 0x60);
        serial.write(DATA, &[*byte]);
    }
    assert_eq!(*terminal.output.lock().unwrap(), b"hello");
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 0);
}

#[test]
fn an_empty_transmitter_interrupts_when_asked_to() {
    let (serial, terminal) = serial();
    serial.write(INTERRUPT_ENABLE, &[2]);
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 1);
    assert_eq!(read_byte(&serial, INTERRUPT_ID) & 0xf, 2);
    assert_eq!(read_byte(&serial, INTERRUPT_ID) & 0xf, 1);
    serial.write(DATA, b"x");
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 2);
}

#[test]
fn input_longer_than_the_port_arrives_whole() {
    let (serial, terminal) = serial();
    serial.write(INTERRUPT_ENABLE, &[1]);
    let text: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    assert_eq!(serial.input(&text), 1000);
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 1);
    assert_eq!(read_byte(&serial, INTERRUPT_ID) & 0xf, 4);
    assert_eq!(read_all(&serial), text);
    assert_eq!(terminal.drained.load(Ordering::Relaxed), 1);
    // A driver that leaves after each bufferful is called again.
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 1000_usize.div_ceil(FIFO_BYTES));
}

#[test]
fn input_is_bounded_and_nothing_of_it_is_lost() {
    let (serial, _terminal) = serial();
    let flood = vec![b'x'; 100_000];
    let first = serial.input(&flood);
    assert_eq!(first, INPUT_BACKLOG_BYTES);
    assert_eq!(serial.input(&flood), FIFO_BYTES);
    assert_eq!(serial.input(&flood), 0);
    assert_eq!(read_all(&serial).len(), INPUT_BACKLOG_BYTES + FIFO_BYTES);
    assert_eq!(serial.input(b""), 0);
}

#[test]
fn input_that_came_before_its_interrupt_was_enabled_is_announced() {
    let (serial, terminal) = serial();
    serial.input(b"early");
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 0);
    serial.write(INTERRUPT_ENABLE, &[1]);
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 1);
    assert_eq!(read_all(&serial), b"early");
}

#[test]
fn input_waits_out_the_loopback() {
    let (serial, terminal) = serial();
    serial.write(MODEM_CONTROL, &[0x10]);
    serial.input(b"later");
    serial.write(DATA, b"!");
    assert_eq!(read_all(&serial), b"!");
    assert_eq!(terminal.output.lock().unwrap().len(), 0);
    serial.write(MODEM_CONTROL, &[0]);
    assert_eq!(read_all(&serial), b"later");
}

#[test]
fn no_access_is_too_odd() {
    let (serial, _terminal) = serial();
    survives_every_access(&serial);
    let mut word = [0; 4];
    serial.read(6, &mut word);
    assert_eq!(word[2..], [0xff, 0xff]);
}

#[test]
fn the_port_survives_saving() {
    let (serial, _terminal) = serial();
    serial.write(INTERRUPT_ENABLE, &[1]);
    serial.write(7, &[0x5A]);
    serial.input(&[7; 200]);
    let record = serial.save().unwrap();
    let (other, terminal) = self::serial();
    other.restore(&record).unwrap();
    assert_eq!(terminal.edges.load(Ordering::Relaxed), 1, "a pending interrupt is signalled again");
    assert_eq!(other.save().unwrap(), record);
    assert_eq!(read_all(&other), [7; 200]);
    survives_every_mutation(&record, |record| other.restore(record));
    let state: SerialState = record.read().unwrap();
    let wrong = [
        SerialState { fifo: vec![0; 65], ..state.clone() },
        SerialState { backlog: vec![0; INPUT_BACKLOG_BYTES + 1], ..state.clone() },
        SerialState { line_status: 0x60, ..state.clone() },
        SerialState { interrupt_identification: 3, ..state.clone() },
        SerialState { interrupt_enable: 0x10, ..state },
    ];
    for state in wrong {
        assert!(other.restore(&Record::write("", &state).unwrap()).is_err());
    }
}

#[test]
fn a_reset_forgets_input() {
    let (serial, _terminal) = serial();
    serial.input(&[7; 200]);
    serial.reset();
    assert_eq!(read_all(&serial), b"");
    assert_eq!(serial.save().unwrap(), self::serial().0.save().unwrap());
}
