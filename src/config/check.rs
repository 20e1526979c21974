//! The bounds of every setting. Each problem names the key, the value, the limits and what to do.

use tendon_protocol::limit::PAYLOAD_BYTES_MAX;

use super::{Config, GIB, KIB, MIB};
use crate::auth::Origin;

/// Most threads that serve sockets; more than any machine that this was tried on has cores.
const WORKERS_MAX: usize = 256;
/// Most entries that wait for the log's writer; their bytes are bounded by `memory` anyway.
const QUEUE_ENTRIES_MAX: usize = 1 << 20;
/// Most origins; each request of a browser is compared with all of them.
const ORIGINS_MAX: usize = 64;
/// A day: longer waits are mistakes of the unit.
const WAIT_S_MAX: u64 = 86_400;
/// The largest message with its envelope, which every burst and permit must be able to hold.
const MESSAGE_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64 + 64 * KIB;

/// Everything that is wrong, in the order of the file.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if config.data.as_os_str().is_empty() {
        problems.push("data is empty; name the folder that holds everything the server keeps".to_owned());
    }
    let mut within = |key: &str, value: u64, low: u64, high: u64, remedy: &str| {
        if value < low || value > high {
            problems.push(format!("{key} is {value}, allowed are {low} to {high}; {remedy}"));
        }
    };
    within("workers", config.workers as u64, 0, WORKERS_MAX as u64, "0 takes one a core");
    times(config, &mut within);
    log_and_memory(config, &mut within);
    admission(config, &mut within);
    if config.video.ffmpeg.as_os_str().is_empty() {
        problems.push("video.ffmpeg is empty; write ffmpeg, or the path of the program".to_owned());
    }
    origins(config, &mut problems);
    tls(config, &mut problems);
    problems
}

fn times(config: &Config, within: &mut impl FnMut(&str, u64, u64, u64, &str)) {
    within("flush_wait_s", config.flush_wait_s, 1, WAIT_S_MAX, "a few seconds suit a steady network");
    within("probe_interval_s", config.probe_interval_s, 1, 3600, "the default 5 suits most clocks");
    within(
        "idle_timeout_s",
        config.idle_timeout_s,
        config.probe_interval_s.saturating_mul(2).min(WAIT_S_MAX),
        WAIT_S_MAX,
        "it must span two probes (twice probe_interval_s), or quiet producers are cut off",
    );
    within("mark_lag_s", config.mark_lag_s, 1, WAIT_S_MAX, "it keeps samples outside episodes, so keep it short");
}

fn log_and_memory(config: &Config, within: &mut impl FnMut(&str, u64, u64, u64, &str)) {
    let log = &config.log;
    within("log.segment_bytes", log.segment_bytes, 4 * MIB, GIB, "64 MiB (67108864) suits most disks");
    within(
        "log.frames_bytes_max",
        log.frames_bytes_max,
        log.segment_bytes.saturating_mul(4),
        1 << 50,
        "leave room for four segments (4 x log.segment_bytes) or make segments smaller",
    );
    within("log.queue_entries", log.queue_entries as u64, 16, QUEUE_ENTRIES_MAX as u64, "4096 suits most machines");
    let memory = &config.memory;
    within(
        "memory.session_bytes",
        memory.session_bytes,
        2 * MESSAGE_BYTES_MAX,
        GIB,
        "it must hold two of the largest messages, or a session would wait for itself",
    );
    within(
        "memory.process_bytes",
        memory.process_bytes,
        memory.session_bytes,
        1 << 40,
        "it must hold at least one session (memory.session_bytes)",
    );
}

fn admission(config: &Config, within: &mut impl FnMut(&str, u64, u64, u64, &str)) {
    let admission = &config.admission;
    let positive = "0 would let nothing in";
    for (key, value) in [
        ("admission.connection_messages_per_s", admission.connection_messages_per_s),
        ("admission.connection_messages_burst", admission.connection_messages_burst),
        ("admission.connection_bytes_per_s", admission.connection_bytes_per_s),
        ("admission.operator_messages_per_s", admission.operator_messages_per_s),
        ("admission.operator_messages_burst", admission.operator_messages_burst),
        ("admission.operator_bytes_per_s", admission.operator_bytes_per_s),
        ("admission.handshakes_per_s", admission.handshakes_per_s),
        ("admission.handshakes_burst", admission.handshakes_burst),
    ] {
        within(key, u64::from(value), 1, u64::from(u32::MAX), positive);
    }
    for (key, value) in [
        ("admission.connection_bytes_burst", admission.connection_bytes_burst),
        ("admission.operator_bytes_burst", admission.operator_bytes_burst),
    ] {
        let remedy = "it must hold the largest message, or that message could never pass";
        within(key, u64::from(value), MESSAGE_BYTES_MAX, u64::from(u32::MAX), remedy);
    }
}

fn origins(config: &Config, problems: &mut Vec<String>) {
    let origins = &config.public.allowed_origins;
    if origins.len() > ORIGINS_MAX {
        problems.push(format!(
            "public.allowed_origins has {} entries, the limit is {ORIGINS_MAX}; serve the pages from fewer origins",
            origins.len()
        ));
    }
    for origin in origins.iter().take(ORIGINS_MAX) {
        if let Err(error) = origin.parse::<Origin>() {
            problems.push(format!("public.allowed_origins: {error}"));
        }
    }
}

fn tls(config: &Config, problems: &mut Vec<String>) {
    let Some(tls) = &config.tls else { return };
    for (key, file) in [("tls.cert", &tls.cert), ("tls.key", &tls.key)] {
        if file.as_os_str().is_empty() {
            problems.push(format!("{key} is empty; name a PEM file, or remove the section tls"));
        }
    }
}
