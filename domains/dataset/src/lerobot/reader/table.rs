//! One parquet file, opened and read batch by batch.
//!
//! The Arrow schema in the file is left aside: types come from the parquet schema alone, so that a
//! list is a list whoever wrote it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::RecordBatchReader;
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::file::statistics::Statistics;

use super::cells::{Cells, Stored};
use super::file::{self, Expected, FileFault};

/// Rows of a batch. With 64 columns of 64 elements a batch is 16 MB at most.
const BATCH_ROWS: usize = 512;
/// Elements that one column chunk may state. A recording of a day at 1 kHz with 100 joints has fewer.
const CHUNK_VALUES_MAX: i64 = 1 << 34;
/// Rows that a file may state.
const ROWS_MAX: i64 = 1 << 40;

/// A parquet file whose footer was read.
#[derive(Debug)]
pub struct Table {
    file: std::fs::File,
    metadata: ArrowReaderMetadata,
    /// Bytes of the file.
    pub size: u64,
}

/// A top-level column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Element type under all lists.
    pub stored: Stored,
    /// Whether it is a struct of bytes and path, as images are stored.
    pub is_struct: bool,
}

/// Some columns of some rows.
#[derive(Debug)]
pub struct Batch {
    /// Rows in this batch.
    pub rows: usize,
    cells: BTreeMap<String, Cells>,
}

impl Batch {
    /// A column by its name; the first one when the name occurs twice.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cells> {
        self.cells.get(name)
    }
}

impl Table {
    /// Open a file and read its footer.
    ///
    /// # Errors
    /// What the bytes of the file prove, see [`FileFault`].
    pub fn open(path: &Path) -> Result<Self, FileFault> {
        let size = file::look(path, Expected::Parquet)?;
        let file = file::open(path)?;
        let metadata = guarded(|| {
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
                .map_err(|error| error.to_string())
        })?;
        let table = Self { file, metadata, size };
        table.check_counts()?;
        Ok(table)
    }

