//! `orlop_fuzz::dhcp` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::dhcp::run(bytes));
