//! ModelDeployment (`pmd`): a model that serves, follows new versions, and asks for retraining.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Credentials, Duration, PodTemplate,
    command::HandledCommand,
    gate::MetricValue,
    payload_log::PayloadLog,
    rollout::{
        GatewayStatus, HistoryEntry, MetricSource, RejectedRevision, RevisionStatus, RolloutSpec,
        RolloutStatus,
    },
    schema,
    serving::{Autoscaling, Route, WarmUp},
    traffic::Traffic,
    training_job::TrainingJobSpec,
};

/// Serves the newest good version of a model, tries each new one on a few callers first, and retrains when live
/// traffic no longer looks like the training data.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "perennial.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    shortname = "pmd",
    category = "perennial",
    namespaced,
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = kube::core::Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label of at most 40 characters: lower-case letters, digits and -, beginning with a letter"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Stable","type":"string","jsonPath":".status.stable.version"}"#,
    printcolumn = r#"{"name":"Candidate","type":"string","jsonPath":".status.candidate.version"}"#,
    printcolumn = r#"{"name":"Weight","type":"integer","jsonPath":".status.rollout.weight"}"#,
    printcolumn = r#"{"name":"Drift","type":"string","jsonPath":".status.driftSummary"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.retraining) || (has(self.retraining.promotion) && self.retraining.promotion == 'Manual') || (has(self.rollout) && has(self.rollout.evaluations) && size(self.rollout.evaluations) > 0)",
    "message": "retraining.promotion Automatic (the default) needs rollout.evaluations, so that nothing unmeasured is promoted: name an Evaluation there, or write promotion: Manual"
}, {
    "rule": "!has(self.retraining) || !has(self.model) || (!has(self.model.version) && !has(self.model.uri))",
    "message": "retraining makes new versions, but model pins one: leave out model.version and model.uri"
}, {
    "rule": "!has(self.replicas) || !has(self.autoscaling)",
    "message": "replicas and autoscaling exclude each other: leave out replicas, an autoscaler decides"
}, {
    "rule": "!has(self.metrics) || !self.metrics.exists(m, has(m.labels)) || !has(self.server.protocol) || self.server.protocol == 'OpenInference'",
    "message": "metrics by labels need server.protocol OpenInference: predictions of others can't be read"
}, {
    "rule": "!has(self.monitoring) || !has(self.monitoring.payloadLog) || !has(self.server.protocol) || self.server.protocol == 'OpenInference'",
    "message": "monitoring.payloadLog needs server.protocol OpenInference: requests of others can't be read"
}]))]
pub struct ModelDeploymentSpec {
    /// Which model: by name (follows its versions), by version, or by URI. Default: this object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSource>,
    /// The server.
    pub server: ServerSpec,
    /// Pods of the revision that has all the traffic (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<i32>,
    /// Pods by load, instead of `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How callers from outside of the cluster come in, where the Gateway API is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// Metrics that gates and triggers can name, beside the built-in ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), transform = schema::named_list)]
    pub metrics: Vec<MetricSource>,
    /// How a candidate becomes stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// How the gateway treats callers and pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// What is watched in live traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// When and how to train a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retraining: Option<Retraining>,
}

/// Which model to serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.name) != has(self.uri)",
    "message": "model: write name (to follow a model, with version to pin one) or uri (an artifact from elsewhere), not both"
}, {
    "rule": "!has(self.uri) || (!has(self.version) && !has(self.selector))",
    "message": "model: version and selector go with name; a uri is pinned with digest"
}, {
    "rule": "!has(self.digest) || has(self.uri)",
    "message": "model: digest goes with uri; a version has its own digest"
}]))]
pub struct ModelSource {
    /// Follow the versions that TrainingJobs of this model made in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub name: Option<String>,
    /// Only versions of TrainingJobs with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Only this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// An artifact from elsewhere: `s3://`, `gs://`, `az://`, `http(s)://` or `pvc://CLAIM/PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^(s3|gs|az|https?|pvc)://[^/]+(/.*)?$")
    )]
    pub uri: Option<String>,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Environment for reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// Labels that must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels and their values.
    #[schemars(extend("maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
}

