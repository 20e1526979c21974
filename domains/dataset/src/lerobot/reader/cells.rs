//! One parquet column of a batch as flat numbers, whatever lists it is nested in.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::raw_info::whole_f64;

/// The element type as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A float of 16, 32 or 64 bits.
    Float(u8),
    /// A signed integer of 8 to 64 bits.
    Signed(u8),
    /// An unsigned integer of 8 to 64 bits.
    Unsigned(u8),
    /// One bit.
    Bool,
    /// UTF-8.
    Text,
    /// Bytes, structs and all else.
    Other,
}

impl Stored {
    /// The element type under all lists of `kind`.
    #[must_use]
    pub fn of(kind: &DataType) -> Self {
        match kind {
            DataType::List(item) => Self::of(item.data_type()),
            DataType::Float16 => Self::Float(16),
            DataType::Float32 => Self::Float(32),
            DataType::Float64 => Self::Float(64),
            DataType::Int8 => Self::Signed(8),
            DataType::Int16 => Self::Signed(16),
            DataType::Int32 => Self::Signed(32),
            DataType::Int64 => Self::Signed(64),
            DataType::UInt8 => Self::Unsigned(8),
            DataType::UInt16 => Self::Unsigned(16),
            DataType::UInt32 => Self::Unsigned(32),
            DataType::UInt64 => Self::Unsigned(64),
            DataType::Boolean => Self::Bool,
            DataType::Utf8 => Self::Text,
            _ => Self::Other,
        }
    }

    /// The numpy name, as `dtype` in `info.json` writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float(16) => "float16",
            Self::Float(32) => "float32",
            Self::Float(_) => "float64",
            Self::Signed(8) => "int8",
            Self::Signed(16) => "int16",
            Self::Signed(32) => "int32",
            Self::Signed(_) => "int64",
            Self::Unsigned(8) => "uint8",
            Self::Unsigned(16) => "uint16",
            Self::Unsigned(32) => "uint32",
            Self::Unsigned(_) => "uint64",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::Other => "other",
        }
    }
}

/// Flat elements in the smallest type that holds the stored one without rounding.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// float16 and float32.
    F32(Vec<f32>),
    /// float64.
    F64(Vec<f64>),
    /// All integers but uint8. A uint64 over `i64::MAX` comes out negative; [`super::episode`] refuses it.
    I64(Vec<i64>),
    /// uint8.
    U8(Vec<u8>),
    /// bool.
    Bool(Vec<bool>),
    /// string.
    Text(Vec<String>),
    /// Not looked into.
    Other,
}

/// One column of one batch.
#[derive(Clone, Debug)]
pub struct Cells {
    /// Element type in the file.
    pub stored: Stored,
    /// Levels of lists around the elements.
    pub depth: usize,
    /// Row r holds the elements `bounds[r] .. bounds[r + 1]`.
    pub bounds: Vec<usize>,
    /// All elements.
    pub values: Values,
    /// Rows that are null or hold a null element, ascending.
    pub null_rows: Vec<usize>,
}

impl Cells {
    /// Flatten one column.
    #[must_use]
    pub fn new(column: &ArrayRef) -> Self {
        let rows = column.len();
        let mut bounds: Vec<usize> = (0..=rows).collect();
        let mut null_rows = Vec::new();
        let mut array = ArrayRef::clone(column);
        let mut depth = 0;
        loop {
            mark_nulls(&array, &bounds, &mut null_rows);
            let Some(list) = array.as_list_opt::<i32>() else { break };
            let offsets = list.value_offsets();
            for bound in &mut bounds {
                *bound = offsets.get(*bound).map_or(0, |offset| usize::try_from(*offset).unwrap_or(0));
            }
            depth += 1;
            let inner = ArrayRef::clone(list.values());
            array = inner;
        }
        null_rows.sort_unstable();
        null_rows.dedup();
        Self { stored: Stored::of(array.data_type()), depth, bounds, values: values(&array), null_rows }
    }

    /// Rows of the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Elements of one row.
    #[must_use]
    pub fn width(&self, row: usize) -> usize {
        self.bounds[row + 1].saturating_sub(self.bounds[row])
    }

    /// Whether row `row` is null or holds a null.
    #[must_use]
    pub fn is_null(&self, row: usize) -> bool {
        self.null_rows.binary_search(&row).is_ok()
    }

    /// Element `at` of the flat values as a float; NaN for text.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "used for comparison and statistics, not for storing")]
    pub fn float(&self, at: usize) -> f64 {
        match &self.values {
            Values::F32(values) => values.get(at).map_or(f64::NAN, |value| f64::from(*value)),
            Values::F64(values) => values.get(at).copied().unwrap_or(f64::NAN),
            Values::I64(values) => values.get(at).map_or(f64::NAN, |value| *value as f64),
            Values::U8(values) => values.get(at).map_or(f64::NAN, |value| f64::from(*value)),
            Values::Bool(values) => values.get(at).map_or(f64::NAN, |value| f64::from(u8::from(*value))),
            Values::Text(_) | Values::Other => f64::NAN,
        }
    }

    /// The single number of a row as a float; `None` when the row is null or holds no single number.
    #[must_use]
    pub fn scalar(&self, row: usize) -> Option<f64> {
        if self.width(row) != 1 || self.is_null(row) || matches!(self.values, Values::Text(_) | Values::Other) {
            return None;
        }
        Some(self.float(self.bounds[row]))
    }

