//! CSV and JSONL: lines of text, whose types are found by looking at all of them.

use std::io::{BufRead, BufReader, Read};

use serde_json::Value;

use super::{BATCH, Column, Field, File, Format, Kind, Skipped, Table, Values};
use crate::data::{Error, Result};

/// Longest line of JSONL; more is taken for a file that isn't one.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// What the values of a column could be.
#[derive(Clone, Debug)]
struct Guess {
    name: String,
    values: u64,
    missing_words: u64,
    integers: u64,
    numbers: u64,
    booleans: u64,
    times: u64,
    nested: u64,
}

/// Guesses by column, in the order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(super) struct Guesses {
    columns: Vec<Guess>,
}

/// A field of a line.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Missing,
    Text(&'a str),
    Json(&'a Value),
}

/// Words for "missing", where all other values are numbers, booleans or times.
fn is_missing_word(text: &str) -> bool {
    matches!(
        text,
        "" | "NA" | "N/A" | "NaN" | "nan" | "null" | "NULL" | "None"
    )
}

fn integer(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// RFC 3339, or a date with or without a time, taken as UTC; microseconds since 1970.
fn time(text: &str) -> Option<i64> {
    // Cheap refusal of what is no date.
    if text.len() < 10 || text.as_bytes()[4] != b'-' {
        return None;
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Some(stamp.as_microsecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_microsecond())
}

impl Guess {
    fn add(&mut self, raw: Raw<'_>) {
        let text = match raw {
            Raw::Missing | Raw::Text("") | Raw::Json(Value::Null) => return,
            Raw::Text(text) => text,
            Raw::Json(Value::String(text)) => text,
            Raw::Json(Value::Bool(_)) => {
                self.values += 1;
                self.booleans += 1;
                return;
            }
            Raw::Json(Value::Number(n)) => {
                self.values += 1;
                self.numbers += 1;
                self.integers += u64::from(n.is_i64());
                return;
            }
            Raw::Json(_) => {
                self.values += 1;
                self.nested += 1;
                return;
            }
        };
        if is_missing_word(text) {
            self.missing_words += 1;
            return;
        }
        self.values += 1;
        // A string of JSON that looks like a number is still a string; only the words for what JSON has no number for aren't.
        if matches!(raw, Raw::Text(_)) {
            if number(text).is_some() {
                self.numbers += 1;
                self.integers += u64::from(integer(text).is_some());
                return;
            }
            if boolean(text).is_some() {
                self.booleans += 1;
                return;
            }
        } else if matches!(text, "Infinity" | "-Infinity") {
            self.numbers += 1;
            return;
        }
        self.times += u64::from(time(text).is_some());
    }

    fn kind(&self) -> Kind {
        match self.values {
            _ if self.nested > 0 => Kind::Other,
            0 if self.missing_words > 0 => Kind::Number,
            0 => Kind::Text,
            n if n == self.integers => Kind::Integer,
            n if n == self.numbers => Kind::Number,
            n if n == self.booleans => Kind::Boolean,
            n if n == self.times => Kind::Time,
            _ => Kind::Text,
        }
    }
}

impl Guesses {
    fn position(&mut self, name: &str) -> usize {
        self.columns
            .iter()
            .position(|g| g.name == name)
            .unwrap_or_else(|| {
                self.columns.push(Guess {
                    name: name.to_owned(),
                    values: 0,
                    missing_words: 0,
                    integers: 0,
                    numbers: 0,
                    booleans: 0,
                    times: 0,
                    nested: 0,
                });
                self.columns.len() - 1
            })
    }

    /// What the columns are.
    pub(super) fn fields(&self) -> Vec<Field> {
        self.columns
            .iter()
            .map(|g| Field {
                name: g.name.clone(),
                kind: g.kind(),
                single: false,
                list: false,
            })
            .collect()
    }
}

fn push(values: &mut Values, raw: Raw<'_>) {
    match values {
        Values::Text(v) => v.push(match raw {
            Raw::Missing | Raw::Json(Value::Null) | Raw::Text("") => None,
            Raw::Text(text) => Some(text.into()),
            Raw::Json(Value::String(text)) => Some(text.as_str().into()),
            Raw::Json(other) => Some(other.to_string().into()),
        }),
        Values::Integer(v) => v.push(match raw {
            Raw::Text(text) => integer(text),
            Raw::Json(value) => value.as_i64(),
            Raw::Missing => None,
        }),
        Values::Number(v) => v.push(match raw {
            Raw::Text(text) => number(text),
            Raw::Json(Value::String(text)) => number(text),
            Raw::Json(value) => value.as_f64(),
            Raw::Missing => None,
        }),
        Values::Boolean(v) => v.push(match raw {
            Raw::Text(text) => boolean(text),
            Raw::Json(value) => value.as_bool(),
            Raw::Missing => None,
        }),
        Values::Time(v) => v.push(match raw {
            Raw::Text(text) => time(text),
            Raw::Json(value) => value.as_str().and_then(time),
            Raw::Missing => None,
        }),
    }
}

fn open(file: &File) -> Result<Box<dyn Read>> {
    let failed = |e: &std::io::Error| Error::file("opening", &file.path, e);
    let handle = std::fs::File::open(&file.path).map_err(|e| failed(&e))?;
    let name = file.name.to_ascii_lowercase();
    Ok(if name.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(handle)))
    } else if name.ends_with(".zst") {
        Box::new(zstd::stream::read::Decoder::new(handle).map_err(|e| failed(&e))?)
    } else {
        Box::new(handle)
    })
}

/// The lines of a file, one after another.
enum Lines {
    Csv {
        header: csv::StringRecord,
        reader: csv::Reader<Box<dyn Read>>,
        record: csv::StringRecord,
    },
    Jsonl {
        reader: BufReader<Box<dyn Read>>,
        line: u64,
        text: Vec<u8>,
    },
}

