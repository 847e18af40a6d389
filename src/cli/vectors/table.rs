//! The small tables: CSV, JSON lines and Parquet, as the README of the vectors defines them. What can't be read is remembered as the case's
//! problem, and has no values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use crate::stats::drift::Sample;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int8Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// One value of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<f64>),
}

/// One column.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    pub(super) cells: Vec<Cell>,
    single: bool,
}

impl Column {
    pub(super) fn numbers(&self) -> Vec<f64> {
        self.cells
            .iter()
            .map(|cell| cell.number().unwrap_or(f64::NAN))
            .collect()
    }

    pub(super) fn booleans(&self) -> Vec<bool> {
        self.cells
            .iter()
            .map(|cell| matches!(cell, Cell::Integer(1) | Cell::Bool(true)))
            .collect()
    }

    pub(super) fn texts(&self) -> Vec<Option<String>> {
        let text = |cell: &Cell| match cell {
            Cell::Null => None,
            Cell::Bool(b) => Some(b.to_string()),
            Cell::Integer(i) => Some(i.to_string()),
            Cell::Float(x) => Some(x.to_string()),
            Cell::Text(text) => Some(text.clone()),
            // No category: it will differ from what is expected.
            Cell::List(_) => None,
        };
        self.cells.iter().map(text).collect()
    }

    pub(super) fn lists(&self) -> Vec<Vec<f64>> {
        let list = |cell: &Cell| match cell {
            Cell::List(items) => items.clone(),
            _ => Vec::new(),
        };
        self.cells.iter().map(list).collect()
    }

    /// The column as a sample of the given type (`num` or `cat`).
    pub(super) fn sample(&self, kind: &str) -> Sample {
        if kind == "cat" {
            return Sample::categories(self.texts());
        }
        if self.single {
            return Sample::single_precision(
                self.cells.iter().map(|c| c.number().map(|x| x as f32)),
            );
        }
        let whole = |cell: &Cell| matches!(cell, Cell::Integer(_) | Cell::Null);
        if self.cells.iter().all(whole) {
            return Sample::integers(self.cells.iter().map(|c| match c {
                Cell::Integer(i) => Some(*i),
                _ => None,
            }));
        }
        Sample::numbers(self.cells.iter().map(Cell::number))
    }
}

impl Cell {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Null => None,
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Integer(i) => Some(*i as f64),
            Self::Float(x) => Some(*x),
            Self::List(_) => None,
            Self::Text(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
        }
    }
}

type Table = BTreeMap<String, Column>;

/// The tables read so far.
pub(super) struct Tables {
    folder: PathBuf,
    read: BTreeMap<String, Rc<Table>>,
    problem: Option<String>,
}

impl Tables {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            read: BTreeMap::new(),
            problem: None,
        }
    }

    pub(super) fn column(&mut self, file: &str, column: &str) -> Column {
        let table = self.table(file);
        table.get(column).cloned().unwrap_or_else(|| {
            self.problem
                .get_or_insert(format!("{file} has no column {column}"));
            Column::default()
        })
    }

    /// What could not be read since this was last asked.
    pub(super) fn problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    fn table(&mut self, file: &str) -> Rc<Table> {
        if let Some(table) = self.read.get(file) {
            return table.clone();
        }
        let path = self.folder.join(file);
        let table = match path.extension().and_then(|e| e.to_str()) {
            Some("parquet") => parquet(&path),
            Some("csv") => text(&path).map(|text| csv(&text)),
            _ => text(&path).and_then(|text| json_lines(&text)),
        };
        let table = Rc::new(table.unwrap_or_else(|error| {
            self.problem.get_or_insert(format!("{file}: {error}"));
            Table::new()
        }));
        self.read.insert(file.to_string(), table.clone());
        table
    }
}