    /// The single whole number of a row, also when it is stored as a float.
    #[must_use]
    pub fn integer(&self, row: usize) -> Option<i64> {
        if let Values::I64(values) = &self.values
            && self.width(row) == 1
            && !self.is_null(row)
        {
            return values.get(self.bounds[row]).copied();
        }
        self.scalar(row).and_then(whole_f64)
    }

    /// The texts of a row.
    #[must_use]
    pub fn texts(&self, row: usize) -> Option<&[String]> {
        match &self.values {
            Values::Text(texts) => texts.get(self.bounds[row]..self.bounds[row + 1]),
            _ => None,
        }
    }

    /// The numbers of a row.
    #[must_use]
    pub fn floats(&self, row: usize) -> Vec<f64> {
        (self.bounds[row]..self.bounds[row + 1]).map(|at| self.float(at)).collect()
    }
}

/// Turn null positions of `array` into row numbers by the row bounds at this level.
fn mark_nulls(array: &ArrayRef, bounds: &[usize], null_rows: &mut Vec<usize>) {
    if array.null_count() == 0 {
        return;
    }
    for row in 0..bounds.len().saturating_sub(1) {
        if (bounds[row]..bounds[row + 1]).any(|at| at < array.len() && array.is_null(at)) {
            null_rows.push(row);
        }
    }
}

fn values(array: &ArrayRef) -> Values {
    match Stored::of(array.data_type()) {
        Stored::Float(16) => {
            Values::F32(array.as_primitive::<Float16Type>().values().iter().map(|value| value.to_f32()).collect())
        }
        Stored::Float(32) => Values::F32(array.as_primitive::<Float32Type>().values().to_vec()),
        Stored::Float(_) => Values::F64(array.as_primitive::<Float64Type>().values().to_vec()),
        Stored::Signed(8) => integers::<Int8Type>(array, i64::from),
        Stored::Signed(16) => integers::<Int16Type>(array, i64::from),
        Stored::Signed(32) => integers::<Int32Type>(array, i64::from),
        Stored::Signed(_) => integers::<Int64Type>(array, |value| value),
        Stored::Unsigned(8) => Values::U8(array.as_primitive::<UInt8Type>().values().to_vec()),
        Stored::Unsigned(16) => integers::<UInt16Type>(array, i64::from),
        Stored::Unsigned(32) => integers::<UInt32Type>(array, i64::from),
        Stored::Unsigned(_) => integers::<UInt64Type>(array, |value| i64::from_le_bytes(value.to_le_bytes())),
        Stored::Bool => {
            let bits = array.as_boolean();
            Values::Bool((0..bits.len()).map(|at| bits.is_valid(at) && bits.value(at)).collect())
        }
        Stored::Text => {
            let texts = array.as_string::<i32>();
            Values::Text(
                (0..texts.len())
                    .map(|at| if texts.is_valid(at) { texts.value(at).to_owned() } else { String::new() })
                    .collect(),
            )
        }
        Stored::Other => Values::Other,
    }
}

fn integers<T: ArrowPrimitiveType>(array: &ArrayRef, widen: impl Fn(T::Native) -> i64) -> Values {
    Values::I64(array.as_primitive::<T>().values().iter().map(|value| widen(*value)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{Float32Builder, ListBuilder};
    use arrow_array::{Float64Array, Int32Array};

    use super::*;

    #[test]
    fn cells_flatten_lists_and_name_the_rows_with_nulls() {
        let mut list = ListBuilder::new(ListBuilder::new(Float32Builder::new()));
        list.values().values().append_slice(&[1.0, 2.0]);
        list.values().append(true);
        list.values().values().append_slice(&[3.0]);
        list.values().append(true);
        list.append(true);
        list.append(false);
        list.values().values().append_null();
        list.values().append(true);
        list.append(true);
        let cells = Cells::new(&(Arc::new(list.finish()) as ArrayRef));
        assert_eq!((cells.rows(), cells.depth, cells.stored), (3, 2, Stored::Float(32)));
        assert_eq!((cells.width(0), cells.width(1), cells.width(2)), (3, 0, 1));
        assert_eq!(cells.floats(0), [1.0, 2.0, 3.0]);
        assert_eq!(cells.null_rows, [1, 2]);
    }

    #[test]
    fn integers_are_read_from_whole_floats_and_from_nothing_else() {
        let cells = Cells::new(&(Arc::new(Float64Array::from(vec![3.0, 3.5, f64::NAN])) as ArrayRef));
        assert_eq!((cells.integer(0), cells.integer(1), cells.integer(2)), (Some(3), None, None));
        let cells = Cells::new(&(Arc::new(Int32Array::from(vec![Some(-7), None])) as ArrayRef));
        assert_eq!((cells.integer(0), cells.integer(1)), (Some(-7), None));
    }

    #[test]
    fn cells_of_a_slice_see_only_the_slice() {
        let mut list = ListBuilder::new(Float32Builder::new());
        for row in 0_u8..4 {
            list.values().append_slice(&[f32::from(row), f32::from(row)]);
            list.append(true);
        }
        let whole = Arc::new(list.finish()) as ArrayRef;
        let cells = Cells::new(&whole.slice(2, 2));
        assert_eq!(cells.floats(0), [2.0, 2.0]);
        assert_eq!(cells.floats(1), [3.0, 3.0]);
    }
}
