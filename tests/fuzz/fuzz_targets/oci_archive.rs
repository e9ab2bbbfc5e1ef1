//! `orlop_fuzz::oci_archive` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::oci_archive::run(bytes));
