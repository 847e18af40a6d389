//! Metrics that gates and triggers can name beside the built-in ones: where their values come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// A metric that gates and triggers can name beside the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.evaluation) ? 1 : 0) + (has(self.prometheus) ? 1 : 0) + (has(self.labels) ? 1 : 0) == 1",
    "message": "a metric comes from one place: write one of evaluation, prometheus and labels"
}]))]
pub struct MetricSource {
    /// The name that gates use.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A metric of an Evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationMetric>,
    /// The answer to a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusMetric>,
    /// What labels that callers send later say of live predictions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsMetric>,
}

/// How good live predictions are by their true labels, which callers send later: `POST <status.url>/v1/feedback {"id": …, "label": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelsMetric {
    /// What is measured.
    pub metric: LabelledMetric,
    /// How long a label is waited for, at most 7d. Only requests that old count, with the labels that came in that time: fast labels are biased labels.
    pub horizon: Duration,
    /// Share of those requests that must be labelled (default 0.9); below it the metric says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_coverage: Option<f64>,
    /// How long the windows are, one after the other, whose values stable's status shows and triggers count, 1m to 7d (default: the horizon, at most 1d).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// The class that probabilities are of, where there are two (default: `1` or `true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub positive: Option<String>,
}

/// Metrics that labels give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LabelledMetric {
    /// Share of rows whose class was predicted.
    #[default]
    Accuracy,
    /// Logarithmic loss.
    LogLoss,
    /// Brier score, of two classes.
    Brier,
    /// Expected calibration error, of two classes.
    Ece,
    /// Area under the ROC curve, of two classes.
    RocAuc,
    /// Mean absolute error.
    Mae,
    /// Root of the mean squared error.
    Rmse,
}

/// Labels are waited for, and windows last, at most so many seconds.
const LONGEST: i64 = 7 * 86_400;
/// The longest window that nobody asked for, in seconds.
const DAY: i64 = 86_400;

impl LabelsMetric {
    /// How long a label is waited for, in seconds.
    pub fn horizon_seconds(&self) -> i64 {
        seconds(&self.horizon).clamp(1, LONGEST)
    }

    /// How long a window is, in seconds.
    pub fn window_seconds(&self) -> i64 {
        let asked = self.window.as_ref().map(seconds);
        asked
            .unwrap_or_else(|| self.horizon_seconds().min(DAY))
            .clamp(60, LONGEST)
    }

    /// How long predictions and labels must be remembered for it, in seconds: until a window has its labels, and for one more.
    pub fn kept_seconds(&self) -> i64 {
        self.horizon_seconds() + 2 * self.window_seconds()
    }

    /// Share of requests that must be labelled.
    pub fn coverage(&self) -> f64 {
        self.min_coverage.unwrap_or(0.9)
    }

    /// What it asks for and can't have, as a sentence.
    ///
    /// # Errors
    /// A horizon or window that is too long or too short.
    pub fn check(&self, name: &str) -> Result<(), String> {
        let horizon = seconds(&self.horizon);
        if !(1..=LONGEST).contains(&horizon) {
            return Err(format!(
                "metric {name}: labels.horizon {} is not 1s to 7d",
                self.horizon
            ));
        }
        match &self.window {
            Some(window) if !(60..=LONGEST).contains(&seconds(window)) => Err(format!(
                "metric {name}: labels.window {window} is not 1m to 7d"
            )),
            _ => Ok(()),
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(duration: &Duration) -> i64 {
    i64::try_from(duration.millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// A metric of an Evaluation in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationMetric {
    /// Name of the Evaluation.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The metric in its results.
    #[schemars(length(min = 1, max = 128))]
    pub metric: String,
}

/// The answer of a Prometheus server: one number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusMetric {
    /// Name of a source in the operator's configuration.
    #[schemars(length(min = 1, max = 63))]
    pub source: String,
    /// PromQL, with `{{ revision }}`, `{{ stable }}`, `{{ namespace }}` and `{{ name }}`. One that names the revision is asked for both sides. Each of its
    /// selectors is held to the release's namespace.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
}

/// What a query's placeholders stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// Hash of the revision that is asked about.
    pub revision: &'a str,
    /// Hash of the stable revision.
    pub stable: &'a str,
    /// Namespace of the release.
    pub namespace: &'a str,
    /// Name of the release.
    pub name: &'a str,
}

impl PrometheusMetric {
    /// Whether the query names the revision: only then it has an answer for each side.
    pub fn names_revision(&self) -> bool {
        let mut rest = self.query.as_str();
        while let Some((_, after)) = rest.split_once("{{") {
            let Some((inside, after)) = after.split_once("}}") else {
                return false;
            };
            if inside.trim() == "revision" {
                return true;
            }
            rest = after;
        }
        false
    }

    /// The query with names in the place of its placeholders.
    ///
    /// # Errors
    /// A placeholder that isn't known or isn't closed, in a sentence.
    pub fn render(&self, names: Names) -> Result<String, String> {
        let Names {
            revision,
            stable,
            namespace,
            name,
        } = names;
        let mut out = String::with_capacity(self.query.len());
        let mut rest = self.query.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inside, after)) = after.split_once("}}") else {
                return Err("its query has {{ without }}".to_owned());
            };
            out.push_str(before);
            out.push_str(match inside.trim() {
                "revision" => revision,
                "stable" => stable,
                "namespace" => namespace,
                "name" => name,
                other => {
                    return Err(format!(
                        "its query has {{{{ {other} }}}}: write revision, stable, namespace or name"
                    ));
                }
            });
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        revision: "abc",
        stable: "def",
        namespace: "team",
        name: "words",
    };

    fn metric(query: &str) -> PrometheusMetric {
        PrometheusMetric {
            source: "default".into(),
            query: query.into(),
        }
    }

    #[test]
    fn placeholders_are_replaced_and_others_are_refused() {
        let query = r#"sum(rate(x{revision="{{ revision }}",a="{{stable}}",b="{{ name }}"}[5m]))"#;
        assert_eq!(
            metric(query).render(NAMES).unwrap(),
            r#"sum(rate(x{revision="abc",a="def",b="words"}[5m]))"#
        );
        assert!(metric(query).names_revision());
        assert!(!metric("x{a=\"{{ stable }}\"}").names_revision());
        let error = metric("x{a=\"{{ Revision }}\"}").render(NAMES).unwrap_err();
        assert!(error.contains("{{ Revision }}"), "{error}");
        assert!(metric("x{{").render(NAMES).is_err() && !metric("x{{").names_revision());
    }
}
