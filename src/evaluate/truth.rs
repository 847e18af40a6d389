//! The truth: what kind of label there is, and what of it counts.

use std::collections::BTreeMap;

use super::{column, input_failure, rows::Rows};
use crate::{
    api::evaluation::Evaluator,
    data::table::{Cell, Values},
    supervise::failure::Failure,
};

/// Distinct labels that are looked at; more is no classification.
const MAX_CLASSES: usize = 1000;
/// Classes that are told apart, where none of them is the positive one.
pub const MOST_KINDS: usize = 100;

/// What is predicted.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// One of two classes (or one against the rest).
    Binary {
        /// Whether each row is positive; `None` where the label is missing.
        positive: Vec<Option<bool>>,
        /// All classes, sorted as scikit-learn sorts them, in canonical words.
        classes: Vec<String>,
        /// The positive one.
        name: String,
        /// Probability from which a row is called positive.
        threshold: f64,
    },
    /// One of several classes.
    Multi {
        /// The class of each row, as a place in `classes`; `None` where the label is missing.
        kinds: Vec<Option<usize>>,
        /// All classes, sorted as scikit-learn sorts them, in canonical words.
        classes: Vec<String>,
    },
    /// A number.
    Number(Vec<Option<f64>>),
}

/// A class in words that are the same however it is written: `true`, `1` and `1.0` of a server are told apart from nothing but
/// what the label's own type says.
#[must_use]
pub fn canonical(cell: Cell<'_>) -> String {
    match cell {
        Cell::Boolean(true) => "1".to_owned(),
        Cell::Boolean(false) => "0".to_owned(),
        other => canonical_text(&other.to_string()),
    }
}

/// As [`canonical`], of a word.
#[must_use]
pub fn canonical_text(text: &str) -> String {
    crate::stats::labels::word(text)
}

impl Truth {
    /// The truth of these rows, in this order.
    #[must_use]
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Binary {
                positive,
                classes,
                name,
                threshold,
            } => Self::Binary {
                positive: rows.iter().map(|&row| positive[row]).collect(),
                classes: classes.clone(),
                name: name.clone(),
                threshold: *threshold,
            },
            Self::Multi { kinds, classes } => Self::Multi {
                kinds: rows.iter().map(|&row| kinds[row]).collect(),
                classes: classes.clone(),
            },
            Self::Number(numbers) => Self::Number(rows.iter().map(|&row| numbers[row]).collect()),
        }
    }

    /// Reads the label's column as the evaluators say, or by its type: booleans, and integers that are all 0 or 1, are classes,
    /// other numbers are numbers; of two texts, somebody must say which is positive. Of more than two classes one may be said to be: then it is one against the rest, else
    /// each counts by itself.
    ///
    /// # Errors
    /// `UnknownLabel` if that makes no sense on this data, `EmptyData` if no row has a label.
    pub fn of(rows: &Rows, evaluators: &[Evaluator]) -> Result<Self, Failure> {
        let name = rows.label.as_deref().unwrap_or_default();
        let values = &column(&rows.table, name)?.values;
        let cells = || (0..values.len()).map(|row| values.cell(row));
        if cells().all(|cell| cell.is_missing()) {
            return Err(input_failure(
                "EmptyData",
                format!(
                    "column `{name}` has no label in any of {} rows: there is nothing to compare with",
                    rows.count
                ),
            ));
        }
        let classification = evaluators.iter().find_map(|e| e.classification.as_ref());
        let regression = evaluators.iter().any(|e| e.regression.is_some());
        if classification.is_some() && regression {
            return Err(input_failure(
                "UnknownLabel",
                format!(
                    "column `{name}` can't be both a class and a number: keep classification or regression"
                ),
            ));
        }
        let zero_or_one = |cell: Cell<'_>| matches!(cell, Cell::Null | Cell::Integer(0 | 1));
        let is_class = match values {
            Values::Boolean(_) | Values::Text(_) => true,
            Values::Integer(_) => cells().all(zero_or_one),
            Values::Number(_) | Values::Time(_) => false,
        };
        if regression || (classification.is_none() && !is_class) {
            if matches!(values, Values::Text(_) | Values::Time(_)) {
                return Err(input_failure(
                    "UnknownLabel",
                    format!(
                        "column `{name}` holds {}, and regression needs numbers",
                        values.kind()
                    ),
                ));
            }
            return Ok(Self::Number(cells().map(Cell::number).collect()));
        }
        // The value, sorted by number where it is one, then by text.
        let mut found: BTreeMap<(i64, String), String> = BTreeMap::new();
        for cell in cells().filter(|cell| !cell.is_missing()) {
            let rank = match cell {
                Cell::Integer(x) => x,
                Cell::Boolean(x) => i64::from(x),
                _ => 0,
            };
            found
                .entry((rank, canonical(cell)))
                .or_insert_with(|| cell.to_string());
            if found.len() > MAX_CLASSES {
                return Err(input_failure(
                    "UnknownLabel",
                    format!(
                        "column `{name}` has more than {MAX_CLASSES} different values: that is no class; use the regression evaluator if it is a number"
                    ),
                ));
            }
        }
        let shown = || {
            let all: Vec<&str> = found.values().map(String::as_str).take(10).collect();
            format!(
                "`{}`{}",
                all.join("`, `"),
                if found.len() > 10 { ", …" } else { "" }
            )
        };
        let said = classification.and_then(|c| c.positive.as_deref());
        let positive = canonical_text(said.unwrap_or("1"));
        let mut classes: Vec<String> = found.keys().map(|(_, word)| word.clone()).collect();
        if said.is_none() && classes.len() > 2 {
            if classes.len() > MOST_KINDS {
                return Err(input_failure(
                    "UnknownLabel",
                    format!(
                        "column `{name}` has {} classes, more than the {MOST_KINDS} that are told apart: write which is positive in evaluators: [{{classification: {{positive: …}}}}]",
                        classes.len()
                    ),
                ));
            }
            let place = |cell: Cell<'_>| {
                let word = canonical(cell);
                classes.iter().position(|class| *class == word)
            };
            let kinds = cells().map(|cell| if cell.is_missing() { None } else { place(cell) });
            return Ok(Self::Multi {
                kinds: kinds.collect(),
                classes,
            });
        }
        if !classes.contains(&positive) {
            // All rows may be of the other class; then the metrics that need both are not defined, and say so.
            let implied = matches!(values, Values::Boolean(_)) || classes.iter().all(|c| c == "0");
            if !(implied && matches!(positive.as_str(), "0" | "1")) {
                let write = match said {
                    Some(said) => format!("`{said}` is none of them: correct classification.positive"),
                    None => "which of them is positive? write it in evaluators: [{classification: {positive: …}}]".to_owned(),
                };
                return Err(input_failure(
                    "UnknownLabel",
                    format!("column `{name}` holds {}; {write}", shown()),
                ));
            }
        }
        if matches!(values, Values::Boolean(_)) || classes.iter().all(|c| c == "0" || c == "1") {
            classes = vec!["0".to_owned(), "1".to_owned()];
        }
        let truth = cells().map(|cell| (!cell.is_missing()).then(|| canonical(cell) == positive));
        Ok(Self::Binary {
            positive: truth.collect(),
            classes,
            name: positive,
            threshold: classification.and_then(|c| c.threshold).unwrap_or(0.5),
        })
    }
}
