//! Which sample belongs to which tick.
//!
//! Samples and rows that carry the very same stamp belong together one by one: where several rows
//! have the same time, the first sample of that time goes to the first of them, and so on, so that
//! a recording that repeats a stamp comes back as it was.

use super::ticks::Ticks;
use super::{FILLED, HELD};

/// The sample that a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// In time.
    Fresh(usize),
    /// Too old, or the last command again.
    Held(usize),
    /// There was none yet: the first that came later.
    Later(usize),
}

impl Pick {
    pub(super) const fn sample(self) -> usize {
        match self {
            Self::Fresh(index) | Self::Held(index) | Self::Later(index) => index,
        }
    }

    pub(super) const fn flag(self) -> u8 {
        match self {
            Self::Fresh(_) => 0,
            Self::Held(_) => HELD,
            Self::Later(_) => FILLED,
        }
    }
}

/// The samples of a stream by time, those of one time by sequence.
pub(super) struct Sorted {
    /// Capture times, never falling.
    times: Vec<i64>,
    /// Which sample each of them is.
    samples: Vec<usize>,
}

impl Sorted {
    pub(super) fn of(times_ns: &[i64]) -> Self {
        let mut samples: Vec<usize> = (0..times_ns.len()).collect();
        samples.sort_by_key(|sample| times_ns[*sample]);
        Self { times: samples.iter().map(|sample| times_ns[*sample]).collect(), samples }
    }

    /// One row per sample, in the order of the samples or of their times.
    pub(super) fn own_rows(&self, by_time: bool) -> Vec<Option<Pick>> {
        let row = |row: usize| if by_time { self.samples[row] } else { row };
        (0..self.samples.len()).map(|it| Some(Pick::Fresh(row(it)))).collect()
    }

    /// For each sample the newest at or before it, in time, that is good.
    pub(super) fn last_good(&self, is_good: impl Fn(usize) -> bool) -> Vec<Option<usize>> {
        let (mut last, mut found) = (None, vec![None; self.samples.len()]);
        for sample in self.samples.iter().copied() {
            last = if is_good(sample) { Some(sample) } else { last };
            found[sample] = last;
        }
        found
    }

    fn first_later(&self, place: usize) -> Option<Pick> {
        self.samples.get(place).map(|sample| Pick::Later(*sample))
    }
}

/// A row among the rows of the same time, and where the stream's samples stand to it.
struct At {
    row: usize,
    /// Rows of the same time before this one.
    nth: usize,
    /// Whether it is the last of them.
    is_last: bool,
    /// Samples before the tick.
    before: usize,
    /// Samples at or before the tick.
    upto: usize,
}

fn each_row(ticks: &Ticks, sorted: &Sorted, mut pick: impl FnMut(At) -> Option<Pick>) -> Vec<Option<Pick>> {
    let mut picks = vec![None; ticks.len()];
    let (mut before, mut upto, mut nth) = (0, 0, 0);
    for (position, row) in ticks.order.iter().copied().enumerate() {
        let time = ticks.times[row];
        let is_same = |position: Option<usize>| {
            position.and_then(|it| ticks.order.get(it)).is_some_and(|other| ticks.times[*other] == time)
        };
        nth = if is_same(position.checked_sub(1)) { nth + 1 } else { 0 };
        let (early, late) = (time.saturating_sub(ticks.slack_ns), time.saturating_add(ticks.slack_ns));
        while sorted.times.get(before).is_some_and(|sample| *sample < early) {
            before += 1;
        }
        while sorted.times.get(upto).is_some_and(|sample| *sample <= late) {
            upto += 1;
        }
        picks[row] = pick(At { row, nth, is_last: !is_same(Some(position + 1)), before, upto });
    }
    picks
}

/// The newest sample at or before each tick.
pub(super) fn observations(ticks: &Ticks, sorted: &Sorted, tolerance_ns: i64) -> Vec<Option<Pick>> {
    each_row(ticks, sorted, |at| {
        let newest = at.upto.checked_sub(1);
        // Of several rows at one time the last one sees the newest sample, the others one each of that time.
        let place = if at.is_last { newest } else { newest.map(|newest| newest.min(at.before + at.nth)) };
        let Some(place) = place else {
            return sorted.first_later(0);
        };
        let age = i128::from(ticks.times[at.row]) - i128::from(sorted.times[place]);
        let sample = sorted.samples[place];
        Some(if age > i128::from(tolerance_ns) { Pick::Held(sample) } else { Pick::Fresh(sample) })
    })
}

/// The first command at or after each tick and before the next one, else the last one.
pub(super) fn commands(ticks: &Ticks, sorted: &Sorted) -> Vec<Option<Pick>> {
    each_row(ticks, sorted, |at| {
        let place = (at.before + at.nth).min(at.upto.max(at.before));
        let is_paired = at.before + at.nth < at.upto;
        let until = ticks.until[at.row].saturating_sub(ticks.slack_ns);
        let answers = at.is_last && sorted.times.get(place).is_some_and(|time| *time < until);
        if is_paired || answers {
            return Some(Pick::Fresh(sorted.samples[place]));
        }
        match place.checked_sub(1) {
            Some(last) => Some(Pick::Held(sorted.samples[last])),
            None => sorted.first_later(0),
        }
    })
}
