//! How the gateway treats a release's callers and pods. In no revision: an edit holds at once, and starts no rollout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// How the gateway treats callers and pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// How long callers wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// What is taken at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Pods that keep failing are left out for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// Where a caller's key is: the first of these that a request has. The header `x-perennial-key` comes before all of them.
    /// Default: the fields that OpenAI-compatible bodies have for it. An edit may move callers between stable and candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub sticky: Vec<StickyKey>,
    /// A header by which callers choose the side themselves (off without it).
    #[serde(rename = "override", default, skip_serializing_if = "Option::is_none")]
    pub side_override: Option<SideOverride>,
    /// Callers speak TLS (without it: plain HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Networks (or addresses) of proxies in front of the gateway whose `x-forwarded-host`, `-proto`, `-port` and `forwarded` are passed on as they
    /// came. Whatever others send of these is replaced by what the gateway sees itself (default: nobody is trusted).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 2, max = 43)),
        extend("x-kubernetes-validations" = [{
            "rule": "self.all(network, isCIDR(network) || isIP(network))",
            "message": "trustedProxies: write networks such as 10.0.0.0/8, or addresses"
        }])
    )]
    pub trusted_proxies: Vec<String>,
    /// What becomes of inference requests (Open Inference Protocol over HTTP, JSON) whose inputs aren't the features of the version's
    /// training data (without it: they aren't looked at).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureCheck>,
}

/// TLS to callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Secret with `tls.crt` and `tls.key` (type `kubernetes.io/tls`). A renewed one is used within a minute.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// What becomes of a request whose inputs are others than the version was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SignatureCheck {
    /// It is passed on; the answer says so in the header `x-perennial-signature`, and it is counted.
    Warn,
    /// It is a 400 with a sentence.
    Enforce,
}

/// How long callers wait. What is not answered in time is a 504 and counts against the revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For a connection to a pod (default 2s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// From the request's last byte until the answer begins (default 60s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// From the request's first byte to the answer's last (default: no limit, for streams).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
}

/// What each gateway pod takes at once of each revision: what one side can't do doesn't keep the other's callers waiting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.pending) || has(self.concurrent)",
    "message": "limits: pending are those that wait when there are too many; write concurrent too"
}]))]
pub struct Limits {
    /// Longest body of a request, in bytes (default 64 MiB); a longer one is a 413.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_099_511_627_776_i64))]
    pub body_bytes: Option<i64>,
    /// Requests that are open at the same time (default: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent: Option<i32>,
    /// Requests that wait for one of those to end (default 0); beyond them it is a 503 with Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub pending: Option<i32>,
}

/// When a pod is left out, and for how long. At most half of a revision's pods are out at the same time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ejection {
    /// Failures one after another (5xx, time-outs, broken connections) after which it is out (default 5; 0: never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_failures: Option<i32>,
    /// How long the first time (default 10s); twice as long each time that it fails right after it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Duration>,
    /// How long at most (default 5m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time: Option<Duration>,
}

/// One place of a caller's key: exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.header) ? 1 : 0) + (has(self.cookie) ? 1 : 0) + (has(self.field) ? 1 : 0) == 1",
    "message": "a sticky key is in one place: write header, cookie or field"
}]))]
pub struct StickyKey {
    /// A request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: Option<String>,
    /// A cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub cookie: Option<String>,
    /// A field of the JSON body, such as `parameters.session`: text or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    )]
    pub field: Option<String>,
}

/// Callers that send this header choose `stable` or `candidate` themselves. They count in no comparison, and reach a candidate
/// only while it has traffic, or copies of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SideOverride {
    /// Name of the header.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: String,
}

/// How the gateway treats the callers of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromptTraffic {
    /// What is taken at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PromptLimits>,
    /// Where a caller's key is: the first of these that a request has. The header `x-perennial-key` comes before all of them.
    /// Default: the fields that OpenAI-compatible bodies have for it. An edit may move callers between stable and candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub sticky: Vec<StickyKey>,
    /// A header by which callers choose the side themselves (off without it).
    #[serde(rename = "override", default, skip_serializing_if = "Option::is_none")]
    pub side_override: Option<SideOverride>,
    /// Callers speak TLS (without it: plain HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What each gateway pod takes at once of each version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.pending) || has(self.concurrent)",
    "message": "limits: pending are those that wait when there are too many; write concurrent too"
}]))]
pub struct PromptLimits {
    /// Requests that are open at the same time (default: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent: Option<i32>,
    /// Requests that wait for one of those to end (default 0); beyond them it is a 503 with Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub pending: Option<i32>,
}
