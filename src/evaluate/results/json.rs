//! Plain JSON: `{"metrics": {"accuracy": 0.93, "f1": {"value": 0.9, "samples": 120, "lower": 0.85, "upper": 0.94}}, "samples": 200,
//! "items": [{"error": null}, …]}`.
//!
//! `samples` is of all metrics that don't say their own; without it, the items that have no `error`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Results, number, read};
use crate::api::gate::MetricValue;

#[derive(Deserialize)]
struct File {
    metrics: Map<String, Value>,
    samples: Option<u64>,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    value: Option<f64>,
    samples: Option<u64>,
    lower: Option<f64>,
    upper: Option<f64>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Results, String> {
    let file: File = read(bytes)?;
    let wrong =
        |item: &&Item| !matches!(&item.error, Value::Null | Value::Bool(false)) && item.error != "";
    let (items, errors) = (file.items.len(), file.items.iter().filter(wrong).count());
    let samples = file
        .samples
        .or((items > 0).then_some((items - errors) as u64));
    let metrics = file.metrics.into_iter().map(|(name, value)| {
        let metric = metric(&name, value)?;
        let own = metric.samples;
        Ok(MetricValue {
            samples: own.or(samples.and_then(|n| i64::try_from(n).ok())),
            ..metric
        })
    });
    Ok(Results {
        metrics: metrics.collect::<Result<_, String>>()?,
        items: items as u64,
        errors: errors as u64,
        ..Results::default()
    })
}

fn metric(name: &str, value: Value) -> Result<MetricValue, String> {
    let at = format!("the field `metrics.{name}`");
    match value {
        Value::Null => Ok(number(name, None)),
        Value::Number(value) => Ok(number(name, value.as_f64())),
        Value::Object(_) => {
            let full: Full =
                serde_json::from_value(value).map_err(|e| format!("{at} can't be read: {e}"))?;
            let samples = full.samples.map(i64::try_from).transpose();
            let samples =
                samples.map_err(|_| format!("{at} has more samples than there can be"))?;
            let ends = full.lower.zip(full.upper);
            if ends.is_none() && (full.lower.is_some() || full.upper.is_some()) {
                return Err(format!(
                    "{at} has one end of an interval: write lower and upper"
                ));
            }
            if ends.is_some_and(|(lower, upper)| lower > upper) {
                return Err(format!("{at} has `lower` above `upper`"));
            }
            Ok(MetricValue {
                samples,
                lower: full.lower,
                upper: full.upper,
                ..number(name, full.value)
            })
        }
        other => Err(format!(
            "{at} is {}, where a number or {{value, samples, lower, upper}} is read",
            kind(&other)
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