/// The server of a model: any image that serves from `modelPath`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.template.spec.containers.exists(c, c.name == 'server') || size(self.template.spec.containers) == 1",
    "message": "server.template: name the container that serves `server`, or have only one container"
}, {
    "rule": "!has(self.warmUp) || !has(self.tls)",
    "message": "server.warmUp: requests are sent in plain HTTP; leave out server.tls, or warm up in the server itself"
}]))]
pub struct ServerSpec {
    /// The pod: container `server`, or the only one.
    pub template: PodTemplate,
    /// Port that it listens on (default 8080).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Port on which it speaks gRPC, where that is another one (default: `port`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub grpc_port: Option<i32>,
    /// What it speaks (default OpenInference: KServe V2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// It speaks TLS (without it: plain HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Where the verified artifact is, read-only (default /mnt/model).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^/.+$"))]
    pub model_path: Option<String>,
    /// Seconds that a pod must have been ready before it counts as one that can answer (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: Option<i32>,
    /// What a server is asked before its pod is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
}

/// TLS from the gateway to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerTls {
    /// Secret with the authority's certificate, `ca.crt`.
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: String,
    /// The name in the server's certificate (default: the release's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

impl ServerSpec {
    /// Port, with the default.
    pub fn port(&self) -> u16 {
        self.port
            .and_then(|p| u16::try_from(p).ok())
            .unwrap_or(8080)
    }

    /// Port for gRPC, where that is another one.
    pub fn grpc_port(&self) -> Option<u16> {
        self.grpc_port.and_then(|p| u16::try_from(p).ok())
    }

    /// Protocol, with the default.
    pub fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or_default()
    }

    /// Path of the artifact, with the default.
    pub fn model_path(&self) -> &str {
        self.model_path.as_deref().unwrap_or("/mnt/model")
    }
}

/// What a model server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Open Inference Protocol (KServe V2) over HTTP.
    #[default]
    OpenInference,
    /// OpenAI-compatible.
    #[serde(rename = "OpenAI")]
    OpenAi,
    /// Plain HTTP: proxied, inputs not understood.
    #[serde(rename = "HTTP")]
    Http,
}

/// What is watched in live traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Drift of the inputs from the profile of stable's training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftMonitoring>,
    /// A log of requests and answers in an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_log: Option<PayloadLog>,
}

/// How live inputs are compared with the profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftMonitoring {
    /// Only these columns (default: all of the signature).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub columns: Option<Vec<String>>,
    /// Thresholds by column, `prediction` for what is predicted, `"*"` for the rest (default 0.1): normed Wasserstein for numbers, Jensen–Shannon for categories.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    pub thresholds: BTreeMap<String, f64>,
    /// What is compared at once (default 7d): the shorter, the more it must differ, as an hour resembles no whole week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// A window is compared with like hours of the `Day` or of the `Week`, not with all of the training data: for windows shorter than these. The rows that were trained on need
    /// times (the TrainingJob's `datasets[].time`), and must be of three days or weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub season: Option<Season>,
    /// Rows below which there is no verdict (default 5000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_samples: Option<i64>,
}

/// What comes back, so that hours are like each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Season {
    /// Hours of the day.
    Day,
    /// Hours of the week.
    Week,
}

/// When and how to train a new version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.from) != has(self.template)",
    "message": "retraining: the recipe is either from (the name of a TrainingJob) or template (a TrainingJob's spec)"
}]))]
pub struct Retraining {
    /// Name of a TrainingJob whose spec is the recipe; copied into status when it resolves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub from: Option<String>,
    /// The recipe itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<RetrainingTemplate>,
    /// What the next run reads instead: replaces `uri` and drops `digest` of the recipe's dataset of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), transform = schema::named_list)]
    pub datasets: Vec<DatasetOverride>,
    /// What starts a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), transform = schema::named_list)]
    pub triggers: Vec<Trigger>,
    /// Shortest time between two runs (default 6h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
    /// Most runs in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RunLimit>,
    /// Runs are started only in one of these (default: at any time).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub maintenance_windows: Vec<MaintenanceWindow>,
    /// In what the new version must be better than stable, or it is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_improvement: Option<RequireImprovement>,
    /// `Automatic` (default) goes through the rollout; `Manual` waits at weight 0 for `promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

/// An inline recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrainingTemplate {
    /// Spec of the TrainingJobs to make.
    #[schemars(schema_with = "recipe")]
    pub spec: TrainingJobSpec,
}

