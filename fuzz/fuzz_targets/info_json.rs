//! `meta/info.json` of a dataset.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_dataset::lerobot::reader::fuzz_info(bytes));
