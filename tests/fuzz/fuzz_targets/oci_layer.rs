//! `orlop_fuzz::oci_layer` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::oci_layer::run(bytes));
