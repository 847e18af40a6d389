//! lm-eval's results: `lm_eval --output_path outputs`, which writes `outputs/<model>/results_<time>.json`.
//!
//! A metric is `<task>.<metric>`, with a filter other than `none` `<task>.<metric>.<filter>`; groups are tasks. Its interval is 1.96 standard errors to each
//! side, where lm-eval has one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Results, number, read};
use crate::api::gate::MetricValue;

/// Standard errors to each side of a 95 % interval (normal approximation).
const WIDTH: f64 = 1.959_963_984_540_054;
const STDERR: &str = "_stderr";

#[derive(Deserialize)]
struct File {
    results: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    group_subtasks: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "n-samples")]
    samples: BTreeMap<String, Samples>,
}

#[derive(Deserialize)]
struct Samples {
    effective: u64,
}

impl File {
    /// Samples of a task; of a group, of all tasks below it.
    fn samples(&self, task: &str, depth: usize) -> Option<u64> {
        /// Groups of groups that are followed: a file may name a group as its own part.
        const DEEPEST: usize = 8;
        if let Some(own) = self.samples.get(task) {
            return Some(own.effective);
        }
        let parts = self.group_subtasks.get(task).filter(|p| !p.is_empty())?;
        let below = parts.iter().map(|part| match depth < DEEPEST {
            true => self.samples(part, depth + 1),
            false => None,
        });
        below.sum()
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Results, String> {
    let file: File = read(bytes)?;
    if file.results.is_empty() {
        return Err("the field `results` has no task: nothing was evaluated".to_owned());
    }
    let mut metrics = Vec::new();
    for (task, values) in &file.results {
        let samples = file.samples(task, 0).and_then(|n| i64::try_from(n).ok());
        // `acc,none`; what has no comma says something about the task.
        for (key, value) in values {
            let Some((metric, filter)) = key.split_once(',') else {
                continue;
            };
            if metric.ends_with(STDERR) {
                continue;
            }
            let value = match value {
                Value::Number(value) => value.as_f64(),
                // What can't be computed is null or `N/A`.
                Value::Null | Value::String(_) => None,
                _ => return Err(format!("the field `results.{task}.{key}` is no number")),
            };
            let name = match filter {
                "none" => format!("{task}.{metric}"),
                _ => format!("{task}.{metric}.{filter}"),
            };
            let error = values.get(&format!("{metric}{STDERR},{filter}"));
            let error = error.and_then(Value::as_f64).filter(|e| *e >= 0.0);
            let ends = value
                .zip(error)
                .map(|(x, e)| (x - WIDTH * e, x + WIDTH * e));
            metrics.push(MetricValue {
                samples,
                lower: ends.map(|(lower, _)| lower),
                upper: ends.map(|(_, upper)| upper),
                ..number(&name, value)
            });
        }
    }
    Ok(Results {
        metrics,
        ..Results::default()
    })
}
