//! Drift of several columns.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Method, Pair, Sample, domain_classifier};
use crate::stats::sketch::{ColumnKind, MAX_BUCKETS, MAX_CATEGORIES};

/// One side of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SideReport {
    /// Values that count.
    pub count: usize,
    /// Missing values.
    pub nulls: usize,
    /// Infinite values.
    #[serde(skip_serializing_if = "is_zero")]
    pub infinite: usize,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl From<&Sample> for SideReport {
    fn from(sample: &Sample) -> Self {
        Self {
            count: sample.used(),
            nulls: sample.missing(),
            infinite: sample.infinite(),
        }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ReportKind {
    /// Numbers.
    Numeric,
    /// Categories.
    Categorical,
    /// Vectors.
    Embedding,
    /// Texts that are hardly ever the same.
    Text,
}

impl From<ColumnKind> for ReportKind {
    fn from(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Numeric => Self::Numeric,
            ColumnKind::Categorical => Self::Categorical,
        }
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnReport {
    /// The column.
    pub column: String,
    /// What it holds in the reference.
    pub kind: ReportKind,
    /// How it was compared; absent if it couldn't be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The distance, or the p-value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The p-value, of a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The p-value after Holm's correction over all columns that a test compared (Holm 1979), where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjusted_p_value: Option<f64>,
    /// What the score was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Whether it drifted; `false` with a `message` says nothing.
    pub drifted: bool,
    /// The reference.
    pub reference: SideReport,
    /// The current sample.
    pub current: SideReport,
    /// Why there is no score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// All columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The columns as given.
    pub columns: Vec<ColumnReport>,
    /// Drifted columns / columns with a score; absent if there are none, which isn't "no drift".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_share: Option<f64>,
    /// Whether the share reached the bound.
    pub drifted: bool,
    /// What is to be known of the numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    /// Columns with a score.
    #[must_use]
    pub fn compared(&self) -> usize {
        self.columns.iter().filter(|c| c.score.is_some()).count()
    }

    /// Columns that drifted.
    #[must_use]
    pub fn drifted_columns(&self) -> usize {
        self.columns.iter().filter(|c| c.drifted).count()
    }
}

/// A report in the making: columns can be given one after another, and forgotten.
#[derive(Debug)]
pub struct Comparison<'a> {
    method: Option<Method>,
    thresholds: &'a BTreeMap<String, f64>,
    columns: Vec<ColumnReport>,
    rounded: usize,
}

impl<'a> Comparison<'a> {
    /// By `method`, or by [`Method::choose`]; `thresholds` by column with `"*"` for the others, else the method's own.
    #[must_use]
    pub fn new(method: Option<Method>, thresholds: &'a BTreeMap<String, f64>) -> Self {
        Self {
            method,
            thresholds,
            columns: Vec::new(),
            rounded: 0,
        }
    }

    /// Compares a column. Without values on a side, of another type, or where the method's score isn't defined, it has no score and isn't in the share.
    pub fn add(&mut self, name: &str, reference: &Sample, current: &Sample) {
        let threshold = self
            .thresholds
            .get(name)
            .or_else(|| self.thresholds.get("*"));
        let report = compare(name, reference, current, self.method, threshold.copied());
        let rounded = reference.is_rounded() || current.is_rounded();
        self.rounded += usize::from(rounded && report.score.is_some());
        self.columns.push(report);
    }

    /// Compares a column of vectors, or of texts as [`hashed_words`](super::hashed_words), by [`domain_classifier`] with this seed; `sides` say how many rows there were in all.
    pub fn add_vectors(
        &mut self,
        (name, kind): (&str, ReportKind),
        (reference, current): (&[Vec<f64>], &[Vec<f64>]),
        sides: (SideReport, SideReport),
        seed: u64,
    ) {
        let method = Method::DomainClassifier;
        let asked = self.thresholds.get(name);
        let threshold = asked.copied().unwrap_or(method.default_threshold());
        let found = domain_classifier(reference, current, seed);
        self.columns.push(ColumnReport {
            column: name.to_string(),
            kind,
            method: found.map(|_| method),
            score: found.map(|found| found.area),
            p_value: None,
            adjusted_p_value: None,
            threshold: found.map(|_| threshold),
            drifted: found.is_some_and(|found| found.has_drifted(threshold)),
            reference: sides.0,
            current: sides.1,
            message: found.is_none().then(|| {
                "insufficient data: it takes 20 rows a side, of vectors that are equally long"
                    .to_owned()
            }),
        });
    }

    /// The data set has drifted when at least `share` of the columns have (Evidently: 0.5).
    #[must_use]
    pub fn finish(self, share: f64) -> Report {
        let mut report = Report {
            columns: self.columns,
            drift_share: None,
            drifted: false,
            notes: Vec::new(),
        };
        let (compared, drifted) = (report.compared(), report.drifted_columns());
        report.drift_share = (compared > 0).then(|| drifted as f64 / compared as f64);
        report.drifted = report.drift_share.is_some_and(|s| s >= share);
        let note = correct(&mut report.columns);
        report.notes.extend(note);
        if self.rounded > 0 {
            report.notes.push(format!(
                "{} of {compared} columns have more values than are kept: neighbouring numbers are counted together in at most {MAX_BUCKETS} buckets, and the categories beyond {MAX_CATEGORIES} as one",
                self.rounded
            ));
        }
        report
    }
}

/// Corrects the p-values for their number by Holm's step-down rule; says what that changes.
fn correct(columns: &mut [ColumnReport]) -> Option<String> {
    let mut tested: Vec<&mut ColumnReport> =
        columns.iter_mut().filter(|c| c.p_value.is_some()).collect();
    let count = tested.len();
    if count < 2 {
        return None;
    }
    let p = |c: &ColumnReport| c.p_value.unwrap_or(1.0);
    tested.sort_by(|a, b| p(a).total_cmp(&p(b)));
    let mut least = 0.0f64;
    for (i, column) in tested.iter_mut().enumerate() {
        least = least.max((p(column) * (count - i) as f64).min(1.0));
        column.adjusted_p_value = Some(least);
    }
    let chance: f64 = tested.iter().filter_map(|c| c.threshold).sum();
    let found = tested.iter().filter(|c| c.drifted).count();
    let left = tested
        .iter()
        .filter(|c| c.drifted && c.adjusted_p_value <= c.threshold)
        .count();
    Some(format!(
        "{count} columns are compared by tests, each by itself: if nothing had changed, {} of them would be expected to show drift all the same. {found} do; corrected for their number (Holm), {left}",
        (chance * 100.0).round() / 100.0
    ))
}

/// Compares columns `(name, reference, current)`; see [`Comparison`].
pub fn compare_columns<'a>(
    columns: impl IntoIterator<Item = (&'a str, &'a Sample, &'a Sample)>,
    method: Option<Method>,
    thresholds: &BTreeMap<String, f64>,
    share: f64,
) -> Report {
    let mut comparison = Comparison::new(method, thresholds);
    for (name, reference, current) in columns {
        comparison.add(name, reference, current);
    }
    comparison.finish(share)
}

fn compare(
    name: &str,
    reference: &Sample,
    current: &Sample,
    method: Option<Method>,
    threshold: Option<f64>,
) -> ColumnReport {
    let mut report = ColumnReport {
        column: name.to_string(),
        kind: reference.kind().into(),
        method: None,
        score: None,
        p_value: None,
        adjusted_p_value: None,
        threshold: None,
        drifted: false,
        reference: reference.into(),
        current: current.into(),
        message: None,
    };
    let Some(pair) = Pair::new(reference, current) else {
        // A column without values has no type of its own.
        report.message = Some(if reference.used() == 0 || current.used() == 0 {
            let side = if reference.used() == 0 {
                "the reference"
            } else {
                "the current data"
            };
            format!("insufficient data: {side} has no values in {name}")
        } else {
            format!(
                "{name} is {:?} in the reference and {:?} in the current data",
                reference.kind(),
                current.kind()
            )
        });
        return report;
    };
    // Nearly everything would be one category, and alike.
    let pooled = reference.pooled_share().max(current.pooled_share());
    if pooled > 0.5 {
        report.message = Some(format!(
            "{name} has too many categories to compare so many rows: more than half of the values are of others than the {MAX_CATEGORIES} that are kept"
        ));
        return report;
    }
    let method = method.unwrap_or_else(|| Method::choose(&pair));
    match method.compare(&pair, threshold) {
        // A constant column has no chi-square, one value a side no t: that isn't "no drift".
        Ok(outcome) if !outcome.score.is_finite() => {
            report.message = Some(format!(
                "{method:?} isn't defined on this column: {}",
                if pair.distinct() == 1 {
                    "all values are equal"
                } else {
                    "its values are too few or too large"
                }
            ));
        }
        Ok(outcome) => {
            report.method = Some(method);
            report.score = Some(outcome.score);
            report.p_value = outcome.p_value;
            report.threshold = Some(outcome.threshold);
            report.drifted = outcome.drifted;
        }
        Err(unsuited) => report.message = Some(unsuited.to_string()),
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_without_values_or_of_another_type_has_no_score() {
        let numbers = Sample::numbers((0..30).map(|i| Some(f64::from(i))));
        let empty = Sample::numbers([None, Some(f64::NAN), Some(f64::INFINITY)]);
        let words = Sample::categories((0..30).map(|i| Some(if i % 2 == 0 { "a" } else { "b" })));
        let columns = [
            ("x", &numbers, &numbers),
            ("y", &numbers, &empty),
            ("z", &numbers, &words),
        ];
        let report = compare_columns(columns, None, &BTreeMap::new(), 0.5);
        assert_eq!(report.drift_share, Some(0.0));
        let message = |i: usize| report.columns[i].message.clone().unwrap_or_default();
        assert_eq!(
            message(1),
            "insufficient data: the current data has no values in y"
        );
        assert_eq!(
            message(2),
            "z is Numeric in the reference and Categorical in the current data"
        );
        assert_eq!(
            report.columns[1].current,
            SideReport {
                count: 0,
                nulls: 2,
                infinite: 1
            }
        );
        let nothing = compare_columns([("y", &empty, &empty)], None, &BTreeMap::new(), 0.5);
        assert_eq!((nothing.drift_share, nothing.drifted), (None, false));
    }

    #[test]
    fn a_score_that_is_not_defined_is_no_result() {
        let constant = Sample::categories((0..30).map(|_| Some("a")));
        let (a, b) = (Sample::numbers([Some(1.0)]), Sample::numbers([Some(2.0)]));
        let run =
            |method, r, c| compare_columns([("x", r, c)], Some(method), &BTreeMap::new(), 0.5);
        for (report, why) in [
            (
                run(Method::ChiSquare, &constant, &constant),
                "ChiSquare isn't defined on this column: all values are equal",
            ),
            (
                run(Method::G, &constant, &constant),
                "G isn't defined on this column: all values are equal",
            ),
            (
                run(Method::T, &a, &b),
                "T isn't defined on this column: its values are too few or too large",
            ),
        ] {
            let column = &report.columns[0];
            assert_eq!(column.message.as_deref(), Some(why));
            assert_eq!(
                (column.score, column.method, column.drifted),
                (None, None, false)
            );
            assert_eq!((report.drift_share, report.drifted), (None, false));
        }
    }

    #[test]
    fn p_values_are_corrected_for_their_number_and_a_note_says_so() {
        let side = |shift: f64| Sample::numbers((0..200).map(|i| Some(f64::from(i) + shift)));
        let (base, far, near) = (side(0.0), side(150.0), side(27.5));
        let columns = [("a", &base, &far), ("b", &base, &near), ("c", &base, &base)];
        let report = compare_columns(
            columns,
            Some(Method::KolmogorovSmirnov),
            &BTreeMap::new(),
            0.5,
        );
        let p = |i: usize| {
            (
                report.columns[i].p_value.unwrap(),
                report.columns[i].adjusted_p_value.unwrap(),
            )
        };
        assert_eq!(p(0).1, 3.0 * p(0).0);
        assert_eq!(p(1).1, 2.0 * p(1).0);
        assert_eq!(p(2).1, 1.0);
        assert!(p(1).0 < 0.05 && p(1).1 > 0.05 && report.columns[1].drifted);
        assert_eq!(
            report.notes,
            [
                "3 columns are compared by tests, each by itself: if nothing had changed, 0.15 of them would be expected to show drift all the same. 2 do; corrected for their number (Holm), 1"
            ]
        );
        let alone = compare_columns([("a", &base, &far)], None, &BTreeMap::new(), 0.5);
        assert_eq!(
            (alone.columns[0].adjusted_p_value, alone.notes.len()),
            (None, 0)
        );
    }

    #[test]
    fn thresholds_and_methods_can_be_given() {
        let a = Sample::numbers((0..300).map(|i| Some(f64::from(i))));
        let b = Sample::numbers((0..300).map(|i| Some(f64::from(i) + 20.0)));
        let run = |method, threshold: f64| {
            let thresholds = BTreeMap::from([("*".to_string(), threshold)]);
            compare_columns([("x", &a, &b)], Some(method), &thresholds, 0.5)
        };
        assert!(run(Method::Wasserstein, 0.2).drifted && !run(Method::Wasserstein, 0.3).drifted);
        let unsuited = run(Method::Z, 0.05);
        assert_eq!(
            unsuited.columns[0].message.as_deref(),
            Some("Z can't compare this column: it needs at most two values")
        );
        let json = serde_json::to_value(run(Method::Psi, 0.1)).unwrap();
        assert_eq!(
            (
                &json["columns"][0]["method"],
                &json["columns"][0]["reference"]["count"]
            ),
            (&"PSI".into(), &300.into())
        );
    }
}
