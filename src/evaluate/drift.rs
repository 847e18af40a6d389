//! Drift of columns against a reference: `driftShare`, `driftedColumns`, and `drift.<column>`, a score in the units of the method that fits the column
//! (a p-value up to 1,000 rows of reference, a distance beyond).

use std::collections::BTreeMap;

use super::{
    chart,
    details::{Details, Distribution},
    input_failure, prediction_columns,
    rows::Loaded,
    wants_drift,
};
use crate::{
    api::{
        evaluation::DriftMethod,
        gate::MetricValue,
        run::{EXIT_INPUT, EvaluationRunSpec, EvaluationTarget},
    },
    data::{
        profile::column_kind,
        table::{Cell, Kind, Source, Values},
    },
    stats::drift::{Method, Report, Sample, compare_columns},
    supervise::failure::Failure,
};

/// Share of columns from which Evidently calls a data set drifted.
const SHARE: f64 = 0.5;
/// Columns that are compared.
const MAX_COLUMNS: usize = 200;

/// How columns are compared.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Only these columns; all that both have when absent.
    pub columns: Option<Vec<String>>,
    /// In this way; by type and size when absent.
    pub method: Option<Method>,
    /// Score from which a column has drifted, by column, `*` for the others.
    pub thresholds: BTreeMap<String, f64>,
    /// Share of columns from which the data has drifted.
    pub share: Option<f64>,
}

/// Compares the columns of two tables.
///
/// # Errors
/// If a column isn't there, or nothing can be compared.
pub fn compare(
    how: &How,
    reference: &Source,
    current: &Source,
    not: &[&str],
) -> Result<(Report, Vec<Distribution>), Failure> {
    let columns = match &how.columns {
        Some(columns) => columns.clone(),
        None => shared(current, reference, not),
    };
    if columns.is_empty() {
        return Err(input_failure(
            "NothingToMeasure",
            "current data and reference have no column in common to compare".to_owned(),
        ));
    }
    let mut samples = Vec::with_capacity(columns.len());
    for name in &columns {
        // Whole numbers on one side and floats on the other are compared as floats.
        let kinds = (
            kind(current, "the data", name)?,
            kind(reference, "the reference", name)?,
        );
        let floats = matches!(
            kinds,
            (Kind::Integer, Kind::Number) | (Kind::Number, Kind::Integer)
        );
        samples.push((
            sample(reference, name, floats)?,
            sample(current, name, floats)?,
        ));
    }
    let pairs = columns
        .iter()
        .zip(&samples)
        .map(|(name, (r, c))| (name.as_str(), r, c));
    let share = how.share.unwrap_or(SHARE);
    let report = compare_columns(pairs, how.method, &how.thresholds, share);
    let distributions = columns
        .iter()
        .zip(&samples)
        .filter_map(|(name, (r, c))| chart::distribution(name, r, c))
        .collect();
    Ok((report, distributions))
}

/// Compares what the run asks to; nothing if it doesn't.
///
/// # Errors
/// As [`compare`].
pub fn run(
    spec: &EvaluationRunSpec,
    loaded: &Loaded,
    details: &mut Details,
) -> Result<Vec<MetricValue>, Failure> {
    let (Some(evaluator), Some(current), Some(reference)) =
        (wants_drift(spec), &loaded.current, &loaded.reference)
    else {
        return Ok(Vec::new());
    };
    let (current, reference) = (&current.source, &reference.source);
    let asked = evaluator.drift.unwrap_or_default();
    let how = How {
        columns: asked.columns.or_else(|| spec.features.clone()),
        method: asked.method.and_then(method),
        thresholds: asked
            .threshold
            .map(|threshold| ("*".to_owned(), threshold))
            .into_iter()
            .collect(),
        share: None,
    };
    let (report, distributions) = compare(&how, reference, current, &no_features(spec))?;
    let metrics = metrics(&report, current.rows());
    details.drift = Some(report);
    details.distributions = distributions;
    Ok(metrics)
}

