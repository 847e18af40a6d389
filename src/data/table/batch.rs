//! Arrow's arrays as columns: what Parquet and Arrow files have in common.

use std::panic::AssertUnwindSafe;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
};

use super::{Column, Field, File, Kind, Table, Values};
use crate::data::{Error, Result};

fn kind(data: &DataType) -> Kind {
    use DataType as D;
    match data {
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => {
            Kind::Integer
        }
        // Beyond 2^63 there is no i64; as a float a value may lose its last digits.
        D::UInt64
        | D::Float16
        | D::Float32
        | D::Float64
        | D::Decimal32(..)
        | D::Decimal64(..)
        | D::Decimal128(..)
        | D::Decimal256(..) => Kind::Number,
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Null => Kind::Text,
        D::Boolean => Kind::Boolean,
        D::Timestamp(..) | D::Date32 | D::Date64 => Kind::Time,
        D::Dictionary(_, values) => kind(values),
        _ => Kind::Other,
    }
}

/// What `read` gives; the libraries that decode Parquet and Arrow panic on some broken files, and such a file is broken, no more.
pub(super) fn guarded<T>(file: &File, read: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Error::Content(format!(
            "{} is broken: its parts don't fit together",
            file.name
        )))
    })
}

/// The columns of a schema.
pub(super) fn fields(schema: &Schema) -> Vec<Field> {
    let field = |f: &arrow::datatypes::FieldRef| Field {
        name: f.name().clone(),
        kind: kind(f.data_type()),
        single: f.data_type() == &DataType::Float32,
        list: match f.data_type() {
            DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => {
                matches!(kind(of.data_type()), Kind::Integer | Kind::Number)
            }
            _ => false,
        },
    };
    schema.fields().iter().map(field).collect()
}

/// Where the columns stand that are wanted.
pub(super) fn places(schema: &Schema, wanted: &[&str]) -> Vec<usize> {
    let all = schema.fields().iter().enumerate();
    all.filter(|(_, f)| wanted.contains(&f.name().as_str()))
        .map(|(i, _)| i)
        .collect()
}

/// The wanted columns of a batch, in their order; one that it lacks is all missing.
pub(super) fn table(file: &File, batch: &RecordBatch, wanted: &[Field]) -> Result<Table> {
    guarded(file, || columns(file, batch, wanted))
}

fn columns(file: &File, batch: &RecordBatch, wanted: &[Field]) -> Result<Table> {
    let rows = batch.num_rows();
    let mut table = Table {
        columns: Vec::with_capacity(wanted.len()),
        rows,
    };
    for field in wanted {
        let values = match batch.column_by_name(&field.name) {
            Some(array) => convert(array, field.kind).map_err(|e| of_column(file, field, &e))?,
            None => {
                let mut values = Values::empty(field.kind);
                (0..rows).for_each(|_| values.push_null());
                values
            }
        };
        table.columns.push(Column {
            name: field.name.clone(),
            values,
        });
    }
    Ok(table)
}

fn of_column(file: &File, field: &Field, error: &ArrowError) -> Error {
    Error::Content(format!("column `{}` of {}: {error}", field.name, file.name))
}

fn convert(array: &ArrayRef, kind: Kind) -> std::result::Result<Values, ArrowError> {
    let to = |data: DataType| cast(array, &data);
    Ok(match kind {
        Kind::Integer => Values::Integer(
            to(DataType::Int64)?
                .as_primitive::<Int64Type>()
                .iter()
                .collect(),
        ),
        Kind::Number => Values::Number(
            to(DataType::Float64)?
                .as_primitive::<Float64Type>()
                .iter()
                .collect(),
        ),
        Kind::Boolean => Values::Boolean(to(DataType::Boolean)?.as_boolean().iter().collect()),
        Kind::Time => {
            let zone = match array.data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                _ => None,
            };
            let micros = to(DataType::Timestamp(TimeUnit::Microsecond, zone))?;
            Values::Time(
                micros
                    .as_primitive::<TimestampMicrosecondType>()
                    .iter()
                    .collect(),
            )
        }
        Kind::Text | Kind::Other => {
            let text = to(DataType::LargeUtf8)?;
            let text = text.as_string::<i64>();
            Values::Text(
                (0..text.len())
                    .map(|i| text.is_valid(i).then(|| text.value(i).into()))
                    .collect(),
            )
        }
    })
}

/// A column of lists of numbers, row by row; a missing list is empty, a missing number NaN.
pub(super) fn vectors(file: &File, batch: &RecordBatch, field: &Field) -> Result<Vec<Vec<f64>>> {
    let Some(array) = batch.column_by_name(&field.name) else {
        return Ok(vec![Vec::new(); batch.num_rows()]);
    };
    let numbers = |items: ArrayRef| -> std::result::Result<Vec<f64>, ArrowError> {
        let items = cast(&items, &DataType::Float64)?;
        let items = items.as_primitive::<Float64Type>().iter();
        Ok(items.map(|x| x.unwrap_or(f64::NAN)).collect())
    };
    let row = |i: usize| match array.data_type() {
        _ if array.is_null(i) => Ok(Vec::new()),
        DataType::List(_) => numbers(array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => numbers(array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => numbers(array.as_fixed_size_list().value(i)),
        other => Err(ArrowError::CastError(format!(
            "it holds {other}, not lists of numbers"
        ))),
    };
    guarded(file, || {
        (0..array.len())
            .map(|i| row(i).map_err(|e| of_column(file, field, &e)))
            .collect()
    })
}
