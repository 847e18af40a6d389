//! The checks of a dataset: what must hold before anything is trained on it.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::{
    api::training_job::{Check, ColumnType},
    data::{
        Result,
        table::{Cell, Kind, Source},
    },
};

/// Failures that are told one by one; the rest is counted.
const TOLD: usize = 10;

/// A check of a column and what it has seen.
struct Watch<'a> {
    check: &'a Check,
    column: usize,
    wrong_type: u64,
    nulls: u64,
    low: Seen,
    high: Seen,
    not_numeric: bool,
    unknown: Seen,
    seen: HashSet<[u8; 16]>,
    twice: Seen,
}

/// How many, and the first.
#[derive(Default)]
struct Seen {
    count: u64,
    first: Option<(String, u64)>,
}

impl Seen {
    fn add(&mut self, cell: Cell<'_>, row: u64) {
        self.count += 1;
        self.first.get_or_insert_with(|| {
            (
                super::board::shorten(&cell.to_string(), 60),
                // As people count.
                row + 1,
            )
        });
    }

    fn tell(&self, rows: u64, what: &str) -> Option<String> {
        let (value, row) = self.first.as_ref()?;
        Some(format!(
            "{} of {rows} values {what} (the first: `{value}` in row {row})",
            self.count
        ))
    }
}

/// What does not hold, one sentence each; empty if all is well.
///
/// # Errors
/// If the table can't be read. A column that isn't there is a failure of the check, not an error.
pub fn run(source: &Source, checks: &[Check]) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    let mut watches = Vec::new();
    for check in checks {
        if let Some(bounds) = &check.rows {
            let rows = source.rows();
            let few = bounds.min.filter(|&min| i128::from(rows) < i128::from(min));
            let many = bounds.max.filter(|&max| i128::from(rows) > i128::from(max));
            if let Some(min) = few {
                failures.push(format!(
                    "it has {rows} rows, and should have at least {min}"
                ));
            }
            if let Some(max) = many {
                failures.push(format!("it has {rows} rows, and should have at most {max}"));
            }
        }
        let Some(name) = check.column.as_deref() else {
            continue;
        };
        match source.field(name) {
            Err(error) => failures.push(error.to_string()),
            Ok(field) if field.kind == Kind::Other => failures.push(format!(
                "column `{name}` holds {}, which can't be checked",
                field.kind
            )),
            Ok(_) => {
                let column = columns.iter().position(|c| *c == name).unwrap_or_else(|| {
                    columns.push(name);
                    columns.len() - 1
                });
                watches.push(Watch {
                    check,
                    column,
                    wrong_type: 0,
                    nulls: 0,
                    low: Seen::default(),
                    high: Seen::default(),
                    not_numeric: false,
                    unknown: Seen::default(),
                    seen: HashSet::new(),
                    twice: Seen::default(),
                });
            }
        }
    }
    if !columns.is_empty() {
        let mut start = 0;
        source.scan(&columns, |batch| {
            for watch in &mut watches {
                let values = &batch.columns[watch.column].values;
                for row in 0..batch.rows {
                    watch.see(values.cell(row), start + row as u64);
                }
            }
            start += batch.rows as u64;
            Ok(())
        })?;
    }
    for watch in &watches {
        watch.tell(source, &mut failures);
    }
    Ok(failures)
}

/// All failures as one sentence; `None` if there are none.
#[must_use]
pub fn sentence(dataset: &str, failures: &[String]) -> Option<String> {
    if failures.is_empty() {
        return None;
    }
    let mut told = failures
        .iter()
        .take(TOLD)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if failures.len() > TOLD {
        told += &format!("; and {} more", failures.len() - TOLD);
    }
    Some(format!("dataset `{dataset}` fails its checks: {told}"))
}

