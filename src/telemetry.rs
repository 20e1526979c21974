//! Logs and metrics: how they are set up, and the one list of what is measured.
//!
//! Read [`METRICS`] first. [`init_logs`] and [`install_metrics`] are called once each by `main`.
//! Code anywhere counts with the macros of the crate `metrics`; a test here holds the names that it
//! uses to the list.

use std::io::{self, IsTerminal};
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// Environment variable that chooses what is logged, such as `info` or `tendon=debug,warn`.
pub const LOG_VARIABLE: &str = "TENDON_LOG";
/// Without the variable: what an operator should know, and only trouble from libraries.
const LOG_DEFAULT: &str =
    "warn,tendon=info,tendon_storage=info,tendon_actors=info,tendon_dataset=info,tendon_agent=info";

/// Time from a message's arrival to its acknowledgement; its buckets are set here.
pub const ACK_LATENCY: &str = "tendon_ack_latency_seconds";
/// REST requests that were not let in.
pub const REQUESTS_REFUSED: &str = "tendon_requests_refused_total";

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times, counted by how long they were.
    Histogram,
}

/// One metric of the server.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name with the unit last, as Prometheus wants it.
    pub name: &'static str,
    /// Kind.
    pub kind: MetricKind,
    /// What it counts and in which unit.
    pub help: &'static str,
}

/// Every metric that the server has. Lower floors write the names out, since they cannot import them.
pub const METRICS: &[Metric] = &[
    counter("tendon_frames_stored_total", "samples of numbers and camera pictures that are durable"),
    counter("tendon_stored_bytes_total", "bytes of durable messages, as they lie in the log"),
    counter("tendon_duplicates_removed_total", "samples that came again and were left out"),
    counter("tendon_fenced_messages_total", "messages of older connections of a producer, which were left out"),
    counter("tendon_refused_total", "messages that were refused, by code"),
    counter("tendon_throttled_ms_total", "milliseconds by which the record lane was delayed"),
    histogram(ACK_LATENCY, "seconds from a message's arrival to its acknowledgement"),
    gauge("tendon_connections", "producers that are connected"),
    counter("tendon_handshakes_refused_total", "handshakes of producers that were refused, by code"),
    counter(REQUESTS_REFUSED, "REST requests that were not let in, by code"),
    gauge("tendon_log_bytes", "bytes of the log that episodes still need"),
    gauge("tendon_log_bytes_max", "most bytes that the log may hold before it stops acknowledging"),
    counter("tendon_episodes_flushed_total", "episodes that left the log, by state"),
    counter("tendon_exports_total", "exports that ended, by state"),
];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, help }
}

/// Bounds of the acknowledgement's histogram in seconds: from a fast disk's sync to a stuck one.
const ACK_BOUNDS_S: &[f64] =
    &[0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Times collect in memory until they are sorted into their histogram; at 10,000 a second this
/// bounds them to less than a megabyte.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people, with colours on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Logs or metrics could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The variable holds no filter.
    #[error("{LOG_VARIABLE} is {got:?} ({reason}); write a level such as info, or tendon=debug,warn")]
    Filter {
        /// What it holds.
        got: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Called twice.
    #[error("logs are set up already; call init_logs once")]
    LogsTwice,
    /// The recorder could not be installed.
    #[error("metrics cannot be set up ({0}); call install_metrics once")]
    Metrics(#[from] BuildError),
    /// The thread that sorts times into histograms could not be started.
    #[error("no thread for metrics ({0}); raise the limit of threads")]
    Thread(io::Error),
}

/// Sends log lines to stderr, filtered by the variable [`LOG_VARIABLE`].
///
/// # Errors
/// When the variable holds no filter, or logs are set up already.
pub fn init_logs(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(LOG_VARIABLE).ok().as_deref())?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let installed = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| TelemetryError::LogsTwice)
}

fn filter(variable: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let wanted = variable.filter(|text| !text.trim().is_empty()).unwrap_or(LOG_DEFAULT);
    EnvFilter::try_new(wanted)
        .map_err(|error| TelemetryError::Filter { got: wanted.chars().take(128).collect(), reason: error.to_string() })
}

/// Makes the process count, and gives the handle that `/metrics` prints from.
///
/// # Errors
/// When metrics are set up already.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = builder()?.install_recorder()?;
    describe();
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                upkeep.run_upkeep();
            }
        })
        .map_err(TelemetryError::Thread)?;
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Full(ACK_LATENCY.to_owned()), ACK_BOUNDS_S)
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
mod tests;