/// A line that could be read.
enum Row<'a> {
    Csv(&'a csv::StringRecord),
    Json(serde_json::Map<String, Value>),
}

impl Lines {
    fn open(file: &File) -> Result<Self> {
        let input = open(file)?;
        if file.format != Format::Csv {
            return Ok(Self::Jsonl {
                reader: BufReader::with_capacity(256 * 1024, input),
                line: 0,
                text: Vec::new(),
            });
        }
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .buffer_capacity(256 * 1024)
            .from_reader(input);
        let header = reader
            .headers()
            .map_err(|e| Error::Content(format!("{} has no readable header line: {e}", file.name)))?
            .clone();
        let mut names: Vec<&str> = header.iter().collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Content(format!(
                "{} has two columns `{}`: a table needs different names",
                file.name, twice[0]
            )));
        }
        Ok(Self::Csv {
            header,
            reader,
            record: csv::StringRecord::new(),
        })
    }

    /// The next line with its number; a line that can't be read with what is wrong. `None` at the end.
    fn next(&mut self, file: &File) -> Result<Option<(u64, std::result::Result<Row<'_>, String>)>> {
        let broken =
            |e: &dyn std::fmt::Display| Error::Content(format!("{} is broken: {e}", file.name));
        match self {
            Self::Csv {
                header,
                reader,
                record,
            } => {
                let line = reader.position().line();
                match reader.read_record(record) {
                    Ok(false) => Ok(None),
                    Ok(true) => {
                        let line = record.position().map_or(line, csv::Position::line);
                        let (found, wanted) = (record.len(), header.len());
                        Ok(Some((
                            line,
                            if found == wanted {
                                Ok(Row::Csv(record))
                            } else {
                                Err(format!("{found} fields where the header has {wanted}"))
                            },
                        )))
                    }
                    Err(e) if matches!(e.kind(), csv::ErrorKind::Utf8 { .. }) => {
                        Ok(Some((line, Err("it isn't UTF-8".to_owned()))))
                    }
                    Err(e) => Err(broken(&e)),
                }
            }
            Self::Jsonl { reader, line, text } => loop {
                text.clear();
                let n = reader
                    .by_ref()
                    .take(MAX_LINE)
                    .read_until(b'\n', text)
                    .map_err(|e| broken(&e))?;
                if n == 0 {
                    return Ok(None);
                }
                *line += 1;
                if n as u64 == MAX_LINE {
                    return Err(broken(&format!("line {line} is longer than 64 MiB")));
                }
                if text.trim_ascii().is_empty() {
                    continue;
                }
                // A byte order mark, as some editors leave it.
                let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
                let row = match serde_json::from_slice::<Value>(text) {
                    Ok(Value::Object(object)) => Ok(Row::Json(object)),
                    Ok(_) => Err("it is JSON, but no object".to_owned()),
                    Err(e) => Err(format!("it isn't JSON (column {}): {e}", e.column())),
                };
                return Ok(Some((*line, row)));
            },
        }
    }
}

/// Looks at all lines; gives the number of rows.
pub(super) fn look(file: &File, guesses: &mut Guesses, skipped: &mut Skipped) -> Result<u64> {
    let mut lines = Lines::open(file)?;
    let places: Vec<usize> = match &lines {
        Lines::Csv { header, .. } => header.iter().map(|name| guesses.position(name)).collect(),
        Lines::Jsonl { .. } => Vec::new(),
    };
    let mut rows = 0;
    while let Some((line, row)) = lines.next(file)? {
        match row {
            Ok(Row::Csv(record)) => {
                for (&place, text) in places.iter().zip(record) {
                    guesses.columns[place].add(Raw::Text(text));
                }
            }
            Ok(Row::Json(object)) => {
                for (name, value) in &object {
                    let place = guesses.position(name);
                    guesses.columns[place].add(Raw::Json(value));
                }
            }
            Err(what) => {
                skipped.lines += 1;
                skipped
                    .first
                    .get_or_insert_with(|| format!("{} line {line}: {what}", file.name));
                continue;
            }
        }
        rows += 1;
    }
    Ok(rows)
}

pub(super) fn scan(
    file: &File,
    wanted: &[Field],
    each: &mut impl FnMut(&Table) -> Result<()>,
) -> Result<()> {
    let empty = || Table {
        columns: wanted
            .iter()
            .map(|f| Column::empty(&f.name, f.kind))
            .collect(),
        rows: 0,
    };
    let mut lines = Lines::open(file)?;
    let places: Vec<Option<usize>> = match &lines {
        Lines::Csv { header, .. } => wanted
            .iter()
            .map(|f| header.iter().position(|name| name == f.name))
            .collect(),
        Lines::Jsonl { .. } => Vec::new(),
    };
    let mut table = empty();
    while let Some((_, row)) = lines.next(file)? {
        match row {
            Ok(Row::Csv(record)) => {
                for (column, place) in table.columns.iter_mut().zip(&places) {
                    let text = place.and_then(|i| record.get(i));
                    push(&mut column.values, text.map_or(Raw::Missing, Raw::Text));
                }
            }
            Ok(Row::Json(object)) => {
                for column in &mut table.columns {
                    let value = object.get(&column.name);
                    push(&mut column.values, value.map_or(Raw::Missing, Raw::Json));
                }
            }
            // Counted by `look`.
            Err(_) => continue,
        }
        table.rows += 1;
        if table.rows == BATCH {
            each(&table)?;
            table = empty();
        }
    }
    if table.rows > 0 {
        each(&table)?;
    }
    Ok(())
}
