//! Versions and revisions: what is frozen when something begins to serve.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Credentials,
    model_deployment::ServerSpec,
    prompt_release::{Backend, Prompt},
};

/// A model version: an artifact with its digest, and what the gateway and drift need of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelReference {
    /// The model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version's name; sorts by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the artifact is.
    #[serde(default)]
    pub uri: String,
    /// Digest of the artifact tree (`sha256:…`), without `manifest.json`. Absent until it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Environment for reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// The features it takes, in order, with their types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Immutable ConfigMap with the profile of its training data, under the key `profile.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The TrainingJob that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_job: Option<String>,
    /// Digests of what it was trained on, by dataset name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub datasets: BTreeMap<String, String>,
    /// When its training ended; `maxAge` counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_time: Option<Time>,
}

/// What a model takes and predicts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// Features in order.
    pub features: Vec<Feature>,
    /// The label's column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A feature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Feature {
    /// Column name.
    pub name: String,
    /// `Number`, `String`, `Boolean` or `Time`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Data of a ModelDeployment's ControllerRevision: all that decides how it serves.
///
/// `hash` covers the canonical JSON of `model` (URI, digest, version) and `server`, and the content of the
/// ConfigMaps that the template names; nothing that we inject, and no default of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRevision {
    /// The artifact.
    pub model: ModelReference,
    /// The server.
    pub server: ServerSpec,
    /// Image of the init container that fetched the artifact, recorded and kept for this revision (not hashed).
    pub helper_image: String,
    /// Where its pods share what they fetch, recorded and kept for this revision (not hashed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<ArtifactCache>,
    /// ConfigMaps that the template names, as they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config_maps: BTreeMap<String, FrozenConfigMap>,
}

/// A claim in which pods share the artifacts that they fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactCache {
    /// The PersistentVolumeClaim.
    pub claim_name: String,
    /// Bytes at most, on each node whose volume it is.
    pub bytes: u64,
}

/// A ConfigMap as it was when a revision was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrozenConfigMap {
    /// Name of the immutable copy that this revision's pods use (not hashed).
    pub copy: String,
    /// SHA-256 of its content; absent: it is optional and was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Data of a PromptRelease's ControllerRevision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptRevision {
    /// SHA-256 (hex) of the canonical prompt: the prompt version.
    pub version: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The backend: in the revision, not in the version.
    pub backend: Backend,
}
