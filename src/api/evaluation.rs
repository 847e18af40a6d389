//! Evaluation (`pev`): a measurement with a verdict.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Credentials, PodTemplate,
    gate::{Gate, GateStatus, MetricValue, Verdict},
    schema,
    training_job::{Format, TimeColumn},
};

/// A measurement with a verdict: of a release's candidate or stable revision, or of a file of predictions.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "perennial.dev",
    version = "v1alpha1",
    kind = "Evaluation",
    plural = "evaluations",
    shortname = "pev",
    category = "perennial",
    namespaced,
    status = "EvaluationStatus",
    derive = "PartialEq",
    validation = kube::core::Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label of at most 40 characters: lower-case letters, digits and -, beginning with a letter"),
    printcolumn = r#"{"name":"Verdict","type":"string","jsonPath":".status.verdict"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".status.lastRun.target"}"#,
    printcolumn = r#"{"name":"Rows","type":"integer","jsonPath":".status.lastRun.rows"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.target.predictions) || has(self.dataset)",
    "message": "dataset is what the model is asked: write its uri and label (only a target of predictions needs none)"
}, {
    "rule": "!has(self.evaluators) || !self.evaluators.exists(e, has(e.drift)) || has(self.reference)",
    "message": "the drift evaluator compares with reference: write reference.uri"
}]))]
pub struct EvaluationSpec {
    /// What is measured.
    pub target: Target,
    /// The rows that the model is asked, with their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<EvaluationDataset>,
    /// What drift is measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<TableSource>,
    /// What is computed; by the label's type when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub evaluators: Vec<Evaluator>,
    /// Bounds that make the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub gates: Vec<Gate>,
    /// Seed of everything random (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub seed: Option<i64>,
    /// Seconds that a run may take (default 3600).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub active_deadline_seconds: Option<i64>,
    /// Overlay for the pods that measure: container `evaluator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,
}

/// What is measured: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.modelDeployment) != has(self.predictions)",
    "message": "target is one thing: write modelDeployment or predictions"
}]))]
pub struct Target {
    /// A ModelDeployment of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_deployment: Option<ReleaseTarget>,
    /// A file of predictions: no model is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<Predictions>,
}

/// A release as target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseTarget {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Which revision; absent: the candidate if there is one, else stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<TargetRevision>,
}

/// Which revision of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetRevision {
    /// The one that serves.
    Stable,
    /// The one that is tried.
    Candidate,
}

/// A file of predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Predictions {
    /// Where the file is.
    #[serde(flatten)]
    pub source: TableSource,
    /// The column with the label, when the file itself has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub label: Option<String>,
    /// The column with what was predicted (default `prediction`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub prediction: Option<String>,
    /// The column with the probability of the positive class (default `score`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub score: Option<String>,
}

/// A table somewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableSource {
    /// `s3://`, `http(s)://` or `pvc://CLAIM/PATH`.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|https?|pvc)://[^/]+(/.*)?$")
    )]
    pub uri: String,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Environment for reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How to read it; by the file's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// The rows that the model is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationDataset {
    /// Where they are.
    #[serde(flatten)]
    pub source: TableSource,
    /// The column with the truth.
    #[schemars(length(min = 1, max = 128))]
    pub label: String,
    /// The columns that the model is given, in order; absent: the signature's, else all but label, key and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub features: Option<Vec<String>>,
    /// The columns that identify a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub key: Option<Vec<String>>,
    /// The column that says when a row happened: intervals are by blocks of a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeColumn>,
}

/// What is computed: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.classification) ? 1 : 0) + (has(self.regression) ? 1 : 0) + (has(self.drift) ? 1 : 0) == 1",
    "message": "an evaluator is one thing: write classification, regression or drift"
}]))]
pub struct Evaluator {
    /// accuracy, precision, recall, f1, rocAuc, prAuc, logLoss, brier, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// mae, rmse, mape, r2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
    /// Columns against `reference`: driftShare, and `drift.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftEvaluator>,
}

/// Binary classification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Classification {
    /// The label's value that counts as positive (default `true` or `1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub positive: Option<String>,
    /// Probability from which a row is called positive (default 0.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: Option<f64>,
}

/// Regression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Regression {}

/// Drift of columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftEvaluator {
    /// Only these columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub columns: Option<Vec<String>>,
}

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
