//! The rows and pictures of one episode.

use tendon_protocol::stream::Dtype;

use super::camera::{self, SourceCamera, Span};
use super::cells::{Cells, Stored, Values};
use super::meta::{self, EpisodeRow};
use super::paths::{self, Field, PathFault};
use super::raw_info::whole_f64;
use super::table::{Batch, Table};
use super::{Access, Dataset, ReadError, SourceFeature};
use crate::episode::Column;

/// Most rows of one episode: four and a half hours at 1 kHz.
const ROWS_MAX: usize = 1 << 24;
/// Most bytes of all columns of one episode.
const BYTES_MAX: usize = 4 << 30;

/// One episode as it lies on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceEpisode {
    /// `episode_index`
    pub index: u64,
    /// Rows found.
    pub rows: usize,
    /// Task texts; the first is the task of the first row.
    pub tasks: Vec<String>,
    /// The `timestamp` column in seconds, without rounding; empty when there is none.
    pub timestamps: Vec<f64>,
    /// The same as lerobot sees it.
    pub timestamps_f32: Vec<f32>,
    /// Features of numbers, in dataset order.
    pub columns: Vec<Column>,
    /// Cameras that could be read.
    pub cameras: Vec<SourceCamera>,
    /// What is odd about this episode.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// The data file that the metadata names for an episode.
    pub(super) fn data_path(&self, row: &EpisodeRow) -> Result<String, PathFault> {
        let index = row.index.and_then(|index| u64::try_from(index).ok()).unwrap_or(0);
        data_path(&self.info, self.version, index, row)
    }

    /// The video file that the metadata names for a camera of an episode.
    pub(super) fn video_path(&self, row: &EpisodeRow, key: &str) -> Result<String, PathFault> {
        let index = row.index.and_then(|index| u64::try_from(index).ok()).unwrap_or(0);
        video_path(&self.info, self.version, index, row, key)
    }
}

/// The data file of an episode by the template of `info.json`.
///
/// # Errors
/// When the template does not fit the version.
pub fn data_path(
    info: &super::raw_info::RawInfo,
    version: meta::Version,
    index: u64,
    row: &EpisodeRow,
) -> Result<String, PathFault> {
    let default = if version.is_v2() { paths::DATA_V2 } else { paths::DATA_V3 };
    let template = info.text("data_path").unwrap_or(default);
    paths::fill(template, &place(info, version, index, (row.data_chunk, row.data_file)))
}

/// The video of one camera of an episode by the template of `info.json`.
///
/// # Errors
/// When the template does not fit the version.
pub fn video_path(
    info: &super::raw_info::RawInfo,
    version: meta::Version,
    index: u64,
    row: &EpisodeRow,
    key: &str,
) -> Result<String, PathFault> {
    let default = if version.is_v2() { paths::VIDEO_V2 } else { paths::VIDEO_V3 };
    let template = info.text("video_path").unwrap_or(default);
    let video = row.videos.get(key).copied().unwrap_or_default();
    let mut fields = place(info, version, index, (video.chunk, video.file));
    fields.push(("video_key", Field::Text(key)));
    paths::fill(template, &fields)
}

fn place(
    info: &super::raw_info::RawInfo,
    version: meta::Version,
    index: u64,
    (chunk, file): (Option<i64>, Option<i64>),
) -> Vec<(&'static str, Field<'static>)> {
    if version.is_v2() {
        let size = info.count("chunks_size").filter(|size| *size > 0).unwrap_or(1000);
        return vec![("episode_chunk", Field::Number(index / size)), ("episode_index", Field::Number(index))];
    }
    let number = |value: Option<i64>| Field::Number(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0));
    vec![("chunk_index", number(chunk)), ("file_index", number(file))]
}

pub(super) fn read(dataset: &Dataset, position: usize) -> Result<SourceEpisode, ReadError> {
    let (Some(entry), Some(row)) = (dataset.episodes.get(position), dataset.rows.get(position)) else {
        return Err(ReadError::NoEpisode { position, episodes: dataset.episodes.len() });
    };
    let fail = |what: String| ReadError::Episode { episode: entry.index, what };
    let path = dataset.data_path(row).map_err(|fault| fail(fault.to_string()))?;
    let mut warnings = Vec::new();
    let mut rows = collect(dataset, &path, entry.index)?;
    if rows.count == 0 {
        let (other, found) = elsewhere(dataset, &path, entry.index)?;
        warnings.push(format!("0 of {} rows in {path}, found in {other}", entry.length));
        rows = found;
    }
    if rows.count == 0 {
        return Err(fail(format!("0 of {} rows in {path} and in no other data file", entry.length)));
    }
    if rows.count as u64 != entry.length {
        warnings.push(format!("{} rows in the data, {} in the metadata", rows.count, entry.length));
    }
    warnings.append(&mut rows.warnings);
    let cameras = cameras(dataset, position, row, &rows, &mut warnings);
    let tasks = tasks(dataset, &entry.tasks, &rows, &mut warnings);
    Ok(SourceEpisode {
        index: entry.index,
        rows: rows.count,
        tasks,
        timestamps: rows.timestamps,
        timestamps_f32: rows.timestamps_f32,
        columns: rows.columns,
        cameras,
        warnings,
    })
}

