//! Episodes and tasks as the metadata lists them, for every version, with nothing filled in.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::cells::Cells;
use super::file::{self, FileFault};
use super::json::{self, LineFault};
use super::raw_info::{RawInfo, whole};
use super::table::{Batch, Root, Table};

/// Columns that hold the task texts: since 0.4, and pandas' name for a nameless index before that.
const TEXT_COLUMNS: [&str; 2] = ["task", "__index_level_0__"];

/// Layout rules a dataset follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// One file an episode, whole-dataset statistics.
    V20,
    /// One file an episode, statistics per episode.
    V21,
    /// Many episodes a file, parquet metadata.
    V30,
}

impl Version {
    /// As `codebase_version` writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V20 => "v2.0",
            Self::V21 => "v2.1",
            Self::V30 => "v3.0",
        }
    }

    /// Whether each episode has files of its own.
    #[must_use]
    pub const fn is_v2(self) -> bool {
        matches!(self, Self::V20 | Self::V21)
    }
}

/// One file of metadata, whole or not.
#[derive(Clone, Debug, Default)]
pub struct MetaFile {
    /// Path inside the dataset.
    pub path: String,
    /// Rows or lines.
    pub rows: u64,
    /// Parquet columns; empty for JSONL.
    pub roots: Vec<Root>,
    /// Column names that occur twice.
    pub repeated: Vec<String>,
    /// The `pandas` entry of its metadata.
    pub pandas: Option<String>,
    /// Why it cannot be read, or not to its end.
    pub fault: Option<FileFault>,
    /// Lines that are no JSON.
    pub line_faults: Vec<LineFault>,
}

impl MetaFile {
    /// Whether it has this column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.roots.iter().any(|root| root.name == column)
    }
}

/// Where one camera of one episode lies (v3.0).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoRef {
    /// `videos/K/chunk_index`
    pub chunk: Option<i64>,
    /// `videos/K/file_index`
    pub file: Option<i64>,
    /// `videos/K/from_timestamp`, seconds
    pub from: Option<f64>,
    /// `videos/K/to_timestamp`, seconds
    pub to: Option<f64>,
}

/// One episode as the metadata lists it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EpisodeRow {
    /// Metadata file.
    pub file: String,
    /// 0-based row in that file, or 1-based line of a JSONL file.
    pub row: u64,
    /// `episode_index`
    pub index: Option<i64>,
    /// `length`
    pub length: Option<i64>,
    /// `tasks`
    pub tasks: Option<Vec<String>>,
    /// `data/chunk_index`
    pub data_chunk: Option<i64>,
    /// `data/file_index`
    pub data_file: Option<i64>,
    /// `dataset_from_index`
    pub from_index: Option<i64>,
    /// `dataset_to_index`, exclusive
    pub to_index: Option<i64>,
    /// `meta/episodes/chunk_index`, `meta/episodes/file_index`
    pub meta_place: (Option<i64>, Option<i64>),
    /// By camera key.
    pub videos: BTreeMap<String, VideoRef>,
}

/// All episodes of the metadata, in file order.
#[derive(Clone, Debug, Default)]
pub struct Episodes {
    /// Files found, in the order in which lerobot joins them.
    pub files: Vec<MetaFile>,
    /// Rows of all of them.
    pub rows: Vec<EpisodeRow>,
}

/// One task as the metadata lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    /// 0-based row, or 1-based line of a JSONL file.
    pub row: u64,
    /// `task_index`
    pub index: Option<i64>,
    /// The text.
    pub text: Option<String>,
}

/// The task table.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    /// Its file.
    pub file: MetaFile,
    /// Rows in file order.
    pub rows: Vec<TaskRow>,
    /// Parquet column that holds the texts.
    pub text_column: Option<String>,
}

