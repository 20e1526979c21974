//! What this machine can do at best, measured in the same run: the disk, a lone sync, the loopback.

pub mod disk;
pub mod tcp;

use serde::Serialize;

use crate::latencies::{Latencies, median};

/// One look at the machine.
#[derive(Clone, Debug)]
pub struct Sample {
    /// 1 MiB writes into zero-filled files, each made durable, bytes a second.
    pub grouped: f64,
    /// The same bytes with one sync at the end, bytes a second.
    pub plain: f64,
    /// Times of lone syncs.
    pub syncs: Latencies,
    /// The loopback.
    pub tcp: tcp::Loopback,
}

/// The machine's limits over all looks of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// The disk.
    pub disk: DiskLimits,
    /// A lone sync: 4 KiB into a zero-filled file, then fdatasync.
    pub fdatasync_ms: SyncLimits,
    /// The loopback.
    pub tcp: TcpLimits,
}

/// The disk's sequential limit.
#[derive(Clone, Debug, Serialize)]
pub struct DiskLimits {
    /// The faster of the two below: what results are divided by.
    pub bytes_per_s: f64,
    /// 1 MiB writes with a fdatasync each, as the log does under load.
    pub group_commit_bytes_per_s: f64,
    /// The same writes with one fdatasync at the end.
    pub one_sync_bytes_per_s: f64,
    /// Bytes written for each figure.
    pub bytes: u64,
    /// Length of one file.
    pub file_bytes: u64,
    /// How it was measured.
    pub how: String,
    /// Each figure, in the order of measurement.
    pub group_commit_each: Vec<f64>,
    /// Each figure, in the order of measurement.
    pub one_sync_each: Vec<f64>,
}

/// A lone sync.
#[derive(Clone, Debug, Serialize)]
pub struct SyncLimits {
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// How many.
    pub count: u64,
}

/// The loopback.
#[derive(Clone, Debug, Serialize)]
pub struct TcpLimits {
    /// Samples a second.
    pub frames_per_s: f64,
    /// CPU time of both ends for a sample in microseconds.
    pub cpu_us_per_frame: f64,
    /// How it was measured.
    pub how: String,
}

/// Joins all looks.
pub fn limits(samples: &[Sample], plan: &disk::Plan) -> Limits {
    let grouped: Vec<f64> = samples.iter().map(|sample| sample.grouped).collect();
    let plain: Vec<f64> = samples.iter().map(|sample| sample.plain).collect();
    let mut syncs = Latencies::default();
    samples.iter().for_each(|sample| syncs.merge(&sample.syncs));
    let (group, one) = (median(&grouped), median(&plain));
    let tcp =
        |value: fn(&tcp::Loopback) -> f64| median(&samples.iter().map(|sample| value(&sample.tcp)).collect::<Vec<_>>());
    Limits {
        disk: DiskLimits {
            bytes_per_s: group.max(one),
            group_commit_bytes_per_s: group,
            one_sync_bytes_per_s: one,
            bytes: plan.files * plan.file_bytes,
            file_bytes: plan.file_bytes,
            how: format!(
                "{} files of {} MiB, warm (filled with other bytes and synced before, never sparse), in the server's data folder, \
                 the server idle; before and after the load, median",
                plan.files,
                plan.file_bytes >> 20
            ),
            group_commit_each: grouped,
            one_sync_each: plain,
        },
        fdatasync_ms: SyncLimits { p50: syncs.quantile_ms(0.5), p99: syncs.quantile_ms(0.99), count: syncs.count() },
        tcp: TcpLimits {
            frames_per_s: tcp(|it| it.frames_per_s),
            cpu_us_per_frame: tcp(|it| it.cpu_us_per_frame),
            how: "two connections on the loopback, a thread for each end, memcpy, one acknowledgement for each read; before and after, median".into(),
        },
    }
}
