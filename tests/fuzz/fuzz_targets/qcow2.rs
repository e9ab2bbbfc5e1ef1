//! `orlop_fuzz::qcow2` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::qcow2::run(bytes));
