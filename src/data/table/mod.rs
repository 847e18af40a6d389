//! Tables of rows and typed columns from Parquet, Arrow (file or stream), CSV and JSONL, the last two plain or compressed (`.gz`, `.zst`); a
//! directory of such files is one table, in the order of their paths. Reading goes batch by batch: memory doesn't depend on the rows.
//!
//! Text formats have no types, so a column's type is found by looking at all of its values first: integers, numbers, `true` and
//! `false`, times (RFC 3339, or a date with or without a time, taken as UTC), else text. An empty field of a CSV is missing; `NaN`,
//! `NA`, `N/A`, `null` and `None` are missing where every other value is a number, boolean or time, else they are text like
//! any other. A line that can't be read is left out and counted; too many of them are an error.

mod batch;
mod column;
mod ipc;
mod parquet;
mod text;

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

pub use column::{Cell, Column, Kind, Values};

use super::{Error, Result, digest};
use crate::stats::random::Generator;

/// Rows of a batch.
const BATCH: usize = 8192;
/// Lines that may be unreadable: at most so many,
const MAX_BAD_LINES: u64 = 100;
/// and at most one in so many.
const BAD_LINE_SHARE: u64 = 100;

/// How a table is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow: a file (Feather version 2) or a stream.
    Arrow,
    /// Comma-separated with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    /// By a file's name: `.parquet`, `.arrow`, or `.csv`, `.jsonl`, with `.gz` or `.zst` behind it or not.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name
            .strip_suffix(".gz")
            .or(name.strip_suffix(".zst"))
            .unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "parquet" | "pq" => Some(Self::Parquet),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Self::Arrow),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// A column's name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether its numbers are stored in single precision.
    pub single: bool,
    /// Whether it holds lists of numbers, which [`Source::vectors`] reads.
    pub list: bool,
}

/// Lines that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub lines: u64,
    /// The first, with file, line and what is wrong.
    pub first: Option<String>,
}

/// A table that can be read.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    files: Vec<File>,
    fields: Vec<Field>,
    rows: u64,
    skipped: Skipped,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    path: PathBuf,
    format: Format,
}

/// Some rows of some columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The columns, equally long.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: usize,
}

impl Table {
    /// A column by name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

impl Source {
    /// Looks at a file or directory; text formats are read through, to find the columns' types.
    ///
    /// # Errors
    /// If nothing there is a table, or it is broken.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self> {
        let name = path.file_name().map_or_else(
            || path.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        );
        let mut files = Vec::new();
        for (relative, file) in digest::list(path)? {
            let label = if relative.is_empty() {
                name.clone()
            } else {
                relative
            };
            let own = label.rsplit('/').next().unwrap_or(&label);
            // Markers of other tools: _SUCCESS, .crc files.
            if own.starts_with(['_', '.']) {
                continue;
            }
            match format.or(Format::of_name(own)) {
                Some(format) => files.push(File {
                    name: label,
                    path: file,
                    format,
                }),
                None if path.is_file() => {
                    return Err(Error::Invalid(format!(
                        "{label} has no ending that says what it is (.parquet, .arrow, .csv, .jsonl, the last two with .gz or .zst or not): write `format`"
                    )));
                }
                None => {}
            }
        }
        if files.is_empty() {
            return Err(Error::Content(format!(
                "{name} holds no file that is a table (.parquet, .arrow, .csv or .jsonl)"
            )));
        }
        let mut source = Self {
            name,
            files,
            fields: Vec::new(),
            rows: 0,
            skipped: Skipped::default(),
        };
        source.look()?;
        Ok(source)
    }

    fn look(&mut self) -> Result<()> {
        let mut guesses = text::Guesses::default();
        let mut typed: Vec<Field> = Vec::new();
        for file in &self.files {
            let (fields, rows) = match file.format {
                Format::Parquet => parquet::look(file)?,
                Format::Arrow => ipc::look(file)?,
                Format::Csv | Format::Jsonl => {
                    let rows = text::look(file, &mut guesses, &mut self.skipped)?;
                    (Vec::new(), rows)
                }
            };
            self.rows += rows;
            for field in fields {
                match typed.iter_mut().find(|f| f.name == field.name) {
                    None => typed.push(field),
                    Some(known) => {
                        known.single &= field.single;
                        known.kind = known.kind.and(field.kind).ok_or_else(|| {
                            Error::Content(format!(
                                "column `{}` is {} in {} and {} in files before it: all files of a table need the same types",
                                field.name, field.kind, file.name, known.kind
                            ))
                        })?;
                    }
                }
            }
        }
        for field in guesses.fields() {
            if typed.iter().any(|f| f.name == field.name) {
                return Err(Error::Content(format!(
                    "{} mixes Parquet or Arrow with text files: keep one format in a directory",
                    self.name
                )));
            }
            typed.push(field);
        }
        let all = self.rows + self.skipped.lines;
        if self.skipped.lines > MAX_BAD_LINES || self.skipped.lines * BAD_LINE_SHARE > all {
            return Err(Error::Content(format!(
                "{} of {all} lines of {} can't be read; the first: {}",
                self.skipped.lines,
                self.name,
                self.skipped.first.as_deref().unwrap_or("?")
            )));
        }
        self.fields = typed;
        Ok(())
    }

