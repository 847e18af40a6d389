//! Parquet, row group by row group.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{BATCH, Column, Field, File, Kind, Table, Values};
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

fn builder(file: &File) -> Result<ParquetRecordBatchReaderBuilder<std::fs::File>> {
    let handle =
        std::fs::File::open(&file.path).map_err(|e| Error::file("opening", &file.path, &e))?;
    ParquetRecordBatchReaderBuilder::try_new(handle)
        .map_err(|e| Error::Content(format!("{} is no readable Parquet file: {e}", file.name)))
}

/// Columns and rows, from the footer.
pub(super) fn look(file: &File) -> Result<(Vec<Field>, u64)> {
    let builder = builder(file)?;
    let fields = builder
        .schema()
        .fields()
        .iter()
        .map(|f| Field {
            name: f.name().clone(),
            kind: kind(f.data_type()),
        })
        .collect();
    let rows = builder.metadata().file_metadata().num_rows();
    Ok((fields, u64::try_from(rows).unwrap_or(0)))
}

pub(super) fn scan(
    file: &File,
    wanted: &[Field],
    each: &mut impl FnMut(&Table) -> Result<()>,
) -> Result<()> {
    let builder = builder(file)?;
    let roots: Vec<usize> = builder
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| wanted.iter().any(|w| &w.name == f.name()))
        .map(|(i, _)| i)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let broken = |e: &dyn std::fmt::Display| {
        Error::Content(format!("{} is a broken Parquet file: {e}", file.name))
    };
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH)
        .build()
        .map_err(|e| broken(&e))?;
    for batch in reader {
        let batch = batch.map_err(|e| broken(&e))?;
        let rows = batch.num_rows();
        let mut table = Table {
            columns: Vec::with_capacity(wanted.len()),
            rows,
        };
        for field in wanted {
            let values = match batch.column_by_name(&field.name) {
                Some(array) => convert(array, field.kind).map_err(|e| {
                    Error::Content(format!("column `{}` of {}: {e}", field.name, file.name))
                })?,
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
        each(&table)?;
    }
    Ok(())
}

fn convert(array: &ArrayRef, kind: Kind) -> std::result::Result<Values, arrow::error::ArrowError> {
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
