//! What stands around a model's server: how many pods there are, what they are asked before callers are, and how callers from outside come in.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::OpenObject;

/// An autoscaler's bounds and metrics, as autoscaling/v2 has them: each revision that runs gets a HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
    "message": "autoscaling: minReplicas is above maxReplicas"
}]))]
pub struct Autoscaling {
    /// Fewest pods of the revision that has all the traffic (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub min_replicas: Option<i32>,
    /// Most pods of a revision.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_replicas: i32,
    /// What decides, as in a HorizontalPodAutoscaler (default: 80 % of the CPU that is requested).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub metrics: Vec<OpenObject>,
    /// How fast it grows and shrinks, as in a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<OpenObject>,
}

impl Autoscaling {
    /// The fewest and the most pods, in order whatever is written.
    pub fn bounds(&self) -> (i32, i32) {
        let least = self.min_replicas.unwrap_or(1).max(1);
        (least, self.max_replicas.max(least))
    }
}

/// Requests that a server answers before callers reach it: its pod is ready once they were answered. They are sent again when the server
/// restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmUp {
    /// The requests, in order; each must be answered with a 2xx.
    #[schemars(length(min = 1, max = 20))]
    pub requests: Vec<WarmUpRequest>,
    /// How often all of them are sent (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub rounds: Option<i32>,
}

/// A request of a warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmUpRequest {
    /// Path and query.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/.*$"))]
    pub path: String,
    /// The JSON to post; a GET without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<OpenObject>,
}

/// An HTTPRoute (Gateway API) that leads to the release's Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The Gateways (or what else the implementation takes) that it wants to be attached to.
    #[schemars(length(min = 1, max = 16))]
    pub parent_refs: Vec<ParentReference>,
    /// Host names that it answers to (default: all of the listener's).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "hostnames")]
    pub hostnames: Vec<String>,
}

/// What a route is attached to, as in the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// API group (default gateway.networking.k8s.io).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind (default Gateway).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Namespace (default: the release's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Listener (default: all that allow it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// Port of the listeners (default: any).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

fn hostnames(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "string",
            "maxLength": 253,
            "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        },
    })
}

/// An HTTPRoute of the Gateway API as far as we look at it: what isn't named here stays as it is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    plural = "httproutes",
    namespaced,
    status = "RouteStatus",
    schema = "disabled"
)]
#[serde(transparent)]
pub struct RouteSpec(pub Map<String, Value>);

/// What those that it is attached to say of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// One for each parent and implementation.
    #[serde(default)]
    pub parents: Vec<RouteParent>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// What one of them says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParent {
    /// Which one it is about.
    #[serde(default)]
    pub parent_ref: ParentReference,
    /// Who says so.
    #[serde(default)]
    pub controller_name: String,
    /// `Accepted`, `ResolvedRefs`.
    #[serde(default)]
    pub conditions: Vec<RouteCondition>,
}

/// A condition of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteCondition {
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    #[serde(default)]
    pub status: String,
    /// CamelCase.
    #[serde(default)]
    pub reason: String,
    /// A sentence, or nothing.
    #[serde(default)]
    pub message: String,
    /// The generation of the route that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}
