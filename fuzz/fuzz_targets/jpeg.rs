//! A camera's picture.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_dataset::jpeg::fuzz_jpeg(bytes));