/// The recipe's schema without its transition rules: a recipe may be edited.
fn recipe(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = <TrainingJobSpec as JsonSchema>::json_schema(generator);
    if let Some(rules) = schema
        .get_mut("x-kubernetes-validations")
        .and_then(|r| r.as_array_mut())
    {
        rules.retain(|rule| {
            !rule["rule"]
                .as_str()
                .unwrap_or_default()
                .contains("oldSelf")
        });
    }
    schema
}

/// What a dataset of the recipe is replaced by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetOverride {
    /// Name of the recipe's dataset.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// What to read instead.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|gs|az|https?|pvc)://[^/]+(/.*)?$")
    )]
    pub uri: String,
}

/// A gate watched in steady state: failing, it starts a retraining. Exactly one of `metric`, `drift`, `concept`, `newData`, `maxAge`, `schedule`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.metric) ? 1 : 0) + (has(self.drift) ? 1 : 0) + (has(self.concept) ? 1 : 0) + (has(self.newData) ? 1 : 0) + (has(self.maxAge) ? 1 : 0) + (has(self.schedule) ? 1 : 0) == 1",
    "message": "a trigger is one thing: write metric, drift, concept, newData, maxAge or schedule"
}, {
    "rule": "!has(self.metric) || has(self.min) || has(self.max)",
    "message": "a trigger on a metric needs min or max"
}, {
    "rule": "!has(self.concept) || !(has(self.min) || has(self.max) || has(self.windows) || has(self.for))",
    "message": "concept needs no min, max, windows or for: the detector decides"
}, {
    "rule": "!has(self.newData) || !(has(self.min) || has(self.max) || has(self.windows) || has(self.for))",
    "message": "newData needs no min, max, windows or for: one change is enough"
}, {
    "rule": "!has(self.timeZone) || has(self.schedule)",
    "message": "timeZone goes with schedule"
}, {
    "rule": "!(has(self.minSamples) || has(self.staleAfter) || has(self.clear)) || has(self.metric) || has(self.drift)",
    "message": "minSamples, staleAfter and clear go with metric or drift: concept, newData, an age and a schedule have no value"
}, {
    "rule": "!has(self.clear) || (has(self.metric) && has(self.min) != has(self.max)) || (has(self.drift) && has(self.drift.share))",
    "message": "clear goes with one bound: min or max of a metric, or drift.share"
}, {
    "rule": "!has(self.clear) || ((!has(self.max) || self.clear <= self.max) && (!has(self.min) || self.clear >= self.min) && (!has(self.drift) || !has(self.drift.share) || self.clear <= self.drift.share.max))",
    "message": "clear must be on the good side of the bound: at most max, at least min"
}]))]
pub struct Trigger {
    /// Name, unique in the list.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// `driftShare`, or one of `spec.metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub metric: Option<String>,
    /// Fires when the metric is below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Fires when the metric is above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Fires on drift of live inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftTrigger>,
    /// Fires when labels that come later show that predictions have become worse than they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concept: Option<ConceptTrigger>,
    /// Fires when what the recipe reads is not what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_data: Option<NewDataTrigger>,
    /// Fires when stable's training ended so long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Fires at these times (cron).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub schedule: Option<String>,
    /// Time zone of `schedule` (IANA name; default UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// Windows in a row, not overlapping, in which it must fail (default 1; drift 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub windows: Option<i32>,
    /// How long it must have failed, over at least two fresh values.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    /// The value at which it counts as within the bound again (default: the bound). Between the two it neither fires nor clears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<f64>,
    /// Samples behind a value below which it neither fires nor clears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_samples: Option<i64>,
    /// The age from which a value neither fires nor clears (default: twice as long as from one measurement to the next).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<Duration>,
}

