//! What is measured, and how it is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dataset::TableSource;
use crate::api::{
    Duration,
    prompt_release::{KeyReference, Prices},
};

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

/// What comparing gates compare with, instead of stable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.predictions) != has(self.run)",
    "message": "baseline is one thing: write predictions (a file) or run (the name of a run that had outputPredictions)"
}]))]
pub struct Baseline {
    /// A file of what was predicted for the same rows, joined by `dataset.key`. Its metrics are `stable.<metric>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<BaselinePredictions>,
    /// Name of a run, `<evaluation>-<number>`, which had `outputPredictions` and the same `output` as this one: what it wrote there is that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 3, max = 60),
        regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?-[1-9][0-9]*$")
    )]
    pub run: Option<String>,
}

/// A file of predictions to compare with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselinePredictions {
    /// Where the file is.
    #[serde(flatten)]
    pub source: TableSource,
    /// The column with what was predicted (default `prediction`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub prediction: Option<String>,
    /// The column with the probability of the positive class (default `score`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub score: Option<String>,
}

/// When no more rows are asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopWhen {
    /// Rows are asked in a random order, a few at a time, until the interval of each gate's metric lies on one side of the bound, or is within so much of the value to
    /// either side. The intervals hold at every look at once (95 %).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub precision: f64,
}
