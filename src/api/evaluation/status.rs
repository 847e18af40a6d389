//! What is known of an Evaluation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    gate::{GateStatus, MetricValue, Verdict},
    schema,
};

/// What is known of the evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Verdict of the last run.
    #[serde(default)]
    pub verdict: Verdict,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// The last run that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<EvaluationRun>,
    /// The last run for each target revision, at most 20: where a rollout reads its verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<EvaluationRun>,
    /// Finished runs, oldest first, with the values that the gates looked at: at most `historyLimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<EvaluationRecord>,
    /// How often the dataset has served, where `dataset.disjointFrom` says that it is a holdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<HoldoutStatus>,
    /// When the next scheduled run begins; in the past, it waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_time: Option<Time>,
    /// Runs begun; names the children of the next one.
    #[serde(default)]
    pub count: i64,
    /// Conditions: Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A run, under the key {release UID, revision, attempt, generation}; both sides of a comparison on one dataset digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationRun {
    /// Number of the run; its Job is `<evaluation>-<number>`.
    pub number: i64,
    /// For people: `churn candidate 20131001-… (attempt 2)`, or the file.
    pub target: String,
    /// UID of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Revision measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Attempt of the candidate (0: stable, no rollout).
    #[serde(default)]
    pub attempt: i64,
    /// When the schedule asked for it; absent: the target did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Time>,
    /// Stable's revision that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Generation of the Evaluation's spec.
    #[serde(default)]
    pub generation: i64,
    /// The run's verdict.
    pub verdict: Verdict,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// Every metric; stable's as `stable.<name>`, the constant predictor's as `baseline.<name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricValue>,
    /// Every gate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// Digest of the dataset that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_digest: Option<String>,
    /// Rows measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Rows that weren't asked, as `stopWhen` was met before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_asked: Option<i64>,
    /// Tokens of prompts and answers, of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    /// What they cost, by each side's `backend.prices`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Its report for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportStatus>,
    /// Attempts of its pod that failed.
    #[serde(default)]
    pub failures: i32,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// A finished run in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationRecord {
    /// Number of the run.
    pub number: i64,
    /// What was measured, for people.
    pub target: String,
    /// The run's verdict.
    pub verdict: Verdict,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// When the schedule asked for it; absent: the target did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The first ten metrics that gates look at (without gates: that were measured).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<NamedValue>,
}

/// A value with its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedValue {
    /// The metric.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// Where a run's report is: one HTML file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportStatus {
    /// ConfigMap that holds it (gzipped) until the next ones are there; `kubectl perennial report` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// Where `output` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Why it isn't there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Uses of a holdout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldoutStatus {
    /// Digest of the dataset; another one counts from 1 again.
    pub digest: String,
    /// Revisions that were measured on it. One that comes back after twenty others counts again.
    pub revisions: i64,
    /// When the first one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
