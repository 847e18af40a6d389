//! Rows: a sketch per known column, and what arrived that isn't known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cell, ColumnKind, ColumnSketch, KindMismatch};

/// At most this many columns are sketched.
pub const MAX_COLUMNS: usize = 200;

/// At most this many names of unknown columns are kept (the first in alphabetical order).
pub const MAX_UNKNOWN: usize = 50;

/// A mergeable summary of rows with known columns: what the gateway keeps of requests, by revision and minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowSketch {
    /// Rows seen.
    pub rows: u64,
    /// The known columns.
    pub columns: BTreeMap<String, ColumnSketch>,
    /// Columns that arrived and aren't known, with the number of rows that had them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, u64>,
}

impl RowSketch {
    /// An empty sketch of these columns; those beyond [`MAX_COLUMNS`] are left out.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, ColumnKind)>) -> Self {
        let columns = columns
            .into_iter()
            .take(MAX_COLUMNS)
            .map(|(name, kind)| (name.to_string(), ColumnSketch::new(kind)))
            .collect();
        Self {
            rows: 0,
            columns,
            unknown: BTreeMap::new(),
        }
    }

    /// Adds one row, given as the columns that it has. A column that the row lacks isn't a null: it wasn't observed.
    pub fn add<'a>(&mut self, row: impl IntoIterator<Item = (&'a str, Cell<'a>)>) {
        self.rows += 1;
        for (name, cell) in row {
            match self.columns.get_mut(name) {
                Some(column) => column.add(cell),
                None => self.note_unknown(name, 1),
            }
        }
    }

    /// Adds all that `other` has seen; columns that only `other` has are taken over.
    ///
    /// # Errors
    /// If a column is numeric here and categorical there; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), KindMismatch> {
        for (name, theirs) in &other.columns {
            if let Some(ours) = self.columns.get(name)
                && ours.kind() != theirs.kind()
            {
                return Err(KindMismatch(ours.kind(), theirs.kind()));
            }
        }
        self.rows += other.rows;
        for (name, theirs) in &other.columns {
            match self.columns.get_mut(name) {
                Some(ours) => ours.merge(theirs)?,
                None => {
                    self.columns.insert(name.clone(), theirs.clone());
                }
            }
        }
        for (name, &count) in &other.unknown {
            self.note_unknown(name, count);
        }
        Ok(())
    }

    /// Keeps at most so many buckets of each column of numbers.
    pub(crate) fn coarsen(&mut self, most: usize) {
        for column in self.columns.values_mut() {
            if let ColumnSketch::Numeric { values, .. } = column {
                values.coarsen_to(most);
            }
        }
    }

    fn note_unknown(&mut self, name: &str, count: u64) {
        // The first names in order: those kept are counted exactly, whatever the order of arrival.
        if self.unknown.len() >= MAX_UNKNOWN
            && !self.unknown.contains_key(name)
            && self
                .unknown
                .last_key_value()
                .is_some_and(|(last, _)| last.as_str() < name)
        {
            return;
        }
        let name: String = name.chars().take(64).collect();
        *self.unknown.entry(name).or_default() += count;
        if self.unknown.len() > MAX_UNKNOWN {
            self.unknown.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> RowSketch {
        RowSketch::new([
            ("temp", ColumnKind::Numeric),
            ("carrier", ColumnKind::Categorical),
        ])
    }

    #[test]
    fn a_missing_column_is_not_a_null_and_an_unknown_one_is_named() {
        let mut s = empty();
        s.add([("temp", Cell::Number(20.0)), ("carrier", Cell::Text("UA"))]);
        s.add([("temp", Cell::Null), ("humidity", Cell::Number(0.5))]);
        assert_eq!(s.rows, 2);
        assert_eq!(
            (s.columns["temp"].samples(), s.columns["temp"].nulls()),
            (1, 1)
        );
        assert_eq!(
            (s.columns["carrier"].samples(), s.columns["carrier"].nulls()),
            (1, 0)
        );
        assert_eq!(s.unknown["humidity"], 1);
    }

    #[test]
    fn unknown_columns_are_bounded_and_do_not_depend_on_order() {
        let names: Vec<String> = (0..200).map(|i| format!("x{i:03}")).collect();
        let (mut forward, mut backward) = (empty(), empty());
        for name in &names {
            forward.add([(name.as_str(), Cell::Null)]);
        }
        for name in names.iter().rev() {
            backward.add([(name.as_str(), Cell::Null)]);
        }
        assert_eq!(forward, backward);
        assert_eq!(forward.unknown.len(), MAX_UNKNOWN);
    }

    #[test]
    fn merging_rows_of_two_replicas_is_the_same_as_one() {
        let (mut a, mut b, mut whole) = (empty(), empty(), empty());
        for i in 0..1000 {
            let carrier = format!("C{}", i % 7);
            let row = [
                ("temp", Cell::Number(f64::from(i) / 3.0)),
                ("carrier", Cell::Text(&carrier)),
            ];
            if i % 3 == 0 {
                a.add(row)
            } else {
                b.add(row)
            }
            whole.add(row);
        }
        b.merge(&a).unwrap();
        assert_eq!(
            serde_json::to_string(&b).unwrap(),
            serde_json::to_string(&whole).unwrap()
        );
    }
}
