//! `orlop_fuzz::ahci` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::ahci::run(bytes));
