//! What a run found: a table for people, JSON for machines, the same numbers in both.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::latencies::Latencies;
use crate::machine::{Machine, commit};
use crate::server_process::LogFiles;
use crate::values::WIDTH;
use crate::yardstick::Limits;

/// How large a frame is: one sample of 28 f32 values with its capture time and flags.
#[derive(Clone, Debug, Serialize)]
pub struct FrameBytes {
    /// Elements.
    pub values: usize,
    /// Their type.
    pub dtype: &'static str,
    /// Values, capture time (8) and flags (1), before any envelope.
    pub content: usize,
    /// On the wire, with its share of envelope, archive and WebSocket framing.
    pub on_wire: f64,
    /// In the server's log, with its share of the envelope; the log's own record heads (under 4 %) are left out.
    pub at_rest: f64,
}

impl FrameBytes {
    /// Of batches of `count` samples.
    pub fn new(on_wire: f64, at_rest: f64) -> Self {
        Self { values: WIDTH, dtype: "f32", content: 9 + 4 * WIDTH, on_wire, at_rest }
    }
}

/// What was sent and what became durable.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    /// Sent.
    pub offered: f64,
    /// Acknowledged as durable.
    pub stored: f64,
}

/// CPU time for each stored frame in microseconds, and in whole cores.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    /// The server's process; absent for a server that was not started here.
    pub server: Option<f64>,
    /// This process.
    pub client: f64,
}

/// Times from a message's write to its acknowledgement in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AckMs {
    /// Half of the messages took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Messages.
    pub count: u64,
}

impl AckMs {
    /// Of all times.
    pub fn of(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.quantile_ms(0.5),
            p99: latencies.quantile_ms(0.99),
            p999: latencies.quantile_ms(0.999),
            max: latencies.max_ms(),
            count: latencies.count(),
        }
    }
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rss {
    /// The server before its first session.
    pub server_empty: Option<u64>,
    /// The server at the end of the measurement.
    pub server: Option<u64>,
    /// This process.
    pub client: u64,
}

/// The log's files before and after a measurement: a young log makes files while it is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LogWarmth {
    /// At the begin.
    pub before: LogFiles,
    /// At the end.
    pub after: LogFiles,
    /// No file was made: every byte went into a file that was written before.
    pub warm: bool,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Load {
    /// Sessions.
    pub sessions: u32,
    /// Length in seconds.
    pub seconds: f64,
    /// Samples of numbers.
    pub frames_per_s: Rates,
    /// Pictures of cameras.
    pub pictures_per_s: Rates,
    /// CPU time in microseconds for each stored frame.
    pub cpu_us_per_frame: Cpu,
    /// CPU time for each second.
    pub cpu_cores: Cpu,
    /// Acknowledgements.
    pub ack_ms: AckMs,
    /// Memory.
    pub rss_bytes: Rss,
    /// Samples that were sent, and that the server does not have.
    pub lost: u64,
    /// Samples that came twice and were left out by the server.
    pub duplicates: u64,
    /// Delay that the server announced, all sessions together.
    pub throttled_ms: u64,
    /// Bytes of a frame on the wire.
    pub wire_bytes_per_frame: f64,
    /// Bytes of a frame in the log.
    pub rest_bytes_per_frame: f64,
    /// The log's files.
    pub log: Option<LogWarmth>,
    /// Connections that were cut on purpose, and samples that were sent again; of `flaky`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flaky: Option<Flaky>,
}

/// What `flaky` did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Flaky {
    /// Connections cut.
    pub cuts: u64,
    /// Connections that the server welcomed.
    pub connections: u64,
    /// Samples sent again.
    pub replayed: u64,
}