/// Rows of one episode while they are gathered.
struct Rows {
    count: usize,
    timestamps: Vec<f64>,
    timestamps_f32: Vec<f32>,
    task_indices: Vec<i64>,
    columns: Vec<Column>,
    warnings: Vec<String>,
}

/// Gather the rows of episode `index` from one file.
fn collect(dataset: &Dataset, path: &str, index: u64) -> Result<Rows, ReadError> {
    let file_error = |fault| ReadError::File { path: path.to_owned(), fault };
    let table = Table::open(&dataset.root.join(path)).map_err(file_error)?;
    let features: Vec<&SourceFeature> =
        dataset.features.iter().filter(|feature| feature.access == Access::Values).collect();
    let wanted: Vec<&str> = features
        .iter()
        .map(|feature| feature.spec.key.as_str())
        .chain(["timestamp", "frame_index", "episode_index", "task_index"])
        .collect();
    let number = i64::try_from(index).unwrap_or(i64::MAX);
    let groups = (!dataset.version.is_v2()).then(|| table.groups_with("episode_index", number));
    let columns = features.iter().map(|feature| Column { spec: feature.spec.clone(), values: Vec::new() }).collect();
    let mut rows = Rows {
        count: 0,
        timestamps: Vec::new(),
        timestamps_f32: Vec::new(),
        task_indices: Vec::new(),
        columns,
        warnings: Vec::new(),
    };
    let mut row_number = 0;
    for batch in table.batches(&wanted, groups).map_err(file_error)? {
        let batch = batch.map_err(file_error)?;
        rows.take(&batch, number, dataset.version.is_v2()).map_err(|(row, what)| ReadError::Episode {
            episode: index,
            what: format!("{path}, row {}: {what}", row_number + row),
        })?;
        row_number += batch.rows;
    }
    rows.finish(table.root("timestamp").is_some());
    Ok(rows)
}

impl Rows {
    fn take(&mut self, batch: &Batch, index: i64, whole_file: bool) -> Result<(), (usize, String)> {
        let episode = batch.get("episode_index");
        let frame = batch.get("frame_index");
        for row in 0..batch.rows {
            let number = episode.and_then(|cells| cells.integer(row));
            if number != Some(index) {
                if !whole_file {
                    continue;
                }
                if self.warnings.is_empty() {
                    self.warnings.push(format!("the file holds rows of episode {number:?}"));
                }
            }
            if let Some(frame) = frame.and_then(|cells| cells.integer(row))
                && frame != i64::try_from(self.count).unwrap_or(-1)
                && !self.warnings.iter().any(|warning| warning.starts_with("frame_index"))
            {
                self.warnings.push(format!("frame_index is {frame} in row {}", self.count));
            }
            self.take_row(batch, row).map_err(|what| (row, what))?;
        }
        Ok(())
    }

    fn take_row(&mut self, batch: &Batch, row: usize) -> Result<(), String> {
        if self.count >= ROWS_MAX {
            return Err(format!("over {ROWS_MAX} rows in one episode"));
        }
        for column in &mut self.columns {
            let cells = batch.get(&column.spec.key).ok_or_else(|| format!("column {} is missing", column.spec.key))?;
            append(column, cells, row).map_err(|what| format!("{}: {what}", column.spec.key))?;
            if column.values.len() > BYTES_MAX {
                return Err(format!("{}: over {BYTES_MAX} bytes in one episode", column.spec.key));
            }
        }
        if let Some(cells) = batch.get("timestamp") {
            let seconds = cells.scalar(row).ok_or("timestamp is no number")?;
            self.timestamps.push(seconds);
            #[expect(clippy::cast_possible_truncation, reason = "the rounding that lerobot does")]
            self.timestamps_f32.push(seconds as f32);
        }
        self.task_indices.push(batch.get("task_index").and_then(|cells| cells.integer(row)).unwrap_or(-1));
        self.count += 1;
        Ok(())
    }

    fn finish(&mut self, has_timestamps: bool) {
        if !has_timestamps {
            self.warnings.push("no timestamp column".into());
        }
        if let Some(first) = self.timestamps.first().filter(|first| **first != 0.0) {
            self.warnings.push(format!("the first timestamp is {first} s"));
        }
    }
}

