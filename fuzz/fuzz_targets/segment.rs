//! Files of the embedded log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_storage::frames::fuzz_segment(bytes));
