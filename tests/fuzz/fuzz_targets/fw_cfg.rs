//! `orlop_fuzz::fw_cfg` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::fw_cfg::run(bytes));
