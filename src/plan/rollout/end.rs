//! How rollouts end: the bake, the way back, history and ledger.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    engine::{Engine, plus, words},
    gates::Judgement,
    reason,
};
use crate::api::{
    condition::bounded,
    rollout::{
        CandidateSource, Ending, HistoryEntry, Outcome, RejectedRevision, RevisionStatus,
        RolloutState, RolloutStatus,
    },
};

/// Finished rollouts that status keeps.
const HISTORY: usize = 20;
/// Rejected revisions that status keeps; with 1 KiB of words each, they fit beside everything else.
const REJECTED: usize = 50;
/// How long gateways may take to let go of a candidate before the rollout ends without their word.
const LET_GO: u64 = 300_000;

impl Engine<'_> {
    pub(super) fn baking(&mut self) {
        let (Some(stable), Some(previous)) =
            (self.s.stable.clone(), self.s.rollout.previous.clone())
        else {
            self.s.rollout.state = RolloutState::Idle;
            return;
        };
        let judgement = self.judgement();
        self.record(&judgement);
        if let Some(ending) = failed(&judgement) {
            return self.roll_back(ending);
        }
        let what = words(&stable.revision, stable.version.as_deref());
        if self.available(&stable.revision) < 1
            && self.available(&previous) >= 1
            && !self.is_scaled_to_zero()
        {
            let message = format!("no pod of {what} can answer, and those before it still can");
            return self.roll_back(ending(
                Outcome::RolledBack,
                reason::CANDIDATE_UNAVAILABLE,
                message,
            ));
        }
        self.end_warm_up();
        let since = self.s.rollout.since.as_ref().map_or(self.now, |t| t.0);
        let end = plus(since, self.policy.bake);
        let kept = self.policy.bake;
        self.keep_deadline(kept);
        if self.cuts_short(&stable, &previous) {
            let message = format!("{what} is stable; its bake is cut short by another spec");
            return self.conclude(ending(Outcome::Promoted, reason::PROMOTED, message));
        }
        self.look_again();
        if self.now < end {
            self.look_at(end);
            self.waiting.push(format!("it bakes until {end}"));
        } else if !self.is_applied() && !self.is_late() {
            self.wait_for_gateways();
        } else if !self.holds("the bake", &judgement) {
            let message = format!("{what} is stable{}", self.approved());
            self.conclude(ending(Outcome::Promoted, reason::PROMOTED, message));
        }
    }

    /// Whether the spec asks for something else already.
    pub(super) fn cuts_short(&self, stable: &RevisionStatus, previous: &str) -> bool {
        let Some(target) = self.input.desired.target() else {
            return false;
        };
        let left = stable.source == Some(CandidateSource::Rollback) && target.revision == previous;
        target.source != CandidateSource::Version
            && target.revision != stable.revision
            && !left
            && !self.s.is_rejected(&target.revision)
            && self.gave_up(&target.revision).is_none()
    }

    /// Who approved it, for the history.
    fn approved(&self) -> String {
        let users = self.s.rollout.approvals.iter().map(|a| a.user.as_str());
        let users: Vec<&str> = users.collect();
        match users.is_empty() {
            true => String::new(),
            false => format!(", approved by {}", users.join(", ")),
        }
    }

    pub(super) fn rolling_back(&mut self) {
        let ending = self.s.rollout.ending.clone();
        let Some(ending) = ending else {
            self.s.rollout.state = RolloutState::Idle;
            return;
        };
        self.keep_deadline(0);
        // Without a ready gateway nobody is routed anywhere.
        let nobody = self.s.gateway.total == 0 || self.s.rollout.epoch == 0;
        if !self.is_applied() && !nobody && !self.is_late() {
            self.wait_for_gateways();
            return;
        }
        self.conclude(ending);
    }

    /// Takes the candidate's callers back at once. The rollout ends when the gateways say that they did.
    pub(super) fn roll_back(&mut self, ending: Ending) {
        if self.s.rollout.state == RolloutState::Baking {
            let bad = self.s.stable.take();
            let previous = self.s.rollout.previous.take();
            self.s.stable = previous.map(|revision| {
                let known = self.input.revisions.get(&revision);
                RevisionStatus {
                    version: known.and_then(|r| r.version.clone()),
                    digest: known.and_then(|r| r.digest.clone()),
                    uri: known.and_then(|r| r.uri.clone()),
                    since: Some(Time(self.now)),
                    revision,
                    ..RevisionStatus::default()
                }
            });
            self.s.candidate = bad;
            self.next_epoch();
        } else if self.s.rollout.weight > 0 || self.s.rollout.mirror > 0 {
            self.set_weight(0);
        }
        let bad = matches!(ending.outcome, Outcome::RolledBack | Outcome::Aborted);
        let message = ending.message.clone();
        self.s.rollout.ending = Some(ending);
        let step = self.s.rollout.step;
        self.go_to(RolloutState::RollingBack, step);
        let within = LET_GO.min(self.policy.progress_deadline);
        self.s.rollout.deadline = Some(Time(plus(self.now, within)));
        self.event(
            bad,
            reason::ROLLING_BACK,
            format!("Back to stable: {message}"),
        );
    }

    /// Ends the rollout: history, ledger, and nothing going on.
    pub(super) fn conclude(&mut self, ending: Ending) {
        let Ending {
            outcome,
            reason,
            message,
            gate: _,
        } = ending.clone();
        let tried = match &self.s.candidate {
            Some(candidate) => Some(candidate.clone()),
            None => self.s.stable.clone(),
        };
        let now = Time(self.now);
        if let Some(tried) = &tried {
            self.s.history.push(HistoryEntry {
                revision: tried.revision.clone(),
                version: tried.version.clone(),
                outcome,
                reason: reason.clone(),
                message: bounded(message.clone()),
                generation: Some(self.input.generation),
                terms: self.terms_of(&tried.revision, &reason),
                start_time: self.s.rollout.start_time.clone(),
                end_time: now,
            });
            let over = self.s.history.len().saturating_sub(HISTORY);
            self.s.history.drain(..over);
            let rejects = match outcome {
                Outcome::RolledBack => true,
                Outcome::Aborted => reason != reason::NOT_ENOUGH_DATA,
                Outcome::Promoted | Outcome::Superseded | Outcome::Withdrawn => false,
            };
            if rejects {
                self.reject(&tried.revision, tried.version.as_deref(), &ending);
            }
            if outcome == Outcome::Promoted && tried.source == Some(CandidateSource::Rollback) {
                self.reject_left(tried);
            }
        }
        let event = match outcome {
            Outcome::Promoted if reason == reason::FIRST_REVISION => reason::FIRST_REVISION,
            Outcome::Promoted => reason::PROMOTED,
            Outcome::RolledBack => reason::REVISION_REJECTED,
            Outcome::Aborted if reason == reason::NOT_ENOUGH_DATA => reason::NOT_ENOUGH_DATA,
            Outcome::Aborted => reason::ABORTED,
            Outcome::Superseded => reason::SUPERSEDED,
            Outcome::Withdrawn => reason::WITHDRAWN,
        };
        let warning = matches!(outcome, Outcome::RolledBack | Outcome::Aborted);
        self.event(warning, event, message);
        self.s.candidate = None;
        if let Some(stable) = &mut self.s.stable {
            stable.attempt = None;
        }
        let rollout = std::mem::take(&mut self.s.rollout);
        self.s.rollout = RolloutStatus {
            epoch: rollout.epoch,
            applied_time: rollout.applied_time,
            gates: rollout.gates,
            evaluations: rollout.evaluations,
            measured_time: rollout.measured_time,
            ..RolloutStatus::default()
        };
    }

    /// What someone went back from isn't tried again by itself.
    pub(super) fn reject_left(&mut self, stable: &RevisionStatus) {
        if let Some(left) = self.s.rollout.previous.clone() {
            let version = self
                .input
                .revisions
                .get(&left)
                .and_then(|r| r.version.clone());
            let message = format!(
                "someone went back from it to {}",
                words(&stable.revision, stable.version.as_deref())
            );
            let ending = ending(Outcome::Aborted, reason::ROLLED_BACK_TO, message);
            self.reject(&left, version.as_deref(), &ending);
        }
    }

    pub(super) fn reject(&mut self, revision: &str, version: Option<&str>, ending: &Ending) {
        self.s.rejected.retain(|r| r.revision != revision);
        self.s.rejected.push(RejectedRevision {
            revision: revision.to_owned(),
            version: version.map(str::to_owned),
            reason: ending.reason.clone(),
            message: bounded(ending.message.clone()),
            gate: ending.gate.clone(),
            time: Time(self.now),
        });
        bound_ledger(&mut self.s.rejected);
    }

    pub(super) fn too_late(&mut self, is_its_fault: bool) {
        let limit = self.policy.progress_deadline / 1000;
        let waited = self.waiting.join("; ");
        let ending = if is_its_fault {
            let message = format!("no progress within {limit} s: {waited}");
            ending(
                Outcome::RolledBack,
                reason::PROGRESS_DEADLINE_EXCEEDED,
                message,
            )
        } else {
            let message = format!("not enough data within {limit} s: {waited}");
            ending(Outcome::Aborted, reason::NOT_ENOUGH_DATA, message)
        };
        self.roll_back(ending);
    }
}

/// The oldest rejections go.
pub(super) fn bound_ledger(rejected: &mut Vec<RejectedRevision>) {
    let over = rejected.len().saturating_sub(REJECTED);
    rejected.drain(..over);
}

/// A failure that takes the candidate back, if there is one.
pub(super) fn failed(judgement: &Judgement) -> Option<Ending> {
    let evaluation = judgement.failed_evaluation.as_ref();
    let gate = judgement.failed_gate.as_ref();
    let (reason, failure) = match (evaluation, gate) {
        (Some(failure), _) => (reason::EVALUATION_FAILED, failure),
        (None, Some(failure)) => (reason::GATE_FAILED, failure),
        (None, None) => {
            let message = judgement.not_improved.clone()?;
            return Some(ending(Outcome::RolledBack, reason::NOT_IMPROVED, message));
        }
    };
    Some(Ending {
        gate: failure.bound.clone(),
        ..ending(Outcome::RolledBack, reason, failure.message.clone())
    })
}

pub(super) fn ending(outcome: Outcome, reason: &str, message: String) -> Ending {
    Ending {
        outcome,
        reason: reason.to_owned(),
        message: bounded(message),
        gate: None,
    }
}
