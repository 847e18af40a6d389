//! The four resources of `perennial.dev/v1alpha1`, as types.
//!
//! Field names are the users' contract (`docs/examples`). A field that does not work yet is not here,
//! so the API server refuses it. Types are lenient where only the cluster can tell, strict where a
//! schema or CEL rule can: each rule's message says what to write.

pub mod command;
pub mod common;
pub mod condition;
pub mod container;
pub mod ending;
pub mod evaluation;
pub mod evaluator;
pub mod gate;
pub mod judge;
pub mod metric;
pub mod mirrored;
pub mod model_deployment;
pub mod payload_log;
pub mod prompt_release;
pub mod revision;
pub mod rollout;
pub mod run;
pub mod schema;
pub mod serving;
pub mod traffic;
pub mod training_job;
pub mod verdict;

pub use common::{Credentials, Duration, OpenObject, PodTemplate};
pub use evaluation::Evaluation;
pub use model_deployment::ModelDeployment;
pub use prompt_release::PromptRelease;
pub use training_job::TrainingJob;

/// API group of all four kinds.
pub const GROUP: &str = "perennial.dev";
/// API version of all four kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all four kinds.
pub const API_VERSION: &str = "perennial.dev/v1alpha1";

/// Field manager of every child the operator applies.
pub const MANAGER: &str = "perennial-controller";
/// Field manager of a Deployment's number of pods between us and its autoscaler.
pub const SCALE_MANAGER: &str = "perennial-scale";
/// Field manager of the status of our own kinds.
pub const STATUS_MANAGER: &str = "perennial-status";

/// Labels on children. `app.kubernetes.io/*` stand beside them.
pub mod label {
    /// Name of the TrainingJob that made the object, or whose version it carries.
    pub const TRAINING_JOB: &str = "perennial.dev/training-job";
    /// Name of the ModelDeployment the object belongs to.
    pub const MODEL_DEPLOYMENT: &str = "perennial.dev/model-deployment";
    /// Name of the PromptRelease the object belongs to.
    pub const PROMPT_RELEASE: &str = "perennial.dev/prompt-release";
    /// Name of the Evaluation the object belongs to.
    pub const EVALUATION: &str = "perennial.dev/evaluation";
    /// Hash of the revision that a pod, Service or ControllerRevision stands for.
    pub const REVISION: &str = "perennial.dev/revision";
    /// Attempt of a run: 1, 2, …
    pub const ATTEMPT: &str = "perennial.dev/attempt";
    /// What the object is for: `trainer`, `evaluator`, `server`, `gateway`, `profile`, `config`, `resolve`, `report`.
    pub const ROLE: &str = "perennial.dev/role";
    /// Model name of a TrainingJob made by a retraining.
    pub const MODEL: &str = "perennial.dev/model";
}

/// Annotations: commands of users, and marks of ours.
pub mod annotation {
    /// Promote the candidate now: `<revision>/<nonce>`.
    pub const PROMOTE: &str = "perennial.dev/promote";
    /// Abort the rollout: `<revision>/<nonce>`.
    pub const ABORT: &str = "perennial.dev/abort";
    /// Take a revision out of the ledger of rejected ones: `<revision>/<nonce>`.
    pub const RETRY: &str = "perennial.dev/retry";
    /// Go back to a revision of the history: `<revision>/<nonce>`.
    pub const ROLLBACK_TO: &str = "perennial.dev/rollback-to";
    /// Approve the candidate in one's own name: `<revision>/<user>`, or `<revision>.<nonce>/<user>` to say it again.
    pub const APPROVE: &str = "perennial.dev/approve";
    /// Retrain now: `<stable revision>/<nonce>`.
    pub const RETRAIN: &str = "perennial.dev/retrain";
    /// On a ControllerRevision: it was stable, since when (RFC 3339).
    pub const STABLE_SINCE: &str = "perennial.dev/stable-since";
    /// On a ControllerRevision: it was rejected, as JSON `{cause, message, gate {metric, bound, value, stable}, time}`.
    pub const REJECTED: &str = "perennial.dev/rejected";
    /// On a TrainingJob of a retraining: `<release uid>/<firing>`, which makes it count as ours.
    pub const FIRING: &str = "perennial.dev/firing";
    /// On a TrainingJob of a retraining: why it was made, as a sentence.
    pub const FIRED_BECAUSE: &str = "perennial.dev/fired-because";
}

/// Port on which the supervisor in a training or evaluation pod serves `/progress` and `/report`.
pub const SUPERVISOR_PORT: u16 = 9465;
/// Port on which a gateway pod serves `/epochs`, `/buckets`, `/healthz`, `/readyz` and `/metrics`.
pub const GATEWAY_ADMIN_PORT: u16 = 9466;
/// Port of the gateway where revisions have an internal address:
/// `/revisions/<release kind: models|prompts>/<release>/<revision>/…`. Counted as evaluation, in no live metric.
pub const GATEWAY_INTERNAL_PORT: u16 = 9467;
/// Port on which a gateway pod gives an Evaluation's pod what callers were answered while `setMirror` copies their requests ([`mirrored`]).
pub const GATEWAY_MIRRORED_PORT: u16 = 9469;
/// Port of the gateway that all releases share: chosen by `model` or `prompt.id`.
pub const GATEWAY_SHARED_PORT: u16 = 8080;
/// First port of the range from which each release gets one of its own.
pub const GATEWAY_RELEASE_PORTS: std::ops::Range<u16> = 20000..24000;

/// The four CRDs as they are applied, without a status.
pub fn crds() -> Vec<serde_json::Value> {
    use kube::CustomResourceExt;
    [
        TrainingJob::crd(),
        ModelDeployment::crd(),
        Evaluation::crd(),
        PromptRelease::crd(),
    ]
    .into_iter()
    .map(|crd| serde_json::to_value(crd).unwrap_or_default())
    .collect()
}
