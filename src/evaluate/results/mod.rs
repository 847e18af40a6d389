//! What other tools leave: a file of one of five formats, read into metrics.
//!
//! Whatever can't be read is an error with the file's field, never a metric; whatever could not be tried is counted as an error
//! of its own, and beyond `maxItemErrors` nothing follows from the rest.

mod evidently;
mod json;
mod junit;
mod lm_eval;
mod promptfoo;

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::paired::{self, Statistic, Values};
use crate::api::{container::ResultsFormat, gate::MetricValue, verdict::short};

/// Bytes of a results file that are read.
pub const LARGEST: u64 = 32 << 20;
/// Metrics of one file.
const MOST_METRICS: usize = 1000;
/// Bytes of a metric's name: as long as a gate's may be.
const LONGEST_NAME: usize = 128;
/// Why a metric that a file names has no value.
const NO_NUMBER: &str = "the results have no number for it (NaN, infinite or null)";

/// What was read of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// The metrics.
    pub metrics: Vec<MetricValue>,
    /// Items that were tried, where the file says so.
    pub items: u64,
    /// Of these: could not be evaluated.
    pub errors: u64,
    /// Of these: evaluated, and not passed.
    pub failed: u64,
    /// Tokens used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// What they cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

/// Reads a file. `seed` is that of the intervals.
///
/// # Errors
/// What is wrong, with the field.
pub fn parse(format: ResultsFormat, bytes: &[u8], seed: u64) -> Result<Results, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty".to_owned());
    }
    match format {
        ResultsFormat::Evidently => evidently::parse(bytes),
        ResultsFormat::Promptfoo => promptfoo::parse(bytes, seed),
        ResultsFormat::LmEval => lm_eval::parse(bytes),
        ResultsFormat::JUnit => junit::parse(bytes, seed),
        ResultsFormat::Json => json::parse(bytes),
    }
}

/// The exit code by which a tool says that it ran to its end, and that tests failed.
#[must_use]
pub fn tests_failed(format: ResultsFormat) -> Option<i32> {
    match format {
        ResultsFormat::Promptfoo => Some(100),
        ResultsFormat::JUnit => Some(1),
        ResultsFormat::Evidently | ResultsFormat::LmEval | ResultsFormat::Json => None,
    }
}

impl Results {
    /// With `errorShare`, and the evaluator's name before each metric; nothing follows from them where more than this share of
    /// the items are errors.
    ///
    /// # Errors
    /// If there are no metrics, too many, or some that can't be told apart.
    pub fn finish(mut self, name: Option<&str>, share: f64) -> Result<Self, String> {
        if self.items > 0 && self.errors as f64 > share * self.items as f64 {
            let why = format!(
                "{} of {} items ended in an error, and maxItemErrors allows {}",
                self.errors,
                self.items,
                short(share)
            );
            for metric in &mut self.metrics {
                metric.inconclusive = true;
                metric.message = Some(why.clone());
            }
        }
        if self.metrics.is_empty() {
            return Err("there are no metrics in it".to_owned());
        }
        if self.items > 0 && !self.metrics.iter().any(|m| m.name == "errorShare") {
            let mut metric = number("errorShare", Some(self.errors as f64 / self.items as f64));
            metric.samples = i64::try_from(self.items).ok();
            self.metrics.push(metric);
        }
        if self.metrics.len() > MOST_METRICS {
            return Err(format!(
                "it has {} metrics, and {MOST_METRICS} are read: leave out what nobody looks at",
                self.metrics.len()
            ));
        }
        for metric in &mut self.metrics {
            if let Some(name) = name {
                metric.name = format!("{name}.{}", metric.name);
            }
            let named = !metric.name.trim().is_empty();
            if !named || metric.name.len() > LONGEST_NAME || metric.name.contains(char::is_control)
            {
                return Err(format!(
                    "`{}` is no name of a metric: at most {LONGEST_NAME} bytes, on one line",
                    crate::supervise::board::shorten(&metric.name, LONGEST_NAME)
                ));
            }
        }
        let mut names: Vec<&str> = self.metrics.iter().map(|m| m.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("it has the metric `{}` twice", twice[0]));
        }
        Ok(self)
    }
}

/// A metric with this value, or why it has none.
fn number(name: &str, value: Option<f64>) -> MetricValue {
    let value = value.filter(|x| x.is_finite());
    MetricValue {
        name: name.to_owned(),
        value,
        message: value.is_none().then(|| NO_NUMBER.to_owned()),
        ..MetricValue::default()
    }
}

/// The mean of a score of items, with an interval; `groups` where several items are about one thing.
fn mean(name: &str, scores: Vec<f64>, groups: Option<&[usize]>, seed: u64) -> MetricValue {
    let values = Values {
        rows: (0..scores.len()).collect(),
        own: scores,
        stable: None,
    };
    let excuse = "no item was evaluated";
    let found = paired::measure(name, &values, groups, Statistic::Mean, (seed, excuse));
    found.into_iter().next().unwrap_or_default()
}

/// The share of tests that passed, of those that ran.
fn pass_rate(passed: u64, failed: u64) -> MetricValue {
    let ran = passed + failed;
    let value = (ran > 0).then(|| passed as f64 / ran as f64);
    MetricValue {
        samples: i64::try_from(ran).ok(),
        message: (ran == 0).then(|| "no test ran to its end".to_owned()),
        ..number("passRate", value)
    }
}

/// JSON as this type; what is wrong, with the field.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let bytes = without_nan(bytes);
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let (path, error) = (e.path().to_string(), e.inner());
        match path.as_str() {
            "." => format!("it can't be read: {error}"),
            _ => format!("the field `{path}` can't be read: {error}"),
        }
    })?;
    reader
        .end()
        .map_err(|e| format!("there is something behind its end: {e}"))?;
    Ok(read)
}

/// `NaN` and `Infinity`, which Python writes and JSON doesn't know, as `null`: no number.
fn without_nan(bytes: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut written: Option<Vec<u8>> = None;
    let (mut at, mut quoted, mut from) = (0, false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'N' | b'I' | b'-' if !quoted => {
                if let Some(word) = WORDS.iter().find(|w| bytes[at..].starts_with(w)) {
                    let written = written.get_or_insert_default();
                    written.extend_from_slice(&bytes[from..at]);
                    written.extend_from_slice(b"null");
                    at += word.len();
                    from = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    match written {
        None => Cow::Borrowed(bytes),
        Some(mut written) => {
            written.extend_from_slice(&bytes[from..]);
            Cow::Owned(written)
        }
    }
}

#[cfg(test)]
mod tests;
