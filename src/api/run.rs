//! What the operator tells a training or evaluation pod, and what the pod answers.
//!
//! The spec is the environment variable [`RUN_ENV`]; the answers are `/progress` and `/report` on
//! [`super::SUPERVISOR_PORT`], and a summary of at most 4 KiB as termination message.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Duration,
    container::ContainerResults,
    evaluation::{
        BaselinePredictions, EndpointProtocol, Evaluator, Predictions, Requests, Sampling,
        StopWhen, TableSource,
    },
    gate::{Gate, MetricValue},
    model_deployment::Protocol,
    prompt_release::Prices,
    revision::{ModelReference, Signature},
    serving::WarmUpRequest,
    training_job::{Dataset, DatasetStatus, Progress},
};

/// Environment variable with the run's spec as JSON (`$` doubled, as the kubelet expands `$(NAME)`).
pub const RUN_ENV: &str = "PERENNIAL_RUN";
/// The program in the operator's image. Not below `/perennial`, where volumes are mounted.
pub const PROGRAM: &str = "/bin/perennial";
/// Where the supervisor binary is put by the init container: an emptyDir.
pub const BIN_DIR: &str = "/perennial/bin";
/// Where inputs are: `/perennial/inputs/<dataset>/`.
pub const INPUT_DIR: &str = "/perennial/inputs";
/// Where claims are mounted, read-only: `/perennial/volumes/<dataset>/` holds the *parent directory* of what the URI names
/// (the claim's root for a file at its root); the supervisor links it into [`INPUT_DIR`].
pub const VOLUME_DIR: &str = "/perennial/volumes";
/// Where the trainer writes (`PERENNIAL_OUTPUT_DIR`): for `pvc://` outputs the claim at `<output>/<version>`, else an
/// emptyDir that the supervisor uploads from.
pub const OUTPUT_DIR: &str = "/perennial/output";
/// The file with what a run predicted, beside its report; `run` is `<evaluation>-<number>`.
#[must_use]
pub fn predictions_file(run: &str) -> String {
    format!("{run}.predictions.jsonl.gz")
}

/// Progress lines (`PERENNIAL_PROGRESS_FILE`).
pub const PROGRESS_FILE: &str = "/perennial/run/progress.jsonl";
/// Directory of the progress file and of the supervisor's own state: an emptyDir.
pub const RUN_DIR: &str = "/perennial/run";
/// Where an evaluator's container writes (`PERENNIAL_OUTPUT_DIR`): an emptyDir of its own.
pub const EVALUATOR_OUTPUT_DIR: &str = "/perennial/outputs";
/// Where what was read of each evaluator's results waits for `perennial evaluate`, as `<place>.json`.
pub const RESULTS_DIR: &str = "/perennial/results";
/// What `perennial gather` has brought, and whence: below [`INPUT_DIR`].
pub const GATHERED_FILE: &str = "gathered.json";

/// Key of a ConfigMap with an evaluation's report.
pub const REPORT_FILE: &str = "report.html.gz";

/// A training run, for `perennial supervise -- COMMAND ARGS…`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainingRun {
    /// Namespace of the TrainingJob.
    pub namespace: String,
    /// Name of the TrainingJob.
    pub name: String,
    /// UID of the TrainingJob.
    pub uid: String,
    /// Attempt, from 1.
    pub attempt: i32,
    /// Model name.
    pub model: String,
    /// Version to write.
    pub version: String,
    /// URI of the version: `<output>/<version>`.
    pub output: String,
    /// Datasets, as in the spec. Credentials of dataset *i* are environment variables with the prefix
    /// `PERENNIAL_CRED_<i>_`, those of the output `PERENNIAL_CRED_OUT_` (envFrom with prefix), so that two sets don't mix.
    pub datasets: Vec<Dataset>,
    /// Parameters.
    pub parameters: BTreeMap<String, String>,
    /// Stall time-out, enforced by the supervisor: the trainer is ended, exit code [`EXIT_STALLED`].
    pub stall_timeout: Option<Duration>,
    /// Deadline of the whole run, enforced by the supervisor (and by the operator): exit code [`EXIT_DEADLINE`].
    pub deadline: Option<Timestamp>,
    /// How long to wait at the end for the operator to have read the report.
    pub acknowledge_timeout: Duration,
}

