//! The server's configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = tendon::config::Config::parse(text, "fuzz.toml");
    }
});
