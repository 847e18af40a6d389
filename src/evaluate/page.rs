//! A run as one self-contained HTML file: no script, nothing loaded from elsewhere.

use std::collections::BTreeMap;

use minijinja::{Environment, Value, value::Serde};
use serde::Serialize;
use serde_json::json;

use super::{chart, details::Details};
use crate::api::{
    gate::{GateStatus, MetricValue, Verdict},
    training_job::DatasetStatus,
    verdict::short,
};

/// Rows of the table of metrics.
const METRICS: usize = 100;

/// What a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The Evaluation.
    pub title: &'a str,
    /// What was measured.
    pub subject: &'a str,
    /// What came of it.
    pub verdict: Verdict,
    /// One sentence.
    pub message: &'a str,
    /// Rows measured.
    pub rows: Option<i64>,
    /// When.
    pub time: Option<jiff::Timestamp>,
    /// Every metric.
    pub metrics: &'a [MetricValue],
    /// Every gate.
    pub gates: &'a [GateStatus],
    /// What was read.
    pub datasets: &'a [DatasetStatus],
    /// The rest.
    pub details: &'a Details,
}

/// A metric with those of the others beside it.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    value: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    stable: Option<f64>,
    difference: Option<f64>,
    baseline: Option<f64>,
    samples: Option<i64>,
    message: Option<&'a str>,
}

impl Page<'_> {
    /// Writes it.
    ///
    /// # Errors
    /// If the template has a mistake, which tests would show.
    pub fn render(&self) -> Result<String, String> {
        let mut environment = Environment::new();
        environment.add_filter("num", |value: Value| number(&value));
        environment.add_filter("span", |value: Value| span(&value));
        let bars: BTreeMap<&str, String> = self
            .details
            .distributions
            .iter()
            .map(|d| (d.column.as_str(), chart::bars(d)))
            .collect();
        let calibration = match self.details.calibration.as_slice() {
            [] => String::new(),
            curve => chart::calibration(curve),
        };
        let most = self.details.importance.iter().map(|i| i.mean);
        let page = json!({
            "title": self.title,
            "subject": self.subject,
            "verdict": self.verdict,
            "message": self.message,
            "rows": self.rows,
            "time": self.time.map(|t| t.strftime("%Y-%m-%d %H:%M UTC").to_string()),
            "metrics": self.table(),
            "has_stable": self.gates.iter().any(|g| g.stable.is_some()) || self.metrics.iter().any(|m| m.name.starts_with("stable.")),
            "gates": self.gates,
            "datasets": self.datasets,
            "details": self.details,
            "calibration": calibration,
            "bars": bars,
            "importance_max": most.fold(f64::MIN_POSITIVE, f64::max),
            "version": env!("CARGO_PKG_VERSION"),
        });
        environment
            .add_template("page.html", include_str!("page.html"))
            .and_then(|()| {
                environment
                    .get_template("page.html")?
                    .render(Value::from(Serde(&page)))
            })
            .map_err(|e| format!("the report can't be written: {e:#}"))
    }

    /// Metrics of the model, without those that have a table of their own.
    fn table(&self) -> Vec<Row<'_>> {
        let find = |prefix: &str, name: &str| {
            let found = self
                .metrics
                .iter()
                .find(|m| m.name.strip_prefix(prefix) == Some(name));
            found.and_then(|m| m.value)
        };
        let aside = [
            "stable.",
            "baseline.",
            "difference.",
            "drift.",
            "featureImportance.",
            "missingShare.",
            "unseenShare.",
        ];
        self.metrics
            .iter()
            .filter(|m| !aside.iter().any(|prefix| m.name.starts_with(prefix)))
            .take(METRICS)
            .map(|m| Row {
                name: &m.name,
                value: m.value,
                lower: m.lower,
                upper: m.upper,
                stable: find("stable.", &m.name),
                difference: find("difference.", &m.name),
                baseline: find("baseline.", &m.name),
                samples: m.samples,
                message: m.message.as_deref(),
            })
            .collect()
    }
}

/// Four significant digits; nothing where there is no number.
fn number(value: &Value) -> String {
    f64::try_from(value.clone())
        .ok()
        .filter(|x| x.is_finite())
        .map(short)
        .unwrap_or_default()
}

/// Both ends of an interval.
fn span(value: &Value) -> String {
    let end = |i: usize| value.get_item_by_index(i).ok().map(|end| number(&end));
    match (end(0), end(1)) {
        (Some(low), Some(high)) if !low.is_empty() => format!("({low}–{high})"),
        _ => String::new(),
    }
}