fn text(path: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

fn csv(text: &str) -> Table {
    let mut rows = fields(text).into_iter();
    let names: Vec<String> = rows
        .next()
        .unwrap_or_default()
        .into_iter()
        .map(|f| f.0)
        .collect();
    let mut table: Table = names
        .iter()
        .map(|name| (name.clone(), Column::default()))
        .collect();
    for row in rows {
        for (name, (text, quoted)) in names.iter().zip(row) {
            let cell = if quoted {
                Cell::Text(text)
            } else {
                unquoted(&text)
            };
            table.entry(name.clone()).or_default().cells.push(cell);
        }
    }
    table
}

fn unquoted(text: &str) -> Cell {
    match text {
        "" => Cell::Null,
        "true" => Cell::Bool(true),
        "false" => Cell::Bool(false),
        "inf" => Cell::Float(f64::INFINITY),
        "-inf" => Cell::Float(f64::NEG_INFINITY),
        other => match (other.parse::<i64>(), other.parse::<f64>()) {
            (Ok(i), _) => Cell::Integer(i),
            (_, Ok(x)) => Cell::Float(x),
            _ => Cell::Text(other.to_string()),
        },
    }
}

/// Fields with whether they were quoted, which the csv crate doesn't tell.
fn fields(text: &str) -> Vec<Vec<(String, bool)>> {
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    let (mut field, mut quoted, mut inside) = (String::new(), false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => {
                quoted = true;
                inside = !inside;
            }
            ',' if !inside => row.push((std::mem::take(&mut field), std::mem::take(&mut quoted))),
            '\n' if !inside => {
                row.push((std::mem::take(&mut field), std::mem::take(&mut quoted)));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    rows
}

fn json_lines(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for line in text.lines() {
        let row: serde_json::Map<String, Value> =
            serde_json::from_str(line).map_err(|e| format!("{line}: {e}"))?;
        for (name, value) in row {
            let cell = match value {
                Value::Null => Cell::Null,
                Value::Bool(b) => Cell::Bool(b),
                Value::Number(n) => n
                    .as_i64()
                    .map_or(Cell::Float(n.as_f64().unwrap_or(f64::NAN)), Cell::Integer),
                Value::String(text) => Cell::Text(text),
                Value::Array(items) => Cell::List(items.iter().filter_map(Value::as_f64).collect()),
                Value::Object(_) => return Err(format!("{name} holds an object")),
            };
            table.entry(name).or_default().cells.push(cell);
        }
    }
    Ok(table)
}

fn parquet(path: &std::path::Path) -> Result<Table, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|e| e.to_string())?;
    let mut table = Table::new();
    for batch in reader {
        append(&mut table, &batch.map_err(|e| e.to_string())?);
    }
    Ok(table)
}

fn append(table: &mut Table, batch: &RecordBatch) {
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = table.entry(field.name().clone()).or_default();
        column.single = field.data_type() == &DataType::Float32;
        let value = |i: usize| match array.data_type() {
            DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(i)),
            DataType::Float32 => {
                Cell::Float(f64::from(array.as_primitive::<Float32Type>().value(i)))
            }
            DataType::Int64 => Cell::Integer(array.as_primitive::<Int64Type>().value(i)),
            DataType::Int8 => Cell::Integer(i64::from(array.as_primitive::<Int8Type>().value(i))),
            DataType::Boolean => Cell::Bool(array.as_boolean().value(i)),
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(i).to_string()),
            DataType::List(_) => Cell::List(singles(&array.as_list::<i32>().value(i))),
            DataType::FixedSizeList(..) => {
                Cell::List(singles(&array.as_fixed_size_list().value(i)))
            }
            _ => Cell::Null, // Times: no case here uses them.
        };
        column.cells.extend((0..array.len()).map(|i| {
            if array.is_null(i) {
                Cell::Null
            } else {
                value(i)
            }
        }));
    }
}

fn singles(items: &dyn Array) -> Vec<f64> {
    let singles = items.as_primitive_opt::<Float32Type>();
    let values = singles.into_iter().flat_map(|items| items.values());
    values.map(|&x| f64::from(x)).collect()
}
