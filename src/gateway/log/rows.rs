//! Rows of a payload log and the Parquet files that they become.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
        TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use sha2::{Digest, Sha256};

use crate::{
    api::{
        payload_log::{PayloadLog, Shown},
        revision::Signature,
    },
    gateway::{inputs::Rows, predictions::Predicted},
    stats::sketch::Cell,
};

/// Columns beside the features. One of a feature's name has `_` before it.
const OWN: [&str; 8] = [
    "time",
    "request_id",
    "row",
    "revision",
    "prediction",
    "probability",
    "status",
    "latency",
];
/// Rows of one request that are logged at most.
pub const MOST_ROWS: usize = 10_000;

/// What is said of a request beside its body and its answer's.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Microseconds since 1970 of its end.
    pub time: i64,
    /// Its id, as its answer carried it.
    pub id: String,
    /// Status of the answer.
    pub status: u16,
    /// Seconds from its head to the answer's last byte.
    pub latency: f64,
}

/// A file that is being written, in memory.
pub struct Open {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

/// A feature's column.
struct Column {
    name: String,
    values: Values,
    hashed: bool,
}

enum Values {
    Number(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Whole(Int64Builder),
    Time(TimestampMicrosecondBuilder),
}

impl Column {
    fn new(name: String, values: Values) -> Self {
        Self {
            name,
            values,
            hashed: false,
        }
    }

    fn number(&mut self, value: Option<f64>) {
        if let Values::Number(values) = &mut self.values {
            values.append_option(value);
        }
    }

    fn whole(&mut self, value: i64) {
        match &mut self.values {
            Values::Whole(values) => values.append_value(value),
            Values::Time(values) => values.append_value(value),
            _ => {}
        }
    }

    /// Appends text; its bytes.
    fn text(&mut self, value: Option<&str>) -> usize {
        if let Values::Text(values) = &mut self.values {
            values.append_option(value);
        }
        value.map_or(0, str::len)
    }

    /// Appends a feature's value, as far as it is of the column's type; its bytes.
    fn feature(&mut self, cell: Cell<'_>, release: &str) -> usize {
        if self.hashed {
            let hash = cell.category().map(|text| hash(release, &self.name, &text));
            return self.text(hash.as_deref());
        }
        match (&mut self.values, cell) {
            (Values::Number(values), Cell::Number(x)) => values.append_value(x),
            (Values::Number(values), _) => values.append_null(),
            (Values::Boolean(values), Cell::Bool(b)) => values.append_value(b),
            (Values::Boolean(values), Cell::Number(x)) if x == 0.0 || x == 1.0 => {
                values.append_value(x != 0.0);
            }
            (Values::Boolean(values), _) => values.append_null(),
            _ => return self.text(cell.category().as_deref()),
        }
        8
    }

    fn end(self) -> (Field, ArrayRef) {
        let utc: Arc<str> = "UTC".into();
        let array: ArrayRef = match self.values {
            Values::Number(mut values) => Arc::new(values.finish()),
            Values::Boolean(mut values) => Arc::new(values.finish()),
            Values::Text(mut values) => Arc::new(values.finish()),
            Values::Whole(mut values) => Arc::new(values.finish()),
            Values::Time(mut values) => Arc::new(values.finish().with_timezone(utc.clone())),
        };
        let kind = match array.data_type() {
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some(utc)),
            other => other.clone(),
        };
        (Field::new(self.name, kind, true), array)
    }
}

/// Equal values of a column stay equal within a release.
fn hash(release: &str, column: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    for part in [release, column, text] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..16])
}

impl Open {
    /// A file for requests to a model of this signature.
    pub fn new(log: &PayloadLog, signature: Option<&Signature>) -> Self {
        let features = signature.map_or(&[] as &[_], |s| &s.features);
        let own = OWN.into_iter().map(|name| {
            let taken = features.iter().any(|f| f.name == name);
            let values = match name {
                "time" => Values::Time(TimestampMicrosecondBuilder::new()),
                "row" | "status" => Values::Whole(Int64Builder::new()),
                "probability" | "latency" => Values::Number(Float64Builder::new()),
                _ => Values::Text(StringBuilder::new()),
            };
            let name = if taken {
                format!("_{name}")
            } else {
                name.to_owned()
            };
            Column::new(name, values)
        });
        let of_features = features.iter().filter_map(|feature| {
            let hashed = log.shows(&feature.name)? == Shown::Hashed;
            let values = match feature.kind.as_str() {
                "Number" if !hashed => Values::Number(Float64Builder::new()),
                "Boolean" if !hashed => Values::Boolean(BooleanBuilder::new()),
                _ => Values::Text(StringBuilder::new()),
            };
            Some(Column {
                hashed,
                ..Column::new(feature.name.clone(), values)
            })
        });
        Self {
            columns: own.chain(of_features).collect(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Adds the rows of a request, with what was answered where that is of as many rows. False: they are too many.
    pub fn add(
        &mut self,
        (release, revision): (&str, &str),
        entry: &Entry,
        inputs: Option<&Rows<'_>>,
        predicted: Option<&Predicted>,
    ) -> bool {
        let said = predicted.map_or(0, |p| p.rows.len());
        let rows = inputs.map_or(said.max(1), Rows::len);
        if rows > MOST_ROWS {
            return false;
        }
        let predicted = predicted.filter(|_| said == rows);
        for row in 0..rows {
            let guess = predicted.and_then(|p| p.rows.get(row));
            let probability = guess.and_then(|g| match g.probabilities.as_slice() {
                [p] | [_, p] => Some(f64::from(*p)),
                _ => None,
            });
            let word = guess.and_then(|g| g.said.as_deref());
            for (at, column) in self.columns.iter_mut().enumerate() {
                self.bytes += match OWN.get(at).copied() {
                    Some("time") => {
                        column.whole(entry.time);
                        8
                    }
                    Some("request_id") => column.text(Some(&entry.id)),
                    Some("row") => {
                        column.whole(row as i64);
                        8
                    }
                    Some("revision") => column.text(Some(revision)),
                    Some("prediction") => column.text(word),
                    Some("probability") => {
                        column.number(probability);
                        8
                    }
                    Some("status") => {
                        column.whole(i64::from(entry.status));
                        8
                    }
                    Some("latency") => {
                        column.number(Some(entry.latency));
                        8
                    }
                    _ => {
                        let cell = inputs.map_or(Cell::Null, |i| i.cell(&column.name, row));
                        column.feature(cell, release)
                    }
                };
            }
        }
        self.rows += rows;
        true
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The file.
    ///
    /// # Errors
    /// What the writer says: none that could be expected.
    pub fn parquet(self) -> Result<Vec<u8>, String> {
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
            self.columns.into_iter().map(Column::end).unzip();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(|e| e.to_string())?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))
            .map_err(|e| e.to_string())?;
        writer.write(&batch).map_err(|e| e.to_string())?;
        writer.close().map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}
