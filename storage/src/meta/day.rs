//! A day of the calendar (UTC), as lists are filtered by it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// One day in UTC, from 1970-01-01 to 2261-12-31 (the last whole year that nanoseconds in an i64 hold).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// Days since 1970-01-01.
    since_epoch: u32,
}

/// A text is no day.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?} is no day; write year-month-day in UTC such as 2025-11-25, from 1970-01-01 to 2261-12-31")]
pub struct DayError {
    got: String,
}

impl Day {
    /// The first moment of the day in unix nanoseconds.
    #[must_use]
    pub const fn from_ns(self) -> i64 {
        self.since_epoch as i64 * DAY_NS
    }

    /// The first moment of the next day in unix nanoseconds.
    #[must_use]
    pub const fn to_ns(self) -> i64 {
        (self.since_epoch as i64 + 1) * DAY_NS
    }
}

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn month_days(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn year_days(year: u32) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

impl FromStr for Day {
    type Err = DayError;
    fn from_str(text: &str) -> Result<Self, DayError> {
        let parse = || {
            let bytes = text.as_bytes();
            let dashes = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
            let digits = bytes.iter().enumerate().all(|(at, byte)| at == 4 || at == 7 || byte.is_ascii_digit());
            if !dashes || !digits {
                return None;
            }
            let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
            let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
            let known = (1970..=2261).contains(&year) && (1..=12).contains(&month);
            if !known || day == 0 || day > month_days(year, month) {
                return None;
            }
            let years: u32 = (1970..year).map(year_days).sum();
            let months: u32 = (1..month).map(|month| month_days(year, month)).sum();
            Some(Self { since_epoch: years + months + day - 1 })
        };
        parse().ok_or_else(|| DayError { got: text.chars().take(64).collect() })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut year, mut left) = (1970, self.since_epoch);
        while left >= year_days(year) {
            left -= year_days(year);
            year += 1;
        }
        let mut month = 1;
        while left >= month_days(year, month) {
            left -= month_days(year, month);
            month += 1;
        }
        write!(f, "{year:04}-{month:02}-{:02}", left + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_day_comes_back_from_its_text(since_epoch in 0u32..106_650) {
            let day = Day { since_epoch };
            prop_assert_eq!(day.to_string().parse::<Day>(), Ok(day));
            prop_assert!(day.from_ns() < day.to_ns());
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,12}") {
            let _ = text.parse::<Day>();
        }
    }

    /// Seconds by `date -u -d <day> +%s`.
    #[test]
    fn known_days_start_at_their_known_second() {
        for (day, second) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2024-12-31", 1_735_603_200),
            ("2025-11-25", 1_764_028_800),
        ] {
            assert_eq!(day.parse::<Day>().unwrap().from_ns(), second * 1_000_000_000, "{day}");
        }
    }

    #[test]
    fn days_that_the_calendar_lacks_are_refused() {
        for text in [
            "2023-02-29",
            "2100-02-29",
            "2025-13-01",
            "2025-00-10",
            "2025-04-31",
            "2262-01-01",
            "+025-01-01",
            "2025-1-1",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