    /// Rows that the footer states.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.group_rows().into_iter().fold(0, u64::saturating_add)
    }

    /// Rows of each row group.
    #[must_use]
    pub fn group_rows(&self) -> Vec<u64> {
        self.metadata.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect()
    }

    /// The top-level columns in file order, repeated names included.
    #[must_use]
    pub fn roots(&self) -> Vec<Root> {
        let fields = self.metadata.schema().fields();
        fields
            .iter()
            .map(|field| Root {
                name: field.name().clone(),
                stored: Stored::of(field.data_type()),
                is_struct: matches!(field.data_type(), DataType::Struct(_)),
            })
            .collect()
    }

    /// One top-level column.
    #[must_use]
    pub fn root(&self, name: &str) -> Option<Root> {
        self.roots().into_iter().find(|root| root.name == name)
    }

    /// Names that occur more than once.
    #[must_use]
    pub fn repeated(&self) -> Vec<String> {
        let mut names: Vec<String> = self.roots().into_iter().map(|root| root.name).collect();
        names.sort();
        let mut repeated: Vec<String> =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
        repeated.dedup();
        repeated
    }

    /// A value of the file's metadata, such as `pandas`: a pair of its own, or one inside the Arrow
    /// schema, where pyarrow finds it as well.
    #[must_use]
    pub fn key_value(&self, key: &str) -> Option<String> {
        let file = self.metadata.metadata().file_metadata();
        let pairs = file.key_value_metadata()?;
        if let Some(pair) = pairs.iter().find(|pair| pair.key == key) {
            return pair.value.clone();
        }
        let schema =
            guarded(|| parquet_to_arrow_schema(file.schema_descr(), Some(pairs)).map_err(|error| error.to_string()));
        schema.ok()?.metadata().get(key).cloned()
    }

    /// Row groups that can hold `value` in the integer column `column`, by their statistics.
    #[must_use]
    pub fn groups_with(&self, column: &str, value: i64) -> Vec<usize> {
        let metadata = self.metadata.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let leaf = (0..schema.num_columns()).find(|leaf| schema.column(*leaf).path().parts() == [column]);
        (0..metadata.num_row_groups())
            .filter(|group| {
                let chunk = leaf.and_then(|leaf| metadata.row_group(*group).columns().get(leaf));
                match chunk.and_then(|chunk| chunk.statistics()) {
                    Some(Statistics::Int64(range)) => {
                        range.min_opt().is_none_or(|min| *min <= value)
                            && range.max_opt().is_none_or(|max| *max >= value)
                    }
                    _ => true,
                }
            })
            .collect()
    }

    /// Read the named columns, those that exist, in batches. `groups` limits the row groups.
    ///
    /// # Errors
    /// When the reader cannot be built; later faults come from the iterator.
    pub fn batches(&self, columns: &[&str], groups: Option<Vec<usize>>) -> Result<Batches, FileFault> {
        let file = self.file.try_clone().map_err(|error| FileFault::Io(error.to_string()))?;
        let roots = self.roots();
        let mut wanted: Vec<usize> = Vec::new();
        for name in columns {
            wanted.extend(roots.iter().position(|root| root.name == *name));
        }
        let names = {
            wanted.sort_unstable();
            wanted.dedup();
            wanted.iter().map(|at| roots[*at].name.clone()).collect()
        };
        let reader = guarded(|| {
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), wanted.iter().copied());
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(BATCH_ROWS);
            if let Some(groups) = groups {
                builder = builder.with_row_groups(groups);
            }
            builder.build().map_err(|error| error.to_string())
        })?;
        Ok(Batches { reader: Some(reader), names })
    }

    /// Refuse counts that only hostile or damaged files state, before anything is allocated by them.
    fn check_counts(&self) -> Result<(), FileFault> {
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let rows = group.num_rows();
            if !(0..=ROWS_MAX).contains(&rows) {
                return Err(FileFault::Damaged(format!("row group {number} states {rows} rows")));
            }
            for chunk in group.columns() {
                let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
                let length = chunk.compressed_size();
                let end = start.checked_add(length);
                if start < 0 || length < 0 || end.is_none_or(|end| u64::try_from(end).unwrap_or(u64::MAX) > self.size) {
                    let path = chunk.column_path().string();
                    return Err(FileFault::Damaged(format!(
                        "row group {number}, column {path}: {length} bytes from byte {start} on, but the file has {}",
                        self.size
                    )));
                }
                if !(0..=CHUNK_VALUES_MAX).contains(&chunk.num_values()) {
                    return Err(FileFault::Damaged(format!(
                        "row group {number} states {} values in a column",
                        chunk.num_values()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Iterator over the batches of a table. Ends after the first fault.
#[derive(Debug)]
pub struct Batches {
    reader: Option<ParquetRecordBatchReader>,
    names: Vec<String>,
}

impl Iterator for Batches {
    type Item = Result<Batch, FileFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.reader.take()?;
        let names = &self.names;
        let step = guarded(|| {
            let Some(batch) = reader.next() else { return Ok(None) };
            let batch = batch.map_err(|error| error.to_string())?;
            debug_assert_eq!(reader.schema().fields().len(), names.len());
            let cells =
                names.iter().zip(batch.columns()).map(|(name, column)| (name.clone(), Cells::new(column))).collect();
            Ok(Some((reader, Batch { rows: batch.num_rows(), cells })))
        });
        match step {
            Ok(None) => None,
            Ok(Some((reader, batch))) => {
                self.reader = Some(reader);
                Some(Ok(batch))
            }
            Err(fault) => Some(Err(fault)),
        }
    }
}

/// Run a step of the parquet library on bytes from outside.
///
/// The library panics on some damaged pages. That is caught here: a damaged file must become a
/// fault with its name, not the end of the process.
fn guarded<T>(step: impl FnOnce() -> Result<T, String>) -> Result<T, FileFault> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(message)) => Err(FileFault::Damaged(message)),
        Err(_) => Err(FileFault::Damaged("the pages contradict the footer".into())),
    }
}
