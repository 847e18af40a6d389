//! Late labels: a sample of live predictions and the true labels that callers send later, joined by request.
//!
//! Gateways keep a [`Prediction`] in the bucket of the minute in which its answer ended, and a [`Label`] in that of the minute in which it came, both
//! under the slot of the answer: a label may come to another gateway than the one that answered. The operator joins them: [`Cohort`].

mod cohort;
mod late;
mod metric;

use serde::{Deserialize, Serialize};

pub use cohort::{Cohort, Request};
pub use late::{Late, LatePart};
pub use metric::{Metric, Outcomes, Unit, judge};

/// Rows of one answer that are kept at most: answers with more rows aren't in the sample.
pub const MAX_ROWS: usize = 64;
/// Probabilities of one row that are kept at most.
pub const MAX_CLASSES: usize = 32;
/// Longest label or predicted class, in bytes.
pub const MAX_WORD: usize = 64;

/// What was predicted for a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    /// A class or a number, as [`word`].
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The probability of each class; one alone is that of the positive class.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub probabilities: Vec<f32>,
}

/// What was predicted in one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The answer, among all of the release.
    pub id: u64,
    /// Hash of the caller's key; of something unique, without one.
    pub caller: u64,
    /// Unix second of the answer's end.
    pub at: i64,
    /// Its rows.
    pub rows: Vec<Guess>,
}

/// What was true of one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The answer.
    pub id: u64,
    /// Unix second in which the label came.
    pub at: i64,
    /// The label of each row, as [`word`].
    pub rows: Vec<String>,
}

/// What came of one revision, epoch and minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Samples {
    /// Predictions of the sample.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub predictions: Vec<Prediction>,
    /// Labels of answers that are in the sample.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// Answers of the sample whose predictions couldn't be read.
    pub unread: u64,
}

impl Samples {
    /// Rows, of predictions and labels: what memory is counted in.
    pub fn rows(&self) -> usize {
        let predicted = self.predictions.iter().map(|p| p.rows.len());
        let labelled = self.labels.iter().map(|l| l.rows.len());
        predicted.chain(labelled).sum()
    }
}

/// A class in words that are the same however it is written: `true`, `1` and `1.0` are one.
#[must_use]
pub fn word(text: &str) -> String {
    match text {
        "true" | "True" | "TRUE" => "1".to_owned(),
        "false" | "False" | "FALSE" => "0".to_owned(),
        _ => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => format!("{number}"),
            _ => text.to_owned(),
        },
    }
}

/// As [`word`], of a number.
#[must_use]
pub fn word_of(number: f64) -> Option<String> {
    number.is_finite().then(|| format!("{number}"))
}

#[cfg(test)]
mod tests;
