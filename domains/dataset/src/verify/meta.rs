//! Checks of the tables of episodes and tasks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::code::Code;
use super::findings::Findings;
use super::{Place, Subject, info};
use crate::lerobot::reader::cells::Stored;
use crate::lerobot::reader::file::FileFault;
use crate::lerobot::reader::meta::{self, EpisodeRow, MetaFile};

/// An episode this many times longer than the median is suspicious.
const LONG_FACTOR: i64 = 5;
/// Fewer episodes have no usual length.
const LONG_EPISODES_MIN: usize = 5;

/// Check the table of episodes.
pub(super) fn check_episodes(subject: &Subject, findings: &mut Findings) {
    let files = &subject.episodes.files;
    let absent = files.is_empty() || files.iter().all(|file| file.fault == Some(FileFault::Missing));
    if absent {
        let path = if subject.version.is_v2() { "meta/episodes.jsonl" } else { "meta/episodes" };
        findings.add(Code::EpisodesMissing, Place::file(path), || format!("{path} is missing"));
    } else {
        for file in files {
            one_file(file, findings);
            if !subject.version.is_v2() && file.fault.is_none() {
                columns(subject, file, findings);
            }
        }
    }
    elsewhere(subject, findings);
    if subject.episodes_whole {
        order(subject, findings);
        ranges(subject, findings);
        places(subject, findings);
        lengths(subject, findings);
    }
}

fn one_file(file: &MetaFile, findings: &mut Findings) {
    if let Some(fault) = &file.fault {
        findings.file(&file.path, fault);
    }
    for fault in &file.line_faults {
        findings.add(Code::JsonDamaged, Place::at(&file.path, fault.number), || {
            format!("line {}: {}", fault.number, fault.message)
        });
    }
    repeated(file, findings);
}

fn repeated(file: &MetaFile, findings: &mut Findings) {
    if !file.repeated.is_empty() {
        findings.add(Code::ColumnRepeated, Place::file(&file.path), || format!("twice: {}", file.repeated.join(", ")));
    }
}

fn columns(subject: &Subject, file: &MetaFile, findings: &mut Findings) {
    let mut needed = vec!["episode_index".to_owned(), "dataset_from_index".into(), "dataset_to_index".into()];
    let mut wanted: Vec<String> =
        ["tasks", "length", "data/chunk_index", "data/file_index"].map(str::to_owned).to_vec();
    for video in subject.info.videos() {
        needed
            .extend(["chunk_index", "file_index", "from_timestamp"].map(|name| format!("videos/{}/{name}", video.key)));
        wanted.push(format!("videos/{}/to_timestamp", video.key));
    }
    wanted.extend(["meta/episodes/chunk_index", "meta/episodes/file_index"].map(str::to_owned));
    for feature in &subject.info.features {
        let key = &feature.key;
        let is_text = matches!(feature.dtype.as_deref(), Some("string" | "language"));
        if !is_text && !file.has(&format!("stats/{key}/mean")) {
            wanted.push(format!("stats/{key}/*"));
        }
    }
    for (code, list) in [(Code::EpisodesColumn, needed), (Code::EpisodesColumnOptional, wanted)] {
        let missing: Vec<String> = list
            .into_iter()
            .filter(|name| name.ends_with('*') || !file.has(name))
            .map(|name| misspelt(file, name))
            .collect();
        if !missing.is_empty() {
            findings.add(code, Place::file(&file.path), || format!("missing: {}", missing.join(", ")));
        }
    }
    let doubles: Vec<&str> = file
        .roots
        .iter()
        .filter(|root| {
            (root.name.ends_with("_index") || root.name == "length") && matches!(root.stored, Stored::Float(_))
        })
        .map(|root| root.name.as_str())
        .collect();
    if !doubles.is_empty() {
        findings.add(Code::ColumnType, Place::file(&file.path), || {
            format!("whole numbers stored as floats: {}", doubles.join(", "))
        });
    }
}

fn misspelt(file: &MetaFile, name: String) -> String {
    let other = name.replace('/', "_");
    if other != name && file.has(&other) { format!("{name} (there is {other}, misspelt)") } else { name }
}

