//! `orlop_fuzz::oci_documents` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::oci_documents::run(bytes));
