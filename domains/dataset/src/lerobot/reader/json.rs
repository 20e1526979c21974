//! JSON as people really write it: NaN tokens, a BOM, CRLF, blank lines, no newline at the end.
//!
//! Python's `json` writes `NaN` and `Infinity`, which JSON does not know. They are read as null and
//! reported, so that one bad statistic does not hide the rest of a file.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// An object with its keys in file order, repeated keys included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ordered(pub Vec<(String, Value)>);

impl Ordered {
    /// The first value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Keys that occur more than once, each named once.
    #[must_use]
    pub fn repeated(&self) -> Vec<String> {
        let mut names: Vec<&String> = self.0.iter().map(|(name, _)| name).collect();
        names.sort();
        let mut repeated: Vec<String> =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
        repeated.dedup();
        repeated
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A value and whether NaN or infinity stood somewhere in its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// What was read; NaN and infinity became null.
    pub value: T,
    /// NaN or infinity was met.
    pub not_finite: bool,
}

/// Parse one JSON text; a BOM is skipped.
///
/// # Errors
/// The parser's message with line and column.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Parsed<T>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(Parsed { value, not_finite: false }),
        Err(first) => {
            let Some(plain) = without_not_finite(bytes) else {
                return Err(first.to_string());
            };
            let value = serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
            Ok(Parsed { value, not_finite: true })
        }
    }
}

/// The text with bare `NaN`, `Infinity` and `-Infinity` replaced by null; `None` when there is none.
fn without_not_finite(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let (mut in_string, mut found) = (false, false);
    while let Some((&byte, tail)) = rest.split_first() {
        if in_string {
            plain.push(byte);
            rest = tail;
            if byte == b'\\' {
                if let Some((&escaped, tail)) = rest.split_first() {
                    plain.push(escaped);
                    rest = tail;
                }
            } else if byte == b'"' {
                in_string = false;
            }
            continue;
        }
        let word = [b"NaN".as_slice(), b"-Infinity", b"Infinity"].into_iter().find(|word| rest.starts_with(word));
        if let Some(word) = word {
            found = true;
            plain.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }
        in_string = byte == b'"';
        plain.push(byte);
        rest = tail;
    }
    found.then_some(plain)
}

/// One line of a JSONL file.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// 1-based number in the file, blank lines counted.
    pub number: u64,
    /// The object on it.
    pub value: Ordered,
    /// NaN or infinity was met on it.
    pub not_finite: bool,
}

/// A line that is no JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// 1-based number in the file.
    pub number: u64,
    /// What the parser says.
    pub message: String,
}

/// Parse JSONL line by line. Blank lines, CRLF, a BOM and a missing newline at the end are no faults.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<Line, LineFault>> + '_ {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').zip(1..).filter_map(|(line, number)| {
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        Some(match parse::<Ordered>(line) {
            Ok(parsed) => Ok(Line { number, value: parsed.value, not_finite: parsed.not_finite }),
            Err(message) => Err(LineFault { number, message }),
        })
    })
}

/// Fuzz body: any bytes, read as JSONL.
pub fn fuzz_jsonl(bytes: &[u8]) {
    for line in lines(bytes) {
        match line {
            Ok(line) => assert!(line.number >= 1),
            Err(fault) => assert!(!fault.message.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_skip_blank_lines_crlf_and_bom_and_need_no_last_newline() {
        let text = b"\xef\xbb\xbf{\"a\": 1}\r\n\r\n   \n{\"a\": 2}";
        let read: Vec<_> = lines(text).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(read[1].value.get("a"), Some(&Value::from(2)));
    }

    #[test]
    fn lines_name_the_damaged_line_and_go_on() {
        let read: Vec<_> = lines(b"{\"a\": 1}\n{\"a\": \n{\"a\": 3}\n").collect();
        assert_eq!(read.len(), 3);
        assert_eq!(read[1].as_ref().unwrap_err().number, 2);
        assert!(read[2].is_ok());
    }

    #[test]
    fn parse_reads_pythons_nan_as_null_and_leaves_strings_alone() {
        let parsed = parse::<Value>(br#"{"mean": [NaN, -Infinity, 1.5], "task": "say \"NaN\""}"#).unwrap();
        assert!(parsed.not_finite);
        assert_eq!(parsed.value, serde_json::json!({"mean": [null, null, 1.5], "task": "say \"NaN\""}));
    }

    #[test]
    fn ordered_keeps_file_order_and_sees_repeated_keys() {
        let parsed = parse::<Ordered>(br#"{"z": 1, "a": 2, "z": 3}"#).unwrap();
        assert_eq!(parsed.value.0.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["z", "a", "z"]);
        assert_eq!(parsed.value.repeated(), ["z"]);
    }

    proptest! {
        #[test]
        fn fuzz_jsonl_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz_jsonl(&bytes);
        }

        #[test]
        fn fuzz_jsonl_takes_any_json_like_text(text in "[\\[\\]{}\":,0-9eE.\\-NaInfity \n\\\\]{0,200}") {
            fuzz_jsonl(text.as_bytes());
        }
    }
}
