//! Checks of the data files: schema, order, numbers, times.
//!
//! Files are read once, in lerobot's order, in batches. Only the times of all rows are kept (4 bytes
//! a row), for the comparison with the videos.

use std::collections::{BTreeMap, BTreeSet};

use super::code::Code;
use super::findings::{Findings, code_of};
use super::{Place, Progress, Subject};
use crate::lerobot::reader::episode::data_path;
use crate::lerobot::reader::file::FileFault;
use crate::lerobot::reader::meta::{EpisodeRow, nested_parquet};
use crate::lerobot::reader::table::Table;

mod moments;
mod schema;
mod times;
mod walk;

pub(super) use moments::{Moments, named};
pub(super) use times::TOLERANCE_S;

use walk::Walk;

/// The data files to read, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files that are there.
    pub files: Vec<DataFile>,
    /// Files that the metadata names and that are not there.
    missing: Vec<(String, Option<u64>)>,
}

/// One data file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DataFile {
    path: String,
    /// The episode whose file it is (v2).
    episode: Option<u64>,
}

/// One episode as its rows show it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Rows found.
    pub rows: u64,
    /// Timestamps as lerobot sees them.
    pub times: Vec<f32>,
    /// Rows by file.
    pub files: BTreeMap<String, u64>,
}

/// What the rows showed.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Rows read.
    pub count: u64,
    /// Every file was there and was read to its end.
    pub whole: bool,
    /// By `episode_index`.
    pub episodes: BTreeMap<u64, Seen>,
    /// By feature.
    pub moments: BTreeMap<String, Moments>,
}

/// The number of an episode, when it can be one.
pub(super) fn number(row: &EpisodeRow) -> Option<u64> {
    row.index.and_then(|index| u64::try_from(index).ok())
}

/// Find out which data files there should be, and note them as expected.
pub(super) fn plan(subject: &mut Subject, findings: &mut Findings) -> Plan {
    let mut plan = Plan::default();
    let nested = nested_parquet(&subject.root, "data");
    let v2 = subject.version.is_v2();
    let mut named: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let rows = std::mem::take(&mut subject.episodes.rows);
    for row in &rows {
        let Some(index) = number(row) else { continue };
        if !v2 && (row.data_chunk.is_none() || row.data_file.is_none()) {
            // lerobot joins all data files whatever the table of episodes says.
            named.extend(nested.iter().map(|path| (path.clone(), None)));
        } else if let Ok(path) = data_path(&subject.info, subject.version, index, row) {
            named.entry(path).or_insert(v2.then_some(index));
        } else if subject.blind.is_empty() {
            subject.blind.push("data/".into());
        }
    }
    subject.episodes.rows = rows;
    for (path, episode) in &named {
        if subject.root.join(path).exists() {
            plan.files.push(DataFile { path: path.clone(), episode: *episode });
        } else {
            plan.missing.push((path.clone(), *episode));
        }
    }
    for path in nested {
        let wanted = !v2 || !subject.episodes_whole;
        if wanted && !named.contains_key(&path) {
            plan.files.push(DataFile { path, episode: None });
        }
    }
    plan.files.sort();
    let (gone, all) = (plan.missing.len(), named.len());
    if let Some((path, episode)) = plan.missing.first() {
        let place = Place { file: path.clone(), episode: *episode, row: None };
        findings.grouped(Code::DataMissing, "data", place, || {
            format!("{gone} of {all} data files are missing, {path} first")
        });
    } else if plan.files.is_empty() {
        findings.grouped(Code::DataMissing, "data", Place::file("data"), || {
            let listed = rows_listed(subject);
            format!("there is no data file; {} episodes with {listed} rows are listed", subject.episodes.rows.len())
        });
    }
    subject.expected.extend(named.into_keys());
    plan
}

fn rows_listed(subject: &Subject) -> u64 {
    subject.episodes.rows.iter().filter_map(|row| u64::try_from(row.length?).ok()).sum()
}

/// Read all data files.
pub(super) fn check(subject: &Subject, plan: &Plan, findings: &mut Findings, progress: &mut Progress) -> Rows {
    let mut walk = Walk::new(subject);
    let mut unread: BTreeSet<&str> = plan.missing.iter().map(|(path, _)| path.as_str()).collect();
    for file in &plan.files {
        if let Err(fault) = one_file(subject, file, &mut walk, findings) {
            broken(file, &fault, findings);
            unread.insert(&file.path);
            walk.skip(0);
        }
        progress.step();
    }
    let mut rows = walk.finish(findings);
    rows.whole = unread.is_empty() && !plan.files.is_empty();
    if rows.whole {
        moments::constant(subject, &rows, findings);
    }
    if rows.count > 0 {
        compare(subject, &rows, &unread, findings);
    }
    rows
}

