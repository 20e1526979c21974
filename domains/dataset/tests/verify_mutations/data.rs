//! Parquet files changed in one place.

use std::fs::File;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, Float64Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::Copy;

const DATA: &str = "data/chunk-000/file-000.parquet";
const EPISODES: &str = "meta/episodes/chunk-000/file-000.parquet";
const TASKS: &str = "meta/tasks.parquet";

/// How a column of the episode table changes.
pub enum Col {
    /// Add to every row.
    Shift(f64),
    /// Set one row.
    One(usize, f64),
}

/// The whole file as one batch, and its key-value metadata.
fn read(copy: &Copy, name: &str) -> (RecordBatch, Vec<KeyValue>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(copy.path(name)).unwrap()).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let pairs = pairs.into_iter().filter(|pair| pair.key != "ARROW:schema").collect();
    let mut batches = builder.with_batch_size(1 << 20).build().unwrap();
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    (batch, pairs)
}

fn write(copy: &Copy, name: &str, batches: &[RecordBatch], pairs: Vec<KeyValue>, compression: Compression) {
    let properties =
        WriterProperties::builder().set_key_value_metadata(Some(pairs)).set_compression(compression).build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    copy.write(name, &out);
}

fn edit(copy: &Copy, name: &str, change: impl FnOnce(RecordBatch) -> RecordBatch) {
    let (batch, pairs) = read(copy, name);
    write(copy, name, &[change(batch)], pairs, Compression::SNAPPY);
}

