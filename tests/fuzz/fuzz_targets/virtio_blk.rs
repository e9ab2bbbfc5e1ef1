//! `orlop_fuzz::virtio_blk` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orlop_fuzz::virtio_blk::run(bytes));
