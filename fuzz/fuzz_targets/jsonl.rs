//! `meta/*.jsonl` of a dataset of version 2.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_dataset::lerobot::reader::fuzz_jsonl(bytes));