/// Put a column in the place of one of that name, or at the end.
fn set(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    let field = Arc::new(Field::new(name, column.data_type().clone(), true));
    match fields.iter().position(|field| field.name() == name) {
        Some(at) => (fields[at], columns[at]) = (field, column),
        None => {
            fields.push(field);
            columns.push(column);
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn drop_columns(batch: &RecordBatch, names: &[&str]) -> RecordBatch {
    let keep: Vec<usize> =
        (0..batch.num_columns()).filter(|at| !names.contains(&batch.schema().field(*at).name().as_str())).collect();
    assert_eq!(keep.len() + names.len(), batch.num_columns());
    batch.project(&keep).unwrap()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"))
}

fn vectors(batch: &RecordBatch, name: &str) -> Vec<Vec<f32>> {
    let lists = column(batch, name).as_fixed_size_list();
    (0..lists.len()).map(|row| lists.value(row).as_primitive::<Float32Type>().values().to_vec()).collect()
}

pub fn edit_f32(copy: &Copy, name: &str, change: impl Fn(usize, &mut [f32])) {
    edit(copy, DATA, |batch| {
        let mut builder = FixedSizeListBuilder::new(Float32Builder::new(), 6);
        for (row, mut values) in vectors(&batch, name).into_iter().enumerate() {
            change(row, &mut values);
            builder.values().append_slice(&values);
            builder.append(true);
        }
        set(&batch, name, Arc::new(builder.finish()))
    });
}

pub fn null_row(copy: &Copy, name: &str, gone: usize) {
    edit(copy, DATA, |batch| {
        let mut builder = ListBuilder::new(Float32Builder::new());
        for (row, values) in vectors(&batch, name).into_iter().enumerate() {
            if row != gone {
                builder.values().append_slice(&values);
            }
            builder.append(row != gone);
        }
        set(&batch, name, Arc::new(builder.finish()))
    });
}

pub fn widths(copy: &Copy, name: &str, width: impl Fn(usize) -> usize) {
    edit(copy, DATA, |batch| {
        let mut builder = ListBuilder::new(Float32Builder::new());
        for (row, mut values) in vectors(&batch, name).into_iter().enumerate() {
            values.resize(width(row), 0.5);
            builder.values().append_slice(&values);
            builder.append(true);
        }
        set(&batch, name, Arc::new(builder.finish()))
    });
}

pub fn as_f64_list(copy: &Copy, name: &str) {
    edit(copy, DATA, |batch| {
        let mut builder = ListBuilder::new(Float64Builder::new());
        for values in vectors(&batch, name) {
            for value in values {
                builder.values().append_value(f64::from(value));
            }
            builder.append(true);
        }
        set(&batch, name, Arc::new(builder.finish()))
    });
}

pub fn without(copy: &Copy, name: &str) {
    edit(copy, DATA, |batch| drop_columns(&batch, &[name]));
}

pub fn twice(copy: &Copy, name: &str) {
    edit(copy, DATA, |batch| {
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        let mut columns = batch.columns().to_vec();
        fields.push(Arc::new(batch.schema().field_with_name(name).unwrap().clone()));
        columns.push(column(&batch, name).clone());
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    });
}

pub fn set_i64(copy: &Copy, name: &str, value: impl Fn(i64) -> i64) {
    edit(copy, DATA, |batch| {
        let rows = i64::try_from(batch.num_rows()).unwrap();
        set(&batch, name, Arc::new(Int64Array::from_iter_values((0..rows).map(value))))
    });
}

pub fn set_time(copy: &Copy, value: impl Fn(i64) -> f64) {
    edit(copy, DATA, |batch| {
        let rows = i64::try_from(batch.num_rows()).unwrap();
        set(&batch, "timestamp", Arc::new(Float32Array::from_iter_values((0..rows).map(|row| value(row) as f32))))
    });
}

fn reorder(copy: &Copy, name: &str, rows: impl Iterator<Item = usize>) {
    let (batch, pairs) = read(copy, name);
    let parts: Vec<RecordBatch> = rows.map(|row| batch.slice(row, 1)).collect();
    write(copy, name, &parts, pairs, Compression::SNAPPY);
}

pub fn order(copy: &Copy, from: &dyn Fn(usize) -> usize) {
    reorder(copy, DATA, (0..300).map(from));
}

pub fn keep(copy: &Copy, rows: usize) {
    edit(copy, DATA, |batch| batch.slice(0, rows));
}

/// One row group, zstd, no metadata, plain lists: accepted by lerobot.
pub fn rewrite_zstd(copy: &Copy) {
    widths(copy, "action", |_| 6);
    let (batch, _) = read(copy, DATA);
    write(copy, DATA, &[batch], Vec::new(), Compression::ZSTD(ZstdLevel::default()));
}

/// Episode 2 moves to a file of its own; the table of episodes does not hear of it, but file 1 is named by nobody.
pub fn split_without_telling(copy: &Copy) {
    let (batch, pairs) = read(copy, DATA);
    write(copy, DATA, &[batch.slice(0, 200)], pairs.clone(), Compression::SNAPPY);
    write(copy, "data/chunk-000/file-001.parquet", &[batch.slice(200, 100)], pairs, Compression::SNAPPY);
}

fn pandas(value: &str) -> KeyValue {
    KeyValue::new("pandas".into(), value.to_owned())
}

pub fn task_table(copy: &Copy, text_column: &str, tasks: &[(i64, &str)], metadata: Option<&str>) {
    let index: ArrayRef = Arc::new(Int64Array::from_iter_values(tasks.iter().map(|(index, _)| *index)));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(tasks.iter().map(|(_, text)| *text)));
    let batch = RecordBatch::try_from_iter([("task_index", index), (text_column, text)]).unwrap();
    write(copy, TASKS, &[batch], metadata.map(pandas).into_iter().collect(), Compression::SNAPPY);
}

pub fn tasks(copy: &Copy, tasks: &[(i64, &str)], metadata: Option<&str>) {
    task_table(copy, "task", tasks, metadata);
}

pub fn tasks_older(copy: &Copy) {
    let tasks = [(0, "Pick the red cube"), (1, "Place the cube in the box")];
    task_table(copy, "__index_level_0__", &tasks, Some(r#"{"index_columns": ["__index_level_0__"]}"#));
}

pub fn episodes_without(copy: &Copy, names: &[&str]) {
    edit(copy, EPISODES, |batch| drop_columns(&batch, names));
}

pub fn episodes_set(copy: &Copy, name: &str, change: Col) {
    edit(copy, EPISODES, |batch| {
        let mut values = column(&batch, name).as_primitive::<Float64Type>().values().to_vec();
        match change {
            Col::Shift(by) => values.iter_mut().for_each(|value| *value += by),
            Col::One(row, to) => values[row] = to,
        }
        set(&batch, name, Arc::new(Float64Array::from(values)))
    });
}

pub fn episodes_int(copy: &Copy, name: &str, values: &[i64]) {
    edit(copy, EPISODES, |batch| set(&batch, name, Arc::new(Int64Array::from(values.to_vec()))));
}

pub fn episodes_order(copy: &Copy, rows: &[usize]) {
    reorder(copy, EPISODES, rows.iter().copied());
}

/// A second table of episodes with fewer rows.
pub fn episodes_copy(copy: &Copy, name: &str, rows: usize) {
    let (batch, pairs) = read(copy, EPISODES);
    write(copy, name, &[batch.slice(0, rows)], pairs, Compression::SNAPPY);
}

/// The same 300 rows and videos as two episodes, of `first` rows and the rest.
pub fn two_lengths(copy: &Copy, first: i64) {
    let frame = move |row: i64| if row < first { row } else { row - first };
    set_i64(copy, "episode_index", |row| i64::from(row >= first));
    set_i64(copy, "frame_index", frame);
    set_time(copy, |row| frame(row) as f64 / 30.0);
    episodes_order(copy, &[0, 1]);
    let edge = first as f64 / 30.0;
    episodes_int(copy, "length", &[first, 300 - first]);
    episodes_int(copy, "dataset_from_index", &[0, first]);
    episodes_int(copy, "dataset_to_index", &[first, 300]);
    for camera in ["front", "wrist"] {
        let name = |what: &str| format!("videos/observation.images.{camera}/{what}_timestamp");
        episodes_set(copy, &name("from"), Col::One(1, edge));
        episodes_set(copy, &name("to"), Col::One(0, edge));
        episodes_set(copy, &name("to"), Col::One(1, 10.0));
    }
    copy.count("total_episodes", 2);
}
