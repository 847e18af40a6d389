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
        sample::{As, samples},
        table::{Kind, Source},
    },
    stats::drift::{
        Comparison, MOST_ROWS, Method, Report, ReportKind, Sample, SideReport, hashed_words,
    },
    supervise::failure::Failure,
};

/// Share of columns from which Evidently calls a data set drifted.
const SHARE: f64 = 0.5;
/// Columns that are compared.
const MAX_COLUMNS: usize = 200;
/// Rows of a side up to which every value is kept and every statistic exact; beyond, columns are sketched, as
/// [`SampleBuilder::bounded`](crate::stats::drift::SampleBuilder::bounded) says.
const EXACT_ROWS: u64 = 2_000_000;
/// Texts from which a column can be one of texts.
const LEAST_TEXTS: usize = 40;
/// Of the classifier that tells embeddings and texts apart.
const SEED: u64 = 0;
/// Values of both sides that are held at a time (8 bytes each), where columns can be read a few at a time for nothing,
const HELD: u64 = 1 << 24;
/// and where each pass parses the whole text.
const HELD_OF_TEXT: u64 = 1 << 26;

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
    /// Whether distributions are wanted, too.
    pub charts: bool,
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
    let mut asked = Vec::with_capacity(columns.len());
    let mut embeddings = Vec::new();
    for name in &columns {
        if is_list(current, name) && is_list(reference, name) {
            embeddings.push(name);
            continue;
        }
        // Whole numbers on one side and floats on the other are compared as floats.
        let kinds = (
            kind(current, "the data", name)?,
            kind(reference, "the reference", name)?,
        );
        let floats = matches!(
            kinds,
            (Kind::Integer, Kind::Number) | (Kind::Number, Kind::Integer)
        );
        asked.push((name.as_str(), if floats { As::Floats } else { As::Itself }));
    }
    let bounded = reference.rows().max(current.rows()) > EXACT_ROWS;
    let read = |source: &Source, side: &str, columns: &[(&str, As)]| {
        samples(source, columns, bounded)
            .map_err(|e| Failure::of("InputUnreadable", side, &e, EXIT_INPUT))
    };
    let mut comparison = Comparison::new(how.method, &how.thresholds);
    let mut distributions = Vec::new();
    for group in asked.chunks(at_once(reference, current, bounded)) {
        let r = read(reference, "the reference", group)?;
        let c = read(current, "the data", group)?;
        for ((r, c), (name, _)) in r.into_iter().zip(c).zip(group) {
            if how.method.is_none()
                && let (Some(texts_r), Some(texts_c)) = (texts(&r), texts(&c))
            {
                let sides = ((&r).into(), (&c).into());
                let kind = (*name, ReportKind::Text);
                comparison.add_vectors(kind, (&texts_r, &texts_c), sides, SEED);
                continue;
            }
            comparison.add(name, &r, &c);
            if how.charts {
                distributions.extend(chart::distribution(name, &r, &c));
            }
        }
    }
    for name in embeddings {
        let read = |source: &Source, side: &str| {
            source
                .vectors(name, MOST_ROWS)
                .map_err(|e| Failure::of("InputUnreadable", side, &e, EXIT_INPUT))
        };
        let (r, c) = (
            read(reference, "the reference")?,
            read(current, "the data")?,
        );
        let rows = |source: &Source| SideReport {
            count: usize::try_from(source.rows()).unwrap_or(usize::MAX),
            nulls: 0,
            infinite: 0,
        };
        let sides = (rows(reference), rows(current));
        comparison.add_vectors((name, ReportKind::Embedding), (&r, &c), sides, SEED);
    }
    let mut report = comparison.finish(how.share.unwrap_or(SHARE));
    if bounded {
        report.notes.push(format!(
            "more than {EXACT_ROWS} rows: columns are compared as sketches; docs/drift.md says how near the scores are"
        ));
    }
    Ok((report, distributions))
}

fn is_list(source: &Source, name: &str) -> bool {
    source.field(name).is_ok_and(|field| field.list)
}

/// Some of the texts of a column as a classifier takes them; `None` if it holds categories: of texts more than half are different, and they have
/// three words or more.
fn texts(sample: &Sample) -> Option<Vec<Vec<f64>>> {
    let counts = sample.categories_counted()?;
    if counts.len() * 2 <= sample.used() || counts.len() < LEAST_TEXTS {
        return None;
    }
    // In their order every so many: a fair sample, and the same every time.
    let step = counts.len().div_ceil(MOST_ROWS);
    let some: Vec<&str> = counts.keys().step_by(step).map(|text| &**text).collect();
    let words: usize = some
        .iter()
        .map(|text| text.split_whitespace().count())
        .sum();
    (words >= 3 * some.len()).then(|| some.into_iter().map(hashed_words).collect())
}

/// How many columns are read in one pass.
fn at_once(reference: &Source, current: &Source, bounded: bool) -> usize {
    if bounded {
        return MAX_COLUMNS;
    }
    let held = if reference.is_columnar() && current.is_columnar() {
        HELD
    } else {
        HELD_OF_TEXT
    };
    let columns = held / (reference.rows() + current.rows()).max(1);
    usize::try_from(columns).map_or(MAX_COLUMNS, |n| n.clamp(1, MAX_COLUMNS))
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
        charts: true,
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
    let (compared, drifted) = (report.compared(), report.drifted_columns());
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
        let value = column.score;
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
            .any(|f| f.name == name && (f.list || column_kind(f.kind).is_some()))
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
