//! What a gateway pod tells an Evaluation's pod about copied requests (`spec.mirrored`): one [`Pair`] a line, as they come.

use serde::{Deserialize, Serialize};

/// Headless Service by which an Evaluation's pod finds every gateway pod of its namespace.
pub const SERVICE: &str = "perennial-gateway-mirrored";

/// Where the pairs of a release's candidate are: `kind` is `models` or `prompts`.
#[must_use]
pub fn path(kind: &str, release: &str, candidate: &str) -> String {
    format!("/mirrored/{kind}/{release}/{candidate}")
}

/// A caller's request that was copied, and what both sides made of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pair {
    /// The request's body, if it is a text that isn't too long, and both sides answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Stable, whose answer the caller has.
    pub stable: Side,
    /// The candidate, whose answer nobody has.
    pub candidate: Side,
    /// How much of the answers agrees, 0 to 1, where they could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// The mean absolute difference of their numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// Pairs since the one before that this listener missed, as it read too slowly.
    pub missed: u64,
}

/// One side of a [`Pair`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Side {
    /// Whether it failed.
    pub failed: bool,
    /// Microseconds to the last byte.
    pub latency: u64,
    /// The answer's body, under the terms of [`Pair::request`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}
