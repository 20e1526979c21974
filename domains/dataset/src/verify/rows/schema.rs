//! The columns of a data file against the declared features.

use super::super::code::Code;
use super::super::findings::Findings;
use super::super::{Place, Subject};
use crate::lerobot::reader::OWN_COLUMNS;
use crate::lerobot::reader::cells::Stored;
use crate::lerobot::reader::raw_info::RawFeature;
use crate::lerobot::reader::table::{Root, Table};

/// Check the schema; gives the columns whose values are worth reading.
pub(super) fn check(subject: &Subject, path: &str, table: &Table, findings: &mut Findings) -> Vec<String> {
    let roots = table.roots();
    let repeated = table.repeated();
    if !repeated.is_empty() {
        findings.add(Code::ColumnRepeated, Place::file(path), || format!("twice: {}", repeated.join(", ")));
    }
    let features = &subject.info.features;
    for feature in features.iter().filter(|feature| !feature.is_video()) {
        match roots.iter().find(|root| root.name == feature.key) {
            None => findings.grouped(Code::ColumnMissing, &feature.key, Place::file(path), || {
                format!("feature {} has no column", feature.key)
            }),
            Some(root) => kind(feature, root, path, findings),
        }
    }
    for root in &roots {
        let declared = features.iter().any(|feature| feature.key == root.name && !feature.is_video());
        if !declared && !features.is_empty() {
            findings.grouped(Code::ColumnExtra, &root.name, Place::file(path), || {
                format!("column {} is no declared feature", root.name)
            });
        }
    }
    let readable = |root: &&Root| !root.is_struct && !matches!(root.stored, Stored::Text | Stored::Other);
    let mut names: Vec<String> = roots.iter().filter(readable).map(|root| root.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn kind(feature: &RawFeature, root: &Root, path: &str, findings: &mut Findings) {
    let declared = feature.dtype.as_deref().unwrap_or("");
    let stored = root.stored.name();
    let fits = match declared {
        "image" => root.is_struct || root.stored == Stored::Other,
        "string" | "language" => true,
        _ => stored == declared,
    };
    if !fits {
        let group = format!("{declared} {stored}");
        let key = &feature.key;
        let own = if OWN_COLUMNS.contains(&key.as_str()) { ", one of lerobot's own columns," } else { "" };
        findings.grouped(Code::ColumnType, &group, Place::file(path), || {
            format!("{key}{own} is declared {declared} and stored as {stored}")
        });
    }
}