/// Append one row, unrounded, in the element type of the column.
fn append(column: &mut Column, cells: &Cells, row: usize) -> Result<(), String> {
    let width = column.spec.width();
    if cells.width(row) != width {
        return Err(format!("{} elements, the shape has {width}", cells.width(row)));
    }
    if cells.is_null(row) {
        return Err("a null; fill it before it is streamed".into());
    }
    let range = cells.bounds[row]..cells.bounds[row + 1];
    let out = &mut column.values;
    match (column.spec.dtype, &cells.values) {
        (Dtype::F32, Values::F32(values)) => values[range].iter().for_each(|value| out.extend(value.to_le_bytes())),
        (Dtype::F64, Values::F64(values)) => values[range].iter().for_each(|value| out.extend(value.to_le_bytes())),
        (Dtype::F64, Values::F32(values)) => {
            values[range].iter().for_each(|value| out.extend(f64::from(*value).to_le_bytes()))
        }
        (Dtype::I64, Values::I64(values)) => {
            let values = &values[range];
            if cells.stored == Stored::Unsigned(64) && values.iter().any(|value| *value < 0) {
                return Err("a uint64 over 2^63".into());
            }
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        (Dtype::I64, Values::F32(_) | Values::F64(_) | Values::U8(_)) => {
            for at in range {
                let value = cells.float(at);
                let whole = whole_f64(value).ok_or_else(|| format!("{value} is declared an integer"))?;
                out.extend(whole.to_le_bytes());
            }
        }
        (Dtype::U8, Values::U8(values)) => out.extend(&values[range]),
        (Dtype::Bool, Values::Bool(values)) => out.extend(values[range].iter().map(|value| u8::from(*value))),
        (dtype, _) => {
            return Err(format!("stored as {} here, as {dtype:?} in the first data file", cells.stored.name()));
        }
    }
    Ok(())
}

/// Look for an episode's rows in the data files that the metadata does not name.
fn elsewhere(dataset: &Dataset, named: &str, index: u64) -> Result<(String, Rows), ReadError> {
    if !dataset.version.is_v2() {
        for path in meta::nested_parquet(&dataset.root, "data") {
            if path == named {
                continue;
            }
            if let Ok(rows) = collect(dataset, &path, index)
                && rows.count > 0
            {
                return Ok((path, rows));
            }
        }
    }
    Ok((named.to_owned(), collect(dataset, named, index)?))
}

fn tasks(dataset: &Dataset, listed: &[String], rows: &Rows, warnings: &mut Vec<String>) -> Vec<String> {
    let text =
        |index: i64| dataset.tasks.iter().find(|task| task.index == Some(index)).and_then(|task| task.text.clone());
    let mut tasks: Vec<String> = Vec::new();
    let first = rows.task_indices.first().copied();
    if rows.task_indices.iter().any(|index| Some(*index) != first) {
        warnings.push("rows of several tasks; the first row's task is taken".into());
    }
    match first.and_then(text) {
        Some(text) => tasks.push(text),
        None => warnings.push(format!("task_index {} is not in the task table", first.unwrap_or(-1))),
    }
    for text in listed {
        if !tasks.contains(text) {
            tasks.push(text.clone());
        }
    }
    tasks
}

fn cameras(
    dataset: &Dataset,
    position: usize,
    row: &EpisodeRow,
    rows: &Rows,
    warnings: &mut Vec<String>,
) -> Vec<SourceCamera> {
    let mut found = Vec::new();
    for feature in dataset.cameras() {
        let key = &feature.spec.key;
        let path = match dataset.video_path(row, key) {
            Ok(path) => path,
            Err(fault) => {
                warnings.push(format!("{key}: {fault}"));
                continue;
            }
        };
        let span = if dataset.version.is_v2() { Span::Whole } else { span(dataset, position, key, rows.count) };
        match camera::read(&dataset.root.join(&path), feature, span, rows.count, dataset.fps) {
            Ok((camera, mut odd)) => {
                warnings.extend(odd.drain(..).map(|odd| format!("{key}: {path}: {odd}")));
                found.push(camera);
            }
            Err(what) => warnings.push(format!("{key}: {path}: {what}; the episode is read without this camera")),
        }
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "rows of an episode are far below 2^53")]
fn span(dataset: &Dataset, position: usize, key: &str, rows: usize) -> Span {
    let video = dataset.rows[position].videos.get(key).copied().unwrap_or_default();
    let from = video.from.filter(|from| from.is_finite()).unwrap_or(0.0);
    let to = video.to.filter(|to| to.is_finite()).unwrap_or(from + rows as f64 / dataset.fps);
    Span::Seconds { from, to }
}