/// Port at which the container that warms a server up says whether it has.
pub const WARM_UP_PORT: u16 = 9468;

/// What a server is asked before callers are let to it, for `perennial warm-up`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmUpRun {
    /// The server's port, in the same pod.
    pub port: u16,
    /// The requests, in order.
    pub requests: Vec<WarmUpRequest>,
    /// How often all of them are sent.
    pub rounds: i32,
}

/// The supervisor's exit codes that are not the trainer's own.
pub const EXIT_INPUT: i32 = 190;
/// The trainer wrote no progress for too long.
pub const EXIT_STALLED: i32 = 191;
/// The run's deadline has passed.
pub const EXIT_DEADLINE: i32 = 192;
/// The output could not be published.
pub const EXIT_OUTPUT: i32 = 193;
/// The run's spec makes no sense to this supervisor.
pub const EXIT_SPEC: i32 = 194;
/// A server refused a request of its warm-up.
pub const EXIT_WARM_UP: i32 = 195;
/// An evaluator's results aren't there or can't be read.
pub const EXIT_RESULTS: i32 = 196;

/// What an evaluation pod does: `perennial evaluate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationRunSpec {
    /// Namespace of the Evaluation.
    pub namespace: String,
    /// Name of the Evaluation.
    pub name: String,
    /// Number of the run.
    pub number: i64,
    /// What is measured.
    pub target: EvaluationTarget,
    /// Rows and labels (dataset index 0 for mounts and credentials), unless the target is a file with labels in it.
    pub dataset: Option<TableSource>,
    /// The label's column.
    pub label: Option<String>,
    /// The column with the reference of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_reference: Option<String>,
    /// Columns that the model is given; absent: the signature's.
    pub features: Option<Vec<String>>,
    /// Columns that identify a row.
    pub key: Option<Vec<String>>,
    /// Column with the time of a row.
    pub time: Option<String>,
    /// Reference for drift (dataset index 1).
    pub reference: Option<TableSource>,
    /// What is compared with instead of stable (dataset index 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselinePredictions>,
    /// Copied requests that are measured in the place of a dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<MirroredRun>,
    /// What the model was trained on, of which the dataset must have no row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainedOn>,
    /// Evaluators; empty: by the label's type.
    pub evaluators: Vec<Evaluator>,
    /// Which rows are asked and compared; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// How the target is asked.
    #[serde(default)]
    pub requests: Requests,
    /// Share of rows that may stay without an answer.
    #[serde(default = "default_item_errors")]
    pub max_item_errors: f64,
    /// When no more rows are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when: Option<StopWhen>,
    /// Gates: they are judged for the report; the verdict is the planner's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// What is measured, for people.
    #[serde(default)]
    pub subject: String,
    /// URI of the directory for reports; a claim is mounted at [`OUTPUT_DIR`]. Credentials have the index 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What is predicted is written there, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_predictions: bool,
    /// Seed.
    pub seed: u64,
    /// Deadline.
    pub deadline: Option<Timestamp>,
    /// How long to wait at the end for the operator to have read the report.
    pub acknowledge_timeout: Duration,
}

/// Where copied requests are listened to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredRun {
    /// Host and port; the host is the address of every gateway pod.
    pub address: String,
    /// [`super::mirrored::path`] of the candidate.
    pub path: String,
    /// How many are waited for.
    pub requests: usize,
}

/// A version whose training is looked into. Credentials of its artifact have the index 5; a claim is mounted as `training`, at the artifact itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainedOn {
    /// The version, for people.
    pub version: String,
    /// Where its artifact is.
    pub uri: String,
    /// The artifact's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The Secret that it is read with, where the Evaluation names no such one: its author may not be allowed to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnamed_secret: Option<String>,
}

