//! What the engine is told: the release, what its spec asks for, and what is observed of revisions, gateways and measurements.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::state::State;
use crate::{
    api::{
        annotation,
        evaluation::EvaluationRun,
        rollout::{CandidateSource, MetricSource, RolloutSpec, RolloutStatus},
    },
    stats::bucket::ReleaseMeasurements,
};

/// Everything that a decision on one release depends on, but the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// Name of the release, for messages.
    pub name: String,
    /// UID of the release: part of the key of an evaluation's run.
    pub uid: String,
    /// Generation of the spec that all this was read from.
    pub generation: i64,
    /// The revision that the spec asks for, or why there is none.
    pub desired: Desired,
    /// How to get there; `spec.rollout` or its default.
    pub rollout: RolloutSpec,
    /// `spec.metrics`.
    pub metrics: Vec<MetricSource>,
    /// Pods of the revision that has all the traffic. `None` for prompts, whose revisions have no pods and are always available.
    pub replicas: Option<i32>,
    /// Candidates that a new version brought wait at weight 0 for `promote` (`retraining.promotion: Manual`).
    pub manual_versions: bool,
    /// Versions that wait at weight 0 for `promote` whatever brought them, and whatever the spec says by now: of retrainings under `Manual`.
    pub by_hand: Vec<String>,
    /// What a version that a retraining made must be better in than stable (`retraining.requireImprovement`).
    pub improvement: Option<Improvement>,
    /// What the candidate takes that stable doesn't, or the other way round, as a sentence: it waits at weight 0 for `promote`.
    pub signature_change: Option<String>,
    /// What is recorded so far: [`State::of_model`], [`State::of_prompt`].
    pub state: State,
    /// Every ControllerRevision of the release by its hash, with what is seen of its pods.
    pub revisions: BTreeMap<String, Revision>,
    /// Evaluations of the namespace by name (those that the rollout or a metric names; more do no harm).
    pub evaluations: BTreeMap<String, EvaluationView>,
    /// What the namespace's gateways say: the epochs that they serve, and their live measurements of this release.
    pub live: ReleaseMeasurements,
    /// Commands found in the annotations: [`Commands::of`].
    pub commands: Commands,
}

/// What the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired {
    /// This revision.
    Revision(Target),
    /// Nothing that could be tried; stable, if there is one, goes on.
    Nothing {
        /// CamelCase reason, such as `NoVersion`.
        reason: String,
        /// A sentence that says what to do.
        message: String,
        /// Whether it takes somebody's help (`Stalled`), or only time.
        stalled: bool,
    },
}

impl Default for Desired {
    fn default() -> Self {
        Desired::Nothing {
            reason: "Unknown".into(),
            message: String::new(),
            stalled: false,
        }
    }
}

impl Desired {
    /// The revision, if there is one.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Desired::Revision(target) => Some(target),
            Desired::Nothing { .. } => None,
        }
    }
}

/// A revision that the spec asks for.
///
/// `source` decides about superseding. `Version`: only the version is newer, than the running candidate's or else stable's; such a
/// target waits until the present rollout, bake included, has ended. `Spec`: the spec itself asks for something else; it supersedes at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Hash of the revision.
    pub revision: String,
    /// Its version, for people.
    pub version: Option<String>,
    /// Digest of the artifact or prompt.
    pub digest: Option<String>,
    /// Where the artifact is.
    pub uri: Option<String>,
    /// What brought it.
    pub source: CandidateSource,
}

/// A ControllerRevision and what is seen of its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revision {
    /// Its version, for people.
    pub version: Option<String>,
    /// Digest of the artifact or prompt.
    pub digest: Option<String>,
    /// Where the artifact is.
    pub uri: Option<String>,
    /// Pods that can answer.
    pub available: i32,
    /// What its pods say is wrong, in the container's own words.
    pub failure: Option<String>,
    /// The mark [`annotation::STABLE_SINCE`], if it is there.
    pub stable_since: Option<Timestamp>,
    /// The mark [`annotation::REJECTED`], word for word, if it is there.
    pub rejected: Option<String>,
    /// Growing number of the ControllerRevision (`.revision`), the oldest is deleted first.
    pub number: i64,
}

/// Who must be better than stable, and in what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Improvement {
    /// The metric: one of `spec.metrics` with an Evaluation, or of an Evaluation in `rollout.evaluations`.
    pub metric: String,
    /// The versions that retrainings made.
    pub versions: Vec<String>,
}

/// An Evaluation as the rollout sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationView {
    /// Generation of its spec: only runs of this one count.
    pub generation: i64,
    /// `status.runs`.
    pub runs: Vec<EvaluationRun>,
}

/// The commands in a release's annotations, with their values word for word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands(pub Vec<(Command, String)>);

/// A command to the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Stop the rollout: back to stable.
    Abort,
    /// Go back to a revision that served before.
    RollbackTo,
    /// Take a revision out of the ledger and try it again.
    Retry,
    /// Go on.
    Promote,
    /// Go on from an `approval` step, in a person's name.
    Approve,
    /// Retrain now. It is not the engine's, which only knows that it was said.
    Retrain,
}

impl Command {
    /// The engine's, in the order in which they are looked at: abort beats promote.
    pub const ALL: [Command; 5] = [
        Command::Abort,
        Command::RollbackTo,
        Command::Retry,
        Command::Promote,
        Command::Approve,
    ];

    /// Name in `status.lastHandledCommands`.
    pub fn name(self) -> &'static str {
        match self {
            Command::Abort => "abort",
            Command::RollbackTo => "rollback-to",
            Command::Retry => "retry",
            Command::Promote => "promote",
            Command::Approve => "approve",
            Command::Retrain => "retrain",
        }
    }

    /// Key of its annotation.
    pub fn annotation(self) -> &'static str {
        match self {
            Command::Abort => annotation::ABORT,
            Command::RollbackTo => annotation::ROLLBACK_TO,
            Command::Retry => annotation::RETRY,
            Command::Promote => annotation::PROMOTE,
            Command::Approve => annotation::APPROVE,
            Command::Retrain => annotation::RETRAIN,
        }
    }
}

impl Commands {
    /// The commands among these annotations.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        Commands(
            Command::ALL
                .into_iter()
                .chain([Command::Retrain])
                .filter_map(|c| Some((c, annotations.get(c.annotation())?.clone())))
                .collect(),
        )
    }
}

impl Input {
    /// Names of the Evaluations that this release's rollout looks at: `rollout.evaluations`, those of its steps (of the spec, and
    /// of the ladder that is being climbed) and those of its metrics.
    pub fn evaluation_names(
        rollout: &RolloutSpec,
        metrics: &[MetricSource],
        climbing: Option<&RolloutStatus>,
    ) -> BTreeSet<String> {
        let steps = rollout.steps.iter().flatten();
        let steps = steps.chain(climbing.iter().flat_map(|r| &r.steps));
        let named = rollout.evaluations.iter();
        named
            .chain(
                metrics
                    .iter()
                    .filter_map(|m| Some(&m.evaluation.as_ref()?.name)),
            )
            .chain(
                steps
                    .filter_map(|s| s.evaluate.as_ref())
                    .flat_map(|e| &e.names),
            )
            .cloned()
            .collect()
    }
}
