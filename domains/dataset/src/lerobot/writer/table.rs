//! The table of one episode: a row per frame, a column per feature of numbers, five of LeRobot's own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type, Int64Type, UInt8Type};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Int64Array, ListArray, PrimitiveArray, RecordBatch,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, Field, Schema};
use serde_json::{Value, json};
use tendon_protocol::stream::Dtype;

use crate::episode::{Column, FeatureSpec};
use crate::lerobot::DEFAULT_FEATURES;
use crate::lerobot::spec::dtype_name;

/// Which name Hugging Face's `datasets` gives to lists of a fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListName {
    /// From `datasets` 4 on, as LeRobot v3.0 needs it.
    List,
    /// Before; readers of v2.1 often pin such a version, and newer ones still know it.
    Sequence,
}

/// Where an episode's rows stand in the dataset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) episode: u64,
    pub(super) first_index: u64,
    pub(super) task: u64,
    pub(super) rows: usize,
    pub(super) fps: u32,
}

/// LeRobot's own five columns as numbers, in order.
pub(super) fn default_values(place: Place) -> [Vec<f64>; 5] {
    let numbers = |value: fn(Place, usize) -> f64| (0..place.rows).map(|row| value(place, row)).collect();
    [
        // Statistics are of what is stored, which is 32 bits wide.
        numbers(|place, row| f64::from(timestamp(place, row))),
        numbers(|_, row| row as f64),
        numbers(|place, _| place.episode as f64),
        numbers(|place, row| (place.first_index + row as u64) as f64),
        numbers(|place, _| place.task as f64),
    ]
}

fn timestamp(place: Place, row: usize) -> f32 {
    (row as f64 / f64::from(place.fps)) as f32
}

/// The whole table. Columns come in dataset order and hold `place.rows` rows each.
pub(super) fn batch(columns: &[&Column], place: Place, list: ListName) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let mut described = Vec::new();
    for column in columns {
        let array = column_array(column)?;
        fields.push(Field::new(&column.spec.key, array.data_type().clone(), true));
        arrays.push(array);
        described.push((column.spec.key.as_str(), describe(&column.spec, list)));
    }
    let integers = |value: &dyn Fn(usize) -> u64| -> ArrayRef {
        let values: Int64Array = (0..place.rows).map(|row| value(row).cast_signed()).collect();
        Arc::new(values)
    };
    let times: Float32Array = (0..place.rows).map(|row| timestamp(place, row)).collect();
    let own: [ArrayRef; 5] = [
        Arc::new(times),
        integers(&|row| row as u64),
        integers(&|_| place.episode),
        integers(&|row| place.first_index + row as u64),
        integers(&|_| place.task),
    ];
    for (key, array) in DEFAULT_FEATURES.into_iter().zip(own) {
        let dtype = if key == "timestamp" { "float32" } else { "int64" };
        fields.push(Field::new(key, array.data_type().clone(), true));
        arrays.push(array);
        described.push((key, json!({"dtype": dtype, "_type": "Value"})));
    }
    let features: serde_json::Map<String, Value> =
        described.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let huggingface = json!({"info": {"features": features}}).to_string();
    let metadata = HashMap::from([("huggingface".to_owned(), huggingface)]);
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), arrays)
}

/// The feature as `datasets` describes it.
fn describe(spec: &FeatureSpec, list: ListName) -> Value {
    let dtype = dtype_name(spec.dtype);
    match spec.shape.as_slice() {
        [1] => json!({"dtype": dtype, "_type": "Value"}),
        [length] => {
            let kind = if list == ListName::List { "List" } else { "Sequence" };
            json!({"feature": {"dtype": dtype, "_type": "Value"}, "length": length, "_type": kind})
        }
        shape => json!({"shape": shape, "dtype": dtype, "_type": format!("Array{}D", shape.len())}),
    }
}

/// Values as recorded: bits are moved, never converted.
fn column_array(column: &Column) -> Result<ArrayRef, ArrowError> {
    let values = &column.values;
    let flat: ArrayRef = match column.spec.dtype {
        Dtype::F32 => Arc::new(primitive::<Float32Type, 4>(values, f32::from_le_bytes)),
        Dtype::F64 => Arc::new(primitive::<Float64Type, 8>(values, f64::from_le_bytes)),
        Dtype::I64 => Arc::new(primitive::<Int64Type, 8>(values, i64::from_le_bytes)),
        Dtype::U8 => Arc::new(primitive::<UInt8Type, 1>(values, u8::from_le_bytes)),
        Dtype::Bool => Arc::new(values.iter().map(|value| Some(*value != 0)).collect::<BooleanArray>()),
    };
    let side = |side: u32| {
        i32::try_from(side).map_err(|_| ArrowError::InvalidArgumentError(format!("side of {side} elements")))
    };
    match column.spec.shape.as_slice() {
        [1] => Ok(flat),
        [length] => {
            let element = Arc::new(Field::new("element", flat.data_type().clone(), true));
            Ok(Arc::new(FixedSizeListArray::try_new(element, side(*length)?, flat, None)?))
        }
        // Hugging Face stores arrays of more dimensions as lists in lists, the innermost side last.
        shape => {
            let mut array = flat;
            for length in shape.iter().rev() {
                let length = side(*length)? as usize;
                let offsets = OffsetBuffer::from_repeated_length(length, array.len() / length);
                let element = Arc::new(Field::new("element", array.data_type().clone(), true));
                array = Arc::new(ListArray::try_new(element, offsets, array, None)?);
            }
            Ok(array)
        }
    }
}

fn primitive<T: ArrowPrimitiveType, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T::Native) -> PrimitiveArray<T> {
    let (values, _) = bytes.as_chunks::<N>();
    PrimitiveArray::from_iter_values(values.iter().map(|value| read(*value)))
}

/// One value as a number for statistics and checks.
pub(super) fn number(dtype: Dtype, bytes: &[u8]) -> f64 {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.first_chunk().copied().unwrap_or([0; N])
    }
    match dtype {
        Dtype::F32 => f64::from(f32::from_le_bytes(array(bytes))),
        Dtype::F64 => f64::from_le_bytes(array(bytes)),
        Dtype::I64 => i64::from_le_bytes(array(bytes)) as f64,
        Dtype::Bool => f64::from(u8::from(array::<1>(bytes)[0] != 0)),
        Dtype::U8 => f64::from(array::<1>(bytes)[0]),
    }
}
