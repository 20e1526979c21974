//! A frame's whole way, through the program as people run it: `tendon serve` as a process, REST,
//! the raw wire and the agent, on temporary folders.
//!
//! Read [`journey::one_way`] first. The other files break something on the way: the process, the
//! bytes, the data, the disk, the limits. Nothing sleeps for a fixed time; waits end with a deadline.
//! A test that fails prints the end of its server's log.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail it like the test itself")]

mod journey {
    mod admission;
    mod full_log;
    mod handshake;
    mod hostile_bytes;
    mod hostile_data;
    mod kills;
    mod life;
    mod one_way;
    mod requests;
    mod scene;
    mod server;
    mod tls;
    mod wire;
}