/// A clone without LFS has thousands of pointers: those are one finding. A damaged file is one by itself.
fn broken(file: &DataFile, fault: &FileFault, findings: &mut Findings) {
    let everywhere = matches!(fault, FileFault::LfsPointer { .. } | FileFault::Html { .. } | FileFault::Empty);
    let group = if everywhere { "data" } else { file.path.as_str() };
    let place = Place { file: file.path.clone(), episode: file.episode, row: None };
    findings.grouped(code_of(fault), group, place, || format!("{}: {fault}", file.path));
}

fn one_file(subject: &Subject, file: &DataFile, walk: &mut Walk, findings: &mut Findings) -> Result<(), FileFault> {
    let table = Table::open(&subject.root.join(&file.path))?;
    let columns = schema::check(subject, &file.path, &table, findings);
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    walk.begin(file, &columns);
    let mut first = None;
    for (group, stated) in table.group_rows().into_iter().enumerate() {
        let mut read = 0;
        let fault = match one_group(&table, group, &names, walk, findings, &mut read) {
            Err(fault) => fault,
            Ok(()) if read == stated => continue,
            Ok(()) => FileFault::Damaged(format!("row group {group}: {read} rows came, the footer states {stated}")),
        };
        walk.skip(stated.saturating_sub(read));
        first = first.or(Some(fault));
    }
    first.map_or(Ok(()), Err)
}

/// A damaged row group does not take the others with it.
fn one_group(
    table: &Table,
    group: usize,
    names: &[&str],
    walk: &mut Walk,
    findings: &mut Findings,
    read: &mut u64,
) -> Result<(), FileFault> {
    for batch in table.batches(names, Some(vec![group]))? {
        let batch = batch?;
        walk.take(&batch, findings);
        *read += batch.rows as u64;
    }
    Ok(())
}

/// Compare the episodes of the metadata with those of the rows.
fn compare(subject: &Subject, rows: &Rows, unread: &BTreeSet<&str>, findings: &mut Findings) {
    let mut listed = BTreeSet::new();
    for row in &subject.episodes.rows {
        let Some(index) = number(row) else { continue };
        listed.insert(index);
        let named = data_path(&subject.info, subject.version, index, row).unwrap_or_default();
        if unread.contains(named.as_str()) {
            continue;
        }
        let place = Place { file: row.file.clone(), episode: Some(index), row: Some(row.row) };
        let length = row.length.or_else(|| row.to_index.zip(row.from_index).map(|(to, from)| to.saturating_sub(from)));
        let Some(seen) = rows.episodes.get(&index) else {
            let length = length.unwrap_or(0);
            findings.add(Code::EpisodeNoRows, place, || {
                format!("0 of {length} rows of episode {index} in {named}, and none elsewhere")
            });
            continue;
        };
        if row.data_chunk.is_some() && row.data_file.is_some() || subject.version.is_v2() {
            let here = seen.files.get(&named).copied().unwrap_or(0);
            if here < seen.rows {
                let others: Vec<&str> = seen.files.keys().filter(|path| **path != named).map(String::as_str).collect();
                let place = place.clone();
                findings.add(Code::EpisodeElsewhere, place, || {
                    format!(
                        "episode {index}: {here} of {} rows in {named}, the others in {}",
                        seen.rows,
                        others.join(", ")
                    )
                });
            }
        }
        if let Some(length) = length.filter(|length| u64::try_from(*length).ok() != Some(seen.rows)) {
            findings.add(Code::EpisodeLength, place, || {
                format!("episode {index}: length is {length}, the data hold {} rows", seen.rows)
            });
        }
    }
    if subject.episodes_whole {
        for (index, seen) in rows.episodes.iter().filter(|(index, _)| !listed.contains(index)) {
            let path = seen.files.keys().next().cloned().unwrap_or_default();
            findings.add(Code::EpisodeUnknown, Place::episode(&path, *index), || {
                format!("{} rows of episode {index}, which is not listed", seen.rows)
            });
        }
    }
}
