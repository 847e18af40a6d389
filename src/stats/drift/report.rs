//! Drift of several columns.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Method, Pair, Sample};
use crate::stats::sketch::ColumnKind;

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

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnReport {
    /// The column.
    pub column: String,
    /// Numeric or categorical, as in the reference.
    pub kind: ColumnKind,
    /// How it was compared; absent if it couldn't be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The distance, or the p-value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The p-value, of a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
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
    /// Drifted columns / columns with a result; absent if there are none, which isn't "no drift".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_share: Option<f64>,
    /// Whether the share reached the bound.
    pub drifted: bool,
}

/// Compares columns `(name, reference, current)`: by `method`, or by [`Method::choose`]; `thresholds` by column with `"*"` for the others, else
/// the method's own; the data set has drifted when at least `share` of the columns have (Evidently: 0.5). A column without values on a side, or with
/// another type, has no score and isn't in the share.
pub fn compare_columns<'a>(
    columns: impl IntoIterator<Item = (&'a str, &'a Sample, &'a Sample)>,
    method: Option<Method>,
    thresholds: &BTreeMap<String, f64>,
    share: f64,
) -> Report {
    let columns: Vec<ColumnReport> = columns
        .into_iter()
        .map(|(name, reference, current)| {
            let threshold = thresholds
                .get(name)
                .or_else(|| thresholds.get("*"))
                .copied();
            compare(name, reference, current, method, threshold)
        })
        .collect();
    let compared = columns.iter().filter(|c| c.score.is_some()).count();
    let drifted = columns.iter().filter(|c| c.drifted).count();
    let drift_share = (compared > 0).then(|| drifted as f64 / compared as f64);
    Report {
        drifted: drift_share.is_some_and(|s| s >= share),
        columns,
        drift_share,
    }
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
        kind: reference.kind(),
        method: None,
        score: None,
        p_value: None,
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
    let method = method.unwrap_or_else(|| Method::choose(&pair));
    match method.compare(&pair, threshold) {
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
