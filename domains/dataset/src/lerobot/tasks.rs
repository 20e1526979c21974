//! `meta/tasks.parquet`: task texts in the order of their numbers.
//!
//! LeRobot reads it with pandas and takes the text from the table's *index*, by position. The schema
//! metadata that makes `task` the index is therefore part of the format, although it looks like a detail.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde_json::json;

/// Task texts; the position is the task's number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    texts: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Tasks {
    /// The number of `text`, a new one when it was not there.
    pub fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// All texts by number.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Forgets all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        for text in self.texts.drain(count.min(self.texts.len())..) {
            self.numbers.remove(&text);
        }
    }

    /// The table as it lies on disk, pandas metadata included.
    ///
    /// # Errors
    /// Passed on from arrow.
    pub fn to_batch(&self) -> Result<RecordBatch, ArrowError> {
        let column = |name: &str, pandas: &str, numpy: &str| json!({"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": null});
        let pandas = json!({
            "index_columns": ["task"],
            "column_indexes": [{"name": null, "field_name": null, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}],
            "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
            "attributes": {},
            "creator": {"library": "tendon", "version": env!("CARGO_PKG_VERSION")},
            "pandas_version": "2.3.3",
        });
        let fields = vec![Field::new("task_index", DataType::Int64, true), Field::new("task", DataType::Utf8, true)];
        let metadata = HashMap::from([("pandas".to_owned(), pandas.to_string())]);
        let numbers: Int64Array = (0..).take(self.texts.len()).collect();
        let texts = StringArray::from_iter_values(&self.texts);
        let columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(texts)];
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), columns)
    }

    /// Reads what [`Tasks::to_batch`] made; `None` when the table is another one.
    #[must_use]
    pub fn from_batches(batches: &[RecordBatch]) -> Option<Self> {
        let mut tasks = Self::default();
        for batch in batches {
            let numbers = batch.column_by_name("task_index")?.as_primitive_opt::<Int64Type>()?;
            let texts = batch.column_by_name("task")?.as_string_opt::<i32>()?;
            for row in 0..batch.num_rows() {
                if tasks.number(texts.value(row)) != numbers.value(row).cast_unsigned() {
                    return None;
                }
            }
        }
        Some(tasks)
    }
}
