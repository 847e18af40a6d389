//! Gates: bounds on metrics, and what became of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bound on a metric, absolute (`min`, `max`) or against stable (the others).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.min) || has(self.max) || has(self.minDifference) || has(self.maxDifference) || has(self.minRatio) || has(self.maxRatio)",
    "message": "a gate needs a bound: write min, max, minDifference, maxDifference, minRatio or maxRatio"
}, {
    "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
    "message": "min is above max: no value could pass"
}, {
    "rule": "!(self.metric in ['mirrorAgreement', 'mirrorDifference']) || !(has(self.minDifference) || has(self.maxDifference) || has(self.minRatio) || has(self.maxRatio))",
    "message": "mirrorAgreement and mirrorDifference compare with stable already: write min or max"
}]))]
pub struct Gate {
    /// Name of the metric: a built-in (`errorRate`, `latencyP95`, …), one of `spec.metrics`, or one of an Evaluation.
    #[schemars(length(min = 1, max = 128))]
    pub metric: String,
    /// The metric must be at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The metric must be at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Candidate minus stable must be at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_difference: Option<f64>,
    /// Candidate minus stable must be at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_difference: Option<f64>,
    /// Candidate divided by stable must be at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ratio: Option<f64>,
    /// Candidate divided by stable must be at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<f64>,
    /// Samples, in the metric's own unit, below which there is no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_samples: Option<i64>,
    /// `Harm` goes on unless harm is proven, `Safety` only when safety is; of Evaluations by the 95 % interval, and without it by the value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What must be proven before anybody acts on a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Proof {
    /// Go on unless harm is proven.
    #[default]
    Harm,
    /// Go on only when safety is proven.
    Safety,
}

/// The state of a measurement or gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Not started.
    #[default]
    Pending,
    /// Going on.
    Running,
    /// Within the bound.
    Passed,
    /// Beyond the bound.
    Failed,
    /// Too little data to say.
    Inconclusive,
    /// It could not be measured.
    Error,
}

impl Verdict {
    /// Whether no more measuring will change it by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, Verdict::Pending | Verdict::Running)
    }
}

/// What became of a gate: value, bound, samples, verdict, and one sentence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// The gate's metric.
    pub metric: String,
    /// The bound in words: `max 0.02`, `maxRatio 1.25`.
    pub bound: String,
    /// The candidate's (or only) value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Stable's value, for comparisons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<f64>,
    /// Lower end of the interval of what is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<f64>,
    /// Upper end of the interval of what is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<f64>,
    /// Samples behind the value, in the metric's own unit.
    #[serde(default)]
    pub samples: i64,
    /// Share of requests that are labelled, of a metric of late labels: the smaller one of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// Looks at which it was Failed so far, where `failureLimit` allows some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// The last of those looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_time: Option<Time>,
    /// The verdict.
    pub verdict: Verdict,
    /// One sentence a tired person can act on, with what could have been seen by now.
    #[serde(default)]
    pub message: String,
}

/// A named number with its time and sample count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricValue {
    /// Name, such as `rocAuc` or `baseline.logLoss`.
    pub name: String,
    /// The value; absent when it could not be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Samples behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<i64>,
    /// Share of requests that are labelled, of a metric of late labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// Lower end of its confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<f64>,
    /// Upper end of its confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<f64>,
    /// Whether no verdict follows from it, whatever its value: a gate on it is Inconclusive, and `message` says why.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inconclusive: bool,
    /// Of a difference: how likely one so large is between models that are alike, by a paired test (two-sided).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// When it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Why there is no value, or why it is inconclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
