//! Lists of numbers as people type them: `0,3-5`.

use std::collections::BTreeSet;
use std::str::FromStr;

use thiserror::Error;

/// Most numbers of one list, so that `0-4000000000` is a mistake and not a long wait.
const NUMBERS_MAX: u64 = 1_000_000;

/// Numbers without repetition, in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeSet<u64>);

/// A text is no list of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?} is no list of numbers ({why}); write numbers and ranges with commas between them, such as 0,3-5")]
pub struct RangesError {
    got: String,
    why: String,
}

impl Ranges {
    /// Whether the list holds this number.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.0.contains(&number)
    }

    /// The numbers in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let refuse = |why: String| RangesError { got: text.chars().take(64).collect(), why };
        let mut numbers = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = bounds(part.trim()).map_err(&refuse)?;
            let length = last - first;
            if length >= NUMBERS_MAX || numbers.len() as u64 + length >= NUMBERS_MAX {
                return Err(refuse(format!("over {NUMBERS_MAX} numbers")));
            }
            numbers.extend(first..=last);
        }
        Ok(Self(numbers))
    }
}

fn bounds(part: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| -> Result<u64, String> {
        // `parse` would also read "+3".
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{:?} is no number", text.chars().take(32).collect::<String>()));
        }
        text.parse().map_err(|_| format!("{} is too large", text.chars().take(32).collect::<String>()))
    };
    match part.split_once('-') {
        None => number(part).map(|number| (number, number)),
        Some((first, last)) => {
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            if first > last {
                return Err(format!("{first}-{last} runs backwards"));
            }
            Ok((first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(text: &str) -> Vec<u64> {
        text.parse::<Ranges>().unwrap().iter().collect()
    }

    #[test]
    fn numbers_and_ranges_are_joined_and_sorted() {
        assert_eq!(numbers("0,3-5"), [0, 3, 4, 5]);
        assert_eq!(numbers("7, 2-2 ,2"), [2, 7]);
        assert_eq!(numbers("18446744073709551615"), [u64::MAX]);
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("", "\"\" is no number"),
            ("1,", "\"\" is no number"),
            ("5-3", "5-3 runs backwards"),
            ("+3", "\"+3\" is no number"),
            ("a", "\"a\" is no number"),
            ("1-2-3", "\"2-3\" is no number"),
            ("0-4000000000", "over 1000000 numbers"),
            ("99999999999999999999", "is too large"),
            ("0-18446744073709551615", "over 1000000 numbers"),
        ] {
            let error = text.parse::<Ranges>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_list_comes_back_from_its_numbers(wanted in proptest::collection::btree_set(any::<u64>(), 1..20)) {
            let text = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(text.parse::<Ranges>().unwrap().iter().collect::<BTreeSet<_>>(), wanted);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,\\- a+]{0,40}") {
            let _ = text.parse::<Ranges>();
        }
    }
}
