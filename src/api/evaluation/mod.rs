//! Evaluation (`pev`): a measurement with a verdict.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Credentials, Duration, OpenObject, PodTemplate,
    container::ContainerEvaluator,
    evaluator::{InjectionEvaluator, ToxicityEvaluator},
    gate::{Gate, GateStatus, MetricValue, Verdict},
    judge::JudgeEvaluator,
    prompt_release::{KeyReference, Prices},
    schema,
    training_job::{Format, TimeColumn},
};

pub use super::evaluator::RetrievalEvaluator;

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
    "rule": "!(has(self.target.modelDeployment) || has(self.target.endpoint) && self.target.endpoint.protocol == 'OpenInference') || has(self.dataset) && has(self.dataset.label) || has(self.evaluators) && size(self.evaluators) > 0 && self.evaluators.all(e, has(e.container))",
    "message": "dataset is what the model is asked: write its uri and label (only a target of predictions, and containers alone, need none)"
}, {
    "rule": "!has(self.target.promptRelease) || (has(self.dataset) ? !has(self.dataset.label) && !has(self.dataset.features) : has(self.evaluators) && size(self.evaluators) > 0 && self.evaluators.all(e, has(e.container)))",
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
    "rule": "!has(self.evaluators) || !self.evaluators.exists(e, has(e.text) || has(e.jsonSchema) || has(e.pii) || has(e.toxicity) || has(e.injection) || has(e.groundedness) || has(e.judge)) || !(has(self.target.modelDeployment) || has(self.target.endpoint) && self.target.endpoint.protocol == 'OpenInference')",
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
    /// Where reports are written, as `<evaluation>-<number>.html` and `.json`: `s3://` or `pvc://CLAIM/PATH`. The last one is also kept in a
    /// ConfigMap, which `kubectl perennial report` reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|pvc)://[^/]+(/.*)?$")
    )]
    pub output: Option<String>,
    /// Environment for writing reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_credentials: Option<Credentials>,
    /// Overlay for the pods that measure: container `evaluator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,
}

/// What is measured: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.modelDeployment), has(self.promptRelease), has(self.trainingJob), has(self.endpoint), has(self.predictions)].filter(x, x).size() == 1",
    "message": "target is one thing: write modelDeployment, promptRelease, trainingJob, endpoint or predictions"
}]))]
pub struct Target {
    /// A ModelDeployment of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_deployment: Option<ReleaseTarget>,
    /// A PromptRelease of this namespace: each row is one request, its columns are the variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_release: Option<ReleaseTarget>,
    /// A TrainingJob of this namespace: once it has ended, gates look at the metrics of its version, as `metrics.json` said them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_job: Option<TrainingJobTarget>,
    /// A server that isn't a release of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// A file of predictions: no model is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<Predictions>,
}

impl Target {
    /// The release, of either kind.
    pub fn release(&self) -> Option<&ReleaseTarget> {
        self.model_deployment
            .as_ref()
            .or(self.prompt_release.as_ref())
    }
}

/// A TrainingJob as target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingJobTarget {
    /// Its name.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
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

/// A server somewhere. The evaluation's pod asks it, so that it reaches what pods of this namespace reach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.protocol != 'OpenAI' || has(self.model)",
    "message": "endpoint: protocol OpenAI needs model, its name there"
}, {
    "rule": "self.protocol == 'OpenAI' || !has(self.prices)",
    "message": "endpoint: prices are of tokens, which only protocol OpenAI counts"
}]))]
pub struct Endpoint {
    /// Base URL: of OpenInference up to `/v2`, of OpenAI with `/v1`.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^https?://[^/]+(/.*)?$")
    )]
    pub url: String,
    /// What it speaks.
    pub protocol: EndpointProtocol,
    /// The model's name there; of OpenInference absent: the only one that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
    /// Key of a Secret in the same namespace, sent as bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<KeyReference>,
    /// What tokens cost: for `costPerRequest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndpointProtocol {
    /// Open Inference Protocol (KServe V2) over HTTP: rows in, predictions out.
    #[default]
    OpenInference,
    /// OpenAI's chat completions: the column `input` is the user's message, the answer a text.
    #[serde(rename = "OpenAI")]
    OpenAi,
}

/// Which revision of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetRevision {
    /// The one that serves.
    Stable,
    /// The one that is tried.
    Candidate,
}

