//! When rows are taken.

use tendon_protocol::id::StreamId;

use super::{COLUMN_BYTES_MAX, ROWS_MAX, RowClock, RowsError, RowsInput};
use crate::samples::cut::CutStream;

/// On a grid a sample this close to a tick is at the tick, in nanoseconds: producers round their stamps to
/// nanoseconds or microseconds, and a period of 1/30 s is a whole number of neither.
const GRID_SLACK_NS: i64 = 1_000;
const SECOND_NS: i64 = 1_000_000_000;

/// The ticks of an episode, one per row.
pub(super) struct Ticks {
    /// Time of each row on the window's clock, in nanoseconds.
    pub(super) times: Vec<i64>,
    /// Time of the tick that follows each row's, or where it would be: no command from there on is this row's.
    pub(super) until: Vec<i64>,
    /// Rows by time; rows at the same time in their own order.
    pub(super) order: Vec<usize>,
    /// How early or late a sample may be and still count as at the tick.
    pub(super) slack_ns: i64,
    fps: u32,
    stream: Option<StreamId>,
}

impl Ticks {
    pub(super) fn of(input: &RowsInput<'_>, streams: &[&CutStream]) -> Result<Self, RowsError> {
        let parts = input.cut.window.parts()?;
        let duration_ns = parts.iter().fold(0i64, |sum, part| sum.saturating_add(part.1.saturating_sub(part.0)));
        let ticks = match input.row_clock {
            RowClock::Grid => Self::grid(input.fps, &parts, streams)?,
            RowClock::Stream(feature) => Self::stream(input, feature, streams)?,
        };
        if ticks.times.is_empty() {
            let why = match input.row_clock {
                RowClock::Grid if parts.is_empty() => "it is empty or one long pause".to_owned(),
                RowClock::Grid => "it was over before every required stream had a sample".to_owned(),
                RowClock::Stream(feature) => format!("{feature:?}, which gives the row clock, has no sample in it"),
            };
            return Err(RowsError::NoRows { duration_ns, why });
        }
        ticks.check_size(streams)?;
        Ok(ticks)
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether the rows are the samples of this stream.
    pub(super) fn is_of(&self, stream: &CutStream) -> bool {
        self.stream == Some(stream.samples.declaration.stream)
    }

    pub(super) fn tolerance_ns(&self, ticks: f64) -> i64 {
        (ticks * SECOND_NS as f64 / f64::from(self.fps)).round() as i64
    }

    fn grid(fps: u32, parts: &[(i64, i64)], streams: &[&CutStream]) -> Result<Self, RowsError> {
        let mut ticks = Self {
            times: Vec::new(),
            until: Vec::new(),
            order: Vec::new(),
            slack_ns: GRID_SLACK_NS,
            fps,
            stream: None,
        };
        let Some(last_sample) = streams.iter().flat_map(|stream| stream.times_ns.iter().copied()).max() else {
            return Ok(ticks);
        };
        for (from, to) in parts.iter().copied() {
            let Some(begin) = begin_of_rows(streams, from, to) else {
                continue;
            };
            // No tick behind the newest sample of any stream: such a row would hold nothing new.
            let end = to.min(last_sample.saturating_add(GRID_SLACK_NS + 1));
            let span = i128::from(end) - i128::from(begin);
            // The highest k whose tick lies before the end.
            let count = if span <= 0 { 0 } else { (span - 1) * i128::from(fps) / i128::from(SECOND_NS) + 1 };
            if count as u128 + ticks.times.len() as u128 > ROWS_MAX as u128 {
                return Err(RowsError::TooManyRows { rows: count as u128, bytes: 0 });
            }
            let tick = |k: i128| {
                begin.saturating_add(i64::try_from(k * i128::from(SECOND_NS) / i128::from(fps)).unwrap_or(i64::MAX))
            };
            ticks.times.extend((0..count).map(tick));
            ticks.until.extend((1..=count).map(|k| tick(k).min(to.saturating_add(GRID_SLACK_NS))));
        }
        ticks.order = (0..ticks.times.len()).collect();
        Ok(ticks)
    }

    fn stream(input: &RowsInput<'_>, feature: &str, streams: &[&CutStream]) -> Result<Self, RowsError> {
        let Some(stream) = streams.iter().find(|stream| stream.samples.declaration.feature == feature) else {
            let names = streams.iter().map(|stream| stream.samples.declaration.feature.clone());
            return Err(RowsError::NoRowClock { feature: feature.to_owned(), streams: names.collect() });
        };
        let mut times = stream.times_ns.clone();
        if stream.samples.is_coded() {
            // Units come in the order of decoding; rows are pictures as they are shown.
            times.sort_unstable();
        }
        let mut order: Vec<usize> = (0..times.len()).collect();
        order.sort_by_key(|row| times[*row]);
        let id = stream.samples.declaration.stream;
        let mut ticks = Self { times, until: Vec::new(), order, slack_ns: 0, fps: input.fps, stream: Some(id) };
        let reach = ticks.tolerance_ns(input.tolerance_ticks).max(1);
        let mut until = vec![0; ticks.times.len()];
        let mut later: Option<(i64, i64)> = None;
        for row in ticks.order.iter().rev() {
            let time = ticks.times[*row];
            // Rows of one time share the tick that follows. The last tick waits for its command as long as a
            // value counts as fresh.
            until[*row] = match later {
                Some((next, until)) if next == time => until,
                Some((next, _)) => next,
                None => time.saturating_add(reach),
            };
            later = Some((time, until[*row]));
        }
        ticks.until = until;
        Ok(ticks)
    }

    fn check_size(&self, streams: &[&CutStream]) -> Result<(), RowsError> {
        // Each feature has a capture time and flags besides its values.
        let width: u128 = streams.iter().map(|stream| stream.samples.sample_bytes() as u128 + 9).sum();
        let rows = self.len() as u128;
        if rows > ROWS_MAX as u128 || rows * width > COLUMN_BYTES_MAX as u128 {
            return Err(RowsError::TooManyRows { rows, bytes: rows * width });
        }
        Ok(())
    }
}

/// The moment in [from, to) from which on every required stream has a sample; without required streams, the
/// first sample of any. `None` when there is no such moment.
fn begin_of_rows(streams: &[&CutStream], from: i64, to: i64) -> Option<i64> {
    let first_in = |stream: &CutStream| stream.times_ns.iter().copied().filter(|time| (from..to).contains(time)).min();
    let mut required = streams.iter().filter(|stream| stream.samples.declaration.required).peekable();
    if required.peek().is_none() {
        return streams.iter().filter_map(|stream| first_in(stream)).min();
    }
    let mut begin = from;
    for stream in required {
        match first_in(stream) {
            Some(first) => begin = begin.max(first),
            // Silent since a pause: it has a sample, an old one, which is held and flagged.
            None if stream.times_ns.iter().any(|time| *time < from) => {}
            None => return None,
        }
    }
    Some(begin)
}
