//! `orlop_fuzz::kernel` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::kernel::run(bytes));