/// Which rules to read a dataset by: what it declares, unless its files say otherwise.
///
/// `None` when neither says anything.
#[must_use]
pub fn detect_version(root: &Path, info: &RawInfo) -> Option<Version> {
    let meta = root.join("meta");
    let looks_v3 = meta.join("episodes").is_dir() || meta.join("tasks.parquet").exists();
    let looks_v2 = meta.join("episodes.jsonl").exists() || meta.join("tasks.jsonl").exists();
    let declared = info.version().and_then(declared_version);
    match (looks_v3, looks_v2, declared) {
        (true, false, _) => Some(Version::V30),
        (false, true, Some(Version::V20)) => Some(Version::V20),
        (false, true, _) => Some(Version::V21),
        (_, _, Some(declared)) => Some(declared),
        (true, true, None) => Some(Version::V30),
        (false, false, None) => None,
    }
}

/// The rules that a `codebase_version` stands for; `None` for versions before 2 and for nonsense.
#[must_use]
pub fn declared_version(text: &str) -> Option<Version> {
    let mut numbers = text.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next()?.ok()?, numbers.next().and_then(Result::ok)) {
        (2, None | Some(0)) => Some(Version::V20),
        (2, Some(_)) => Some(Version::V21),
        (3.., _) => Some(Version::V30),
        _ => None,
    }
}

/// Parquet files `<folder>/*/*.parquet` by path, as lerobot collects them, relative to `root`.
#[must_use]
pub fn nested_parquet(root: &Path, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for outer in names(&root.join(folder)) {
        for inner in names(&root.join(folder).join(&outer)) {
            if inner.ends_with(".parquet") {
                found.push(format!("{folder}/{outer}/{inner}"));
            }
        }
    }
    found.sort();
    found
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Read the episodes of a dataset.
#[must_use]
pub fn episodes(root: &Path, version: Version, videos: &[String]) -> Episodes {
    let mut found = Episodes::default();
    if version.is_v2() {
        let mut file = MetaFile { path: "meta/episodes.jsonl".into(), ..MetaFile::default() };
        found.rows = jsonl(root, &mut file, |line, row| EpisodeRow {
            file: "meta/episodes.jsonl".into(),
            row,
            index: line.get("episode_index").and_then(whole),
            length: line.get("length").and_then(whole),
            tasks: line.get("tasks").and_then(strings),
            from_index: line.get("dataset_from_index").and_then(whole),
            to_index: line.get("dataset_to_index").and_then(whole),
            ..EpisodeRow::default()
        });
        found.files.push(file);
        return found;
    }
    for path in nested_parquet(root, "meta/episodes") {
        let (file, rows) = episodes_parquet(root, &path, videos);
        found.files.push(file);
        found.rows.extend(rows);
    }
    found
}

/// Read one parquet file of episodes, also one at a place where lerobot would not look.
#[must_use]
pub fn episodes_parquet(root: &Path, path: &str, videos: &[String]) -> (MetaFile, Vec<EpisodeRow>) {
    let mut rows: Vec<EpisodeRow> = Vec::new();
    let file = parquet(
        root,
        path,
        |name| !name.starts_with("stats/"),
        |batch, first| {
            for row in 0..batch.rows {
                rows.push(episode_row(batch, row, path, first + row as u64, videos));
            }
        },
    );
    (file, rows)
}

fn episode_row(batch: &Batch, row: usize, path: &str, number: u64, videos: &[String]) -> EpisodeRow {
    let cell = |name: &str| either(batch, name);
    let integer = |name: &str| cell(name).and_then(|cells| cells.integer(row));
    let float = |name: &str| cell(name).and_then(|cells| cells.scalar(row));
    let video = |key: &String| {
        let place = VideoRef {
            chunk: integer(&format!("videos/{key}/chunk_index")),
            file: integer(&format!("videos/{key}/file_index")),
            from: float(&format!("videos/{key}/from_timestamp")),
            to: float(&format!("videos/{key}/to_timestamp")),
        };
        (key.clone(), place)
    };
    EpisodeRow {
        file: path.to_owned(),
        row: number,
        index: integer("episode_index"),
        length: integer("length"),
        tasks: cell("tasks").and_then(|cells| cells.texts(row)).map(<[String]>::to_vec),
        data_chunk: integer("data/chunk_index"),
        data_file: integer("data/file_index"),
        from_index: integer("dataset_from_index"),
        to_index: integer("dataset_to_index"),
        meta_place: (integer("meta/episodes/chunk_index"), integer("meta/episodes/file_index")),
        videos: videos.iter().map(video).collect(),
    }
}

/// A column, also under the name that some writers give it: `data_chunk_index` for `data/chunk_index`.
fn either<'a>(batch: &'a Batch, name: &str) -> Option<&'a Cells> {
    batch.get(name).or_else(|| batch.get(&name.replace('/', "_")))
}

