//! TrainingJob (`ptj`): one run that makes one model version.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Credentials, Duration, PodTemplate, gate::MetricValue, revision::ModelReference, schema,
};

/// One run that makes one model version, written under `<model.output>/<version>/`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "perennial.dev",
    version = "v1alpha1",
    kind = "TrainingJob",
    plural = "trainingjobs",
    shortname = "ptj",
    category = "perennial",
    namespaced,
    status = "TrainingJobStatus",
    derive = "PartialEq",
    validation = kube::core::Rule::new("size(self.metadata.name) <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label of at most 52 characters: lower-case letters, digits and -, beginning with a letter"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.model.version"}"#,
    printcolumn = r#"{"name":"Attempts","type":"integer","jsonPath":".status.attempts"}"#,
    printcolumn = r#"{"name":"Progress","type":"string","jsonPath":".status.progress.summary"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.template.spec.containers.exists(c, c.name == 'trainer') || size(self.template.spec.containers) == 1",
    "message": "template: name the container that trains `trainer`, or have only one container"
}, {
    "rule": "self.template.spec.containers.exists(c, (c.name == 'trainer' || size(self.template.spec.containers) == 1) && has(c.command) && size(c.command) > 0)",
    "message": "template: the container that trains must say its command (the image's own entry point can't be wrapped)"
}, {
    "rule": "self.model == oldSelf.model && self.template == oldSelf.template && has(self.datasets) == has(oldSelf.datasets) && (!has(self.datasets) || self.datasets == oldSelf.datasets) && has(self.parameters) == has(oldSelf.parameters) && (!has(self.parameters) || self.parameters == oldSelf.parameters)",
    "message": "a TrainingJob is one run and can't be changed, but for ttlSecondsAfterFinished and activeDeadlineSeconds; make a new one with another name"
}]))]
pub struct TrainingJobSpec {
    /// The model that this run makes a version of.
    pub model: ModelOutput,
    /// What it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), transform = schema::named_list)]
    pub datasets: Vec<Dataset>,
    /// The pod that trains: container `trainer`, or the only one; it must say its `command`.
    pub template: PodTemplate,
    /// Given to the trainer as environment `PERENNIAL_PARAM_<NAME>`, and kept as lineage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), schema_with = "parameters")]
    pub parameters: BTreeMap<String, String>,
    /// What a failed attempt leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    /// Watching the run's progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressPolicy>,
    /// Seconds that the whole run may take, restarts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after the end at which the TrainingJob is deleted; its model version stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// `Candidate` (default): ModelDeployments that follow the model take the version up. `None`: an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
}

fn parameters(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]{0,62}$'))",
            "message": "parameters: a name becomes part of an environment name: letters, digits and _, at most 63, not beginning with a digit"
        }],
    })
}

/// The model and where its versions are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelOutput {
    /// The model's name, which ModelDeployments follow.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The version is written to `<output>/<version>/`: `s3://BUCKET/PATH` (`gs://`, `az://`) or `pvc://CLAIM/PATH`.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|gs|az|pvc)://[^/]+(/.*)?$")
    )]
    pub output: String,
    /// Environment for writing there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// Something the run reads: a file or a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.key) || has(self.label) || has(self.features)",
    "message": "datasets: key says which row is which of those that a model learns from: write label or features, too"
}]))]
pub struct Dataset {
    /// Name; the data is read at `/perennial/inputs/<name>/`.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// `s3://`, `gs://`, `az://`, `http(s)://` or `pvc://CLAIM/PATH`.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|gs|az|https?|pvc)://[^/]+(/.*)?$")
    )]
    pub uri: String,
    /// What it must be: `sha256:` of the file's bytes, or of a tree's path-sorted `sha256sum` listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Environment for reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How to read it for checks and the profile; by the file's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Where the trainer finds it instead of `/perennial/inputs/<name>/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^/.+$"))]
    pub mount_path: Option<String>,
    /// The column that is predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub label: Option<String>,
    /// The columns that the model takes, in order; all but label, key and time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub features: Option<Vec<String>>,
    /// The columns that identify a row: by them an Evaluation with the same `dataset.key` and `disjointFrom` finds rows that the model was trained on
    /// (without: by the whole row).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    pub key: Option<Vec<String>>,
    /// The column that says when a row happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeColumn>,
    /// What must hold, else the run fails before training, saying what with counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub checks: Vec<Check>,
}