/// What drift: of so many columns, of one, or of what is predicted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.share), has(self.column), has(self.prediction)].filter(x, x).size() == 1",
    "message": "drift is of a share of the columns, of one column or of the predictions: write share, column, or prediction: true"
}, {
    "rule": "!has(self.prediction) || self.prediction",
    "message": "drift.prediction: write true, or leave it out"
}]))]
pub struct DriftTrigger {
    /// Share of drifted columns, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareBound>,
    /// Fires when this column has drifted, by its threshold in `monitoring.drift`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub column: Option<String>,
    /// Fires when what stable predicts has drifted from its first full window, by the threshold `prediction` in `monitoring.drift`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<bool>,
}

/// Concept drift: a detector on the losses of labelled rows, in the order of their answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConceptTrigger {
    /// One of `spec.metrics` by `labels`: its losses are looked at, those of `accuracy` as errors.
    #[schemars(length(min = 1, max = 63))]
    pub metric: String,
    /// Which detector (default ADWIN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<ConceptDetector>,
}

/// New data: a pod looks at the recipe's datasets, and compares with what was there before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewDataTrigger {
    /// Names of the recipe's datasets (default: all whose digest isn't pinned).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 40)))]
    pub datasets: Option<Vec<String>>,
    /// How often it looks (default 1h; 10s at least).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}

/// Detectors of changes, with the settings of river.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConceptDetector {
    /// Adaptive windowing (Bifet, Gavaldà 2007).
    #[default]
    #[serde(rename = "ADWIN")]
    Adwin,
    /// Page–Hinkley's test (Page 1954).
    PageHinkley,
}

/// An upper bound on a share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareBound {
    /// Fires above.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max: f64,
}

/// A time in which runs may be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// When it opens (cron).
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,
    /// Time zone of `schedule` (IANA name; default UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// How long it is open.
    pub duration: Duration,
}

/// The new version must be better than stable on the same rows, by more than chance: the lower end of the 95 % interval of the improvement is
/// above 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequireImprovement {
    /// A metric of an Evaluation in `rollout.evaluations`, or one of `spec.metrics` that comes from an Evaluation.
    #[schemars(length(min = 1, max = 128))]
    pub metric: String,
}

/// Most runs in a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunLimit {
    /// Runs.
    #[schemars(range(min = 1, max = 200))]
    pub runs: i32,
    /// In this time.
    pub per: Duration,
}

/// Who promotes a retrained version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// The rollout.
    #[default]
    Automatic,
    /// A person, with `promote`.
    Manual,
}

/// How the release is, for people; never input to a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReleasePhase {
    /// The first revision is on its way.
    #[default]
    Initializing,
    /// Stable serves and nothing is going on.
    Healthy,
    /// A rollout is going on.
    Progressing,
    /// A rollout waits for a person.
    Paused,
    /// Traffic is going back to stable.
    RollingBack,
    /// The spec's revision was refused; stable serves.
    RolledBack,
    /// Callers may not be answered.
    Degraded,
}

