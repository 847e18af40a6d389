//! Evaluation (`pev`): a measurement with a verdict.

mod dataset;
mod mirrored;
mod status;
mod target;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credentials, PodTemplate, gate::Gate};

pub use super::evaluator::{
    CalibrationEvaluator, Classification, DataQuality, DriftEvaluator, DriftMethod, Evaluator,
    Fairness, FeatureImportance, GroundednessEvaluator, JsonSchemaEvaluator, PiiEvaluator,
    Regression, RetrievalEvaluator, TextEvaluator, TextMetric,
};
pub use dataset::{DisjointFrom, EvaluationDataset, Sampling, TableSource};
pub use mirrored::Mirrored;
pub use status::{
    EvaluationRecord, EvaluationRun, EvaluationStatus, HoldoutStatus, NamedValue, ReportStatus,
};
pub use target::{
    Baseline, BaselinePredictions, Endpoint, EndpointProtocol, Predictions, ReleaseTarget,
    Requests, StopWhen, Target, TargetRevision, TrainingJobTarget,
};

/// A measurement with a verdict: of a model's or prompt's candidate or stable revision, or of a file of predictions.
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
    "rule": "has(self.mirrored) || !(has(self.target.modelDeployment) || has(self.target.endpoint) && self.target.endpoint.protocol == 'OpenInference') || has(self.dataset) && has(self.dataset.label) || has(self.evaluators) && size(self.evaluators) > 0 && self.evaluators.all(e, has(e.container))",
    "message": "dataset is what the model is asked: write its uri and label (only a target of predictions, and containers alone, need none)"
}, {
    "rule": "has(self.mirrored) || !has(self.target.promptRelease) || (has(self.dataset) ? !has(self.dataset.label) && !has(self.dataset.features) : has(self.evaluators) && size(self.evaluators) > 0 && self.evaluators.all(e, has(e.container)))",
    "message": "dataset has the prompt's variables as columns of their names: write its uri, and reference for the column that answers are compared with; label and features are for models"
}, {
    "rule": "!has(self.target.endpoint) || self.target.endpoint.protocol != 'OpenAI' || (has(self.dataset) ? !has(self.dataset.label) && !has(self.dataset.features) : has(self.evaluators) && size(self.evaluators) > 0 && self.evaluators.all(e, has(e.container)))",
    "message": "dataset has what the endpoint is asked in the column input: write its uri, and reference for the column that answers are compared with; label and features are for OpenInference"
}, {
    "rule": "!(has(self.target.promptRelease) || has(self.target.endpoint) && self.target.endpoint.protocol == 'OpenAI') || !has(self.evaluators) || !self.evaluators.exists(e, has(e.classification) || has(e.regression) || has(e.calibration) || has(e.fairness) || has(e.featureImportance) || has(e.retrieval))",
    "message": "its answers are texts: write text, jsonSchema, pii, toxicity, injection, groundedness or judge; classification, regression, calibration, fairness, featureImportance and retrieval are for models"
}, {
    "rule": "!has(self.evaluators) || !self.evaluators.exists(e, has(e.drift)) || has(self.reference)",
    "message": "the drift evaluator compares with reference: write reference.uri"
}, {
    "rule": "!has(self.evaluators) || !self.evaluators.exists(e, has(e.featureImportance)) || !has(self.target.predictions)",
    "message": "featureImportance asks the model again with a column shuffled: its target is a modelDeployment, not a file"
}, {
    "rule": "has(self.mirrored) || !has(self.evaluators) || !self.evaluators.exists(e, has(e.text) || has(e.jsonSchema) || has(e.pii) || has(e.toxicity) || has(e.injection) || has(e.groundedness) || has(e.judge)) || !(has(self.target.modelDeployment) || has(self.target.endpoint) && self.target.endpoint.protocol == 'OpenInference')",
    "message": "text, jsonSchema, pii, toxicity, injection, groundedness and judge look at texts: write target.promptRelease, an endpoint of protocol OpenAI, or target.predictions for a file of them"
}, {
    "rule": "!has(self.target.trainingJob) || !(has(self.dataset) || has(self.reference) || has(self.evaluators) || has(self.sampling) || has(self.requests) || has(self.maxItemErrors) || has(self.schedule) || has(self.output) || has(self.template))",
    "message": "of a trainingJob the metrics of its own version are judged, and nobody is asked: write gates, and nothing about how it is measured"
}, {
    "rule": "!has(self.target.trainingJob) || !has(self.gates) || !self.gates.exists(g, has(g.minDifference) || has(g.maxDifference) || has(g.minRatio) || has(g.maxRatio))",
    "message": "a trainingJob has no stable beside it: write min or max"
}, {
    "rule": "!has(self.requests) || !has(self.target.predictions) || has(self.evaluators) && self.evaluators.exists(e, has(e.judge))",
    "message": "requests is how a target or judge is asked, and a file isn't: take it out"
}, {
    "rule": "has(self.schedule) || !has(self.timeZone) && !has(self.suspend)",
    "message": "timeZone and suspend are about the schedule: write schedule, such as \"0 2 * * *\""
}, {
    "rule": "!has(self.dataset) || !has(self.dataset.disjointFrom) || has(self.target.modelDeployment)",
    "message": "dataset.disjointFrom: what a model was trained on is known of the versions that a ModelDeployment serves: write target.modelDeployment, or take it out"
}, {
    "rule": "!has(self.baseline) || !has(self.target.trainingJob) && has(self.dataset) && has(self.dataset.key) && size(self.dataset.key) > 0",
    "message": "baseline: its predictions are joined with the rows by key: write dataset.key, the columns that say which row is which"
}, {
    "rule": "!has(self.baseline) || !has(self.evaluators) || size(self.evaluators) == 0 || !self.evaluators.all(e, has(e.container))",
    "message": "baseline: evaluators that are containers compare by themselves: take it out"
}, {
    "rule": "!has(self.baseline) || !has(self.baseline.run) || has(self.output)",
    "message": "baseline.run: what a run predicted lies where it wrote its report: write output, the same as that run had"
}, {
    "rule": "!has(self.outputPredictions) || !self.outputPredictions || has(self.output) && has(self.dataset) && has(self.dataset.key) && size(self.dataset.key) > 0 && !has(self.target.predictions)",
    "message": "outputPredictions: what the target says of each row is written beside the row's key: write output and dataset.key, and a target that is asked"
}, {
    "rule": "!has(self.stopWhen) || (has(self.target.promptRelease) || has(self.target.endpoint) && self.target.endpoint.protocol == 'OpenAI') && has(self.dataset) && !has(self.dataset.time) && has(self.gates) && size(self.gates) > 0",
    "message": "stopWhen spares answers that cost: write target.promptRelease or an endpoint of protocol OpenAI, gates to decide, and no dataset.time, as rows of a day resemble each other"
}, {
    "rule": "!has(self.mirrored) || has(self.target.modelDeployment) && !(has(self.target.modelDeployment.revision) && self.target.modelDeployment.revision == 'Stable') || has(self.target.promptRelease) && !(has(self.target.promptRelease.revision) && self.target.promptRelease.revision == 'Stable')",
    "message": "mirrored: requests are copied to the candidate of a release: write target.modelDeployment or promptRelease, and not the revision Stable"
}, {
    "rule": "!has(self.mirrored) || !(has(self.dataset) || has(self.reference) || has(self.baseline) || has(self.sampling) || has(self.stopWhen) || has(self.schedule))",
    "message": "mirrored: callers' requests are what is measured, with stable's answers beside the candidate's, while a rollout copies them: take out dataset, reference, baseline, sampling, stopWhen and schedule"
}, {
    "rule": "!has(self.mirrored) || !has(self.evaluators) || self.evaluators.all(e, has(e.text) || has(e.jsonSchema) || has(e.pii) || has(e.toxicity) || has(e.injection) || has(e.groundedness) || has(e.judge))",
    "message": "mirrored: of callers' requests nobody knows the truth: errors, latency, agreement and difference are always measured; as evaluators write text, jsonSchema, pii, toxicity, injection, groundedness or judge"
}, {
    "rule": "!has(self.evaluators) || self.evaluators.filter(e, has(e.classification)).size() <= 1 && self.evaluators.filter(e, has(e.calibration)).size() <= 1 && self.evaluators.filter(e, has(e.featureImportance)).size() <= 1 && self.evaluators.filter(e, has(e.retrieval)).size() <= 1 && self.evaluators.filter(e, has(e.drift)).size() <= 1 && self.evaluators.filter(e, has(e.jsonSchema)).size() <= 1 && self.evaluators.filter(e, has(e.text) && has(e.text.pattern)).size() <= 1",
    "message": "evaluators: two of a kind would give the same metrics: keep one classification, calibration, featureImportance, retrieval, drift, jsonSchema and one text with a pattern"
}]))]
pub struct EvaluationSpec {
    /// What is measured.
    pub target: Target,
    /// The rows that the model is asked, with their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<EvaluationDataset>,
    /// Callers' requests that a rollout copies to its candidate (`setMirror`) are measured instead of rows: what it answers beside what stable did. Only where the
    /// release names this Evaluation, as in a step `evaluate` behind `setMirror`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<Mirrored>,
    /// What drift is measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<TableSource>,
    /// What comparing gates (`maxDifference`, `minRatio`, …) compare with; absent: stable, asked the same rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// What is computed; by the label's type when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub evaluators: Vec<Evaluator>,
    /// Bounds that make the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub gates: Vec<Gate>,
    /// Which rows are asked and compared: drawn with `seed`, the same for both sides (default: all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// How the target is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
    /// Share of rows that may stay without an answer (default 0.01); beyond it there is no verdict: `Inconclusive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_item_errors: Option<f64>,
    /// Fewer rows are asked where fewer are enough for the gates: of prompts, and endpoints of protocol OpenAI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when: Option<StopWhen>,
    /// Seed of everything random (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub seed: Option<i64>,
    /// When stable (or what the target names) is measured again: a cron expression with five fields. What was missed is made up for once;
    /// there is never a second run beside a running one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128), regex(pattern = r"^[^ \t]+( [^ \t]+){4}$"))]
    pub schedule: Option<String>,
    /// Time zone of the schedule: an IANA name (default UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// No scheduled run begins while this is true; candidates are still measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Runs kept in `status.history` (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub history_limit: Option<i32>,
    /// Seconds that a run may take (default 3600).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub active_deadline_seconds: Option<i64>,
    /// Where reports are written, as `<evaluation>-<number>.html` and `.json`: `s3://`, `gs://`, `az://` or `pvc://CLAIM/PATH`. The last one is also kept in a
    /// ConfigMap, which `kubectl perennial report` reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|gs|az|pvc)://[^/]+(/.*)?$")
    )]
    pub output: Option<String>,
    /// What the target says of each row is written to `output`, too, with the columns of `dataset.key`: `<evaluation>-<number>.predictions.jsonl.gz`, which `baseline.run` of
    /// later runs reads. Answers are written word for word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_predictions: Option<bool>,
    /// Environment for writing reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_credentials: Option<Credentials>,
    /// Overlay for the pods that measure: container `evaluator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,
}
