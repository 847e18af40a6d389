//! Drift of columns against a reference: `driftShare`, `driftedColumns`, and `drift.<column>`, a score in the units of the method that fits the column
//! (a p-value up to 1,000 rows of reference, a distance beyond).

use std::collections::BTreeMap;

use super::{input_failure, prediction_columns, rows::Loaded, wants_drift};
use crate::{
    api::{
        gate::MetricValue,
        run::{EXIT_INPUT, EvaluationRunSpec, EvaluationTarget},
    },
    data::{
        profile::column_kind,
        table::{Cell, Kind, Source, Values},
    },
    stats::drift::{Sample, compare_columns},
    supervise::failure::Failure,
};

/// Share of columns from which Evidently calls a data set drifted.
const SHARE: f64 = 0.5;
/// Columns that are compared.
const MAX_COLUMNS: usize = 200;

/// Compares what the run asks to; nothing if it doesn't.
///
/// # Errors
/// If a column isn't there, or nothing can be compared.
pub fn run(spec: &EvaluationRunSpec, loaded: &Loaded) -> Result<Vec<MetricValue>, Failure> {
    let (Some(evaluator), Some(current), Some(reference)) =
        (wants_drift(spec), &loaded.current, &loaded.reference)
    else {
        return Ok(Vec::new());
    };
    let (current, reference) = (&current.source, &reference.source);
    let named = evaluator.drift.and_then(|d| d.columns);
    let columns = named.unwrap_or_else(|| shared(spec, current, reference));
    if columns.is_empty() {
        return Err(input_failure(
            "NothingToMeasure",
            "dataset and reference have no column in common to compare".to_owned(),
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
    let report = compare_columns(pairs, None, &BTreeMap::new(), SHARE);
    let rows = i64::try_from(current.rows()).ok();
    let compared = report.columns.iter().filter(|c| c.score.is_some()).count();
    let drifted = report.columns.iter().filter(|c| c.drifted).count();
    let mut metrics = vec![
        MetricValue {
            name: "driftShare".to_owned(),
            value: report.drift_share,
            samples: rows,
            message: report
                .drift_share
                .is_none()
                .then(|| "no column could be compared".to_owned()),
            ..MetricValue::default()
        },
        MetricValue {
            name: "driftedColumns".to_owned(),
            value: (compared > 0).then_some(drifted as f64),
            samples: rows,
            message: (compared == 0).then(|| "no column could be compared".to_owned()),
            ..MetricValue::default()
        },
    ];
    metrics.extend(report.columns.into_iter().map(|column| {
        let value = column.score.filter(|x| x.is_finite());
        MetricValue {
            name: format!("drift.{}", column.column),
            value,
            samples: i64::try_from(column.current.count).ok(),
            message: value.is_none().then(|| {
                column
                    .message
                    .unwrap_or_else(|| "it isn't defined on this data".to_owned())
            }),
            ..MetricValue::default()
        }
    }));
    Ok(metrics)
}

/// Columns that both have and that can be compared, but what isn't a feature: label, key, time, predictions.
fn shared(spec: &EvaluationRunSpec, current: &Source, reference: &Source) -> Vec<String> {
    let mut not: Vec<&str> = spec.key.iter().flatten().map(String::as_str).collect();
    not.extend(spec.label.as_deref());
    not.extend(spec.time.as_deref());
    if let EvaluationTarget::Predictions(target) = &spec.target {
        let (prediction, score) = prediction_columns(target);
        not.extend([prediction, score]);
        not.extend(target.label.as_deref());
    }
    let asked = |name: &str| {
        spec.features
            .as_ref()
            .is_none_or(|f| f.iter().any(|x| x == name))
    };
    let comparable = |source: &Source, name: &str| {
        source
            .fields()
            .iter()
            .any(|f| f.name == name && column_kind(f.kind).is_some())
    };
    let names = current.fields().iter().map(|f| f.name.as_str());
    names
        .filter(|name| !not.contains(name) && asked(name))
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
