//! What sources outside the cluster said of a release's metrics: part of a planner's input, never asked within a plan.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The last answer to each question, and what is wrong with the questions themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// By metric and the hash of the revision that was asked about; the hash is empty for a query that names none.
    pub answers: BTreeMap<(String, String), Answered>,
    /// The first question that can't be asked (an unknown source, a namespace that may not ask it, a query that makes no sense), as a
    /// sentence.
    pub refused: Option<String>,
}

/// An answer and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// When it was asked for.
    pub time: Timestamp,
    /// What came.
    pub answer: Answer,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A finite number.
    Value(f64),
    /// There is no data: no series, or NaN. A sentence says which.
    Nothing(String),
    /// The source didn't answer, or not with one number. A sentence names source and problem.
    Failed(String),
}

impl Asked {
    /// The answer about a metric and revision.
    pub fn get(&self, metric: &str, revision: &str) -> Option<&Answered> {
        self.answers.get(&(metric.to_owned(), revision.to_owned()))
    }
}
