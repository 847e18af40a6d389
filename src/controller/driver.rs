//! The loop that all kinds share: a key comes up, its object is observed, planned for, and the plan carried out.
//!
//! An owner of a kind writes [`Controller`]; everything else is here: back-off by uid, time limits, conflicts, refusals, panics,
//! timers, and waiting until our own writes are visible.

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

pub use crate::cluster::subject::{Place, Subject};
use crate::{
    cluster::{Caches, Change, Error, Key, Refusal, Shell},
    plan::{Plan, ended::Ended},
};

/// What `observe` found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<T> {
    /// Everything that a plan needs.
    Ready(T),
    /// Not yet: come back after so long, or when something changes.
    Waiting {
        /// CamelCase.
        reason: &'static str,
        /// One sentence.
        message: String,
        /// Longest time until the next look.
        check_after: std::time::Duration,
    },
}

/// One kind's part of the loop.
pub trait Controller: Send + Sync + 'static {
    /// What is reconciled: one of the four resources, or for the gateway a [`Place`].
    type Object: Subject;
    /// Its status; `()` for a [`Place`].
    type Status: Serialize + Clone + PartialEq + Send + Sync + 'static;
    /// All that the plan is made from.
    type Observed: Send + Sync + 'static;

    /// Value of the label `controller` in logs and metrics: `training_job`, `gateway`, …
    const NAME: &'static str;

    /// Every key there is, for the first round and after a takeover.
    fn keys(&self, caches: &Caches) -> Vec<Key>;

    /// The object of a key; `None` when it is gone (then everything that is remembered of it is dropped).
    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<Self::Object>>;

    /// The keys that a change wakes: the object itself, the owner of a child (`change.belongs_to("TrainingJob", label::TRAINING_JOB)`),
    /// those who read it. Called for every change of every watched kind, deletes included; must be cheap and must not block.
    fn wakes(&self, caches: &Caches, change: &Change) -> Vec<Key>;

    /// Gathers, once. Reads caches (and our own pods); writes nothing. Dropping it at any `.await` is safe.
    fn observe(
        &self,
        shell: &Shell,
        object: &Arc<Self::Object>,
    ) -> impl Future<Output = Result<Outcome<Self::Observed>, Error>> + Send;

    /// Decides, purely: calls `plan::<kind>::plan`.
    fn plan(&self, observed: &Self::Observed, now: Timestamp) -> Plan<Self::Status>;

    /// What ended between the object's status and this one, which is about to be written: counted then.
    fn ended(&self, _object: &Self::Object, _status: &Self::Status) -> Vec<Ended> {
        Vec::new()
    }

    /// Enters a refused write into a status that the plan (or the cluster, if the plan has none) has: the kind's condition with
    /// `refusal.reason.as_str()` and `refusal.message`, word for word. It is applied to every status written while the refusal lasts: until
    /// the plan no longer has that write, the generation changes, or [`crate::cluster::RefusalReason::retry_after`] has passed.
    fn refused(
        &self,
        object: &Self::Object,
        status: Option<Self::Status>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Self::Status>;
}
