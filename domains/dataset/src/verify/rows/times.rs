//! What the timestamps of one episode are: the grid, a shifted grid, another grid, or a real clock.

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::{Place, Subject};

/// lerobot's tolerance in seconds, strictly less.
pub(in super::super) const TOLERANCE_S: f64 = 1e-4;
/// Rows further apart than this many ticks have a gap between them.
const GAP_TICKS: f64 = 1.5;

/// One episode's timestamps and where they stand.
pub(super) struct Times<'a> {
    /// Seconds, as stored.
    pub seconds: &'a [f64],
    /// `index` of the first row.
    pub first_index: Option<i64>,
    /// The metadata's length is not the number of rows: the boundary is wrong, not the clock.
    pub length_differs: bool,
    /// File of the first row.
    pub file: &'a str,
    /// Row of the first row in that file.
    pub first_row: u64,
    /// Episode.
    pub episode: u64,
}

impl Times<'_> {
    fn at(&self, row: usize) -> Place {
        Place::row(self.file, self.episode, self.first_row + row as u64)
    }
}

/// Spacing of float32 numbers around `value`: what rounding alone can do.
fn rounding(value: f64) -> f64 {
    value.abs() * f64::from(f32::EPSILON)
}

/// Whether two times are the same but for rounding and lerobot's tolerance.
fn same(left: f64, right: f64) -> bool {
    (left - right).abs() < TOLERANCE_S + rounding(right)
}

#[expect(clippy::cast_precision_loss, reason = "rows of an episode are far below 2^53")]
fn count(rows: usize) -> f64 {
    rows as f64
}

/// Judge one episode.
pub(super) fn judge(subject: &Subject, times: &Times, findings: &mut Findings) {
    let seconds = times.seconds;
    if seconds.is_empty() {
        return;
    }
    if seconds.len() > 1 && seconds.iter().all(|time| *time == 0.0) {
        findings.grouped(Code::TimestampZero, "all", times.at(0), || format!("all {} timestamps are 0", seconds.len()));
        return;
    }
    let Some(fps) = subject.info.fps() else {
        backwards(times, findings);
        return;
    };
    if seconds.iter().enumerate().all(|(row, time)| same(*time, count(row) / fps)) {
        return;
    }
    backwards(times, findings);
    let first = seconds[0];
    let steady = seconds.iter().enumerate().all(|(row, time)| same(*time, first + count(row) / fps));
    let goes_on = times.first_index.filter(|index| *index > 0).is_some_and(|index| {
        #[expect(clippy::cast_precision_loss, reason = "row numbers are far below 2^53")]
        let expected = index as f64 / fps;
        (first - expected).abs() < 0.5 / fps
    });
    if goes_on && first > 1.5 / fps && steady {
        findings.grouped(Code::TimestampNotReset, "all", times.at(0), || {
            format!("the episode begins at {first} s, as index / fps would")
        });
    } else if steady {
        findings.sized(Code::TimestampOffset, "all", times.at(0), first.abs(), || {
            format!("the first timestamp is {first:.6} s instead of 0")
        });
    } else if let Some(rate) = other_rate(seconds) {
        findings.sized(Code::FpsMismatch, "all", times.at(0), (rate - fps).abs(), || {
            format!("rows are stamped at {rate:.4} Hz, fps is {fps}")
        });
    } else {
        real_clock(times, fps, findings);
    }
}

fn backwards(times: &Times, findings: &mut Findings) {
    if times.length_differs {
        return;
    }
    for (row, pair) in times.seconds.windows(2).enumerate() {
        if pair[1] <= pair[0] {
            findings.grouped(Code::TimestampBackwards, "all", times.at(row + 1), || {
                format!("{} s follows {} s", pair[1], pair[0])
            });
        }
    }
}

/// The rate of rows that are evenly spaced, in Hz.
fn other_rate(seconds: &[f64]) -> Option<f64> {
    let (first, last) = (*seconds.first()?, *seconds.last()?);
    if seconds.len() < 3 || last <= first {
        return None;
    }
    let step = (last - first) / count(seconds.len() - 1);
    let even = seconds.iter().enumerate().all(|(row, time)| same(*time, first + step * count(row)));
    even.then(|| 1.0 / step)
}

fn real_clock(times: &Times, fps: f64, findings: &mut Findings) {
    let seconds = times.seconds;
    let first = seconds[0];
    let mut worst = (0, 0.0_f64);
    for (row, time) in seconds.iter().enumerate() {
        let drift = time - first - count(row) / fps;
        if drift.abs() > worst.1.abs() {
            worst = (row, drift);
        }
    }
    let span = seconds[seconds.len() - 1] - first;
    let rate = if span > 0.0 { count(seconds.len() - 1) / span } else { 0.0 };
    findings.sized(Code::TimestampOffGrid, "all", times.at(worst.0), worst.1.abs(), || {
        format!(
            "{:+.3} s off the {fps} fps grid in row {} of the episode, whose mean rate is {rate:.2} Hz",
            worst.1, worst.0
        )
    });
    for (row, pair) in seconds.windows(2).enumerate() {
        let gap = pair[1] - pair[0];
        if gap > GAP_TICKS / fps {
            findings.sized(Code::TimestampGap, "all", times.at(row + 1), gap, || {
                format!("{:.1} ms between two rows, a tick is {:.1} ms", gap * 1000.0, 1000.0 / fps)
            });
        }
    }
}
