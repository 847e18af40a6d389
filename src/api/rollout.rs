//! How a release rolls out: steps, analysis, and the status of a rollout. One engine for models and prompts.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::ending::{BrokenBound, Ending, HistoryEntry, Outcome, RejectedRevision};
pub use super::metric::{
    EvaluationMetric, LabelledMetric, LabelsMetric, MetricSource, Names, PrometheusMetric,
};
use super::{
    Duration,
    gate::{Gate, GateStatus, Verdict},
};

/// How a candidate becomes stable. Without steps: weights 10 and 50 with gates on `errorRate` and `latencyP95`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.steps) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).isSorted()",
    "message": "steps: weights must not fall from one setWeight to the next; to take traffic back, abort"
}, {
    "rule": "!has(self.analysis) || !has(self.analysis.gates) || !self.analysis.gates.exists(g, g.metric in ['mirrorErrorRate', 'mirrorLatencyP50', 'mirrorLatencyP95', 'mirrorLatencyP99', 'mirrorAgreement', 'mirrorDifference']) || (has(self.steps) && self.steps.exists(s, has(s.setMirror) && s.setMirror.percent > 0))",
    "message": "gates on mirrorErrorRate, mirrorLatency…, mirrorAgreement and mirrorDifference look at copies: write a step setMirror"
}]))]
pub struct RolloutSpec {
    /// The ladder, copied into status when a rollout starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub steps: Option<Vec<Step>>,
    /// How live traffic is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Names of Evaluations that the candidate must pass before it gets traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub evaluations: Vec<String>,
    /// How long the promoted revision is watched, with the old one's pods kept (default 10m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Duration>,
    /// How long a state may take, waits that a person asked for not counted (default 30m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Duration>,
}

/// One step: exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.setWeight) ? 1 : 0) + (has(self.pause) ? 1 : 0) + (has(self.setMirror) ? 1 : 0) + (has(self.evaluate) ? 1 : 0) + (has(self.approval) ? 1 : 0) == 1",
    "message": "a step is one thing: write one of setWeight, setMirror, pause, evaluate and approval"
}]))]
pub struct Step {
    /// Percentage of callers that the candidate serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub set_weight: Option<i32>,
    /// Copies of stable's requests go to the candidate too, until the next setWeight or setMirror. Their answers go to nobody; gates on
    /// `mirrorErrorRate`, `mirrorLatencyP95`, `mirrorAgreement` and `mirrorDifference` judge them beside stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_mirror: Option<Mirror>,
    /// Wait: for a duration, or with `{}` until promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Measure the candidate here, and go on when it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<Evaluate>,
    /// Wait until a person approves in their own name: `kubectl perennial approve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// Copies of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Percentage of stable's requests that are copied.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
}

/// Evaluations that measure the candidate when the rollout comes to this step, once in each attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evaluate {
    /// Names of Evaluations in the same namespace.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    pub names: Vec<String>,
}

/// A wait for a named person; there is nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {}

/// A wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// How long; absent: until someone promotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// How live traffic is judged during a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// How often (default 15s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Bounds that stay armed in every state but idle; edits hold at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub gates: Option<Vec<Gate>>,
    /// Requests that the candidate must have served before a step may end (default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<i64>,
    /// Looks at which a live gate may be Failed before the candidate is taken back, one interval apart (default 0: none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: Option<i64>,
    /// What a step's end without enough data means (default Inconclusive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data: Option<NoData>,
    /// What to do at a step's end while a verdict is Inconclusive (default Hold, until progressDeadline).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<OnInconclusive>,
}

/// What missing data means. Never a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoData {
    /// Wait at this step, with the deadline's clock stopped.
    Wait,
    /// The verdict is Inconclusive.
    #[default]
    Inconclusive,
    /// The gate fails.
    Fail,
}

/// What an Inconclusive verdict at a step's end leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInconclusive {
    /// Stay at this step until there is a verdict or the deadline is reached.
    #[default]
    Hold,
    /// Abort the rollout.
    Abort,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutState {
    /// No candidate.
    #[default]
    Idle,
    /// The candidate's pods start and its evaluations run, at weight 0.
    Preparing,
    /// Going through the steps.
    Stepping,
    /// At a step that waits for a person.
    Paused,
    /// At weight 100; clients of stable move over.
    Promoting,
    /// The candidate is stable; the old pods stay until the bake ends.
    Baking,
    /// Back to stable = 100, until every gateway says so.
    RollingBack,
}