/// Name of the mount of a version's artifact.
pub const TRAINING: &str = "training";
/// Index of the credentials of a version's artifact.
pub const TRAINING_INDEX: usize = 5;

/// An evaluator's container, for `perennial evaluator -- COMMAND ARGS…`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRun {
    /// Its place among the evaluators.
    pub place: usize,
    /// What its metrics begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file that it leaves.
    pub results: ContainerResults,
    /// Share of its items that may end in an error.
    pub max_item_errors: f64,
    /// Seed of intervals.
    pub seed: u64,
    /// Deadline.
    pub deadline: Option<Timestamp>,
}

/// Share of rows that may stay without an answer, where the spec doesn't say.
pub const MAX_ITEM_ERRORS: f64 = 0.01;

fn default_item_errors() -> f64 {
    MAX_ITEM_ERRORS
}

/// What is measured. Index 2 for the mount and credentials of a predictions file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EvaluationTarget {
    /// Revisions behind the gateway's internal addresses.
    #[serde(rename_all = "camelCase")]
    Model {
        /// Address of the revision that is measured: `http://perennial-gateway.NS.svc:9467/revisions/models/NAME/HASH`.
        url: String,
        /// Address of stable, when there is one to compare with.
        baseline_url: Option<String>,
        /// What it speaks.
        protocol: Protocol,
        /// Its signature.
        signature: Option<Signature>,
    },
    /// Revisions of a prompt behind the gateway's internal addresses.
    #[serde(rename_all = "camelCase")]
    Prompt {
        /// The release: `prompt.id`.
        release: String,
        /// The revision that is measured.
        own: PromptSide,
        /// Stable, when there is one to compare with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stable: Option<PromptSide>,
    },
    /// A server somewhere; its bearer token is [`ENDPOINT_KEY`].
    #[serde(rename_all = "camelCase")]
    Endpoint {
        /// Base URL.
        url: String,
        /// What it speaks.
        protocol: EndpointProtocol,
        /// The model's name there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// What tokens cost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prices: Option<Prices>,
    },
    /// A file.
    Predictions(Predictions),
}

/// Index for the credentials of the calibration set of the first evaluator, if that is a judge; others follow by their places.
pub const CALIBRATION_INDEX: usize = 10;

/// Name of the calibration set of the judge in this place among the evaluators.
pub fn calibration(place: usize) -> String {
    format!("calibration-{place}")
}

/// Environment variable with the bearer token of the judge in this place.
pub fn judge_key(place: usize) -> String {
    format!("PERENNIAL_JUDGE_{place}_KEY")
}

/// Environment variable with the bearer token of an endpoint.
pub const ENDPOINT_KEY: &str = "PERENNIAL_ENDPOINT_KEY";

/// A revision of a prompt: where it is asked, and with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptSide {
    /// Base URL with `/v1`: `http://perennial-gateway.NS.svc:9467/revisions/prompts/NAME/HASH/v1`.
    pub url: String,
    /// The variables that it takes.
    #[serde(flatten)]
    pub takes: PromptVariables,
    /// What its tokens cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
}

/// What a prompt's templates are given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptVariables {
    /// Variables by name.
    pub variables: BTreeMap<String, PromptVariable>,
    /// Whether the templates place the caller's own message, which is then the column `input`.
    #[serde(default)]
    pub message: bool,
}

/// A variable of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptVariable {
    /// Whether there is no request without it.
    #[serde(default)]
    pub required: bool,
    /// What it is in JSON.
    #[serde(default)]
    pub kind: VariableKind,
}

/// What a variable is in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VariableKind {
    /// A string, whatever the column holds.
    #[default]
    Text,
    /// As the column has it.
    Plain,
    /// A list or object: the column holds it as JSON.
    Json,
}

