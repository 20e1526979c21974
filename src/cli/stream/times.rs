//! When each row was: seconds of a dataset become nanoseconds of one clock that never runs back.

use thiserror::Error;

const SECOND_NS: i64 = 1_000_000_000;
/// Seconds beyond this are no time of a robot: the year 2255, were they counted from 1970.
const SECONDS_MAX: f64 = 9e9;

/// Times that cannot be played.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TimesError {
    /// NaN, infinite, or centuries off.
    #[error("timestamp {got} of row {row} is no time; repair it, or leave the episode out with --episodes")]
    NoTime {
        /// The row in its episode.
        row: usize,
        /// What stands there.
        got: f64,
    },
    /// Fewer or more times than rows.
    #[error("{times} timestamps for {rows} rows; run `tendon verify` on the dataset")]
    Count {
        /// Timestamps.
        times: usize,
        /// Rows.
        rows: usize,
    },
    /// The recording is longer than the clock.
    #[error("the episodes together reach past the end of the clock; play fewer of them with --episodes")]
    TooLong,
}

/// Nanoseconds of each row, rounded from the seconds as they are stored. Without timestamps, rows
/// are 1/fps apart.
///
/// # Errors
/// Names the first row whose time cannot be used.
pub fn nanoseconds(seconds: &[f64], rows: usize, fps: f64) -> Result<Vec<i64>, TimesError> {
    if seconds.is_empty() {
        return (0..rows).map(|row| nanosecond(row, row as f64 / fps)).collect();
    }
    if seconds.len() != rows {
        return Err(TimesError::Count { times: seconds.len(), rows });
    }
    seconds.iter().enumerate().map(|(row, seconds)| nanosecond(row, *seconds)).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "checked against SECONDS_MAX just before")]
fn nanosecond(row: usize, seconds: f64) -> Result<i64, TimesError> {
    if seconds.is_nan() || seconds.abs() > SECONDS_MAX {
        return Err(TimesError::NoTime { row, got: seconds });
    }
    // Whole seconds apart from the rest: the product of a large time would round away microseconds.
    let whole = seconds.floor();
    let rest = (seconds - whole) * 1e9;
    Ok(whole as i64 * SECOND_NS + rest.round() as i64)
}

/// Puts episode behind episode, each with its own times moved by whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    next_ns: i64,
}

impl Timeline {
    /// The first row will be at this time or within a second after.
    #[must_use]
    pub const fn starting_at(now_ns: i64) -> Self {
        Self { next_ns: now_ns }
    }

    /// Moves an episode's times behind everything before it.
    ///
    /// # Errors
    /// When the clock ends before the episode.
    pub fn place(&mut self, times: &[i64]) -> Result<Vec<i64>, TimesError> {
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
            return Ok(Vec::new());
        };
        let second = i128::from(SECOND_NS);
        let shift = (i128::from(self.next_ns) - i128::from(*first) + second - 1).div_euclid(second) * second;
        // The next episode begins a second later at the earliest, so that a pause can be seen.
        self.next_ns = i64::try_from(i128::from(*last) + shift + second).map_err(|_| TimesError::TooLong)?;
        times.iter().map(|time| i64::try_from(i128::from(*time) + shift).map_err(|_| TimesError::TooLong)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_rounded_once_from_what_is_stored() {
        let third = f64::from(1.0f32 / 30.0);
        assert_eq!(nanoseconds(&[0.0, third, 0.05, -0.25], 4, 30.0), Ok(vec![0, 33_333_335, 50_000_000, -250_000_000]));
        // A unix time in seconds keeps its microseconds.
        assert_eq!(
            nanoseconds(&[1_764_077_123.123_456], 1, 30.0).map(|times| times[0] / 1000),
            Ok(1_764_077_123_123_456)
        );
    }

    #[test]
    fn rows_without_times_are_a_period_apart() {
        assert_eq!(nanoseconds(&[], 3, 10.0), Ok(vec![0, 100_000_000, 200_000_000]));
    }

    #[test]
    fn what_is_no_time_is_refused_with_its_row() {
        assert!(matches!(nanoseconds(&[0.0, f64::NAN], 2, 30.0), Err(TimesError::NoTime { row: 1, .. })));
        assert!(matches!(nanoseconds(&[f64::INFINITY], 1, 30.0), Err(TimesError::NoTime { row: 0, .. })));
        assert!(matches!(nanoseconds(&[1e10], 1, 30.0), Err(TimesError::NoTime { row: 0, .. })));
        assert_eq!(nanoseconds(&[0.0], 2, 30.0), Err(TimesError::Count { times: 1, rows: 2 }));
    }

    proptest! {
        /// Distances inside an episode stay to the nanosecond, and no episode reaches back into the one before.
        #[test]
        fn episodes_follow_one_another_and_keep_their_own_times(
            start in 0i64..2_000_000_000_000_000_000,
            episodes in proptest::collection::vec(proptest::collection::vec(-1_000_000_000_000i64..1_000_000_000_000, 1..20), 1..8),
        ) {
            let mut timeline = Timeline::starting_at(start);
            let mut latest = start - 1;
            for times in &episodes {
                let placed = timeline.place(times).unwrap();
                prop_assert!(*placed.iter().min().unwrap() > latest);
                for (before, after) in times.iter().zip(&placed) {
                    prop_assert_eq!(after - placed[0], before - times[0]);
                    prop_assert_eq!((after - before).rem_euclid(SECOND_NS), 0);
                }
                latest = *placed.iter().max().unwrap();
            }
        }
    }

    #[test]
    fn the_end_of_the_clock_is_told() {
        let mut timeline = Timeline::starting_at(i64::MAX - 1);
        assert_eq!(timeline.place(&[0]), Err(TimesError::TooLong));
    }
}