/// The running rollout, and, idle or not, the gateway's routing table: `weight` and `epoch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Where it is.
    #[serde(default)]
    pub state: RolloutState,
    /// Percentage of callers that go to the candidate. Stable has the rest.
    #[serde(default)]
    pub weight: i32,
    /// Percentage of stable's requests of which the candidate gets a copy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mirror: i32,
    /// Grows with every change of what the gateway routes (weight, mirror, stable, candidate); gateways report the one they serve.
    #[serde(default)]
    pub epoch: i64,
    /// When every ready gateway was first seen to serve `epoch`; a step's clock starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_time: Option<Time>,
    /// Index into `steps` of the step that is going on.
    #[serde(default)]
    pub step: i32,
    /// The ladder as it was when the rollout started. Bounded, as the API server asks what its rules can cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub steps: Vec<Step>,
    /// When the rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the present state or step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When the present state runs out of time; absent while its clock stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The revision that was stable before the promotion, until the bake ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// When the candidate's warm-up ends: what it did before is in no measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_until: Option<Time>,
    /// Whether the candidate has lost all its pods while it had callers: it comes back to the same step and deadline.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lost: bool,
    /// Since then, while its new pods are warming up again: the first epoch that is in no measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_from: Option<i64>,
    /// Epochs of earlier such warm-ups: they are in no measurement either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub skipped: Vec<Epochs>,
    /// What live bounds were judged so far, in the order in which they came, those that were taken out since included: the rollout's error rate is
    /// split over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub judged: Vec<String>,
    /// How many of `judged` were there from the beginning: they share nine tenths of the error rate, what is put in under way what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_first: Option<i32>,
    /// Who approved, at which step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalStatus>,
    /// The first epoch whose measurements count; absent until the warm-up is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_from: Option<i64>,
    /// What stable and the candidate did side by side before the candidate got all callers, as JSON for the operator alone: what
    /// comparisons go by from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// When the numbers of `gates` were taken; at most once a minute, or when a verdict changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_time: Option<Time>,
    /// Each armed gate with its numbers; after the rollout, those it ended with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// Each evaluation that the candidate must pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<EvaluationGate>,
    /// What is decided but not finished: why it is rolling back, and the outcome it will have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !b
}

/// A range of epochs, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Epochs {
    /// The first.
    pub from: i64,
    /// The last.
    pub to: i64,
}

/// An approval that was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalStatus {
    /// Index into `steps`.
    pub step: i32,
    /// Who, as the API server knows them.
    pub user: String,
    /// When it was taken up.
    pub time: Time,
}

/// An Evaluation that the candidate must pass, as the rollout last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationGate {
    /// Name of the Evaluation.
    pub name: String,
    /// Its verdict on this candidate's attempt.
    pub verdict: Verdict,
    /// One sentence.
    #[serde(default)]
    pub message: String,
}

/// A revision that serves, or is tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Hash of the revision; its ControllerRevision is `<release>-<hash>`.
    pub revision: String,
    /// Model or prompt version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Digest of the artifact, or of the canonical prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where the artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Pods wanted.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that can answer. A prompt's revision has none and is always available.
    #[serde(default)]
    pub available_replicas: i32,
    /// Since when it is stable, or a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Candidates: the attempt, grows with each rollout of this release; Evaluations run for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i64>,
    /// Candidates: whether a spec edit (`Spec`) or a new model version (`Version`) brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<CandidateSource>,
    /// What the revision's pods say is wrong, in the container's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What brought a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CandidateSource {
    /// An edit of the spec.
    Spec,
    /// A new model version.
    Version,
    /// The `rollback-to` command.
    Rollback,
}

/// How the gateway serves this release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The gateway port that is this release's own; its Service leads there.
    pub port: i32,
    /// Gateway pods that are ready.
    #[serde(default)]
    pub total: i32,
    /// Of those, how many serve the present epoch.
    #[serde(default)]
    pub applied: i32,
}
