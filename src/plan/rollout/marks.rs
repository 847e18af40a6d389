//! Marks on ControllerRevisions, and a lost status rebuilt from them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{Input, Mark, State, engine::Engine, reason};
use crate::api::rollout::{RejectedRevision, RevisionStatus};

/// Value of the mark on a rejected revision.
#[derive(Serialize, Deserialize)]
struct Rejection {
    cause: String,
    message: String,
    time: Timestamp,
}

/// The marks that differ from those that are there.
pub(super) fn marks(input: &Input, state: &State) -> Vec<Mark> {
    let mut marks = Vec::new();
    for (revision, known) in &input.revisions {
        let stable = state.stable.as_ref().filter(|s| &s.revision == revision);
        let since = stable.and_then(|s| s.since.as_ref()).map(|t| t.0);
        let since = since.max(known.stable_since);
        let rejected = state.rejected.iter().find(|r| &r.revision == revision);
        let rejected = rejected.and_then(|r| {
            let rejection = Rejection {
                cause: r.reason.clone(),
                message: r.message.clone(),
                time: r.time.0,
            };
            serde_json::to_string(&rejection).ok()
        });
        if since != known.stable_since || rejected != known.rejected {
            marks.push(Mark {
                revision: revision.clone(),
                stable_since: since.map(|t| t.to_string()),
                rejected,
            });
        }
    }
    marks
}

/// A release without any status whose ControllerRevisions bear marks has lost it: stable and the ledger come from there.
pub(super) fn restore(engine: &mut Engine) {
    let input = engine.input;
    let s = &engine.s;
    let blank = s.stable.is_none()
        && s.candidate.is_none()
        && s.attempts == 0
        && s.rollout.epoch == 0
        && s.history.is_empty();
    let last = input
        .revisions
        .iter()
        .filter_map(|(revision, known)| Some((known.stable_since?, revision, known)))
        .max_by_key(|(since, ..)| *since);
    let Some((since, revision, known)) = last.filter(|_| blank) else {
        return;
    };
    let s = &mut engine.s;
    s.stable = Some(RevisionStatus {
        revision: revision.clone(),
        version: known.version.clone(),
        digest: known.digest.clone(),
        uri: known.uri.clone(),
        since: Some(Time(since)),
        ..RevisionStatus::default()
    });
    for (revision, known) in &input.revisions {
        let rejection = known.rejected.as_deref();
        let rejection = rejection.and_then(|r| serde_json::from_str::<Rejection>(r).ok());
        if let Some(rejection) = rejection {
            s.rejected.push(RejectedRevision {
                revision: revision.clone(),
                version: known.version.clone(),
                reason: rejection.cause,
                message: rejection.message,
                time: Time(rejection.time),
            });
        }
    }
    // Above anything that a gateway or an Evaluation has seen, so that neither takes the new for the old: there was less than
    // one change of routing in a second.
    let served = input.live.gateways.iter().filter_map(|g| g.epoch).max();
    s.rollout.epoch = served.unwrap_or(0).max(engine.now.as_second()) + 1;
    let runs = input.evaluations.values().flat_map(|e| &e.runs);
    let runs = runs.filter(|run| run.release.as_deref() == Some(input.uid.as_str()));
    s.attempts = runs.map(|run| run.attempt).max().unwrap_or(0).max(1);
    let message =
        format!("The status was lost; {revision} is stable, as its ControllerRevision says");
    engine.event(true, reason::STATUS_REBUILT, message);
}
