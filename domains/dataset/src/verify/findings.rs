//! Findings while they are gathered: one for each kind and place, with counts.
//!
//! A fault that occurs 18,000 times is one fact. The first place is named, or the worst where faults
//! have a size; the rest is counted.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{Code, Severity};
use super::{Finding, Place};
use crate::lerobot::reader::file::FileFault;

/// Most findings of a report; only hostile files have more.
const FINDINGS_MAX: usize = 2000;
/// Most characters of a message; names and texts from outside are cut.
const MESSAGE_CHARS_MAX: usize = 600;

#[derive(Debug)]
struct Entry {
    order: usize,
    place: Place,
    message: String,
    size: f64,
    count: u64,
    episodes: BTreeSet<u64>,
}

/// Gathers findings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    entries: BTreeMap<(Code, String), Entry>,
    /// Faults of kinds and places that came after [`FINDINGS_MAX`] others.
    dropped: u64,
}

impl Findings {
    /// Report a fault. Faults of one code in one file are one finding.
    pub fn add(&mut self, code: Code, place: Place, message: impl FnOnce() -> String) {
        let group = place.file.clone();
        self.sized(code, &group, place, 0.0, message);
    }

    /// Report a fault of a group that is no file: a camera, a feature.
    pub fn grouped(&mut self, code: Code, group: &str, place: Place, message: impl FnOnce() -> String) {
        self.sized(code, group, place, 0.0, message);
    }

    /// Report a fault that has a size; the message of the largest is kept.
    pub fn sized(&mut self, code: Code, group: &str, place: Place, size: f64, message: impl FnOnce() -> String) {
        let order = self.entries.len();
        let key = (code, group.to_owned());
        if order >= FINDINGS_MAX && !self.entries.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            order,
            place: Place::default(),
            message: String::new(),
            size: f64::NEG_INFINITY,
            count: 0,
            episodes: BTreeSet::new(),
        });
        entry.count += 1;
        entry.episodes.extend(place.episode);
        if size > entry.size {
            entry.size = size;
            entry.place = place;
            entry.message = message();
        }
    }

    /// Report what is wrong with a file.
    pub fn file(&mut self, path: &str, fault: &FileFault) {
        self.add(code_of(fault), Place::file(path), || fault.to_string());
    }

    /// The findings: errors first, each severity in the order of discovery.
    pub fn finish(self) -> Vec<Finding> {
        let mut entries: Vec<((Code, String), Entry)> = self.entries.into_iter().collect();
        entries.sort_by_key(|((code, _), entry)| (code.severity(), entry.order));
        let mut list: Vec<Finding> = entries.into_iter().map(|((code, _), entry)| finding(code, entry)).collect();
        if self.dropped > 0 {
            let (size, count) = (0.0, 1);
            let message = format!("{} faults more", self.dropped);
            let entry = Entry { order: 0, place: Place::default(), message, size, count, episodes: BTreeSet::new() };
            list.push(finding(Code::MoreFindings, entry));
        }
        list
    }
}

fn finding(code: Code, entry: Entry) -> Finding {
    let mut message: String = entry.message.chars().take(MESSAGE_CHARS_MAX).collect();
    if entry.count > 1 {
        let which = if entry.size > 0.0 { "the worst" } else { "the first" };
        let episodes = entry.episodes.len();
        let among = if episodes > 1 { format!(" in {episodes} episodes") } else { String::new() };
        message = format!("{message} ({which} of {}{among})", entry.count);
    }
    Finding {
        code: code.name(),
        severity: code.severity(),
        file: entry.place.file,
        episode: entry.place.episode,
        row: entry.place.row,
        message,
        remedy: code.remedy(),
    }
}

/// The code of a fault of a file.
pub(super) fn code_of(fault: &FileFault) -> Code {
    match fault {
        FileFault::Missing => Code::FileMissing,
        FileFault::Empty => Code::FileEmpty,
        FileFault::LfsPointer { .. } => Code::LfsPointer,
        FileFault::Html { .. } => Code::HtmlPage,
        FileFault::NoFooter { .. } => Code::ParquetCut,
        FileFault::Alien { .. } => Code::FileAlien,
        FileFault::Damaged(_) => Code::FileDamaged,
        FileFault::TooLarge { .. } => Code::FileTooLarge,
        FileFault::Io(_) => Code::FileUnreadable,
    }
}

/// Whether any finding is an error.
pub(super) fn any_error(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_findings_is_cut_and_says_so() {
        let mut findings = Findings::default();
        for key in 0..5000 {
            findings.grouped(Code::ColumnExtra, &format!("column {key}"), Place::default(), || "extra".into());
        }
        let found = findings.finish();
        assert_eq!(found.len(), FINDINGS_MAX + 1);
        assert_eq!(
            (found[FINDINGS_MAX].code, found[FINDINGS_MAX].message.as_str()),
            ("more-findings", "3000 faults more")
        );
    }

    #[test]
    fn findings_of_one_kind_and_file_become_one_with_a_count() {
        let mut findings = Findings::default();
        for row in 0..5 {
            findings.add(Code::NotFinite, Place::row("a", 3, row), || format!("row {row}"));
        }
        findings.add(Code::StrayFile, Place::file("b"), || "stray".into());
        findings.sized(Code::TimestampGap, "all", Place::row("a", 0, 1), 0.2, || "200 ms".into());
        findings.sized(Code::TimestampGap, "all", Place::row("a", 1, 7), 0.3, || "300 ms".into());
        let found = findings.finish();
        let short: Vec<(&str, &str, Option<u64>)> =
            found.iter().map(|finding| (finding.code, finding.message.as_str(), finding.row)).collect();
        assert_eq!(
            short,
            [
                ("not-finite", "row 0 (the first of 5)", Some(0)),
                ("stray-file", "stray", None),
                ("timestamp-gap", "300 ms (the worst of 2 in 2 episodes)", Some(7)),
            ]
        );
    }
}
