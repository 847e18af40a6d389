//! What a model was trained on, as hashes of its rows: so that an evaluation can tell whether it measures on rows that were learnt.
//!
//! The supervisor writes [`FILE`] beside the model, under the version's digest: one line of JSON that says which sets there are, then the hashes of each, eight bytes
//! each, little endian, in their order. A row's hash is the first eight bytes of the SHA-256 of its cells, column by column in the order of their names, each as
//! text with its length before it: so that the same values have the same hash in Parquet and in CSV. A missing value, NaN and an empty text are the same, as are
//! `true` and 1. Up to [`MOST`] different rows every hash is kept, beyond it those that begin with so many zero bits: an evaluation then looks at the rows
//! whose hashes do, too, one in 2, 4, 8, …

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Error, Result,
    table::{Cell, Kind, Source, Table},
};
use crate::stats::sketch::HashSketch;

/// The file's name, in the version's directory.
pub const FILE: &str = "perennial-rows.bin";
/// Different rows of a version that are told apart exactly (8 MiB); several datasets share them.
pub const MOST: usize = 1 << 20;
/// Of the file's format.
const FORMAT: u32 = 1;
/// Length of a cell that is missing.
const MISSING: u32 = u32::MAX;

/// By what rows are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The columns that identify a row.
    Key,
    /// All columns.
    Row,
}

/// The rows of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowSet {
    /// The dataset's name.
    pub dataset: String,
    /// By what they are told apart.
    pub by: By,
    /// The columns, in the order of their names.
    pub columns: Vec<String>,
    /// Rows that there were.
    pub rows: u64,
    /// Zero bits that each hash begins with.
    pub zeros: u32,
    /// Hashes that there are.
    hashes: usize,
    #[serde(skip)]
    kept: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    sets: Vec<RowSet>,
}

/// Rows of another table that are among those of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// How many.
    pub rows: u64,
    /// The first, from 1.
    pub first: Option<u64>,
}

/// A cell as it is hashed; `false` if it is missing.
fn canonical(cell: Cell<'_>, text: &mut String) -> bool {
    text.clear();
    let written = match cell {
        Cell::Null => return false,
        Cell::Number(x) if x.is_nan() => return false,
        // -0 is 0.
        Cell::Number(x) => write!(text, "{}", x + 0.0),
        Cell::Boolean(x) => write!(text, "{}", u8::from(x)),
        other => write!(text, "{other}"),
    };
    written.is_ok() && !text.is_empty()
}

/// The hash of a row; `None` if all of its cells are missing.
fn hash(batch: &Table, places: &[usize], row: usize, text: &mut String) -> Option<u64> {
    let mut hasher = Sha256::new();
    let mut any = false;
    for &place in places {
        if canonical(batch.columns[place].values.cell(row), text) {
            any = true;
            let length = u32::try_from(text.len()).unwrap_or(MISSING - 1);
            hasher.update(length.to_le_bytes());
            hasher.update(text.as_bytes());
        } else {
            hasher.update(MISSING.to_le_bytes());
        }
    }
    let digest = hasher.finalize();
    let (first, _) = digest.split_first_chunk::<8>()?;
    any.then(|| u64::from_le_bytes(*first))
}

/// The rows of a dataset: as a whole, and by `key` where there is one. At most `most` hashes of each are kept.
///
/// # Errors
/// If the table can't be read, or has no such column.
pub fn record(
    dataset: &str,
    source: &Source,
    key: Option<&[String]>,
    most: usize,
) -> Result<Vec<RowSet>> {
    let readable = source.fields().iter().filter(|f| f.kind != Kind::Other);
    let mut all: Vec<&str> = readable.map(|f| f.name.as_str()).collect();
    all.sort_unstable();
    let mut sets = vec![(By::Row, (0..all.len()).collect::<Vec<usize>>())];
    if let Some(key) = key {
        let mut places = Vec::with_capacity(key.len());
        for name in key {
            let field = source.field(name)?;
            let place = all.binary_search(&field.name.as_str());
            places.push(place.map_err(|_| {
                Error::Content(format!(
                    "key `{name}` holds lists, objects or bytes: a key is one value"
                ))
            })?);
        }
        places.sort_unstable();
        places.dedup();
        sets.push((By::Key, places));
    }
    let mut sketches: Vec<HashSketch> = sets.iter().map(|_| HashSketch::new(most)).collect();
    let mut text = String::new();
    source.scan(&all, |batch| {
        for row in 0..batch.rows {
            for ((_, places), sketch) in sets.iter().zip(&mut sketches) {
                if let Some(hash) = hash(batch, places, row, &mut text) {
                    sketch.add(hash);
                }
            }
        }
        Ok(())
    })?;
    let set = |((by, places), mut sketch): ((By, Vec<usize>), HashSketch)| {
        let zeros = sketch.zeros();
        let kept = sketch.into_sorted();
        RowSet {
            dataset: dataset.to_owned(),
            by,
            columns: places.iter().map(|&place| all[place].to_owned()).collect(),
            rows: source.rows(),
            zeros,
            hashes: kept.len(),
            kept,
        }
    };
    Ok(sets.into_iter().zip(sketches).map(set).collect())
}

