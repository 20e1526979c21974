//! A whole message off the wire.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_protocol::message::fuzz_message(bytes));