impl Watch<'_> {
    fn see(&mut self, cell: Cell<'_>, row: u64) {
        if cell.is_missing() {
            self.nulls += 1;
            return;
        }
        let check = self.check;
        if let Some(kind) = check.kind {
            let fits = match kind {
                ColumnType::Number => matches!(cell, Cell::Integer(_) | Cell::Number(_)),
                ColumnType::String => matches!(cell, Cell::Text(_)),
                ColumnType::Boolean => matches!(cell, Cell::Boolean(_)),
                ColumnType::Time => matches!(cell, Cell::Time(_)),
            };
            self.wrong_type += u64::from(!fits);
        }
        if let Some(range) = &check.range {
            let number = match cell {
                Cell::Integer(x) => Some(x as f64),
                Cell::Number(x) => Some(x),
                _ => None,
            };
            match number {
                None => self.not_numeric = true,
                Some(x) if range.min.is_some_and(|min| x < min) => self.low.add(cell, row),
                Some(x) if range.max.is_some_and(|max| x > max) => self.high.add(cell, row),
                Some(_) => {}
            }
        }
        if let Some(allowed) = &check.one_of {
            let known = match cell {
                Cell::Text(text) => allowed.iter().any(|a| a == text),
                _ => allowed.contains(&cell.to_string()),
            };
            if !known {
                self.unknown.add(cell, row);
            }
        }
        if check.unique == Some(true) {
            let digest = Sha256::digest(cell.to_string());
            let mut key = [0; 16];
            key.copy_from_slice(&digest[..16]);
            if !self.seen.insert(key) {
                self.twice.add(cell, row);
            }
        }
    }

    fn tell(&self, source: &Source, failures: &mut Vec<String>) {
        let check = self.check;
        let name = check.column.as_deref().unwrap_or_default();
        let rows = source.rows();
        let mut fail = |text: String| failures.push(format!("column `{name}`: {text}"));
        if let Some(kind) = check.kind
            && self.wrong_type > 0
        {
            let found = source.field(name).map_or(Kind::Other, |f| f.kind);
            fail(format!("it holds {found}, not {kind:?}"));
        }
        if let Some(most) = check.max_null_fraction {
            let share = if rows == 0 {
                0.0
            } else {
                self.nulls as f64 / rows as f64
            };
            if share > most {
                fail(format!(
                    "{} of {rows} values ({:.2} %) are missing, more than {} %",
                    self.nulls,
                    share * 100.0,
                    most * 100.0
                ));
            }
        }
        if self.not_numeric {
            fail(
                "it isn't numeric, so that `range` says nothing: use oneOf, or take range out"
                    .to_owned(),
            );
        }
        let bound = |x: Option<f64>| x.unwrap_or(f64::NAN);
        if let Some(range) = &check.range {
            let low = self
                .low
                .tell(rows, &format!("are below {}", bound(range.min)));
            let high = self
                .high
                .tell(rows, &format!("are above {}", bound(range.max)));
            low.into_iter().chain(high).for_each(&mut fail);
        }
        if let Some(allowed) = &check.one_of {
            let allowed = super::board::shorten(&allowed.join(", "), 200);
            let unknown = self.unknown.tell(rows, &format!("are none of {allowed}"));
            unknown.into_iter().for_each(&mut fail);
        }
        let twice = self.twice.tell(rows, "occur more than once");
        twice.into_iter().for_each(&mut fail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::table::Source;

    fn failures(checks: serde_json::Value) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.csv");
        std::fs::write(
            &path,
            "id,temp,origin\n1,20.5,EWR\n2,,JFK\n2,-30,XXX\n4,500,LGA\n",
        )
        .unwrap();
        let checks: Vec<Check> = serde_json::from_value(checks).unwrap();
        run(&Source::open(&path, None).unwrap(), &checks).unwrap()
    }

    #[test]
    fn data_that_is_as_it_should_be_passes() {
        let none = failures(serde_json::json!([
            {"rows": {"min": 4, "max": 4}},
            {"column": "temp", "type": "Number", "maxNullFraction": 0.25, "range": {"min": -30, "max": 500}},
            {"column": "origin", "type": "String", "oneOf": ["EWR", "JFK", "LGA", "XXX"], "unique": true},
        ]));
        assert_eq!(none, Vec::<String>::new());
        assert_eq!(sentence("train", &none), None);
    }

    #[test]
    fn what_does_not_hold_is_said_with_counts() {
        for (check, word) in [
            (
                r#"{"rows": {"min": 10}}"#,
                "4 rows, and should have at least 10",
            ),
            (
                r#"{"column": "temp", "maxNullFraction": 0.1}"#,
                "1 of 4 values (25.00 %) are missing, more than 10 %",
            ),
            (
                r#"{"column": "temp", "range": {"min": -20}}"#,
                "1 of 4 values are below -20 (the first: `-30` in row 3)",
            ),
            (
                r#"{"column": "temp", "range": {"max": 120}}"#,
                "1 of 4 values are above 120",
            ),
            (
                r#"{"column": "origin", "oneOf": ["EWR", "JFK", "LGA"]}"#,
                "1 of 4 values are none of EWR, JFK, LGA (the first: `XXX` in row 3)",
            ),
            (
                r#"{"column": "id", "unique": true}"#,
                "1 of 4 values occur more than once (the first: `2` in row 3)",
            ),
            (
                r#"{"column": "origin", "type": "Number"}"#,
                "column `origin`: it holds text, not Number",
            ),
            (
                r#"{"column": "origin", "range": {"min": 0}}"#,
                "isn't numeric",
            ),
            (r#"{"column": "nope", "unique": true}"#, "no column `nope`"),
        ] {
            let found = failures(serde_json::from_str(&format!("[{check}]")).unwrap());
            assert_eq!(found.len(), 1, "{check}: {found:?}");
            assert!(found[0].contains(word), "{check}: {found:?}");
        }
    }
}
