//! Datasets and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::text::{excerpt, parsed};

/// Longest name of a dataset in bytes.
pub const DATASET_NAME_BYTES_MAX: usize = 128;

/// Name of a dataset, safe as a folder name, an object's path segment and a part of a URL.
///
/// Letters and digits of any script, `-`, `_` and `.`, 1 to 128 bytes, no leading dot, no `..`.
/// Combining marks are no letters, so a name has one spelling in bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName(String);

/// A text is no name of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "dataset name {got:?} {why}; use 1 to {DATASET_NAME_BYTES_MAX} bytes of letters and digits of any script, '-', '_' and '.', without a leading dot or two dots in a row"
)]
pub struct DatasetNameError {
    got: String,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Why {
    #[error("is empty")]
    Empty,
    #[error("has {0} bytes")]
    TooLong(usize),
    #[error("starts with a dot")]
    LeadingDot,
    #[error("holds '..'")]
    TwoDots,
    #[error("holds {0:?}")]
    Character(char),
}

impl DatasetName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatasetName {
    type Err = DatasetNameError;
    fn from_str(text: &str) -> Result<Self, DatasetNameError> {
        let refuse = |why| Err(DatasetNameError { got: excerpt(text), why });
        if text.is_empty() {
            return refuse(Why::Empty);
        }
        if text.len() > DATASET_NAME_BYTES_MAX {
            return refuse(Why::TooLong(text.len()));
        }
        if text.starts_with('.') {
            return refuse(Why::LeadingDot);
        }
        if text.contains("..") {
            return refuse(Why::TwoDots);
        }
        let allowed = |character: &char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
        match text.chars().find(|character| !allowed(character)) {
            Some(character) => refuse(Why::Character(character)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<&str> for DatasetName {
    type Error = DatasetNameError;
    fn try_from(text: &str) -> Result<Self, DatasetNameError> {
        text.parse()
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for DatasetName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for DatasetName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DatasetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

/// A named collection of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// The dataset's name; unique, and kept for good so that no other recordings slip under it.
    pub name: DatasetName,
    /// When it was made.
    pub created_ns: i64,
    /// For people.
    #[serde(default)]
    pub description: String,
}