/// The file with these sets.
///
/// # Errors
/// If their names can't be written as JSON, which does not happen.
pub fn write(sets: &[RowSet]) -> Result<Vec<u8>> {
    let header = Header {
        format: FORMAT,
        sets: sets.to_vec(),
    };
    let mut bytes = serde_json::to_vec(&header)
        .map_err(|e| Error::Content(format!("{FILE} can't be written: {e}")))?;
    bytes.push(b'\n');
    let hashes = sets.iter().flat_map(|set| &set.kept);
    bytes.extend(hashes.flat_map(|hash| hash.to_le_bytes()));
    Ok(bytes)
}

/// What a file holds.
///
/// # Errors
/// If it isn't one, or is of another format.
pub fn parse(bytes: &[u8]) -> Result<Vec<RowSet>> {
    let wrong = |what: &str| Error::Content(format!("{FILE} {what}"));
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, mut rest) = bytes.split_at(end.ok_or_else(|| wrong("has no first line"))?);
    let header: Header = serde_json::from_slice(head)
        .map_err(|e| wrong(&format!("has a first line that can't be read: {e}")))?;
    if header.format != FORMAT {
        return Err(wrong(&format!(
            "is of the format {}, and this version reads {FORMAT}: upgrade the operator, or train anew",
            header.format
        )));
    }
    rest = &rest[1..];
    let mut sets = header.sets;
    for set in &mut sets {
        let length = set.hashes.checked_mul(8).filter(|n| *n <= rest.len());
        let (own, others) = rest.split_at(length.ok_or_else(|| wrong("is cut off"))?);
        rest = others;
        let (chunks, _) = own.as_chunks::<8>();
        set.kept = chunks.iter().map(|c| u64::from_le_bytes(*c)).collect();
        if !set.kept.is_sorted() || set.zeros > u64::BITS {
            return Err(wrong("has hashes that aren't in their order"));
        }
    }
    match rest {
        [] => Ok(sets),
        _ => Err(wrong("has more in it than its first line says")),
    }
}

impl RowSet {
    /// Whether it is told by these columns, in any order.
    #[must_use]
    pub fn is_by(&self, key: &[String]) -> bool {
        let mut key: Vec<&String> = key.iter().collect();
        key.sort_unstable();
        key.dedup();
        self.by == By::Key && self.columns.iter().collect::<Vec<_>>() == key
    }

