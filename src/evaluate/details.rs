//! What a run found beyond its metrics: for its report. All lists are bounded.

use serde::Serialize;

use super::{changed::Changed, measure::Compared};
use crate::stats::{
    drift::Report as DriftReport,
    fairness::GroupReport,
    performance::{CalibrationBin, ClassReport, Confusion, Multiclass},
};

/// What a run found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The confusion matrix, of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// The same of several classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// The calibration curve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<CalibrationBin>,
    /// Groups of each sensitive column.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fairness: Vec<Groups>,
    /// What the model loses without each column, most first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub importance: Vec<Importance>,
    /// Where the model does worst, worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    /// What changed against stable, row by row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// Answers that scored worst.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// Columns against the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftReport>,
    /// Their distributions, in the order of `drift`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distributions: Vec<Distribution>,
    /// The data itself, column by column.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quality: Vec<QualityColumn>,
    /// What is to be known of the numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Several classes: who is taken for whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Classes {
    /// The classes with most rows, true or predicted, most first.
    pub labels: Vec<String>,
    /// Rows by true (outer) and predicted (inner) class.
    pub matrix: Vec<Vec<f64>>,
    /// Precision, recall and F1 of each, with its rows.
    pub scores: Vec<ClassReport>,
    /// How many classes there are in all.
    pub count: usize,
}

impl Classes {
    /// Those that are shown.
    const MOST: usize = 20;

    /// Of what the model said.
    #[must_use]
    pub fn of(compared: &Compared) -> Self {
        let data = Multiclass::new(&compared.labels, &compared.kinds, &compared.own.kinds, None);
        let report = data.measure(None);
        let rows = |class: usize| {
            let row: f64 = report.confusion[class].iter().sum();
            let column: f64 = report.confusion.iter().map(|row| row[class]).sum();
            row + column
        };
        let mut order: Vec<usize> = (0..compared.labels.len()).collect();
        order.sort_by(|&a, &b| rows(b).total_cmp(&rows(a)));
        order.truncate(Self::MOST);
        let cells = |truth: usize| order.iter().map(|&p| report.confusion[truth][p]).collect();
        let label = |class: usize| compared.labels[class].clone();
        let scores = order.iter().filter_map(|&class| {
            let name = &compared.labels[class];
            report.classes.iter().find(|c| c.label == *name).cloned()
        });
        Self {
            labels: order.iter().map(|&class| label(class)).collect(),
            matrix: order.iter().map(|&class| cells(class)).collect(),
            scores: scores.collect(),
            count: compared.labels.len(),
        }
    }
}

/// Groups of one sensitive column.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    /// The column.
    pub column: String,
    /// Rows below which a group says too little.
    pub min_group_size: u64,
    /// Its groups, largest first.
    pub groups: Vec<Group>,
    /// How many groups there are in all.
    pub count: usize,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The value of the column.
    pub group: String,
    /// Its rates.
    #[serde(flatten)]
    pub rates: GroupReport,
    /// 95 % interval of the share predicted positive (Wilson).
    pub selection_interval: Option<(f64, f64)>,
    /// 95 % interval of the true positive rate.
    pub true_positive_interval: Option<(f64, f64)>,
    /// 95 % interval of the false positive rate.
    pub false_positive_interval: Option<(f64, f64)>,
    /// Why it isn't compared: too few rows, or none of one class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insufficient: Option<String>,
}

/// What shuffling a column costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Importance {
    /// The column.
    pub column: String,
    /// Mean loss over the repeats.
    pub mean: f64,
    /// Standard deviation over the repeats.
    pub std: f64,
}

/// Some rows that share a value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    /// The column.
    pub column: String,
    /// The value, or range of values.
    pub value: String,
    /// Rows.
    pub count: usize,
    /// Mean error of these rows: share of wrong answers, or mean absolute error.
    pub error: f64,
    /// Mean error of all rows.
    pub overall: f64,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Its row, from 1.
    pub row: usize,
    /// What is wrong with it.
    pub why: String,
    /// The answer, shortened.
    pub answer: String,
    /// What it is compared with, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// A column's values on both sides, in the same bins.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// The column.
    pub column: String,
    /// Names of the bins.
    pub bins: Vec<String>,
    /// Where the bins of numbers begin and end; what is beyond is in the outermost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// Share of the reference in each.
    pub reference: Vec<f64>,
    /// Share of the current data in each.
    pub current: Vec<f64>,
}

/// One column of the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QualityColumn {
    /// The column.
    pub column: String,
    /// What it holds.
    pub kind: String,
    /// Share of rows without a value.
    pub missing_share: f64,
    /// Infinite values.
    pub infinite: u64,
    /// Different values; as many or more than counted, if `more`.
    pub distinct: usize,
    /// Counting of different values ended.
    pub more: bool,
    /// Share of values that the reference doesn't have: categories that are new, numbers beyond its range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen_share: Option<f64>,
}
