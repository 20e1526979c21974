//! Where a page of a list ends and the next one starts, as a text without a meaning for its user.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::KEY_BYTES_MAX;

/// Which list a cursor belongs to; a cursor of one list means nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ListKind {
    Sessions = 1,
    Episodes = 2,
    SessionEpisodes = 3,
    Datasets = 4,
    Exports = 5,
    Tokens = 6,
    Clocks = 7,
}

/// The last key of a page. Its text is hexadecimal: safe in a query string.
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor {
    kind: u8,
    key: Vec<u8>,
}

/// A text is no cursor, or one of another list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CursorError {
    /// Not made by this program.
    #[error("{got:?} is no cursor; send back `next` of the previous page unchanged")]
    Malformed {
        /// Cut to 64 characters.
        got: String,
    },
    /// Made by another list.
    #[error("the cursor belongs to another list; start that list again without a cursor")]
    OtherList,
}

impl Cursor {
    pub(super) fn new(kind: ListKind, key: Vec<u8>) -> Self {
        Self { kind: kind as u8, key }
    }

    /// The key, if the cursor was made by this list.
    pub(super) fn key_of(&self, kind: ListKind) -> Result<&[u8], CursorError> {
        if self.kind == kind as u8 { Ok(&self.key) } else { Err(CursorError::OtherList) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.kind)?;
        self.key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({self})")
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let malformed = || CursorError::Malformed { got: text.chars().take(64).collect() };
        if text.len() > 2 * (KEY_BYTES_MAX + 1) || !text.len().is_multiple_of(2) {
            return Err(malformed());
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let pairs = text.as_bytes().chunks_exact(2);
        let bytes: Option<Vec<u8>> = pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        let bytes = bytes.ok_or_else(malformed)?;
        let (kind, key) = bytes.split_first().ok_or_else(malformed)?;
        Ok(Self { kind: *kind, key: key.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_from_its_text(kind in any::<u8>(), key in proptest::collection::vec(any::<u8>(), 0..KEY_BYTES_MAX)) {
            let cursor = Cursor { kind, key };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn a_text_that_is_a_cursor_is_the_text_of_that_cursor(text in "[0-9a-fA-F é+]{0,20}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor = Cursor::new(ListKind::Sessions, vec![1, 2]);
        assert_eq!(cursor.key_of(ListKind::Episodes), Err(CursorError::OtherList));
        assert_eq!(cursor.key_of(ListKind::Sessions), Ok(&[1u8, 2][..]));
    }

    #[test]
    fn a_text_longer_than_any_cursor_is_refused() {
        assert!("ab".repeat(KEY_BYTES_MAX + 2).parse::<Cursor>().is_err());
        assert!("".parse::<Cursor>().is_err());
    }
}