    /// Which rows of a table are in it: of those that it looks at, one in 2^`zeros`.
    ///
    /// # Errors
    /// If the table can't be read, or lacks a column.
    pub fn overlap(&self, source: &Source) -> Result<Overlap> {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let places: Vec<usize> = (0..columns.len()).collect();
        let (mut found, mut at, mut text) = (Overlap::default(), 0, String::new());
        source.scan(&columns, |batch| {
            for row in 0..batch.rows {
                at += 1;
                let hash = hash(batch, &places, row, &mut text);
                if hash.is_some_and(|hash| self.kept.binary_search(&hash).is_ok()) {
                    found.rows += 1;
                    found.first.get_or_insert(at);
                }
            }
            Ok(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(root: &std::path::Path, name: &str, text: &str) -> Source {
        let path = root.join(name);
        std::fs::write(&path, text).unwrap();
        Source::open(&path, None).unwrap()
    }

    #[test]
    fn a_row_is_found_by_its_values_however_they_are_written_and_by_its_key_whatever_else_it_holds()
    {
        let root = tempfile::tempdir().unwrap();
        let trained = source(
            root.path(),
            "train.csv",
            "id,x,late,at\n1,0.5,true,2013-01-01T00:00:00Z\n2,,false,2013-01-02T00:00:00Z\n3,-0.0,false,2013-01-03T00:00:00Z\n",
        );
        let key = vec!["id".to_owned()];
        let bytes = write(&record("train", &trained, Some(&key), MOST).unwrap()).unwrap();
        let sets = parse(&bytes).unwrap();
        assert_eq!((sets[0].by, sets[1].by), (By::Row, By::Key));
        assert!(sets[1].is_by(&key) && !sets[0].is_by(&key));
        let line = |id: u32, x: &str, late: &str, day: u32| {
            format!(
                "{{\"at\": \"2013-01-0{day}T00:00:00Z\", \"late\": {late}, \"x\": {x}, \"id\": {id}}}\n"
            )
        };
        for (what, text, by_row, by_key) in [
            (
                "another order of columns, another format",
                line(9, "1", "true", 1) + &line(1, "0.5", "true", 1),
                Some(2),
                Some(2),
            ),
            (
                "a missing value",
                line(2, "null", "false", 2),
                Some(1),
                Some(1),
            ),
            ("0 and -0", line(3, "0", "false", 3), Some(1), Some(1)),
            (
                "another value in a known row",
                line(1, "0.6", "true", 1),
                None,
                Some(1),
            ),
            (
                "a known row under another key",
                line(4, "0.5", "true", 1),
                None,
                None,
            ),
        ] {
            let measured = source(root.path(), "holdout.jsonl", &text);
            let found = |set: &RowSet| set.overlap(&measured).unwrap().first;
            assert_eq!(
                (found(&sets[0]), found(&sets[1])),
                (by_row, by_key),
                "{what}"
            );
        }
    }

    #[test]
    fn beyond_the_bound_a_share_of_the_rows_is_looked_at_and_found() {
        let root = tempfile::tempdir().unwrap();
        let rows: String = (0..4000).map(|i| format!("{i}\n")).collect();
        let trained = source(root.path(), "train.csv", &format!("id\n{rows}"));
        let set = record("train", &trained, None, 500).unwrap().remove(0);
        assert!(set.zeros >= 3 && set.kept.len() <= 500, "{}", set.zeros);
        let found = set.overlap(&trained).unwrap().rows;
        assert_eq!(found, set.kept.len() as u64);
        let scaled = found as f64 * 2f64.powi(set.zeros as i32);
        assert!((scaled / 4000.0 - 1.0).abs() < 0.25, "{scaled}");
        let other = source(root.path(), "other.csv", "id\n4001\n4002\n");
        assert_eq!(set.overlap(&other).unwrap(), Overlap::default());
    }

    #[test]
    fn rows_without_a_key_are_nobodys() {
        let root = tempfile::tempdir().unwrap();
        let trained = source(root.path(), "train.csv", "id,x\n,1\n7,2\n");
        let key = vec!["id".to_owned()];
        let sets = record("train", &trained, Some(&key), MOST).unwrap();
        let measured = source(root.path(), "holdout.csv", "id,x\n,5\n8,2\n");
        assert_eq!(sets[1].overlap(&measured).unwrap(), Overlap::default());
    }

    #[test]
    fn a_broken_file_is_a_sentence() {
        let root = tempfile::tempdir().unwrap();
        let trained = source(root.path(), "train.csv", "id\n1\n2\n");
        let good = write(&record("train", &trained, None, MOST).unwrap()).unwrap();
        assert!(parse(&good).is_ok());
        let long = [good.as_slice(), &[0]].concat();
        let other = String::from_utf8_lossy(&good).replace("\"format\":1", "\"format\":2");
        for (bytes, word) in [
            (&b""[..], "no first line"),
            (&good[..good.len() - 1], "cut off"),
            (&long, "more in it"),
            (b"{}\n", "can't be read"),
            (other.as_bytes(), "format 2"),
        ] {
            let said = parse(bytes).unwrap_err().to_string();
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
