//! Marks on ControllerRevisions, and a lost status rebuilt from them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{
    Input, Mark, Revision, State, commands, end,
    engine::{self, plus},
    reason,
};
use crate::{
    api::{
        condition::bounded,
        rollout::{BrokenBound, Outcome, RejectedRevision, RevisionStatus},
    },
    plan::Event,
};

/// Value of the mark on a rejected revision.
#[derive(Serialize, Deserialize)]
struct Rejection {
    cause: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gate: Option<BrokenBound>,
    time: Timestamp,
}

/// The marks that differ from those that are there.
pub(super) fn marks(input: &Input, state: &State) -> Vec<Mark> {
    let mut marks = Vec::new();
    for (revision, known) in &input.revisions {
        let since = stable_since(input, state, revision);
        let rejected = state.rejected.iter().find(|r| &r.revision == revision);
        let rejected = rejected.and_then(|r| {
            let rejection = Rejection {
                cause: r.reason.clone(),
                message: r.message.clone(),
                gate: r.gate.clone(),
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

/// Since when a revision is or was stable, as its mark must say. Stable's is later than any other, whatever the clock said when: the
/// latest one is what a lost status is rebuilt with.
fn stable_since(input: &Input, state: &State, revision: &str) -> Option<Timestamp> {
    let marked = |of: &str| input.revisions.get(of).and_then(|known| known.stable_since);
    let stable = state.stable.as_ref().filter(|s| s.revision == revision);
    let Some(stable) = stable else {
        return marked(revision).filter(|since| !failed_its_bake(state, revision, *since));
    };
    let since = stable.since.as_ref().map(|t| t.0);
    let others = input.revisions.keys().filter(|other| *other != revision);
    let newest = others.filter_map(|other| marked(other)).max();
    let after = newest.map(|newest| plus(newest, 1000));
    since.max(marked(revision)).max(after)
}

/// Whether it was stable for no longer than a bake that ended badly.
fn failed_its_bake(state: &State, revision: &str, since: Timestamp) -> bool {
    let of = || state.history.iter().filter(|h| h.revision == revision);
    let began = |t: &Time| t.0 <= since;
    of().all(|h| h.outcome != Outcome::Promoted)
        && of().any(|h| h.start_time.as_ref().is_some_and(began))
}

/// Whether a revision came to the end of a rollout once, as history or its mark says.
pub(super) fn was_stable(input: &Input, state: &State, revision: &str) -> bool {
    let promoted = |outcome| outcome == Outcome::Promoted;
    let mut history = state.history.iter();
    history.any(|h| h.revision == revision && promoted(h.outcome))
        || stable_since(input, state, revision).is_some()
}

/// The state of a release without any status whose ControllerRevisions bear marks, which has lost it: stable and the ledger come from
/// there. With an Event that says so.
pub fn rebuilt(input: &Input, now: Timestamp) -> Option<(State, Event)> {
    let s = &input.state;
    let blank = s.stable.is_none()
        && s.candidate.is_none()
        && s.attempts == 0
        && s.rollout.epoch == 0
        && s.history.is_empty();
    let mut known = input.revisions.values();
    let marked = known.any(|known| known.stable_since.is_some() || known.rejected.is_some());
    if !blank || !marked {
        return None;
    }
    let mut s = s.clone();
    let last = input
        .revisions
        .iter()
        .filter(|(_, known)| known.rejected.is_none())
        .filter_map(|(revision, known)| Some((known.stable_since?, revision, known)))
        .max_by_key(|(since, ..)| *since);
    s.stable = last.map(|(since, revision, known)| RevisionStatus {
        revision: revision.clone(),
        version: known.version.clone(),
        digest: known.digest.clone(),
        uri: known.uri.clone(),
        since: Some(Time(since)),
        ..RevisionStatus::default()
    });
    let rejected = input.revisions.iter();
    s.rejected = rejected.filter_map(|(r, k)| rejection(r, k, now)).collect();
    s.rejected.sort_by_key(|rejected| rejected.time.0);
    end::bound_ledger(&mut s.rejected);
    // Above anything that a gateway or an Evaluation has seen, so that neither takes the new for the old: there was less than
    // one change of routing in a second.
    let served = input.live.gateways.iter().filter_map(|g| g.epoch).max();
    s.rollout.epoch = served.unwrap_or(0).max(now.as_second()) + 1;
    let runs = input.evaluations.values().flat_map(|e| &e.runs);
    let runs = runs.filter(|run| run.release.as_deref() == Some(input.uid.as_str()));
    s.attempts = runs.map(|run| run.attempt).max().unwrap_or(0).max(1);
    commands::do_not_repeat(&mut s, &input.commands);
    let stable = match last {
        Some((_, revision, _)) => format!("{revision} is stable, as its ControllerRevision says"),
        None => "no ControllerRevision says that it was stable".to_owned(),
    };
    let note = format!("The status was lost; {stable}");
    Some((s, engine::event(true, reason::STATUS_REBUILT, note)))
}

/// What the mark of a rejected revision says. One that can't be read is a rejection all the same.
fn rejection(revision: &str, known: &Revision, now: Timestamp) -> Option<RejectedRevision> {
    let mark = known.rejected.as_ref()?;
    let rejection = serde_json::from_str(mark).unwrap_or_else(|_| Rejection {
        cause: reason::REVISION_REJECTED.to_owned(),
        message: mark.clone(),
        gate: None,
        time: now,
    });
    Some(RejectedRevision {
        revision: revision.to_owned(),
        version: known.version.clone(),
        reason: rejection.cause,
        message: bounded(rejection.message),
        gate: rejection.gate,
        time: Time(rejection.time),
    })
}