/// Metadata at places where lerobot does not look, and whether it tells the same story.
fn elsewhere(subject: &Subject, findings: &mut Findings) {
    let root = &subject.root;
    let sum = |rows: &[EpisodeRow]| rows.iter().filter_map(|row| row.length).fold(0_i64, i64::saturating_add);
    let mut told: Vec<(String, u64, i64)> = Vec::new();
    if subject.episodes_whole {
        told.push((
            subject.episodes.files[0].path.clone(),
            subject.episodes.rows.len() as u64,
            sum(&subject.episodes.rows),
        ));
    }
    let flat = std::fs::read_dir(root.join("meta/episodes")).into_iter().flatten().flatten();
    let mut flat: Vec<String> = flat
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".parquet"))
        .collect();
    flat.sort();
    for name in flat {
        let path = format!("meta/episodes/{name}");
        let (file, rows) = meta::episodes_parquet(root, &path, &[]);
        repeated(&file, findings);
        if let Some(fault) = &file.fault {
            findings.file(&path, fault);
        } else {
            told.push((path, rows.len() as u64, sum(&rows)));
        }
    }
    let stated = ["total_episodes", "num_episodes"].into_iter().find_map(|key| subject.info.count(key));
    if told.len() > 1 || !subject.episodes_whole {
        if !subject.version.is_v2() && root.join("meta/episodes.jsonl").exists() {
            let older = meta::episodes(root, meta::Version::V21, &[]);
            told.push(("meta/episodes.jsonl".into(), older.rows.len() as u64, sum(&older.rows)));
        }
        if let Some((stated, frames)) = stated.zip(subject.info.count("total_frames")) {
            told.push((info::PATH.into(), stated, i64::try_from(frames).unwrap_or(i64::MAX)));
        }
    }
    let differ = told
        .windows(2)
        .any(|pair| pair[0].1 != pair[1].1 || (pair[0].2 != pair[1].2 && pair[0].2 > 0 && pair[1].2 > 0));
    if told.len() > 1 && differ {
        let list: Vec<String> = told
            .iter()
            .map(|(path, episodes, frames)| format!("{path}: {episodes} episodes, {frames} frames"))
            .collect();
        findings.add(Code::MetaDisagree, Place::file(&told[0].0), || list.join("; "));
    }
}

fn order(subject: &Subject, findings: &mut Findings) {
    let rows = &subject.episodes.rows;
    let mut seen = BTreeSet::new();
    for (position, row) in rows.iter().enumerate() {
        let place = |episode: Option<u64>| Place { file: row.file.clone(), episode, row: Some(row.row) };
        let Some(index) = row.index.and_then(|index| u64::try_from(index).ok()) else {
            findings.add(Code::EpisodeIndexWrong, place(None), || format!("episode_index is {:?}", row.index));
            continue;
        };
        if !seen.insert(index) {
            findings.add(Code::EpisodesRepeated, place(Some(index)), || format!("episode {index} stands here again"));
        }
        if index != position as u64 {
            findings.add(Code::EpisodesOrder, place(Some(index)), || {
                format!("episode {index} stands at position {position}")
            });
        }
    }
    if let Some(last) = seen.last()
        && seen.len() as u64 <= *last
    {
        let holes: Vec<u64> = (0..=*last).filter(|index| !seen.contains(index)).take(10).collect();
        let count = last + 1 - seen.len() as u64;
        let path = &rows[0].file;
        findings.add(Code::EpisodesGap, Place::file(path), || {
            format!("{count} numbers below {last} are missing: {holes:?}")
        });
    }
}

fn ranges(subject: &Subject, findings: &mut Findings) {
    let known: BTreeSet<&str> = subject.tasks.rows.iter().filter_map(|task| task.text.as_deref()).collect();
    let mut next = 0_i64;
    for row in &subject.episodes.rows {
        let place = Place {
            file: row.file.clone(),
            episode: row.index.and_then(|index| u64::try_from(index).ok()),
            row: Some(row.row),
        };
        let span = row.from_index.zip(row.to_index).map(|(from, to)| to.saturating_sub(from));
        let Some(length) = row.length.or(span) else { continue };
        if length <= 0 {
            findings.add(Code::EpisodeLength, place.clone(), || format!("length is {length}"));
        }
        let end = next.saturating_add(length);
        if let (Some(from), Some(to)) = (row.from_index, row.to_index)
            && (from, to) != (next, end)
        {
            findings.add(Code::EpisodeRange, place.clone(), || {
                format!("rows {from} to {to} are stated, the lengths give {next} to {end}")
            });
        }
        next = end;
        if let Some(tasks) = &row.tasks {
            listed_tasks(subject, &known, tasks, &place, findings);
        }
    }
}

fn listed_tasks(subject: &Subject, known: &BTreeSet<&str>, tasks: &[String], place: &Place, findings: &mut Findings) {
    if tasks.is_empty() {
        findings.grouped(Code::EpisodeTask, "none", place.clone(), || "no task is listed".into());
    }
    if subject.tasks.file.fault.is_some() {
        return;
    }
    for text in tasks {
        if !known.contains(text.as_str()) {
            let short: String = text.chars().take(80).collect();
            findings.grouped(Code::EpisodeTask, "unknown", place.clone(), || {
                format!("task \"{short}\" is not in the task table")
            });
        }
    }
}

