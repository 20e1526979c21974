//! `meta/episodes`: a row per episode, found by position, with where its files are and its statistics.

use std::fs::File;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::lerobot::CHUNK_FILES;
use crate::lerobot::stats::{Form, NAMES, Summary};

use super::WriteError;
use super::folder::Folder;

/// Most episodes of one file. A file is written anew for each of its episodes, so this bounds the
/// cost of an append; opening a dataset costs a millisecond or two a file.
pub(super) const ROWS_MAX: usize = 100;

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) episode: u64,
    pub(super) tasks: Vec<String>,
    pub(super) length: u64,
    pub(super) first_index: u64,
    pub(super) fps: u32,
    /// Keys of cameras in dataset order.
    pub(super) videos: Vec<String>,
    /// Of each feature in dataset order, LeRobot's own last.
    pub(super) statistics: Vec<(String, Summary)>,
}

/// Chunk and file of the n-th file of a kind.
pub(super) fn place(number: u64) -> (u64, u64) {
    (number / CHUNK_FILES, number % CHUNK_FILES)
}

/// Path of the n-th file of meta/episodes.
pub(super) fn path(number: u64) -> String {
    let (chunk, file) = place(number);
    format!("meta/episodes/chunk-{chunk:03}/file-{file:03}.parquet")
}

/// The table of `rows`, which is the n-th file. All rows have the same features.
pub(super) fn batch(rows: &[Row], number: u64) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let integer = |value: &dyn Fn(&Row) -> u64| -> ArrayRef {
        let values: Int64Array = rows.iter().map(|row| value(row).cast_signed()).collect();
        Arc::new(values)
    };
    let mut put = |name: &str, array: ArrayRef| columns.push((name.to_owned(), array));
    put("episode_index", integer(&|row| row.episode));
    let texts = StringArray::from_iter_values(rows.iter().flat_map(|row| &row.tasks));
    put("tasks", list(Arc::new(texts), rows.iter().map(|row| row.tasks.len()))?);
    put("length", integer(&|row| row.length));
    // A table file per episode, so its number is the episode's.
    put("data/chunk_index", integer(&|row| place(row.episode).0));
    put("data/file_index", integer(&|row| place(row.episode).1));
    put("dataset_from_index", integer(&|row| row.first_index));
    put("dataset_to_index", integer(&|row| row.first_index + row.length));
    let Some(first) = rows.first() else {
        return Err(ArrowError::InvalidArgumentError("no rows".into()));
    };
    for key in &first.videos {
        put(&format!("videos/{key}/chunk_index"), integer(&|row| place(row.episode).0));
        put(&format!("videos/{key}/file_index"), integer(&|row| place(row.episode).1));
        let from = Float64Array::from(vec![0.0; rows.len()]);
        put(&format!("videos/{key}/from_timestamp"), Arc::new(from));
        let to: Float64Array = rows.iter().map(|row| row.length as f64 / f64::from(row.fps)).collect();
        put(&format!("videos/{key}/to_timestamp"), Arc::new(to));
    }
    for (feature, (key, _)) in first.statistics.iter().enumerate() {
        for name in NAMES {
            let array = statistic(rows.iter().map(|row| &row.statistics[feature].1), name)?;
            put(&format!("stats/{key}/{name}"), array);
        }
    }
    put("meta/episodes/chunk_index", integer(&|_| place(number).0));
    put("meta/episodes/file_index", integer(&|_| place(number).1));
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

fn statistic<'a>(summaries: impl Iterator<Item = &'a Summary> + Clone, name: &str) -> Result<ArrayRef, ArrowError> {
    if name == "count" {
        let counts: Int64Array = summaries.clone().map(|summary| summary.count.cast_signed()).collect();
        return list(Arc::new(counts), summaries.map(|_| 1));
    }
    let values: Float64Array =
        summaries.clone().flat_map(|summary| summary.list(name).unwrap_or_default()).copied().collect();
    let lengths: Vec<usize> = summaries.clone().map(|summary| summary.list(name).unwrap_or_default().len()).collect();
    let mut array: ArrayRef = Arc::new(values);
    if summaries.clone().any(|summary| summary.form == Form::Picture) {
        for _ in 0..2 {
            let ones = std::iter::repeat_n(1, array.len());
            array = list(array, ones)?;
        }
    }
    list(array, lengths.into_iter())
}

fn list(values: ArrayRef, lengths: impl Iterator<Item = usize>) -> Result<ArrayRef, ArrowError> {
    let element = Arc::new(Field::new("element", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(element, OffsetBuffer::from_lengths(lengths), values, None)?))
}

/// Makes the files of meta/episodes hold the first `episodes` rows and no more, as after an append
/// that was cut. Returns the number of the next file, the row to which the last one leads
/// (`dataset_to_index`), and the file that was shortened, if any.
pub(super) fn trim(folder: &Folder, episodes: u64) -> Result<(u64, u64, Option<String>), WriteError> {
    let (mut seen, mut number, mut shortened, mut end) = (0, 0, None, 0);
    while seen < episodes {
        let path = path(number);
        let batch = read(folder, &path)?;
        let wrong = |what: String| WriteError::Damaged { path: folder.path(&path), what };
        let numbers = batch.column_by_name("episode_index").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let ends = batch.column_by_name("dataset_to_index").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(numbers), Some(ends)) = (numbers, ends) else {
            return Err(wrong("has no columns episode_index and dataset_to_index of int64".into()));
        };
        let kept = usize::try_from(episodes - seen).unwrap_or(usize::MAX).min(batch.num_rows());
        if kept == 0
            || numbers.values()[..kept].iter().zip(seen..).any(|(got, expected)| got.cast_unsigned() != expected)
        {
            return Err(wrong(format!("does not go on with episode {seen}; export the dataset again")));
        }
        if kept < batch.num_rows() {
            folder.write_table(&path, &batch.slice(0, kept))?;
            shortened = Some(path);
        }
        end = ends.value(kept - 1).cast_unsigned();
        seen += kept as u64;
        number += 1;
    }
    Ok((number, end, shortened))
}

/// A whole table in one batch.
pub(super) fn read(folder: &Folder, relative: &str) -> Result<RecordBatch, WriteError> {
    let file = File::open(folder.path(relative)).map_err(folder.io(relative))?;
    let wrong = |what: String| WriteError::Damaged { path: folder.path(relative), what };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(error.to_string()))?;
    let schema = builder.schema().clone();
    // One batch: our own tables are small, and slicing them needs no joining then.
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut reader = builder.with_batch_size(rows.max(1)).build().map_err(|error| wrong(error.to_string()))?;
    match reader.next() {
        None => Ok(RecordBatch::new_empty(schema)),
        Some(batch) => batch.map_err(|error| wrong(error.to_string())),
    }
}
