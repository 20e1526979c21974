//! An episode's part of the streams: what was captured from its start up to its stop, pauses left out.

use serde::{Deserialize, Serialize};
use tendon_protocol::batch::flag;
use tendon_protocol::clock::ClockMap;
use tendon_protocol::id::ClockId;
use thiserror::Error;

use super::{MediaSample, StreamSamples};

/// The time of an episode, in nanoseconds of `clock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The clock of all times here: the one of the start mark.
    pub clock: ClockId,
    /// First moment inside.
    pub start_ns: i64,
    /// First moment that is not inside any more.
    pub stop_ns: i64,
    /// Times (from, to) that are left out, `to` being inside again; in order, not overlapping.
    pub pauses: Vec<(i64, i64)>,
}

/// A window that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WindowError {
    /// It ends before it begins.
    #[error(
        "episode stops at {stop_ns} ns, which is before its start at {start_ns} ns; the marks are on different clocks or out of order"
    )]
    Backwards {
        /// Start in nanoseconds.
        start_ns: i64,
        /// Stop in nanoseconds.
        stop_ns: i64,
    },
    /// A pause is empty the wrong way round, or not behind the one before.
    #[error("pause {number} from {from_ns} to {to_ns} ns is out of order")]
    Pause {
        /// Which pause, from 1.
        number: usize,
        /// Its begin in nanoseconds.
        from_ns: i64,
        /// Its end in nanoseconds.
        to_ns: i64,
    },
}

impl Window {
    /// The parts between pauses, as (from, up to), in order; none is empty.
    ///
    /// # Errors
    /// When the window or a pause runs backwards.
    pub fn parts(&self) -> Result<Vec<(i64, i64)>, WindowError> {
        let Self { start_ns, stop_ns, .. } = *self;
        if stop_ns < start_ns {
            return Err(WindowError::Backwards { start_ns, stop_ns });
        }
        let mut parts = Vec::new();
        let (mut from, mut last) = (start_ns, i64::MIN);
        for (index, (begin, end)) in self.pauses.iter().copied().enumerate() {
            if end < begin || begin < last {
                return Err(WindowError::Pause { number: index + 1, from_ns: begin, to_ns: end });
            }
            last = end;
            if begin.min(stop_ns) > from {
                parts.push((from, begin.min(stop_ns)));
            }
            from = from.max(end);
        }
        if stop_ns > from {
            parts.push((from, stop_ns));
        }
        Ok(parts)
    }
}

/// One stream's part of an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct CutStream {
    /// The samples inside, with the losses and holes among them.
    pub samples: StreamSamples,
    /// Capture time of each sample on the window's clock, in nanoseconds.
    pub times_ns: Vec<i64>,
    /// Coded units that are not inside but that units inside need to be decoded, by sequence.
    pub support: Vec<MediaSample>,
    /// Samples whose clock nothing relates to the window's: they could not be placed.
    pub unplaced: u64,
    /// How far off a capture time of another clock may be, in nanoseconds; 0 when all are on the window's clock.
    pub uncertainty_ns: i64,
}

/// An episode's part of all streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// When the episode was.
    pub window: Window,
    /// All declared streams, also those without a sample.
    pub streams: Vec<CutStream>,
}

/// Cuts streams to a window. Samples of other clocks are placed through `clocks`.
///
/// # Errors
/// When the window runs backwards.
pub fn cut(streams: Vec<StreamSamples>, window: Window, clocks: &ClockMap) -> Result<Cut, WindowError> {
    let parts = window.parts()?;
    let streams = streams.into_iter().map(|stream| cut_stream(stream, &window, &parts, clocks)).collect();
    Ok(Cut { window, streams })
}

fn cut_stream(mut samples: StreamSamples, window: &Window, parts: &[(i64, i64)], clocks: &ClockMap) -> CutStream {
    let (mut places, mut times_ns, mut unplaced, mut uncertainty_ns) = (Vec::new(), Vec::new(), 0, 0);
    // (sequence, time) of all that could be placed, inside or not: says which losses belong to the episode.
    let mut stands = Vec::with_capacity(samples.count());
    for index in 0..samples.count() {
        let Some(moved) = clocks.translate(samples.clock_of(index), window.clock, samples.capture_ns[index]) else {
            unplaced += 1;
            continue;
        };
        stands.push((samples.sequences[index], moved.clock_ns));
        let part = parts.partition_point(|part| part.1 <= moved.clock_ns);
        if parts.get(part).is_some_and(|part| part.0 <= moved.clock_ns) {
            places.push(index);
            times_ns.push(moved.clock_ns);
            uncertainty_ns = uncertainty_ns.max(moved.uncertainty_ns);
        }
    }
    let is_inside = |first: u64, last: u64| {
        let after = stands.partition_point(|stand| stand.0 < first);
        let follows = stands.get(stands.partition_point(|stand| stand.0 <= last));
        let begins_before_stop = after == 0 || stands[after - 1].1 < window.stop_ns;
        let ends_after_start = follows.is_none_or(|stand| stand.1 >= window.start_ns);
        begins_before_stop && ends_after_start
    };
    samples.lost.retain(|lost| is_inside(lost.first, lost.last));
    samples.holes.retain(|hole| is_inside(hole.0, hole.1));
    samples.conflicts.retain(|sequence| is_inside(*sequence, *sequence));
    let support = support(&samples, &places);
    let mut samples = samples.only(&places);
    let last = samples.sequences.last().copied();
    samples.configs.retain(|config| last.is_some_and(|last| config.sequence < last));
    if !samples.is_coded() {
        samples.time_backwards = times_ns.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    }
    CutStream { samples, times_ns, support, unplaced, uncertainty_ns }
}

/// Units from the last key unit before the first one inside up to the last one inside.
fn support(samples: &StreamSamples, places: &[usize]) -> Vec<MediaSample> {
    let (Some(first), Some(last)) = (places.first(), places.last()) else {
        return Vec::new();
    };
    if !samples.is_coded() {
        return Vec::new();
    }
    let is_key = |place: &usize| samples.flags[*place] & flag::KEY != 0;
    let begin = (0..=*first).rev().find(is_key).unwrap_or(*first);
    let mut inside = places.iter().copied().peekable();
    (begin..=*last)
        .filter(|place| inside.next_if_eq(place).is_none())
        .map(|place| samples.media[place].clone())
        .collect()
}
