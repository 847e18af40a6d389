//! What both kinds of release have in their status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::{
    api::{
        ModelDeployment, PromptRelease,
        command::HandledCommand,
        model_deployment::{DriftStatus, DriftWindow, RetrainingStatus},
        rollout::{HistoryEntry, RejectedRevision, RevisionStatus, RolloutStatus},
    },
    cli::release::ReleaseKind,
};

/// What both kinds of release have.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which kind.
    pub kind: ReleaseKind,
    /// Its name.
    pub name: String,
    /// Phase and message.
    pub summary: String,
    /// Where clients call it.
    pub url: Option<String>,
    /// The revision that serves.
    pub stable: Option<RevisionStatus>,
    /// The revision that is tried.
    pub candidate: Option<RevisionStatus>,
    /// The rollout.
    pub rollout: RolloutStatus,
    /// Drift by column.
    pub drift: Vec<DriftStatus>,
    /// `3/9`, or why there is none.
    pub drift_summary: Option<String>,
    /// The window that drift was measured in.
    pub drift_window: Option<DriftWindow>,
    /// Retraining.
    pub retraining: Option<RetrainingStatus>,
    /// The ledger.
    pub rejected: Vec<RejectedRevision>,
    /// Finished rollouts.
    pub history: Vec<HistoryEntry>,
    /// Commands that were handled.
    pub commands: Vec<HandledCommand>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

impl From<&ModelDeployment> for Release {
    fn from(object: &ModelDeployment) -> Self {
        let status = object.status.clone().unwrap_or_default();
        Self {
            kind: ReleaseKind::Model,
            name: object.name_any(),
            summary: format!("{:?}: {}", status.phase, status.message),
            url: status.url,
            stable: status.stable,
            candidate: status.candidate,
            rollout: status.rollout.unwrap_or_default(),
            drift: status.drift,
            drift_summary: status.drift_summary,
            drift_window: status.drift_window,
            retraining: status.retraining,
            rejected: status.rejected_revisions,
            history: status.history,
            commands: status.last_handled_commands,
            conditions: status.conditions,
        }
    }
}

impl From<&PromptRelease> for Release {
    fn from(object: &PromptRelease) -> Self {
        let status = object.status.clone().unwrap_or_default();
        Self {
            kind: ReleaseKind::Prompt,
            name: object.name_any(),
            summary: format!("{:?}: {}", status.phase, status.message),
            url: status.url,
            stable: status.stable,
            candidate: status.candidate,
            rollout: status.rollout.unwrap_or_default(),
            drift: Vec::new(),
            drift_summary: None,
            drift_window: None,
            retraining: None,
            rejected: status.rejected_revisions,
            history: status.history,
            commands: status.last_handled_commands,
            conditions: status.conditions,
        }
    }
}
