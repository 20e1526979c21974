//! Paths of objects, checked before a driver sees them.

use object_store::path::Path;
use thiserror::Error;

use super::ObjectError;
use crate::records::excerpt;

/// Longest path in bytes; S3's limit.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest segment in bytes: a file name has 255, and an unfinished file's name is a little longer.
pub const SEGMENT_BYTES_MAX: usize = 240;

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathFault {
    /// Nothing, or nothing between two slashes, or a slash at either end.
    #[error("has an empty segment")]
    Empty,
    /// Longer than every store takes.
    #[error("has {0} bytes, the limit is {PATH_BYTES_MAX}")]
    Long(usize),
    /// A file name cannot be so long.
    #[error("has a segment of {0} bytes")]
    LongSegment(usize),
    /// Leads elsewhere.
    #[error("has a segment '.' or '..'")]
    Relative,
    /// Means something else in some store, or garbles a log.
    #[error("holds {0:?}")]
    Character(char),
}

/// The path as the driver takes it. Unicode stays as it is, so that a folder on the disk has the
/// dataset's name and a list gives the same text back.
pub(super) fn check(text: &str) -> Result<Path, ObjectError> {
    let refuse = |fault| ObjectError::Path { path: excerpt(text), fault };
    if text.len() > PATH_BYTES_MAX {
        return Err(refuse(PathFault::Long(text.len())));
    }
    for segment in text.split('/') {
        if segment.is_empty() {
            return Err(refuse(PathFault::Empty));
        }
        if segment == "." || segment == ".." {
            return Err(refuse(PathFault::Relative));
        }
        if segment.len() > SEGMENT_BYTES_MAX {
            return Err(refuse(PathFault::LongSegment(segment.len())));
        }
        // `#` marks the driver's unfinished files.
        let wrong = |character: &char| character.is_control() || matches!(character, '\\' | '#');
        if let Some(character) = segment.chars().find(wrong) {
            return Err(refuse(PathFault::Character(character)));
        }
    }
    // Stricter than the driver's own rule, so it has nothing left to refuse.
    Path::parse(text).map_err(|_| refuse(PathFault::Relative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::DatasetName;
    use proptest::prelude::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for text in ["", "/", "/etc/passwd", "a/", "a//b", "..", "a/../b", "a/..", "./a", "a\\b", "a#1", "a\nb", "a\0"]
        {
            assert!(check(text).is_err(), "{text:?}");
        }
        assert!(check(&"x".repeat(SEGMENT_BYTES_MAX + 1)).is_err());
        assert!(check(&"x/".repeat(PATH_BYTES_MAX)).is_err());
    }

    proptest! {
        #[test]
        fn a_path_is_taken_as_it_is_or_not_at_all(text in "[a-z./\\\\#%é ]{0,12}") {
            if let Ok(path) = check(&text) {
                prop_assert_eq!(path.as_ref(), text);
            }
        }

        #[test]
        fn every_dataset_name_is_a_segment(text in "[\\p{L}\\p{N}._-]{1,40}") {
            if let Ok(name) = text.parse::<DatasetName>() {
                let path = format!("datasets/{name}/info.json");
                prop_assert_eq!(check(&path).unwrap().to_string(), path);
            }
        }

        #[test]
        fn any_text_is_checked_without_a_panic(text in ".{0,40}") {
            let _ = check(&text);
        }
    }
}