/// Results as shares of what the machine can do. Absent where a scenario does not measure it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ratios {
    /// Bytes made durable in the log against the disk's sequential limit, both a second.
    pub durable_to_disk: Option<f64>,
    /// The same against 1 MiB writes with a sync each, which is what the log does to the disk.
    pub durable_to_group_commit: Option<f64>,
    /// Acknowledgements' p99 (at half load if that was measured) against that of a lone fdatasync.
    pub ack_p99_to_fdatasync_p99: Option<f64>,
    /// CPU time of the server for a frame, in microseconds.
    pub server_cpu_us_per_frame: Option<f64>,
    /// Memory of the server for each idle session, in bytes.
    pub idle_rss_bytes_per_session: Option<f64>,
    /// Stored frames against those of the bare loopback.
    pub durable_to_tcp: Option<f64>,
    /// Stored frames against offered ones.
    pub stored_to_offered: Option<f64>,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which scenario.
    pub scenario: String,
    /// Commit of the folder that this ran in; `+` behind it if files differ.
    pub commit: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// What was asked for.
    pub settings: Value,
    /// Seed of everything random.
    pub seed: u64,
    /// Bytes of a frame.
    pub frame: FrameBytes,
    /// The measurement.
    #[serde(flatten)]
    pub load: Load,
    /// The second measurement, at half of what the first one stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_load: Option<Load>,
    /// What the machine can do, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Results as shares of it.
    pub ratios: Ratios,
}

/// Bytes of a stored picture of a camera of the load.
pub const PICTURE_BYTES: f64 = 40_080.0;

impl Report {
    /// Puts a run together.
    pub fn new(scenario: &str, data: &Path, settings: Value, seed: u64, load: Load) -> Self {
        Self {
            scenario: scenario.to_owned(),
            commit: commit(),
            machine: Machine::here(data),
            settings,
            seed,
            frame: FrameBytes::new(load.wire_bytes_per_frame, load.rest_bytes_per_frame),
            load,
            half_load: None,
            limits: None,
            ratios: Ratios::default(),
        }
    }

    /// Works out the ratios from what is there.
    pub fn with_ratios(mut self) -> Self {
        let load = &self.load;
        let per = |value: f64, by: f64| (by > 0.0).then(|| value / by);
        self.ratios.server_cpu_us_per_frame = load.cpu_us_per_frame.server;
        self.ratios.stored_to_offered = per(load.frames_per_s.stored, load.frames_per_s.offered);
        if let Some(limits) = &self.limits {
            let bytes =
                load.frames_per_s.stored.mul_add(load.rest_bytes_per_frame, load.pictures_per_s.stored * PICTURE_BYTES);
            let ack = self.half_load.as_ref().unwrap_or(load).ack_ms.p99;
            self.ratios.durable_to_disk = per(bytes, limits.disk.bytes_per_s);
            self.ratios.durable_to_group_commit = per(bytes, limits.disk.group_commit_bytes_per_s);
            self.ratios.ack_p99_to_fdatasync_p99 = per(ack, limits.fdatasync_ms.p99);
            self.ratios.durable_to_tcp = per(load.frames_per_s.stored, limits.tcp.frames_per_s);
        }
        self
    }

    /// Whether nothing was lost.
    pub fn is_clean(&self) -> bool {
        self.load.lost == 0 && self.half_load.as_ref().is_none_or(|half| half.lost == 0)
    }

    /// Prints the table, and writes the JSON where it was asked for.
    pub fn publish(&self, json: Option<&Path>) -> Result<()> {
        publish(&self.table(), self, json)
    }

    fn table(&self) -> String {
        let mut rows = vec![
            (
                "scenario",
                format!(
                    "{}, {} sessions, {:.1} s, seed {}",
                    self.scenario, self.load.sessions, self.load.seconds, self.seed
                ),
            ),
            (
                "machine",
                format!(
                    "{}, {} cores, {}, load {:.1}",
                    self.machine.cpu, self.machine.cores, self.machine.file_system, self.machine.load_before
                ),
            ),
            ("commit", self.commit.clone().unwrap_or_else(|| "unknown".into())),
            (
                "a frame",
                format!(
                    "28 f32 with time and flags: {} bytes, {:.1} on the wire, {:.1} at rest",
                    self.frame.content, self.frame.on_wire, self.frame.at_rest
                ),
            ),
        ];
        load_rows(&self.load, &mut rows);
        if let Some(half) = &self.half_load {
            rows.push(("", String::new()));
            rows.push(("at half load", String::new()));
            load_rows(half, &mut rows);
        }
        if let Some(limits) = &self.limits {
            rows.push(("", String::new()));
            limit_rows(limits, &mut rows);
        }
        rows.push(("", String::new()));
        ratio_rows(&self.ratios, &mut rows);
        rows.iter().map(|(name, value)| format!("{name:<22} {value}").trim_end().to_owned() + "\n").collect()
    }
}

