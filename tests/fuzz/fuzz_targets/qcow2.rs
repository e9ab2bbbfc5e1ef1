//! Any bytes as a qcow2 image that a guest reads and writes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The host's errors say nothing about the image.
    let _ = orlop_disk::kit::fuzz::qcow2(bytes);
});