/// `GET /progress`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressAnswer {
    /// `Inputs`, `Running`, `Publishing`, `Done`.
    pub stage: String,
    /// The last progress line.
    pub progress: Option<Progress>,
}

/// `GET /report`: 404 until the run has ended (well or badly), then this. The pod exits once it was read with
/// `GET /report?acknowledge=true`, or after the acknowledge time-out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The summary, which is also the termination message.
    pub summary: Summary,
    /// Everything `metrics.json` said, or the evaluators computed.
    #[serde(default)]
    pub metrics: Vec<MetricValue>,
    /// Profile of the training data (`stats::profile::Profile`), at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Value>,
    /// The version, without `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelReference>,
    /// What was read.
    #[serde(default)]
    pub datasets: Vec<DatasetStatus>,
    /// An evaluation as a page for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
}

/// An evaluation's report for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// One self-contained HTML file, gzipped; absent when it is too large to be handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<ByteString>,
    /// Where it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Why it wasn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Termination message: JSON of at most 4 KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Whether it ended well.
    pub succeeded: bool,
    /// CamelCase reason when not: `DigestMismatch`, `CheckFailed`, `InputUnreadable`, `TrainerFailed`, `Stalled`,
    /// `DeadlineExceeded`, `OutputUnwritable`, `TargetUnreachable`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence.
    pub message: String,
    /// Whether trying again can't help (a digest mismatch, a failed check).
    #[serde(default)]
    pub permanent: bool,
    /// Whether an evaluation had too little for a verdict (`TooManyUnanswered`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inconclusive: bool,
    /// The trainer's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The trainer's last log line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_line: Option<String>,
    /// Digest of the version that was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Rows measured, for an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Rows that weren't asked, as fewer were enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_asked: Option<i64>,
    /// Tokens that an evaluation used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    /// What they cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Digest of an evaluation's dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_digest: Option<String>,
    /// What a look saw of each dataset, as [`LookRun`] asked: another listing says that the data is another.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listings: BTreeMap<String, String>,
}

/// Says that a version is there, and what it is.
pub const MANIFEST: &str = "manifest.json";

/// [`MANIFEST`], written last: the version exists once it does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version; its digest covers every file but this one.
    pub model: ModelReference,
    /// Files: path, digest, bytes.
    pub files: Vec<ManifestFile>,
    /// Datasets that were read.
    pub datasets: Vec<DatasetStatus>,
    /// Parameters.
    pub parameters: BTreeMap<String, String>,
    /// Metrics.
    pub metrics: Vec<MetricValue>,
    /// Profile of the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Value>,
    /// UID of the TrainingJob; a manifest of another run in the same place is an error.
    pub uid: String,
}

/// A file of a version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFile {
    /// Path below the version.
    pub path: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// Its bytes.
    pub size_bytes: i64,
}

/// What the init container of a model server does: `perennial fetch`, spec in [`RUN_ENV`]. It fetches the artifact to
/// `target` (an emptyDir, mounted read-only into the server), verifies it, and fails with a sentence. For `pvc://` the claim's
/// parent directory is mounted at `/perennial/volumes/model`, and the artifact is copied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchRun {
    /// Artifact URI. Credentials: environment with the prefix `PERENNIAL_CRED_0_`.
    pub uri: String,
    /// What it must be; absent only in a resolve pod, which prints the digest in its [`Summary`].
    pub digest: Option<String>,
    /// Directory to put it into.
    pub target: String,
    /// Where copies are kept, for an artifact that is downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheRun>,
}

/// Artifacts that pods share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRun {
    /// Directory where they are.
    pub directory: String,
    /// Bytes at most, over all of them.
    pub bytes: u64,
}

/// What `perennial look` looks at. Claims are mounted at `/perennial/volumes/<name>`, as for a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LookRun {
    /// The datasets. Credentials of dataset *i*: environment with the prefix `PERENNIAL_CRED_<i>_`.
    pub datasets: Vec<LookSource>,
}

/// One dataset that is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LookSource {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub uri: String,
}