/// The statistics' own word for a method: both are written alike.
fn method(name: DriftMethod) -> Option<Method> {
    let name = serde_json::to_value(name).ok()?;
    serde_json::from_value(name).ok()
}

/// `driftShare`, `driftedColumns`, and `drift.<column>`, of which those that drifted stand first.
fn metrics(report: &Report, rows: u64) -> Vec<MetricValue> {
    let rows = i64::try_from(rows).ok();
    let compared = report.columns.iter().filter(|c| c.score.is_some()).count();
    let drifted = report.columns.iter().filter(|c| c.drifted).count();
    let none = || Some("no column could be compared".to_owned());
    let mut metrics = vec![
        MetricValue {
            name: "driftShare".to_owned(),
            value: report.drift_share,
            samples: rows,
            message: report.drift_share.is_none().then(none).flatten(),
            ..MetricValue::default()
        },
        MetricValue {
            name: "driftedColumns".to_owned(),
            value: (compared > 0).then_some(drifted as f64),
            samples: rows,
            message: (compared == 0).then(none).flatten(),
            ..MetricValue::default()
        },
    ];
    let mut columns: Vec<_> = report.columns.iter().collect();
    columns.sort_by_key(|column| !column.drifted);
    metrics.extend(columns.into_iter().map(|column| {
        let value = column.score.filter(|x| x.is_finite());
        MetricValue {
            name: format!("drift.{}", column.column),
            value,
            samples: i64::try_from(column.current.count).ok(),
            message: value.is_none().then(|| {
                column
                    .message
                    .clone()
                    .unwrap_or_else(|| "it isn't defined on this data".to_owned())
            }),
            ..MetricValue::default()
        }
    }));
    metrics
}

/// What isn't a feature: label, key, time, predictions.
fn no_features(spec: &EvaluationRunSpec) -> Vec<&str> {
    let mut not: Vec<&str> = spec.key.iter().flatten().map(String::as_str).collect();
    not.extend(spec.label.as_deref());
    not.extend(spec.time.as_deref());
    if let EvaluationTarget::Predictions(target) = &spec.target {
        let (prediction, score) = prediction_columns(target);
        not.extend([prediction, score]);
        not.extend(target.label.as_deref());
    }
    not
}

/// Columns that both have and that can be compared, but for those.
fn shared(current: &Source, reference: &Source, not: &[&str]) -> Vec<String> {
    let comparable = |source: &Source, name: &str| {
        source
            .fields()
            .iter()
            .any(|f| f.name == name && column_kind(f.kind).is_some())
    };
    let names = current.fields().iter().map(|f| f.name.as_str());
    names
        .filter(|name| !not.contains(name))
        .filter(|name| comparable(current, name) && comparable(reference, name))
        .take(MAX_COLUMNS)
        .map(str::to_owned)
        .collect()
}

fn kind(source: &Source, side: &str, name: &str) -> Result<Kind, Failure> {
    let field = source
        .field(name)
        .map_err(|e| Failure::of("InputUnreadable", side, &e, EXIT_INPUT))?;
    if column_kind(field.kind).is_none() {
        return Err(input_failure(
            "InputUnreadable",
            format!(
                "{side}: column `{name}` holds {}, which drift can't compare: take it out of drift.columns",
                field.kind
            ),
        ));
    }
    Ok(field.kind)
}

fn sample(source: &Source, name: &str, floats: bool) -> Result<Sample, Failure> {
    let table = source
        .read(&[name])
        .map_err(|e| Failure::of("InputUnreadable", "drift", &e, EXIT_INPUT))?;
    let values = &super::column(&table, name)?.values;
    let cells = (0..values.len()).map(|row| values.cell(row));
    Ok(match values {
        Values::Integer(v) if !floats => Sample::integers(v.iter().copied()),
        Values::Integer(_) | Values::Number(_) | Values::Time(_) => {
            Sample::numbers(cells.map(Cell::number))
        }
        Values::Text(v) => Sample::categories(v.iter().map(|text| text.as_deref())),
        Values::Boolean(_) => {
            Sample::categories(cells.map(|cell| (!cell.is_missing()).then(|| cell.to_string())))
        }
    })
}