/// The column that says when a row happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeColumn {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub column: String,
}

/// How a table is stored. Compression (`.gz`, `.zst`) goes by the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow: a file (Feather version 2) or a stream.
    Arrow,
    /// Comma-separated with a header.
    #[serde(rename = "CSV")]
    Csv,
    /// One JSON object a line.
    #[serde(rename = "JSONL")]
    Jsonl,
}

/// One check: of the row count, or of a column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.rows) != has(self.column)",
    "message": "a check is about `rows` or about a `column`: write one of them"
}, {
    "rule": "!has(self.column) || has(self.type) || has(self.maxNullFraction) || has(self.range) || has(self.oneOf) || has(self.unique)",
    "message": "a check of a column needs type, maxNullFraction, range, oneOf or unique"
}]))]
pub struct Check {
    /// Bounds on the number of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowBounds>,
    /// The column that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub column: Option<String>,
    /// Its type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ColumnType>,
    /// Largest share of missing values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_null_fraction: Option<f64>,
    /// Bounds of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// The only values allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), inner(length(max = 256)))]
    pub one_of: Option<Vec<String>>,
    /// No value twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<bool>,
}

/// Bounds on a row count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RowBounds {
    /// At least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// At most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// Bounds on a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// At least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// At most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ColumnType {
    /// Integers or floats.
    Number,
    /// Text.
    String,
    /// true and false.
    Boolean,
    /// Points in time.
    Time,
}

/// What a failed attempt leads to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// Attempts after the first (default 2). A drain or preemption doesn't count; a stall does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_restarts: Option<i32>,
    /// Wait before the next attempt, doubling (default 10s to 5m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
}

/// A doubling wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Duration>,
    /// The longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

/// Watching the run's progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressPolicy {
    /// An attempt that writes no progress line for so long has stalled and is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_timeout: Option<Duration>,
}

/// Whether anybody follows the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Publish {
    /// ModelDeployments that follow the model take it up.
    #[default]
    Candidate,
    /// An experiment.
    None,
}

/// Where the run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrainingPhase {
    /// Nothing made yet, or the run can't be made (see the conditions).
    #[default]
    Pending,
    /// Its pod is being scheduled or started, or reads its inputs.
    Starting,
    /// It trains.
    Running,
    /// Between two attempts.
    Restarting,
    /// The model is being written and recorded.
    Publishing,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
}

impl TrainingPhase {
    /// Terminal is terminal.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What is known of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingJobStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run is; never input to a decision.
    #[serde(default)]
    pub phase: TrainingPhase,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// Attempts begun.
    #[serde(default)]
    pub attempts: i32,
    /// Attempts that count against maxRestarts.
    #[serde(default)]
    pub failures: i32,
    /// The last 20 attempts that ended, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempt_history: Vec<Attempt>,
    /// When the next attempt may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
    /// The last progress line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datasets: Vec<DatasetStatus>,
    /// What `metrics.json` said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricValue>,
    /// The version that was made; its `version` is fixed before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelReference>,
    /// When the first attempt was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Conditions: Ready, Reconciling, Stalled, Complete, Failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// 1, 2, …
    pub number: i32,
    /// CamelCase: `Failed`, `Stalled`, `OOMKilled`, `Evicted`, `ImagePullFailed`, …
    pub reason: String,
    /// One sentence, with the last log line where there is one.
    pub message: String,
    /// Pod that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Node that it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The trainer's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether it counts against maxRestarts.
    pub counted: bool,
    /// When it ended.
    pub time: Time,
}

/// The last progress line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// Of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// `3/10 (30 %)`.
    #[serde(default)]
    pub summary: String,
    /// Its other numbers, such as `loss`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, f64>,
    /// When it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// A dataset as it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// Its name in the spec.
    pub name: String,
    /// What was read.
    pub uri: String,
    /// Its digest.
    pub digest: String,
    /// Its rows, where it could be read as a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Its bytes.
    #[serde(default)]
    pub size_bytes: i64,
}
