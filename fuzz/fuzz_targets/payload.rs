//! A payload behind its envelope: the first byte is the kind.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_protocol::message::fuzz_payload(bytes));