fn load_rows(load: &Load, rows: &mut Vec<(&'static str, String)>) {
    let rates = |rates: &Rates| format!("{:.0} offered, {:.0} stored", rates.offered, rates.stored);
    let server = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
    rows.push(("frames/s", rates(&load.frames_per_s)));
    if load.pictures_per_s.offered > 0.0 {
        rows.push(("pictures/s", rates(&load.pictures_per_s)));
    }
    rows.push((
        "CPU us/frame",
        format!("server {}, client {:.3}", server(load.cpu_us_per_frame.server), load.cpu_us_per_frame.client),
    ));
    rows.push(("CPU cores", format!("server {}, client {:.2}", server(load.cpu_cores.server), load.cpu_cores.client)));
    let ack = &load.ack_ms;
    rows.push(("ack ms", format!("p50 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}", ack.p50, ack.p99, ack.p999, ack.max)));
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "-".into(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
    };
    let rss = &load.rss_bytes;
    rows.push((
        "RSS MiB",
        format!("server {} (empty {}), client {}", mib(rss.server), mib(rss.server_empty), mib(Some(rss.client))),
    ));
    rows.push(("lost, duplicates", format!("{}, {}", load.lost, load.duplicates)));
    if load.throttled_ms > 0 {
        rows.push(("throttled ms", load.throttled_ms.to_string()));
    }
    if let Some(flaky) = load.flaky {
        rows.push((
            "connections",
            format!("{} welcomed, {} cut; {} samples sent again", flaky.connections, flaky.cuts, flaky.replayed),
        ));
    }
    if let Some(log) = load.log {
        let state =
            if log.warm { "warm" } else { "NOT warm: files were made and filled with zeros during the measurement" };
        rows.push(("log files", format!("{} before, {} after: {state}", log.before.count, log.after.count)));
    }
}

fn limit_rows(limits: &Limits, rows: &mut Vec<(&'static str, String)>) {
    let mb = |bytes: f64| format!("{:.1} MB/s", bytes / 1e6);
    let each = |values: &[f64]| values.iter().map(|value| format!("{:.0}", value / 1e6)).collect::<Vec<_>>().join(" ");
    let disk = &limits.disk;
    rows.push((
        "disk limit",
        format!(
            "{} (sync each MiB: {} [{}]; one sync: {} [{}])",
            mb(disk.bytes_per_s),
            mb(disk.group_commit_bytes_per_s),
            each(&disk.group_commit_each),
            mb(disk.one_sync_bytes_per_s),
            each(&disk.one_sync_each)
        ),
    ));
    rows.push(("", disk.how.clone()));
    rows.push((
        "fdatasync ms",
        format!(
            "p50 {:.2}, p99 {:.2} of {}",
            limits.fdatasync_ms.p50, limits.fdatasync_ms.p99, limits.fdatasync_ms.count
        ),
    ));
    rows.push((
        "TCP limit",
        format!("{:.0} frames/s, {:.3} us CPU/frame", limits.tcp.frames_per_s, limits.tcp.cpu_us_per_frame),
    ));
    rows.push(("", limits.tcp.how.clone()));
}

fn ratio_rows(ratios: &Ratios, rows: &mut Vec<(&'static str, String)>) {
    let mut row = |name, value: Option<f64>, aim: &str| {
        if let Some(value) = value {
            rows.push((name, format!("{value:.3}{aim}")));
        }
    };
    row("durable / disk", ratios.durable_to_disk, "   (aim 0.8 or more, 16 a batch)");
    row("durable / sync each", ratios.durable_to_group_commit, "");
    row("ack p99 / sync p99", ratios.ack_p99_to_fdatasync_p99, "   (aim 3 or less, at half load)");
    row("server CPU us/frame", ratios.server_cpu_us_per_frame, "   (aim 0.5 or less, 16 a batch)");
    row("idle RSS B/session", ratios.idle_rss_bytes_per_session, "   (aim 40000 or less)");
    row("durable / TCP", ratios.durable_to_tcp, "");
    row("stored / offered", ratios.stored_to_offered, "");
}

/// Prints a table, and writes a document where it was asked for. With `-` only the document goes to stdout.
pub fn publish(table: &str, document: &impl Serialize, json: Option<&Path>) -> Result<()> {
    let Some(path) = json else {
        print!("{table}");
        return Ok(());
    };
    let text = serde_json::to_string_pretty(document).context("a report is always JSON")? + "\n";
    if path == Path::new("-") {
        eprint!("{table}");
        print!("{text}");
        return Ok(());
    }
    print!("{table}");
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yardstick::{DiskLimits, Limits, SyncLimits, TcpLimits};

    fn report() -> Report {
        let load = Load {
            sessions: 4,
            seconds: 10.0,
            frames_per_s: Rates { offered: 1000.0, stored: 900.0 },
            cpu_us_per_frame: Cpu { server: Some(0.4), client: 0.1 },
            ack_ms: AckMs { p99: 40.0, ..AckMs::default() },
            rest_bytes_per_frame: 130.0,
            ..Load::default()
        };
        let mut report = Report::new("steady", Path::new("/"), Value::Null, 7, load);
        report.limits = Some(Limits {
            disk: DiskLimits {
                bytes_per_s: 234_000.0,
                group_commit_bytes_per_s: 234_000.0,
                one_sync_bytes_per_s: 1.0,
                bytes: 0,
                file_bytes: 0,
                how: String::new(),
                group_commit_each: vec![],
                one_sync_each: vec![],
            },
            fdatasync_ms: SyncLimits { p50: 1.0, p99: 8.0, count: 10 },
            tcp: TcpLimits { frames_per_s: 9000.0, cpu_us_per_frame: 0.1, how: String::new() },
        });
        report
    }

    #[test]
    fn ratios_compare_the_load_with_the_limits_of_the_same_run() {
        let found = report().with_ratios().ratios;
        assert_eq!(found.durable_to_disk, Some(0.5));
        assert_eq!(found.ack_p99_to_fdatasync_p99, Some(5.0));
        assert_eq!(found.durable_to_tcp, Some(0.1));
        let mut half = report();
        half.half_load = Some(Load { ack_ms: AckMs { p99: 16.0, ..AckMs::default() }, ..Load::default() });
        assert_eq!(half.with_ratios().ratios.ack_p99_to_fdatasync_p99, Some(2.0));
    }

    #[test]
    fn the_document_has_the_names_that_scripts_read() {
        let report = report().with_ratios();
        let document = serde_json::to_value(&report).unwrap();
        for path in [
            "/ratios/durable_to_disk",
            "/ratios/ack_p99_to_fdatasync_p99",
            "/ratios/server_cpu_us_per_frame",
            "/ratios/idle_rss_bytes_per_session",
            "/frames_per_s/offered",
            "/frames_per_s/stored",
            "/cpu_us_per_frame/server",
            "/ack_ms/p999",
            "/rss_bytes/server",
            "/lost",
            "/duplicates",
            "/seed",
            "/machine/cpu",
            "/machine/cores",
            "/frame/at_rest",
            "/limits/disk/bytes_per_s",
            "/limits/fdatasync_ms/p99",
        ] {
            assert!(document.pointer(path).is_some(), "{path}");
        }
        assert!(document.as_object().unwrap().contains_key("commit"));
        let table = report.table();
        assert!(table.contains("durable / disk") && table.contains("seed 7"), "{table}");
    }

    #[test]
    fn a_run_that_lost_something_is_not_clean() {
        let mut report = report();
        assert!(report.is_clean());
        report.half_load = Some(Load { lost: 1, ..Load::default() });
        assert!(!report.is_clean());
    }
}
