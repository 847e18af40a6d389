//! What the engine answers.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::state::State;
use crate::plan::Event;

/// What is to be true now. Deciding again with `state` recorded and nothing else changed decides the same, without events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// To be recorded in status, before what depends on it is done (but pods that grow, and ControllerRevisions, may come first).
    pub state: State,
    /// Revision → pods wanted. A revision that isn't here is wanted no more: its Deployment, Service and the like are deleted,
    /// after `state` is recorded. Empty for prompts.
    pub pods: BTreeMap<String, i32>,
    /// Revisions whose ControllerRevision must be kept: stable, candidate, the one before, the target, the ledger's. Others may go, oldest
    /// first, beyond the limit.
    pub keep: BTreeSet<String>,
    /// Marks on ControllerRevisions that are not there yet or not there any more.
    pub marks: Vec<Mark>,
    /// Only for changes.
    pub events: Vec<Event>,
    /// Why, as sentences.
    pub notes: Vec<String>,
    /// When to look again even if nothing changes.
    pub check_at: Option<Timestamp>,
    /// What the conditions say.
    pub summary: Summary,
}

/// The annotations that a ControllerRevision must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Hash of the revision.
    pub revision: String,
    /// Value of [`crate::api::annotation::STABLE_SINCE`]; `None`: not there.
    pub stable_since: Option<String>,
    /// Value of [`crate::api::annotation::REJECTED`]; `None`: not there.
    pub rejected: Option<String>,
}

/// A condition's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saying {
    /// `True` or `False`.
    pub status: bool,
    /// CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Inputs of the conditions that both kinds share; see [`super::conditions`]. A condition that is `None` keeps what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The spec's generation is fully in effect.
    pub ready: Saying,
    /// Work on the spec's generation is going on.
    pub reconciling: Saying,
    /// The spec's generation can't come into effect without help.
    pub stalled: Saying,
    /// Callers are answered.
    pub available: Saying,
    /// A rollout is going on.
    pub progressing: Saying,
    /// The rollout waits for a person.
    pub paused: Saying,
    /// The last rollout ended in a promotion.
    pub promoted: Option<Saying>,
    /// The newest version was rejected; stable goes on.
    pub candidate_rejected: Option<Saying>,
}
