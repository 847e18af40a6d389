//! One column: numbers or categories, what was null, and what was of another type.

use serde::{Deserialize, Serialize};

use super::{CategorySketch, NumericSketch};

/// How a column is compared: by the order of its values, or by the shares of its categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ColumnKind {
    /// Numbers: integers and floats.
    Numeric,
    /// Strings, booleans, and codes that happen to be numbers.
    Categorical,
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Missing.
    Null,
    /// `true` or `false`: a category.
    Bool(bool),
    /// Any number, also NaN and infinities.
    Number(f64),
    /// A string: a category.
    Text(&'a str),
}

impl Cell<'_> {
    /// The category that this cell is; whole numbers are written without a fraction. `None`: null or NaN.
    #[must_use]
    pub fn category(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Null => None,
            Self::Number(x) if x.is_nan() => None,
            Self::Bool(true) => Some("true".into()),
            Self::Bool(false) => Some("false".into()),
            Self::Number(x) => Some(format!("{}", x + 0.0).into()), // -0.0 is 0
            Self::Text(text) => Some((*text).into()),
        }
    }
}

/// A mergeable summary of one column whose kind is known: from a profile, a signature or a file's schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum ColumnSketch {
    /// A column of numbers.
    Numeric {
        /// The numbers.
        values: NumericSketch,
        /// Nulls.
        nulls: u64,
        /// Values that were no numbers.
        type_changes: u64,
    },
    /// A column of categories.
    Categorical {
        /// The categories.
        values: CategorySketch,
        /// Nulls and NaNs.
        nulls: u64,
    },
}

/// Two sketches of one column that disagree whether it is numeric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sketch of a {0:?} column can't be merged with one of a {1:?} column")]
pub struct KindMismatch(pub ColumnKind, pub ColumnKind);

impl ColumnSketch {
    /// An empty sketch.
    #[must_use]
    pub fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Numeric => Self::Numeric {
                values: NumericSketch::default(),
                nulls: 0,
                type_changes: 0,
            },
            ColumnKind::Categorical => Self::Categorical {
                values: CategorySketch::default(),
                nulls: 0,
            },
        }
    }

    /// Adds one value. A string or boolean in a numeric column is counted as a change of type.
    pub fn add(&mut self, cell: Cell<'_>) {
        match self {
            Self::Numeric {
                values,
                nulls,
                type_changes,
            } => match cell {
                Cell::Null => *nulls += 1,
                Cell::Number(x) => values.add(x),
                Cell::Bool(_) | Cell::Text(_) => *type_changes += 1,
            },
            Self::Categorical { values, nulls } => match cell.category() {
                None => *nulls += 1,
                Some(name) => values.add(&name),
            },
        }
    }

    /// Adds all that `other` has seen.
    ///
    /// # Errors
    /// If one is numeric and the other categorical; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), KindMismatch> {
        match (&mut *self, other) {
            (
                Self::Numeric {
                    values,
                    nulls,
                    type_changes,
                },
                Self::Numeric {
                    values: more,
                    nulls: more_nulls,
                    type_changes: more_changes,
                },
            ) => {
                values.merge(more);
                *nulls += more_nulls;
                *type_changes += more_changes;
                Ok(())
            }
            (
                Self::Categorical { values, nulls },
                Self::Categorical {
                    values: more,
                    nulls: more_nulls,
                },
            ) => {
                values.merge(more);
                *nulls += more_nulls;
                Ok(())
            }
            (a, b) => Err(KindMismatch(a.kind(), b.kind())),
        }
    }

    /// Numeric or categorical.
    #[must_use]
    pub fn kind(&self) -> ColumnKind {
        match self {
            Self::Numeric { .. } => ColumnKind::Numeric,
            Self::Categorical { .. } => ColumnKind::Categorical,
        }
    }

    /// Values that count: finite numbers, or categories.
    #[must_use]
    pub fn samples(&self) -> u64 {
        match self {
            Self::Numeric { values, .. } => values.count(),
            Self::Categorical { values, .. } => values.count(),
        }
    }

    /// Nulls and NaNs.
    #[must_use]
    pub fn nulls(&self) -> u64 {
        match self {
            Self::Numeric { values, nulls, .. } => nulls + values.nan(),
            Self::Categorical { nulls, .. } => *nulls,
        }
    }

    /// Values of another type than the column's.
    #[must_use]
    pub fn type_changes(&self) -> u64 {
        match self {
            Self::Numeric { type_changes, .. } => *type_changes,
            Self::Categorical { .. } => 0,
        }
    }

    /// The numbers, if it is numeric.
    #[must_use]
    pub fn numeric(&self) -> Option<&NumericSketch> {
        match self {
            Self::Numeric { values, .. } => Some(values),
            Self::Categorical { .. } => None,
        }
    }

    /// The categories, if it is categorical.
    #[must_use]
    pub fn categorical(&self) -> Option<&CategorySketch> {
        match self {
            Self::Numeric { .. } => None,
            Self::Categorical { values, .. } => Some(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_values_of_another_type_are_counted_not_dropped() {
        let mut s = ColumnSketch::new(ColumnKind::Numeric);
        for cell in [
            Cell::Number(1.0),
            Cell::Null,
            Cell::Number(f64::NAN),
            Cell::Text("1"),
            Cell::Bool(true),
        ] {
            s.add(cell);
        }
        assert_eq!((s.samples(), s.nulls(), s.type_changes()), (1, 2, 2));
    }

    #[test]
    fn numbers_and_booleans_are_categories_of_a_categorical_column() {
        let mut s = ColumnSketch::new(ColumnKind::Categorical);
        for cell in [
            Cell::Number(3.0),
            Cell::Text("3"),
            Cell::Bool(true),
            Cell::Number(-0.0),
            Cell::Null,
        ] {
            s.add(cell);
        }
        let values = s.categorical().unwrap();
        assert_eq!(
            (values.get("3"), values.get("true"), values.get("0")),
            (Some(2), Some(1), Some(1))
        );
        assert_eq!(s.nulls(), 1);
    }

    #[test]
    fn sketches_of_different_kinds_are_not_merged() {
        let mut a = ColumnSketch::new(ColumnKind::Numeric);
        let error = a
            .merge(&ColumnSketch::new(ColumnKind::Categorical))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "a sketch of a Numeric column can't be merged with one of a Categorical column"
        );
    }

    #[test]
    fn a_sketch_is_written_and_read_back() {
        let mut s = ColumnSketch::new(ColumnKind::Numeric);
        s.add(Cell::Number(0.1));
        s.add(Cell::Text("x"));
        let text = serde_json::to_string(&s).unwrap();
        assert!(
            text.starts_with(r#"{"kind":"Numeric","values":"#) && text.contains("typeChanges"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ColumnSketch>(&text).unwrap(), s);
    }
}