/// How a target, and a judge, is asked; releases through the gateway's internal address, apart from callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests at a time (default 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<i32>,
    /// Requests begun in a second, at most (default: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 10_000.0))]
    pub per_second: Option<f64>,
    /// Longest wait for an answer (default 60s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Further tries of a request that got no answer (none, 408, 429 or 5xx), after waits that double from 250 ms, or as long as
    /// `Retry-After` says, up to a minute (default 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<i32>,
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
    /// The column with the reference of a text, when the file itself has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub reference: Option<String>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub label: Option<String>,
    /// The column with the reference of a text: what a prompt's answers are compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub reference: Option<String>,
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
    "rule": "[has(self.classification), has(self.regression), has(self.calibration), has(self.fairness), has(self.featureImportance), has(self.retrieval), has(self.drift), has(self.dataQuality), has(self.text), has(self.jsonSchema), has(self.pii), has(self.toxicity), has(self.injection), has(self.groundedness), has(self.judge), has(self.container)].filter(x, x).size() == 1",
    "message": "an evaluator is one thing: write one of classification, regression, calibration, fairness, featureImportance, retrieval, drift, dataQuality, text, jsonSchema, pii, toxicity, injection, groundedness, judge and container"
}]))]
pub struct Evaluator {
    /// accuracy, precision, recall, f1, rocAuc, prAuc, logLoss, brier, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// mae, rmse, mape, r2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
    /// Whether probabilities mean what they say: ece, mce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationEvaluator>,
    /// Whether groups are treated alike: `equalizedOddsDifference.<column>`, `demographicParityRatio.<column>`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
    /// What the model loses when a column is shuffled: `featureImportance.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_importance: Option<FeatureImportance>,
    /// How good the order is that predictions give to each question's rows: retrieval.ndcg, retrieval.map, retrieval.mrr, retrieval.recall, retrieval.precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalEvaluator>,
    /// Columns against `reference`: driftShare, and `drift.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftEvaluator>,
    /// Missing, constant, duplicate and unreadable data, and what differs from `reference` where there is one: missingShare, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_quality: Option<DataQuality>,
    /// Texts against references: exact, contains, regex, tokenF1, bleu, rouge1, rouge2, rougeL, chrF, editSimilarity; and by themselves: refusalRate,
    /// readingEase, readingGrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextEvaluator>,
    /// Whether texts are JSON of this schema: jsonSchemaRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchemaEvaluator>,
    /// Personal data in texts, by rule: piiRate, `pii.<entity>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pii: Option<PiiEvaluator>,
    /// Toxic words in texts, by lexicon: toxicityRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toxicity: Option<ToxicityEvaluator>,
    /// Orders to a model in texts, by rule: injectionRate, `injectionRate.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<InjectionEvaluator>,
    /// Whether texts keep to their context and question, by words and facts: grounded.lexical, grounded.facts, relevance.answer, relevance.context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groundedness: Option<GroundednessEvaluator>,
    /// Another model's verdict on texts: a metric of the judge's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeEvaluator>,
    /// Any image: its results file becomes metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerEvaluator>,
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

/// Calibration of probabilities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CalibrationEvaluator {
    /// Bins of equal width (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100))]
    pub bins: Option<i32>,
}

/// Fairness between groups of rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fairness {
    /// The columns whose values make the groups, each by itself.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 100)))]
    pub sensitive: Vec<String>,
    /// Rows below which a group says too little: it is reported as insufficient, and not compared (default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_group_size: Option<i64>,
}

/// Permutation importance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeatureImportance {
    /// How often each column is shuffled (default 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub repeats: Option<i32>,
}

/// Quality of the data itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataQuality {}

/// Texts against references.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.metrics.exists(m, m == 'regex') == has(self.pattern)",
    "message": "the metric regex and pattern belong together: write both"
}]))]
pub struct TextEvaluator {
    /// What is computed.
    #[schemars(length(min = 1, max = 13))]
    pub metrics: Vec<TextMetric>,
    /// Regular expression of the metric `regex` (syntax of the Rust crate regex: no look-around, no back references).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,
}

/// A score of a text against its reference, or (from `RefusalRate` on) of a text by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names of the scores")]
pub enum TextMetric {
    Exact,
    Contains,
    Regex,
    TokenF1,
    Bleu,
    Rouge1,
    Rouge2,
    RougeL,
    ChrF,
    EditSimilarity,
    RefusalRate,
    ReadingEase,
    ReadingGrade,
}

/// Whether texts are JSON of a schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JsonSchemaEvaluator {
    /// The JSON Schema.
    pub schema: OpenObject,
}

/// Personal data by rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PiiEvaluator {}

/// Answers against what they were made from, without a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroundednessEvaluator {
    /// Columns with the context.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 128)))]
    pub context: Vec<String>,
    /// The column with the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub question: Option<String>,
}

/// Some of the rows instead of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.rows) != has(self.rate)",
    "message": "sampling is one thing: write rows (at most so many) or rate (a share)"
}]))]
pub struct Sampling {
    /// At most so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<i64>,
    /// Each row with this probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000001, max = 1.0))]
    pub rate: Option<f64>,
}

/// Drift of columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftEvaluator {
    /// Only these columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub columns: Option<Vec<String>>,
    /// How columns are compared; by type and size when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<DriftMethod>,
    /// Score from which a column has drifted (of a test: p-value below which); the method's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub threshold: Option<f64>,
}

/// A way to compare two columns; docs/evaluation.md says which fits what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the names of the methods")]
pub enum DriftMethod {
    KS,
    ChiSquare,
    Z,
    Wasserstein,
    JensenShannon,
    PSI,
    KullbackLeibler,
    Hellinger,
    TotalVariation,
    Energy,
    AndersonDarling,
    CramerVonMises,
    MannWhitney,
    T,
    G,
    FisherExact,
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
    /// Finished runs, oldest first, with the values that the gates looked at: at most `historyLimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<EvaluationRecord>,
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
