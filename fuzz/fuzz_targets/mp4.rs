//! A video file of a dataset.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tendon_dataset::mp4::demux::fuzz_demux(bytes));