/// Read the tasks of a dataset.
#[must_use]
pub fn tasks(root: &Path, version: Version) -> Tasks {
    let mut found = Tasks::default();
    if version.is_v2() {
        found.file.path = "meta/tasks.jsonl".into();
        found.rows = jsonl(root, &mut found.file, |line, row| TaskRow {
            row,
            index: line.get("task_index").and_then(whole),
            text: line.get("task").and_then(Value::as_str).map(str::to_owned),
        });
        return found;
    }
    let mut rows = Vec::new();
    found.file = parquet(
        root,
        "meta/tasks.parquet",
        |_| true,
        |batch, first| {
            let text = TEXT_COLUMNS.into_iter().find_map(|name| batch.get(name));
            for row in 0..batch.rows {
                rows.push(TaskRow {
                    row: first + row as u64,
                    index: batch.get("task_index").and_then(|cells| cells.integer(row)),
                    text: text.and_then(|cells| cells.texts(row)).and_then(|texts| texts.first().cloned()),
                });
            }
        },
    );
    found.rows = rows;
    found.text_column = TEXT_COLUMNS.into_iter().find(|name| found.file.has(name)).map(str::to_owned);
    found
}

fn jsonl<T>(root: &Path, file: &mut MetaFile, read: impl Fn(&json::Ordered, u64) -> T) -> Vec<T> {
    let mut rows = Vec::new();
    match file::read_text(&root.join(&file.path)) {
        Err(fault) => file.fault = Some(fault),
        Ok(bytes) => {
            for line in json::lines(&bytes) {
                match line {
                    Ok(line) => rows.push(read(&line.value, line.number)),
                    Err(fault) => file.line_faults.push(fault),
                }
            }
        }
    }
    file.rows = rows.len() as u64;
    rows
}

fn parquet(root: &Path, path: &str, wanted: impl Fn(&str) -> bool, mut read: impl FnMut(&Batch, u64)) -> MetaFile {
    let mut file = MetaFile { path: path.to_owned(), ..MetaFile::default() };
    let table = match Table::open(&root.join(path)) {
        Ok(table) => table,
        Err(fault) => {
            file.fault = Some(fault);
            return file;
        }
    };
    file.roots = table.roots();
    file.repeated = table.repeated();
    file.pandas = table.key_value("pandas");
    let columns: Vec<&str> = file.roots.iter().map(|root| root.name.as_str()).filter(|name| wanted(name)).collect();
    let batches = match table.batches(&columns, None) {
        Ok(batches) => batches,
        Err(fault) => {
            file.fault = Some(fault);
            return file;
        }
    };
    for batch in batches {
        match batch {
            Ok(batch) => {
                read(&batch, file.rows);
                file.rows += batch.rows as u64;
            }
            Err(fault) => {
                file.fault = Some(fault);
                break;
            }
        }
    }
    file
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_version_reads_odd_spellings() {
        assert_eq!(declared_version("v3.0"), Some(Version::V30));
        assert_eq!(declared_version("3.0"), Some(Version::V30));
        assert_eq!(declared_version("v4.0"), Some(Version::V30));
        assert_eq!(declared_version("v2.1"), Some(Version::V21));
        assert_eq!(declared_version("v2.0"), Some(Version::V20));
        assert_eq!(declared_version("v1.6"), None);
        assert_eq!(declared_version("latest"), None);
    }
}
