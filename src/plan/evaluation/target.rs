//! The release that is a target, of either kind.

use kube::ResourceExt;
use serde_json::Value;

use crate::api::{
    ModelDeployment, PromptRelease,
    revision::{ModelRevision, PromptRevision},
    rollout::{GatewayStatus, MetricSource, RevisionStatus, RolloutSpec, RolloutStatus},
};

/// A release.
#[derive(Clone, Debug)]
pub enum Release {
    /// Of a model.
    Model(Box<ModelDeployment>),
    /// Of a prompt.
    Prompt(Box<PromptRelease>),
}

/// Content of a revision.
#[derive(Clone, Debug)]
pub enum Content {
    /// Of a model.
    Model(Box<ModelRevision>),
    /// Of a prompt.
    Prompt(Box<PromptRevision>),
}

/// What both kinds have alike.
pub(super) struct Sides {
    pub stable: Option<RevisionStatus>,
    pub candidate: Option<RevisionStatus>,
    pub rollout: Option<RolloutStatus>,
    pub gateway: Option<GatewayStatus>,
}

impl Release {
    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::Model(release) => release.name_any(),
            Self::Prompt(release) => release.name_any(),
        }
    }

    pub(super) fn uid(&self) -> Option<String> {
        match self {
            Self::Model(release) => release.uid(),
            Self::Prompt(release) => release.uid(),
        }
    }

    pub(super) fn sides(&self) -> Sides {
        match self {
            Self::Model(release) => {
                let status = release.status.clone().unwrap_or_default();
                Sides {
                    stable: status.stable,
                    candidate: status.candidate,
                    rollout: status.rollout,
                    gateway: status.gateway,
                }
            }
            Self::Prompt(release) => {
                let status = release.status.clone().unwrap_or_default();
                Sides {
                    stable: status.stable,
                    candidate: status.candidate,
                    rollout: status.rollout,
                    gateway: status.gateway,
                }
            }
        }
    }

    /// Hashes of the revisions that may be measured.
    pub fn revisions(&self) -> Vec<String> {
        let sides = self.sides();
        let both = [sides.stable, sides.candidate].into_iter().flatten();
        both.map(|side| side.revision).collect()
    }

    /// Data of one of its ControllerRevisions.
    pub fn content(&self, data: Value) -> Option<Content> {
        match self {
            Self::Model(_) => serde_json::from_value(data).ok().map(Content::Model),
            Self::Prompt(_) => serde_json::from_value(data).ok().map(Content::Prompt),
        }
    }

    pub(super) fn rollout(&self) -> RolloutSpec {
        let rollout = match self {
            Self::Model(release) => release.spec.rollout.as_ref(),
            Self::Prompt(release) => release.spec.rollout.as_ref(),
        };
        rollout.cloned().unwrap_or_default()
    }

    pub(super) fn metrics(&self) -> &[MetricSource] {
        match self {
            Self::Model(release) => &release.spec.metrics,
            Self::Prompt(release) => &release.spec.metrics,
        }
    }

    /// Whether the revision can answer: a prompt's always can, once the gateway knows it.
    pub(super) fn answers(&self, side: &RevisionStatus) -> bool {
        match self {
            Self::Model(_) => side.available_replicas > 0,
            Self::Prompt(_) => true,
        }
    }
}

/// The version in words: a prompt's is a hash, of which the beginning says enough.
pub(super) fn version(side: &RevisionStatus) -> String {
    const SHOWN: usize = 12;
    let version = side.version.as_ref().unwrap_or(&side.revision);
    let hash = version.len() == 64 && version.bytes().all(|b| b.is_ascii_hexdigit());
    match hash {
        true => version.chars().take(SHOWN).collect(),
        false => version.clone(),
    }
}
