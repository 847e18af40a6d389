//! PromptRelease (`ppr`): a prompt that is versioned, tested and rolled out like code.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Duration, OpenObject,
    command::HandledCommand,
    gate::MetricValue,
    model_deployment::ReleasePhase,
    rollout::{
        GatewayStatus, HistoryEntry, MetricSource, RejectedRevision, RevisionStatus, RolloutSpec,
        RolloutStatus,
    },
    schema,
    traffic::PromptTraffic,
};

/// A prompt behind an OpenAI-compatible endpoint: `POST <status.url>/v1/chat/completions`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "perennial.dev",
    version = "v1alpha1",
    kind = "PromptRelease",
    plural = "promptreleases",
    shortname = "ppr",
    category = "perennial",
    namespaced,
    status = "PromptReleaseStatus",
    derive = "PartialEq",
    validation = kube::core::Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label of at most 40 characters: lower-case letters, digits and -, beginning with a letter"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Stable","type":"string","jsonPath":".status.stable.revision"}"#,
    printcolumn = r#"{"name":"Candidate","type":"string","jsonPath":".status.candidate.revision"}"#,
    printcolumn = r#"{"name":"Weight","type":"integer","jsonPath":".status.rollout.weight"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": NO_PRICES,
    "message": "a gate on costPerRequest needs backend.prices: write inputPerMillion and outputPerMillion"
}, {
    "rule": "!has(self.metrics) || !self.metrics.exists(m, has(m.labels))",
    "message": "labels are of predictions of models, and a prompt has none: take feedbackScore, or an Evaluation"
}]))]
pub struct PromptReleaseSpec {
    /// The prompt: its content is the version.
    pub prompt: Prompt,
    /// The LLM behind it: in the revision, not in the version.
    pub backend: Backend,
    /// Metrics that gates can name, beside the built-in ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), transform = schema::named_list)]
    pub metrics: Vec<MetricSource>,
    /// How a candidate becomes stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// How the gateway treats callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<PromptTraffic>,
}

/// A gate on cost needs to know what tokens cost.
const NO_PRICES: &str = "!has(self.rollout) || !has(self.rollout.analysis) || !has(self.rollout.analysis.gates) || has(self.backend.prices) || !self.rollout.analysis.gates.exists(g, g.metric == 'costPerRequest')";

/// The prompt. Its version is the SHA-256 of its canonical JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    /// Messages; their content is a Jinja template.
    #[schemars(length(min = 1, max = 50))]
    pub messages: Vec<Message>,
    /// JSON Schema of the variables; absent: the template's variables, as strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<OpenObject>,
    /// Parameters of the model call, such as `temperature` and `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<OpenObject>,
}

/// A message of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// Jinja template of what is said.
    #[schemars(length(min = 1, max = 65536))]
    pub content: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, in newer models' words.
    Developer,
    /// The caller.
    User,
    /// The model.
    Assistant,
}

/// An OpenAI-compatible backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Base URL, up to `/v1`.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^https?://[^/]+(/.*)?$")
    )]
    pub url: String,
    /// The model's name there.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Key of a Secret in the same namespace, sent as bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<KeyReference>,
    /// Longest wait for an answer to begin (default 60s); of a judge, for the whole answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What tokens cost: for `costPerRequest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
}

/// What tokens cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prices {
    /// A million tokens of prompts.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub input_per_million: f64,
    /// A million tokens of answers.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub output_per_million: f64,
    /// Three letters, such as `USD`; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: Option<String>,
}

impl Prices {
    /// What so many tokens of prompt and answer cost, in billionths of the currency.
    pub fn billionths(&self, prompt: u64, completion: u64) -> u64 {
        let sum = prompt as f64 * self.input_per_million;
        let sum = sum + completion as f64 * self.output_per_million;
        // A float that is too large, or negative, becomes the nearest number there is.
        (sum * 1000.0).round() as u64
    }
}

/// A key of a Secret, mounted into the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What is known of the release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromptReleaseStatus {
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
    /// Revisions that must not get traffic until `retry`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected_revisions: Vec<RejectedRevision>,
    /// The last 20 rollouts, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Commands that were handled, the last of each name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_handled_commands: Vec<HandledCommand>,
    /// Where clients call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Conditions: Ready, Reconciling, Stalled, Available, Progressing, Paused, Promoted, CandidateRejected, Rendered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