/// What is known of the deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How it is, for people.
    #[serde(default)]
    pub phase: ReleasePhase,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// The revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,
    /// The revision that is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,
    /// The rollout, and the gateway's routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Attempts so far; the next candidate gets the next number.
    #[serde(default)]
    pub attempts: i64,
    /// How the gateway serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// Live and evaluated metrics of stable, the last ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricValue>,
    /// Drift by column, the worst 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<DriftStatus>,
    /// The last full window of inputs, and the one that is filling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_window: Option<DriftWindow>,
    /// `3/9`, or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_summary: Option<String>,
    /// Retraining: what fired, what runs, what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retraining: Option<RetrainingStatus>,
    /// Revisions that must not get traffic until `retry`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected_revisions: Vec<RejectedRevision>,
    /// The last 20 rollouts, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Commands that were handled, the last of each name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_handled_commands: Vec<HandledCommand>,
    /// Pods of stable.
    #[serde(default)]
    pub replicas: i32,
    /// Label selector of the release's server pods, for `kubectl scale` and autoscalers of yours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where clients call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Conditions: Ready, Reconciling, Stalled, Available, Progressing, Paused, Promoted, CandidateRejected, DriftDetected, Retraining, Autoscaled, Routed, PayloadLogged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Drift of one column in the last full window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Column.
    pub column: String,
    /// What is compared is not a column of the inputs but what is predicted: the row `prediction`, in no share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prediction: bool,
    /// `Wasserstein` or `JensenShannon`.
    #[serde(default)]
    pub method: String,
    /// The score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Its threshold.
    #[serde(default)]
    pub threshold: f64,
    /// What windows of that length and size of the training data itself stay below: 99 in 100, over all columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// Rows in the window.
    #[serde(default)]
    pub samples: i64,
    /// Beyond threshold and noise.
    #[serde(default)]
    pub drifted: bool,
    /// `Observed`, `Calendar` (not counted), `Reference` (the first window of predictions, with which later ones are compared), `NotObserved`, `SchemaMismatch`, `FeaturesUnknown`, `NotEnoughSamples`, `SeasonUnknown`.
    #[serde(default)]
    pub reason: String,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Windows of live inputs of one revision: they follow each other without overlap. A window is full when it has lasted
/// `monitoring.drift.window` and has `minSamples` rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftWindow {
    /// The revision whose inputs these are.
    pub revision: String,
    /// Where the window that is filling begins.
    pub next: Time,
    /// Where the last full window began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// Where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// Its rows.
    #[serde(default)]
    pub rows: i64,
    /// Drifted columns by compared ones; absent if nothing could be compared, which isn't "no drift".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

/// Retraining: what fired, what runs, what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrainingStatus {
    /// Number of the last firing; only grows.
    #[serde(default)]
    pub firing: i64,
    /// The recipe, copied when it resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<super::OpenObject>,
    /// Generation or uid of what the recipe was copied from, so that an edit is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_source: Option<String>,
    /// The stable revision that the counts of the triggers speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The last firings, newest last, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RetrainingRun>,
    /// When the runs before those began, oldest first, as far as `limit` counts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_runs: Vec<Time>,
    /// State of each trigger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerStatus>,
    /// One sentence: armed, waiting for what, or why not.
    #[serde(default)]
    pub message: String,
}

/// One firing and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrainingRun {
    /// Number of the firing.
    pub firing: i64,
    /// Name of the TrainingJob: `<release>-<6 hex of UID>-<firing>`.
    pub job: String,
    /// Whether the job is known to have been created; then it is never remade.
    pub created: bool,
    /// The trigger that fired, or `retrain`.
    pub trigger: String,
    /// Why: metric, value, bound, window, columns.
    pub message: String,
    /// When it fired.
    pub time: Time,
    /// The version that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `Running`, `Succeeded`, `Failed`, `Promoted`, `Rejected`, `NoNewData`, `DidNotHelp`, `Superseded`, `Withdrawn`, `NotEnoughData`.
    pub result: String,
    /// Digest over recipe and input digests, once known: the same again is `NoNewData`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// `Manual`, if `retraining.promotion` said so when it fired: its version waits for `promote`, whatever the spec says by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

/// State of a trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerStatus {
    /// Its name.
    pub name: String,
    /// `Armed`, `Pending`, `Fired`, `Disarmed`.
    pub state: String,
    /// Last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Windows in a row in which it failed.
    #[serde(default)]
    pub failing: i32,
    /// End of the last window that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_until: Option<Time>,
    /// Since when it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,
    /// While `Disarmed`: the recipe and overrides for which another run is known to bring nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disarmed_for: Option<String>,
    /// For `concept`: the detector's state after the last window that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<String>,
    /// For `newData`: what was seen of each dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datasets: Vec<DatasetSeen>,
    /// For `schedule` the next time, for `newData` the next look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Time>,
    /// One sentence.
    #[serde(default)]
    pub message: String,
}

/// What was seen of a dataset, in listings: digests of what tells one content from another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetSeen {
    /// Its name.
    pub name: String,
    /// What was there at the first look, or when the last run started.
    pub known: String,
    /// What is there now, if that is something else: no run has started since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
}
