//! How rollouts end: outcomes, the history, the ledger of what was refused.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::GateStatus;

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The candidate became stable.
    Promoted,
    /// A gate or a deadline took it back; the revision is rejected.
    RolledBack,
    /// Somebody aborted it, or there was not enough data.
    Aborted,
    /// Another spec took its place.
    Superseded,
    /// The spec went back to stable's.
    Withdrawn,
}

/// Why and how a rollout is ending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// The outcome that will stand in the history.
    pub outcome: Outcome,
    /// CamelCase reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// The bound that was broken, where a gate or an Evaluation's gate was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<BrokenBound>,
}

/// A bound, and the value that is beyond it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokenBound {
    /// The metric.
    pub metric: String,
    /// The bound in words: `max 0.02`, `maxRatio 1.25`.
    pub bound: String,
    /// The candidate's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Stable's value, for comparisons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<f64>,
}

impl BrokenBound {
    /// Of a gate that failed.
    pub fn of(gate: &GateStatus) -> Self {
        Self {
            metric: gate.metric.clone(),
            bound: gate.bound.clone(),
            value: gate.value,
            stable: gate.stable,
        }
    }
}

/// A revision that must not get traffic again until `retry`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRevision {
    /// The revision's hash.
    pub revision: String,
    /// The version it served, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// CamelCase reason: `GateFailed`, `EvaluationFailed`, `Aborted`, `ProgressDeadlineExceeded`, …
    pub reason: String,
    /// One sentence with metric, value and bound.
    pub message: String,
    /// The bound that it broke, where a gate or an Evaluation's gate was the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<BrokenBound>,
    /// When.
    pub time: Time,
}

/// One finished rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The candidate's revision.
    pub revision: String,
    /// The candidate's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// CamelCase reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Generation of the spec at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Where it ended for want of data, and the spec asks for the same since: digest of `spec.rollout` and `spec.metrics` then. While they are
    /// the same, it isn't tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    pub end_time: Time,
}
