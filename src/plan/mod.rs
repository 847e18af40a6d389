//! Every decision, pure: `plan(&observed, now) -> Plan`. No clock, no randomness, no IO.
//!
//! The shell (`cluster`, `controller`) gathers an `Observed`, calls a kind's `plan`, and carries the [`Plan`] out in order.
//! Actions are ordered so that a crash after any single one is repaired by the next reconcile.

pub mod claim;
pub mod config_map;
pub mod ended;
pub mod evaluation;
pub mod gateway;
pub mod model_deployment;
pub mod pod;
pub mod prompt_release;
pub mod release;
pub mod revision;
pub mod rollout;
pub mod run;
pub mod schedule;
pub mod training_job;

use jiff::Timestamp;
use serde_json::Value;

/// What to do, in order, and what to say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    /// Carried out one after another; the first failure ends the reconcile, status is then still written.
    pub actions: Vec<Action<S>>,
    /// Events, sent once the status is written that tells of the same; only for changes.
    pub events: Vec<Event>,
    /// When to look again even if nothing changes.
    pub check_at: Option<Timestamp>,
    /// Why: the same notes are shown by status, logs, the kubectl plugin and tests.
    pub notes: Vec<String>,
}

impl<S> Default for Plan<S> {
    fn default() -> Self {
        Self {
            actions: Vec::new(),
            events: Vec::new(),
            check_at: None,
            notes: Vec::new(),
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<S> {
    /// Server-side apply of a child; skipped when what is observed has it all already. The object carries `apiVersion`, `kind`,
    /// `metadata.{name,namespace,labels,ownerReferences}`. An object of that name without our owner reference (or, for
    /// unowned ones, without our label) is `NameTaken` and is never applied over.
    Apply(Value),
    /// Create only: an object that exists already is left as it is (immutable ConfigMaps, ControllerRevisions, TrainingJobs of a retraining).
    Create(Value),
    /// Delete with a uid precondition.
    Delete(Reference),
    /// Replace the status with this one, with the observed resourceVersion as precondition; skipped when equal.
    Status(Box<S>),
    /// Delete the planned object itself (TTL), with a uid precondition.
    DeleteSelf,
}

/// An observed object that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Such as `batch/v1`.
    pub api_version: String,
    /// Such as `Job`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The uid that was observed.
    pub uid: String,
}

/// An Event on the planned object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is a warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// What was done, CamelCase: `Rollout`, `Training`, …
    pub action: &'static str,
    /// One sentence.
    pub note: String,
}

/// The least time to look again: the earlier of two.
pub fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