    /// The columns with their types.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A column by name.
    ///
    /// # Errors
    /// If there is none, naming those that there are.
    pub fn field(&self, name: &str) -> Result<&Field> {
        self.fields.iter().find(|f| f.name == name).ok_or_else(|| {
            let mut names: Vec<&str> = self.fields.iter().map(|f| f.name.as_str()).collect();
            let more = names.len().saturating_sub(30);
            names.truncate(30);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            Error::Content(format!(
                "{} has no column `{name}`: it has {}{more}",
                self.name,
                names.join(", ")
            ))
        })
    }

    /// Rows, without lines that could not be read.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Lines that could not be read.
    #[must_use]
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Gives these columns batch by batch, in the order of the rows.
    ///
    /// # Errors
    /// If a column isn't there or isn't a plain value, the file is broken, or `each` says so.
    pub fn scan(&self, columns: &[&str], mut each: impl FnMut(&Table) -> Result<()>) -> Result<()> {
        let mut wanted = Vec::with_capacity(columns.len());
        for name in columns {
            let field = self.field(name)?;
            if field.kind == Kind::Other {
                return Err(Error::Content(format!(
                    "column `{name}` of {} holds lists, objects or bytes, which can't be used as a column",
                    self.name
                )));
            }
            wanted.push(field.clone());
        }
        for file in &self.files {
            let mut of_batch = |b: &RecordBatch| each(&batch::table(file, b, &wanted)?);
            match file.format {
                Format::Parquet => parquet::scan(file, columns, &mut of_batch)?,
                Format::Arrow => ipc::scan(file, columns, &mut of_batch)?,
                Format::Csv | Format::Jsonl => text::scan(file, &wanted, &mut each)?,
            }
        }
        Ok(())
    }

    /// Whether some columns can be read without the others being looked at.
    #[must_use]
    pub fn is_columnar(&self) -> bool {
        let by_column = |file: &File| matches!(file.format, Format::Parquet | Format::Arrow);
        self.files.iter().all(by_column)
    }

    /// At most so many rows of a column of lists of numbers (embeddings), in their order where there are no more, else drawn at random and always the same ones
    /// (reservoir sampling: Vitter 1985). A missing list is empty.
    ///
    /// # Errors
    /// If there is no such column, or it holds something else.
    pub fn vectors(&self, name: &str, most: usize) -> Result<Vec<Vec<f64>>> {
        let field = self.field(name)?;
        let (mut rows, mut seen) = (Vec::new(), 0usize);
        let mut generator = Generator::new(0);
        let mut keep = |row: Vec<f64>| {
            seen += 1;
            if rows.len() < most {
                rows.push(row);
            } else if let Some(place) = rows.get_mut(generator.below(seen)) {
                *place = row;
            }
        };
        for file in &self.files {
            let mut of_batch = |b: &RecordBatch| {
                batch::vectors(file, b, field)?
                    .into_iter()
                    .for_each(&mut keep);
                Ok(())
            };
            match file.format {
                Format::Parquet => parquet::scan(file, &[name], &mut of_batch)?,
                Format::Arrow => ipc::scan(file, &[name], &mut of_batch)?,
                Format::Csv | Format::Jsonl => {
                    return Err(Error::Content(format!(
                        "{} can have no column of lists: embeddings are read from Parquet or Arrow",
                        file.name
                    )));
                }
            }
        }
        Ok(rows)
    }

    /// Reads these columns whole.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn read(&self, columns: &[&str]) -> Result<Table> {
        let mut table = Table::default();
        for name in columns {
            let field = self.field(name)?;
            table.columns.push(Column::empty(&field.name, field.kind));
        }
        self.scan(columns, |batch| {
            for (column, more) in table.columns.iter_mut().zip(&batch.columns) {
                column.values.extend(&more.values);
            }
            table.rows += batch.rows;
            Ok(())
        })?;
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