fn places(subject: &Subject, findings: &mut Findings) {
    for row in &subject.episodes.rows {
        let (Some(chunk), Some(file)) = row.meta_place else {
            continue;
        };
        let named = format!("meta/episodes/chunk-{chunk:03}/file-{file:03}.parquet");
        if named != row.file {
            let place = Place {
                file: row.file.clone(),
                episode: row.index.and_then(|index| u64::try_from(index).ok()),
                row: Some(row.row),
            };
            findings.add(Code::EpisodeMetaPlace, place, || format!("the row says it stands in {named}"));
        }
    }
}

fn lengths(subject: &Subject, findings: &mut Findings) {
    let mut lengths: Vec<i64> = subject.episodes.rows.iter().filter_map(|row| row.length).collect();
    if lengths.len() < LONG_EPISODES_MIN {
        return;
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2].max(1);
    for row in &subject.episodes.rows {
        if let Some(length) = row.length.filter(|length| *length > median.saturating_mul(LONG_FACTOR)) {
            let place = Place {
                file: row.file.clone(),
                episode: row.index.and_then(|index| u64::try_from(index).ok()),
                row: Some(row.row),
            };
            #[expect(clippy::cast_precision_loss, reason = "a length as the size of a finding")]
            findings.sized(Code::EpisodeLong, "all", place, length as f64, || {
                format!("{length} rows, the usual episode has {median}")
            });
        }
    }
}

/// Check the task table.
pub(super) fn check_tasks(subject: &Subject, findings: &mut Findings) {
    let tasks = &subject.tasks;
    one_file(&tasks.file, findings);
    if tasks.file.fault.is_some() {
        return;
    }
    let path = &tasks.file.path;
    if !subject.version.is_v2() {
        if !tasks.file.has("task_index") {
            findings
                .grouped(Code::TasksColumn, "task_index", Place::file(path), || "there is no column task_index".into());
        }
        match &tasks.text_column {
            None => findings
                .grouped(Code::TasksColumn, "task", Place::file(path), || "there is no column with texts".into()),
            Some(column) => pandas_index(subject, column, findings),
        }
        let is_float = |root: &&crate::lerobot::reader::table::Root| {
            root.name == "task_index" && matches!(root.stored, Stored::Float(_))
        };
        if tasks.file.roots.iter().find(is_float).is_some() {
            findings.add(Code::ColumnType, Place::file(path), || "whole numbers stored as floats: task_index".into());
        }
    }
    let mut texts: BTreeMap<&str, u64> = BTreeMap::new();
    for (position, task) in tasks.rows.iter().enumerate() {
        if task.index != i64::try_from(position).ok() && (!subject.version.is_v2() || task.index.is_none()) {
            findings.add(Code::TasksOrder, Place::at(path, task.row), || {
                format!("task_index {:?} stands at position {position}", task.index)
            });
        }
        let text = task.text.as_deref().unwrap_or("");
        if text.trim().is_empty() {
            findings.add(Code::TaskEmpty, Place::at(path, task.row), || format!("task {position} has no text"));
        } else if let Some(first) = texts.insert(text, position as u64) {
            let short: String = text.chars().take(80).collect();
            findings.add(Code::TaskRepeated, Place::at(path, task.row), || {
                format!("tasks {first} and {position} are both \"{short}\"")
            });
        }
    }
    if subject.version.is_v2() {
        let indices: BTreeSet<i64> = tasks.rows.iter().filter_map(|task| task.index).collect();
        if indices.len() != tasks.rows.len()
            || indices.last().is_some_and(|last| *last + 1 != i64::try_from(indices.len()).unwrap_or(0))
        {
            findings.add(Code::TasksOrder, Place::file(path), || format!("task numbers are {indices:?}"));
        }
    }
}

/// lerobot reads the table with pandas and looks texts up in its index.
fn pandas_index(subject: &Subject, column: &str, findings: &mut Findings) {
    let file = &subject.tasks.file;
    let told = file.pandas.as_deref().map(serde_json::from_str::<Value>);
    let fault = match told {
        None => Some("there is no pandas metadata".to_owned()),
        Some(Err(error)) => Some(format!("the pandas metadata is no JSON: {error}")),
        Some(Ok(told)) => match told.get("index_columns").and_then(Value::as_array).map(Vec::as_slice) {
            Some([Value::String(name)]) if name == column => None,
            _ => Some(format!(
                "index_columns is {}, not [\"{column}\"]",
                told.get("index_columns").unwrap_or(&Value::Null)
            )),
        },
    };
    if let Some(fault) = fault {
        findings.add(Code::TasksIndex, Place::file(&file.path), || fault);
    }
}
