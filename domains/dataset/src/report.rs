//! How well the streams of an episode kept their promises.

#[cfg(test)]
mod tests;

use tendon_protocol::batch::flag;
use tendon_protocol::clock::{ClockFacts, ClockMap, ProbeSample};
use tendon_protocol::control::{ClockKind, LostReason};
use tendon_storage::records::{ClockRecord, EpisodeReport, StreamReport};

use crate::rows::RowClock;
use crate::samples::cut::{Cut, CutStream, WindowError};

/// How far a measured rate may be off before a stream does not keep it.
const RATE_TOLERANCE: f64 = 0.05;
/// An interval longer than this many nominal periods is a gap: at least one sample is missing in it.
const GAP_PERIODS: f64 = 1.5;

/// Measures the streams of an episode. `fps` is the dataset's rate, which the stream that gives the row
/// clock must keep too. `clocks` is what is known about the producer's clocks.
///
/// # Errors
/// When the window runs backwards.
pub fn report(cut: &Cut, fps: u32, row_clock: RowClock<'_>, clocks: &ClockMap) -> Result<EpisodeReport, WindowError> {
    let parts = cut.window.parts()?;
    let duration_s = parts.iter().map(|part| seconds(part.0, part.1)).sum();
    let streams = cut.streams.iter().map(|stream| {
        let fps = match row_clock {
            RowClock::Stream(feature) if feature == stream.samples.declaration.feature => Some(f64::from(fps)),
            RowClock::Stream(_) | RowClock::Grid => None,
        };
        stream_report(stream, cut, &parts, duration_s, fps, clocks)
    });
    Ok(EpisodeReport { duration_s, streams: streams.collect() })
}

/// What stored records say about a producer's clocks.
#[must_use]
pub fn clock_map(records: &[ClockRecord]) -> ClockMap {
    let facts: Vec<ClockFacts> = records.iter().filter_map(clock_facts).collect();
    ClockMap::new(&facts)
}

fn clock_facts(record: &ClockRecord) -> Option<ClockFacts> {
    let kind = match record.kind.as_str() {
        "boot" => ClockKind::Boot,
        "page" => ClockKind::Page,
        "replay" => ClockKind::Replay,
        _ => return None,
    };
    let probes = record.probes.iter();
    let probes = probes.map(|it| ProbeSample {
        server_ns: it.server_ns,
        clock_ns: it.clock_ns,
        round_trip_ns: it.round_trip_ns,
    });
    Some(ClockFacts { clock: record.clock, kind, probes: probes.collect(), anchors: record.anchors.clone() })
}

fn seconds(from_ns: i64, to_ns: i64) -> f64 {
    (i128::from(to_ns) - i128::from(from_ns)) as f64 / 1e9
}

fn stream_report(
    stream: &CutStream,
    cut: &Cut,
    parts: &[(i64, i64)],
    duration_s: f64,
    fps: Option<f64>,
    clocks: &ClockMap,
) -> StreamReport {
    let samples = &stream.samples;
    let declaration = &samples.declaration;
    let declared_hz = declaration.rate_hz();
    let rhythm = Rhythm::of(&stream.times_ns, parts, declared_hz.or(fps));
    let mut report = StreamReport {
        stream: declaration.stream,
        feature: declaration.feature.clone(),
        samples: samples.count() as u64,
        declared_hz,
        measured_hz: rhythm.measured_hz,
        longest_gap_ms: rhythm.longest_s * 1e3,
        gaps: rhythm.gaps,
        jitter_ms: rhythm.jitter_s * 1e3,
        not_finite: samples.flags.iter().filter(|flags| **flags & flag::NOT_FINITE != 0).count() as u64,
        time_backwards: samples.time_backwards,
        undecodable: samples.flags.iter().filter(|flags| **flags & flag::UNDECODABLE != 0).count() as u64,
        keeps_rate: declared_hz.is_none_or(|rate| rhythm.keeps(rate, samples.count(), duration_s))
            && fps.is_none_or(|rate| rhythm.keeps(rate, samples.count(), duration_s)),
        ..StreamReport::default()
    };
    for lost in &samples.lost {
        let count = (lost.last - lost.first).saturating_add(1);
        report.lost = report.lost.saturating_add(count);
        let reason = match lost.reason {
            LostReason::Restart => "restart",
            LostReason::SpoolFull => "spool_full",
            LostReason::PageReload => "page_reload",
            LostReason::Other => "other",
        };
        let by_reason = report.lost_reasons.entry(reason.to_owned()).or_default();
        *by_reason = by_reason.saturating_add(count);
    }
    // The clock of the last sample stands for the stream; the worst moment of the episode for its uncertainty.
    let clock = samples.count().checked_sub(1).map_or(cut.window.clock, |last| samples.clock_of(last));
    let on_clock = || {
        (0..samples.count()).filter(|index| samples.clock_of(*index) == clock).map(|index| samples.capture_ns[index])
    };
    let ends = [on_clock().min(), on_clock().max()];
    let ends = [ends[0].unwrap_or(cut.window.start_ns), ends[1].unwrap_or(cut.window.stop_ns)];
    if let [Some(first), Some(last)] = ends.map(|end| clocks.to_server(clock, end)) {
        report.clock_offset_ns = Some(last.server_ns.saturating_sub(ends[1]));
        report.clock_uncertainty_ns = Some(first.uncertainty_ns.max(last.uncertainty_ns));
    }
    report
}

/// The intervals between the samples of a stream. Those that hold a pause do not count.
#[derive(Default)]
struct Rhythm {
    measured_hz: f64,
    longest_s: f64,
    jitter_s: f64,
    gaps: u64,
}

impl Rhythm {
    fn of(times_ns: &[i64], parts: &[(i64, i64)], nominal_hz: Option<f64>) -> Self {
        let mut times = times_ns.to_vec();
        times.sort_unstable();
        let part_of = |time: i64| parts.partition_point(|part| part.1 <= time);
        let pairs = times.windows(2).filter(|pair| part_of(pair[0]) == part_of(pair[1]));
        let intervals: Vec<f64> = pairs.map(|pair| seconds(pair[0], pair[1])).collect();
        let whole: f64 = intervals.iter().sum();
        if intervals.is_empty() || whole <= 0.0 {
            return Self::default();
        }
        let mean = whole / intervals.len() as f64;
        let nominal = nominal_hz.map_or(mean, f64::recip);
        let square =
            intervals.iter().map(|interval| (interval - nominal).powi(2)).sum::<f64>() / intervals.len() as f64;
        Self {
            measured_hz: mean.recip(),
            longest_s: intervals.iter().copied().fold(0.0, f64::max),
            jitter_s: square.sqrt(),
            gaps: intervals.iter().filter(|interval| **interval > GAP_PERIODS * nominal).count() as u64,
        }
    }

    /// Whether samples came at `rate`, and to the end: a stream that died half way had the right rate too.
    fn keeps(&self, rate: f64, samples: usize, duration_s: f64) -> bool {
        let is_near = (self.measured_hz - rate).abs() <= RATE_TOLERANCE * rate;
        // One period may be cut off at either end.
        let is_enough = samples as f64 + 2.0 >= (1.0 - RATE_TOLERANCE) * rate * duration_s;
        let too_short_to_tell = samples <= 2 && duration_s * rate <= 2.0;
        (is_near && is_enough) || too_short_to_tell
    }
}
