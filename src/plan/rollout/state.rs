//! What both kinds' status records of a release: read from it and written back to it.

use crate::api::{
    command::HandledCommand,
    model_deployment::{ModelDeploymentStatus, ReleasePhase},
    prompt_release::PromptReleaseStatus,
    rollout::{GatewayStatus, HistoryEntry, RejectedRevision, RevisionStatus, RolloutStatus},
};

/// The part of a release's status that the engine owns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// How it is, for people.
    pub phase: ReleasePhase,
    /// One sentence.
    pub message: String,
    /// The revision that serves.
    pub stable: Option<RevisionStatus>,
    /// The revision that is tried.
    pub candidate: Option<RevisionStatus>,
    /// The rollout, and the gateway's routing table.
    pub rollout: RolloutStatus,
    /// Attempts so far.
    pub attempts: i64,
    /// Gateway pods that are ready, and those of them that serve the present epoch. The port is not the engine's: it is passed through.
    pub gateway: GatewayStatus,
    /// Revisions that must not get traffic until `retry`.
    pub rejected: Vec<RejectedRevision>,
    /// The last rollouts, newest last.
    pub history: Vec<HistoryEntry>,
    /// Commands that were handled, the last of each name (other planners' commands are passed through).
    pub handled: Vec<HandledCommand>,
}

/// Both kinds have the same fields; this keeps the two conversions from drifting apart.
macro_rules! conversions {
    ($of:ident, $write:ident, $status:ty) => {
        /// Reads the engine's part of the status.
        pub fn $of(status: Option<&$status>) -> State {
            let Some(status) = status else {
                return State::default();
            };
            State {
                phase: status.phase,
                message: status.message.clone(),
                stable: status.stable.clone(),
                candidate: status.candidate.clone(),
                rollout: status.rollout.clone().unwrap_or_default(),
                attempts: status.attempts,
                gateway: status.gateway.clone().unwrap_or_default(),
                rejected: status.rejected_revisions.clone(),
                history: status.history.clone(),
                handled: status.last_handled_commands.clone(),
            }
        }

        /// Writes the engine's part into the status; everything else there stays as it is.
        pub fn $write(self, status: &mut $status) {
            let State {
                phase,
                message,
                stable,
                candidate,
                rollout,
                attempts,
                gateway,
                rejected,
                history,
                handled,
            } = self;
            status.phase = phase;
            status.message = message;
            status.stable = stable;
            status.candidate = candidate;
            status.rollout = Some(rollout);
            status.attempts = attempts;
            status.gateway = Some(gateway);
            status.rejected_revisions = rejected;
            status.history = history;
            status.last_handled_commands = handled;
        }
    };
}

impl State {
    conversions!(of_model, into_model, ModelDeploymentStatus);
    conversions!(of_prompt, into_prompt, PromptReleaseStatus);

    /// Whether this revision is in the ledger of rejected ones.
    pub fn is_rejected(&self, revision: &str) -> bool {
        self.rejected.iter().any(|r| r.revision == revision)
    }

    /// Hash of stable, if there is one.
    pub fn stable_revision(&self) -> Option<&str> {
        self.stable.as_ref().map(|r| r.revision.as_str())
    }

    /// Hash of the candidate, if there is one.
    pub fn candidate_revision(&self) -> Option<&str> {
        self.candidate.as_ref().map(|r| r.revision.as_str())
    }
}
