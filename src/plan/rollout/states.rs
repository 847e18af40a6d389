//! What may begin, and what is looked at wherever a candidate is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use serde_json::json;

use super::{
    Desired, Target,
    end::{ending, failed},
    engine::{Engine, last, words},
    policy::ladder,
    reason,
};
use crate::{
    api::rollout::{
        CandidateSource, Ending, HistoryEntry, Outcome, RevisionStatus, RolloutState, RolloutStatus,
    },
    plan::revision,
};

impl Engine<'_> {
    pub(super) fn transition(&mut self) {
        match self.s.rollout.state {
            RolloutState::Idle => self.idle(),
            RolloutState::RollingBack => self.rolling_back(),
            RolloutState::Baking => self.baking(),
            RolloutState::Preparing
            | RolloutState::Stepping
            | RolloutState::Paused
            | RolloutState::Promoting => self.trying(),
        }
    }

    pub(super) fn idle(&mut self) {
        self.s.candidate = None;
        if self.s.rollout.weight != 0 {
            self.set_weight(0);
        }
        if self.s.rollout.epoch > 0 && !self.is_applied() {
            self.wait_for_gateways();
        }
        let input = self.input;
        let Desired::Revision(target) = &input.desired else {
            return;
        };
        if self.s.stable_revision() == Some(&target.revision)
            || self.s.is_rejected(&target.revision)
            || self.gave_up(&target.revision).is_some()
        {
            return;
        }
        self.start(target);
    }

    /// The last try of this revision, if it ended for want of data and neither `rollout` nor `metrics` was changed since.
    pub(super) fn gave_up(&self, revision: &str) -> Option<&HistoryEntry> {
        let last = self
            .s
            .history
            .iter()
            .rev()
            .find(|h| h.revision == revision)?;
        let ended = last.outcome == Outcome::Aborted && last.reason == reason::NOT_ENOUGH_DATA;
        let unchanged = || match &last.terms {
            Some(terms) => *terms == self.terms(),
            // It ended under an operator that didn't record them.
            None => last.generation == Some(self.input.generation),
        };
        (ended && unchanged()).then_some(last)
    }

    /// Once the spec has asked for something else, what ended for want of data may be asked for anew.
    pub(super) fn forgive(&mut self) {
        let Some(target) = self.input.desired.target() else {
            return;
        };
        let others = self.s.history.iter_mut();
        for other in others.filter(|h| h.revision != target.revision) {
            other.terms = None;
        }
    }

    /// What to remember of a rollout that ended for this reason: its terms, while the spec asks for it.
    pub(super) fn terms_of(&self, revision: &str, reason: &str) -> Option<String> {
        let target = self.input.desired.target();
        let asked = target.is_none_or(|target| target.revision == revision);
        (asked && reason == reason::NOT_ENOUGH_DATA).then(|| self.terms())
    }

    /// A digest of what decides how long data is awaited, and which. The generation of the spec won't do: every write of `replicas`
    /// raises it, an autoscaler's too.
    fn terms(&self) -> String {
        revision::hash(&json!([self.input.rollout, self.input.metrics]), 0)
    }

    /// A new rollout of this revision.
    pub(super) fn start(&mut self, target: &Target) {
        self.s.attempts += 1;
        let now = Time(self.now);
        let steps = match target.source {
            // It was tried step by step when it first became stable.
            CandidateSource::Rollback => Vec::new(),
            _ => ladder(&self.input.rollout),
        };
        self.s.candidate = Some(RevisionStatus {
            revision: target.revision.clone(),
            version: target.version.clone(),
            digest: target.digest.clone(),
            uri: target.uri.clone(),
            since: Some(now.clone()),
            attempt: Some(self.s.attempts),
            source: Some(target.source),
            ..RevisionStatus::default()
        });
        self.s.rollout = RolloutStatus {
            state: RolloutState::Preparing,
            epoch: self.s.rollout.epoch,
            applied_time: self.s.rollout.applied_time.clone(),
            steps,
            start_time: Some(now.clone()),
            since: Some(now),
            ..RolloutStatus::default()
        };
        self.set_deadline(0);
        let what = words(&target.revision, target.version.as_deref());
        let why = match target.source {
            CandidateSource::Spec => "the spec asks for it",
            CandidateSource::Version => "it is a newer version",
            CandidateSource::Rollback => "someone said rollback-to",
        };
        self.event(
            false,
            reason::ROLLOUT_STARTED,
            format!("Trying {what}, attempt {}: {why}", self.s.attempts),
        );
    }

    /// Any state with a candidate that isn't being taken back.
    pub(super) fn trying(&mut self) {
        let Some(candidate) = self.s.candidate.clone() else {
            // A status that was edited by hand: nothing is tried, so nothing is going on.
            self.s.rollout.state = RolloutState::Idle;
            self.s.rollout.weight = 0;
            return;
        };
        if let Some(ending) = self.replaced(&candidate) {
            return self.roll_back(ending);
        }
        let judgement = self.judgement();
        self.record(&judgement);
        if let Some(ending) = failed(&judgement) {
            return self.roll_back(ending);
        }
        let lost = self.s.rollout.weight > 0 && self.available(&candidate.revision) < 1;
        if lost {
            return self.regress(&candidate);
        }
        self.end_warm_up();
        match self.s.rollout.state {
            RolloutState::Preparing => self.preparing(&candidate, &judgement),
            RolloutState::Stepping => self.stepping(&candidate, &judgement),
            RolloutState::Paused => self.paused(),
            _ => self.promoting(candidate),
        }
    }

    /// Whether the spec no longer asks for the candidate.
    pub(super) fn replaced(&self, candidate: &RevisionStatus) -> Option<Ending> {
        let target = self.input.desired.target()?;
        let source = candidate.source.unwrap_or(CandidateSource::Spec);
        let mine = words(&candidate.revision, candidate.version.as_deref());
        let other = words(&target.revision, target.version.as_deref());
        let withdrawn = || {
            Some(ending(
                Outcome::Withdrawn,
                reason::WITHDRAWN,
                format!("{mine} is withdrawn: the spec asks for {other} again"),
            ))
        };
        if target.revision == candidate.revision {
            return None;
        }
        let is_stable = self.s.stable_revision() == Some(&target.revision);
        let refused =
            self.s.is_rejected(&target.revision) || self.gave_up(&target.revision).is_some();
        match (source, target.source) {
            // What the spec asks for is what is being left.
            (CandidateSource::Rollback, _) if is_stable || refused => None,
            // A newer version waits its turn; one that vanished changes nothing.
            (_, CandidateSource::Version) if !is_stable => None,
            (CandidateSource::Version | CandidateSource::Rollback, CandidateSource::Version) => {
                None
            }
            _ if is_stable || refused => withdrawn(),
            _ => Some(ending(
                Outcome::Superseded,
                reason::SUPERSEDED,
                format!("{mine} is superseded: the spec asks for {other}"),
            )),
        }
    }

    /// All pods of a candidate with traffic are gone: its callers go back to stable until it is back, within the step's deadline.
    pub(super) fn regress(&mut self, candidate: &RevisionStatus) {
        let what = words(&candidate.revision, candidate.version.as_deref());
        let rollout = &self.s.rollout;
        let promoting = rollout.state == RolloutState::Promoting;
        let message = format!(
            "No pod of {what} can answer: its {} % of callers go back to stable until one can",
            rollout.weight
        );
        self.set_weight(0);
        let rollout = &mut self.s.rollout;
        rollout.state = RolloutState::Preparing;
        rollout.lost = true;
        // The pods to come are as cold as the first ones were.
        rollout.warm_until = None;
        if rollout.measured_from.is_some() {
            rollout.cold_from.get_or_insert(rollout.epoch);
        }
        if promoting {
            rollout.step = last(&rollout.steps);
        }
        self.event(true, reason::CANDIDATE_UNAVAILABLE, message);
    }

    /// The first minute of the candidate's pods is over: what follows is another epoch, so that it is measured apart.
    pub(super) fn end_warm_up(&mut self) {
        let rollout = &self.s.rollout;
        let Some(until) = &rollout.warm_until else {
            return;
        };
        let asked = rollout.weight.max(rollout.mirror) > 0 || rollout.previous.is_some();
        if !self.is_warming() || !asked {
            return;
        }
        if self.now < until.0 {
            self.look_at(until.0);
        } else if self.is_applied() {
            self.next_epoch();
            self.measure();
        }
    }
}
