//! Measured rates, gaps and losses, on real recordings too.

use std::path::{Path, PathBuf};

use arrow_array::Float32Array;
use arrow_array::cast::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tendon_protocol::control::Lost;
use tendon_protocol::id::{ClockId, SessionId, StreamId};
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
use tendon_storage::records::StoredProbe;

use super::*;
use crate::samples::StreamSamples;
use crate::samples::cut::Window;

const MS: i64 = 1_000_000;
const CLOCK: ClockId = ClockId::from_u128(1);

fn cut_of(times: &[i64], rate_mhz: u32, start_ns: i64, stop_ns: i64) -> Cut {
    let mut samples = StreamSamples::empty(StreamDeclaration {
        stream: StreamId(1),
        feature: "observation.state".into(),
        names: Vec::new(),
        unit: String::new(),
        dtype: Dtype::U8,
        shape: vec![1],
        rate_mhz,
        required: true,
        role: Role::Measured,
        content: Content::Values,
    });
    samples.clocks = vec![CLOCK];
    samples.sequences = (0..times.len() as u64).collect();
    samples.capture_ns = times.to_vec();
    samples.clock = vec![0; times.len()];
    samples.flags = vec![0; times.len()];
    samples.values = vec![0; times.len()];
    let stream = CutStream { times_ns: times.to_vec(), samples, support: Vec::new(), unplaced: 0, uncertainty_ns: 0 };
    Cut { window: Window { clock: CLOCK, start_ns, stop_ns, pauses: Vec::new() }, streams: vec![stream] }
}

fn measured(cut: &Cut, fps: u32, row_clock: RowClock<'_>) -> StreamReport {
    report(cut, fps, row_clock, &ClockMap::default()).expect("the window is sane").streams.remove(0)
}

fn shared() -> PathBuf {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    assert!(path.is_dir(), "{} is missing; put the shared folder beside the checkout", path.display());
    path.to_path_buf()
}

/// Capture times of one recorded episode in nanoseconds.
fn timestamps(path: &Path) -> Vec<i64> {
    let file = std::fs::File::open(path).expect("the episode is there");
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).expect("it is parquet").build().expect("it can be read");
    let mut times = Vec::new();
    for batch in reader {
        let batch = batch.expect("the rows are whole");
        let column: &Float32Array = batch.column_by_name("timestamp").expect("rows have times").as_primitive();
        times.extend(column.values().iter().map(|second| (f64::from(*second) * 1e9).round() as i64));
    }
    times
}

/// A real robot at a nominal 10 Hz whose recorder stalled: 271 intervals over 150 ms in 71 of 81 episodes, the worst 352 ms.
#[test]
fn the_real_gaps_of_a_recording_are_all_reported() {
    let folder = shared().join("dobot-cr5-v2/data/chunk-000");
    let (mut gaps, mut with_gaps, mut longest_ms, mut episodes, mut slow) = (0, 0, 0f64, 0, 0);
    for entry in std::fs::read_dir(&folder).expect("the recording is there") {
        let times = timestamps(&entry.expect("a file").path());
        let (start, stop) = (times[0], times[times.len() - 1] + 1);
        let report = measured(&cut_of(&times, 10_000, start, stop), 10, RowClock::Stream("observation.state"));
        episodes += 1;
        gaps += report.gaps;
        with_gaps += u64::from(report.gaps > 0);
        longest_ms = longest_ms.max(report.longest_gap_ms);
        slow += u64::from(!report.keeps_rate);
        assert!((9.17..10.02).contains(&report.measured_hz), "{report:?}");
    }
    assert_eq!((episodes, gaps, with_gaps), (81, 271, 71));
    assert!((351.0..353.0).contains(&longest_ms), "{longest_ms}");
    assert!(slow > 0, "episodes at 9.2 Hz do not keep 10 Hz");
}

