//! `orlop_fuzz::vm_config` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::vm_config::run(bytes));
