//! Evidently's snapshot, 0.7: `report.run(…).save_json(path)`.
//!
//! A metric is named as there, with its column: `MeanValue.age`; a value of several numbers is several metrics: `DriftedColumnsCount.share`. Where two
//! would have one name, each gets its parameters as Evidently writes them: `QuantileValue.age(quantile=0.25)`. What isn't a number (tables, counts of
//! each category) is left out. Tests are `passRate`; it has no interval, as tests of the same rows are no independent trials.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Results, number, pass_rate, read};
use crate::api::gate::MetricValue;

#[derive(Deserialize)]
struct File {
    metrics: Vec<Metric>,
    #[serde(default)]
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Metric {
    /// `MeanValue(column=age)`.
    #[serde(alias = "metric_id")]
    metric_name: String,
    #[serde(default)]
    config: Config,
    value: Value,
}

#[derive(Default, Deserialize)]
struct Config {
    column: Option<Value>,
}

#[derive(Deserialize)]
struct Test {
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Success,
    /// Passed, with something to be said.
    Warning,
    Fail,
    Error,
    Skipped,
}

impl Metric {
    /// Its name with its column, and its parameters.
    fn named(&self) -> (String, &str) {
        let (name, parameters) = match self.metric_name.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')').unwrap_or(rest)),
            None => (self.metric_name.as_str(), ""),
        };
        let written = || {
            parameters
                .split(',')
                .find_map(|p| p.strip_prefix("column="))
        };
        let column = self.config.column.as_ref().and_then(Value::as_str);
        match column.or_else(written) {
            Some(column) => (format!("{name}.{column}"), parameters),
            None => (name.to_owned(), parameters),
        }
    }

    /// The numbers of its value, each with what comes behind the name.
    fn numbers(&self) -> Vec<(String, Option<f64>)> {
        match &self.value {
            Value::Null => vec![(String::new(), None)],
            Value::Number(value) => vec![(String::new(), value.as_f64())],
            Value::Object(values) => several(values),
            _ => Vec::new(),
        }
    }
}

fn several(values: &Map<String, Value>) -> Vec<(String, Option<f64>)> {
    let one = |(key, value): (&String, &Value)| match value {
        Value::Number(value) => Some((format!(".{key}"), value.as_f64())),
        Value::Null => Some((format!(".{key}"), None)),
        _ => None,
    };
    values.iter().filter_map(one).collect()
}

pub(super) fn parse(bytes: &[u8]) -> Result<Results, String> {
    let file: File = read(bytes)?;
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for metric in &file.metrics {
        *count.entry(metric.named().0).or_default() += 1;
    }
    let rows = file.metrics.iter().find_map(|metric| {
        let rows = metric.metric_name.starts_with("RowCount(");
        metric.value.as_f64().filter(|_| rows)
    });
    let samples = rows.filter(|n| *n >= 0.0).map(|n| n as i64);
    let mut metrics = Vec::new();
    for metric in &file.metrics {
        let (mut name, parameters) = metric.named();
        if count[&name] > 1 {
            name = format!("{name}({})", rest(parameters));
        }
        for (part, value) in metric.numbers() {
            metrics.push(MetricValue {
                samples,
                ..number(&format!("{name}{part}"), value)
            });
        }
    }
    let of = |status: &[Status]| {
        let all = file.tests.iter();
        all.filter(|t| status.contains(&t.status)).count() as u64
    };
    let passed = of(&[Status::Success, Status::Warning]);
    let (failed, errors) = (of(&[Status::Fail]), of(&[Status::Error]));
    if passed + failed + errors > 0 {
        metrics.push(pass_rate(passed, failed));
    }
    Ok(Results {
        metrics,
        items: passed + failed + errors,
        errors,
        failed,
        ..Results::default()
    })
}

/// Parameters but the column, which is in the name.
fn rest(parameters: &str) -> String {
    let all = parameters.split(',').filter(|p| !p.starts_with("column="));
    all.collect::<Vec<_>>().join(",")
}
