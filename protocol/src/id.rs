//! Names of things on the wire. Every id is a newtype, parsed once at the door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A text is not an id of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not {what}; expected 32 hexadecimal digits, with or without dashes")]
pub struct IdError {
    what: &'static str,
    text: String,
}

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id whose 128 bits are `value`, most significant byte first.
            #[must_use]
            pub const fn from_u128(value: u128) -> Self {
                Self(value.to_be_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (index, byte) in self.0.iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_wide(text).map(Self).ok_or_else(|| IdError {
                    what: $what,
                    text: text.chars().take(64).collect(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

wide_id!(
    /// One teleoperation session. Time-ordered when made by the server (UUID version 7).
    SessionId,
    "a session id"
);
wide_id!(
    /// One producer: the program on a robot, headset or workstation that sends a session's streams.
    ProducerId,
    "a producer id"
);
wide_id!(
    /// One clock: a boot of a machine with its monotonic clock, one page load, or one replay.
    ClockId,
    "a clock id"
);

/// Reads 32 hexadecimal digits; dashes are allowed where a UUID has them and nowhere else.
fn parse_wide(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    let dashed = match bytes.len() {
        32 => false,
        36 => true,
        _ => return None,
    };
    let mut digits = [0u8; 32];
    let mut filled = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if dashed && matches!(index, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(*byte).to_digit(16)?;
        *digits.get_mut(filled)? = u8::try_from(digit).ok()?;
        filled += 1;
    }
    let mut id = [0u8; 16];
    for (target, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *target = pair[0] << 4 | pair[1];
    }
    Some(id)
}

/// One stream of a session. 0 is the journal, which carries marks and lost messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The stream whose samples are the producer's marks and lost messages.
    pub const JOURNAL: Self = Self(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_comes_back_from_its_text(value in any::<u128>()) {
            let id = SessionId::from_u128(value);
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
            prop_assert_eq!(id.to_string().replace('-', "").parse::<SessionId>(), Ok(id));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,40}") {
            let _ = text.parse::<ClockId>();
        }
    }

    #[test]
    fn a_dash_in_the_wrong_place_is_refused() {
        assert!("0123456-789ab-cdef-0123-456789abcdef".parse::<SessionId>().is_err());
    }
}