#[test]
fn a_stream_that_keeps_its_rate_says_so_and_one_that_does_not_says_that() {
    let every = |period_ms: i64, count: i64| (0..count).map(|k| k * period_ms * MS).collect::<Vec<i64>>();
    let good = measured(&cut_of(&every(10, 100), 100_000, 0, 1_000 * MS), 30, RowClock::Grid);
    assert!(
        good.keeps_rate && good.gaps == 0 && (good.measured_hz - 100.0).abs() < 1e-9 && good.jitter_ms < 1e-9,
        "{good:?}"
    );
    let slow = measured(&cut_of(&every(12, 83), 100_000, 0, 1_000 * MS), 30, RowClock::Grid);
    assert!(!slow.keeps_rate && (slow.jitter_ms - 2.0).abs() < 1e-9, "{slow:?}");
    let fast = measured(&cut_of(&every(8, 125), 100_000, 0, 1_000 * MS), 30, RowClock::Grid);
    assert!(!fast.keeps_rate, "{fast:?}");
    // It had the right rate until it died half way.
    let dead = measured(&cut_of(&every(10, 50), 100_000, 0, 1_000 * MS), 30, RowClock::Grid);
    assert!(!dead.keeps_rate && (dead.measured_hz - 100.0).abs() < 1e-9, "{dead:?}");
    // As row clock of a dataset of 30 fps, 100 Hz would be stamped as if it were 30.
    let clock = measured(&cut_of(&every(10, 100), 100_000, 0, 1_000 * MS), 30, RowClock::Stream("observation.state"));
    assert!(!clock.keeps_rate, "{clock:?}");
    let one = measured(&cut_of(&[0], 0, 0, 1_000 * MS), 30, RowClock::Grid);
    assert!(one.keeps_rate && one.declared_hz.is_none() && one.measured_hz == 0.0, "no rate was promised: {one:?}");
    let none = measured(&cut_of(&[], 100_000, 0, 1_000 * MS), 30, RowClock::Grid);
    assert!(!none.keeps_rate && none.samples == 0, "{none:?}");
}

#[test]
fn a_pause_is_no_gap() {
    let times: Vec<i64> = (0..50).chain(500..550).map(|k| k * 10 * MS).collect();
    let mut cut = cut_of(&times, 100_000, 0, 5_500 * MS);
    assert_eq!(measured(&cut, 30, RowClock::Grid).gaps, 1);
    cut.window.pauses = vec![(500 * MS, 5_000 * MS)];
    let whole = report(&cut, 30, RowClock::Grid, &ClockMap::default()).expect("the window is sane");
    assert!((whole.duration_s - 1.0).abs() < 1e-9);
    assert!(whole.streams[0].gaps == 0 && whole.streams[0].keeps_rate, "{whole:?}");
}

#[test]
fn losses_are_counted_by_their_reason() {
    let mut cut = cut_of(&[0, 10 * MS], 100_000, 0, 20 * MS);
    let lost = |first, last, reason| Lost { sequence: first, stream: StreamId(1), first, last, reason };
    cut.streams[0].samples.lost = vec![
        lost(2, 4, LostReason::Restart),
        lost(5, 5, LostReason::SpoolFull),
        lost(6, 9, LostReason::Restart),
        lost(10, u64::MAX - 1, LostReason::Other),
    ];
    let report = measured(&cut, 30, RowClock::Grid);
    assert_eq!((report.lost_reasons["restart"], report.lost_reasons["spool_full"]), (7, 1));
    assert_eq!(report.lost, u64::MAX - 2, "huge losses are counted too");
}

#[test]
fn the_clock_of_a_stream_is_reported_from_its_stored_record() {
    let probe = |clock_ns: i64| StoredProbe { server_ns: clock_ns + 7_000_000_000, clock_ns, round_trip_ns: 2 * MS };
    let mut record = ClockRecord {
        session: SessionId::from_u128(5),
        clock: CLOCK,
        kind: "boot".into(),
        probes: vec![probe(0), probe(60_000 * MS)],
        anchors: vec![(3, 4)],
    };
    let cut = cut_of(&[10 * MS, 20 * MS], 100_000, 0, 30 * MS);
    let entry = |record: &ClockRecord| {
        let clocks = clock_map(std::slice::from_ref(record));
        report(&cut, 30, RowClock::Grid, &clocks).expect("the window is sane").streams.remove(0)
    };
    let told = entry(&record);
    assert_eq!(told.clock_offset_ns, Some(7_000_000_000));
    assert!((MS..2 * MS).contains(&told.clock_uncertainty_ns.expect("it is known")), "{told:?}");
    // The stored record reads as the facts that the estimator takes.
    let facts: ClockFacts = serde_json::from_value(serde_json::to_value(&record).unwrap()).unwrap();
    assert_eq!(ClockMap::new(&[facts]), clock_map(std::slice::from_ref(&record)));
    record.kind = "replay".into();
    assert_eq!(entry(&record).clock_offset_ns, None, "a replay has no place in server time");
}
