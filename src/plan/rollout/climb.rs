//! From preparing a candidate to giving it every caller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    end::ending,
    engine::{Engine, plus, words},
    gates::Judgement,
    measure::Metric,
    policy::{mirror_at, timed_pause},
    reason, size,
};
use crate::api::{
    gate::Verdict,
    rollout::{
        CandidateSource, Evaluate, EvaluationGate, NoData, OnInconclusive, Outcome, RevisionStatus,
        RolloutState, Step,
    },
};

impl Engine<'_> {
    pub(super) fn preparing(&mut self, candidate: &RevisionStatus, judgement: &Judgement) {
        if self.is_scaled_to_zero() {
            self.s.rollout.deadline = None;
            self.waiting
                .push("replicas is 0: nothing is tried until it is raised".into());
            return;
        }
        self.keep_deadline(0);
        let need = size::needed(&self.s, self.input.replicas);
        let available = self.available(&candidate.revision);
        let starting = available < need;
        if starting {
            let why = self.input.revisions.get(&candidate.revision);
            let why = why.and_then(|r| r.failure.as_deref());
            self.waiting.push(pods(available, need, why));
        }
        let unmeasured = !judgement.unmeasured.is_empty();
        if unmeasured {
            self.waiting.extend(judgement.unmeasured.iter().cloned());
        }
        if starting || unmeasured {
            self.look_again();
            if self.is_late() {
                // An evaluation can only begin once there are pods.
                self.too_late(starting);
            }
            return;
        }
        if self.s.stable.is_none() {
            return self.first();
        }
        let untried = self.s.rollout.step == 0 && !self.s.rollout.lost;
        // Who approves the first step has looked at it, too.
        let first = self.s.rollout.steps.first();
        let awaits = untried && first.is_none_or(|s| s.approval.is_none());
        if let Some(why) = self.by_hand(candidate).filter(|_| awaits) {
            return self.pause(why);
        }
        // Going back is for when something is wrong.
        let goes_back = candidate.source == Some(CandidateSource::Rollback);
        if let Some(change) = self.input.signature_change.as_ref()
            && awaits
            && !goes_back
        {
            return self.pause(change);
        }
        if untried {
            let what = words(&candidate.revision, candidate.version.as_deref());
            let passed = match self.s.rollout.evaluations.len() {
                0 => "is ready".to_owned(),
                _ => "is ready and passed its evaluations".to_owned(),
            };
            self.event(false, reason::CANDIDATE_READY, format!("{what} {passed}"));
        }
        // Back after a loss, the step's deadline stays: one that comes and goes runs into it.
        let deadline = self.s.rollout.deadline.clone();
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Stepping, step);
        if self.s.rollout.lost {
            self.s.rollout.deadline = deadline;
        }
    }

    /// Why only a person gives a candidate callers, if that is so.
    fn by_hand(&self, candidate: &RevisionStatus) -> Option<&'static str> {
        let input = self.input;
        let stable = self.s.stable.as_ref().and_then(|s| s.version.as_ref());
        match candidate.source {
            Some(CandidateSource::Rollback) => None,
            Some(CandidateSource::Version) if input.manual_versions => {
                Some("retraining.promotion is Manual")
            }
            _ => candidate
                .version
                .as_ref()
                .filter(|version| stable != Some(version) && input.by_hand.contains(version))
                .map(|_| "it comes from a retraining, and retraining.promotion was Manual"),
        }
    }

    pub(super) fn first(&mut self) {
        let Some(mut revision) = self.s.candidate.take() else {
            return;
        };
        let what = words(&revision.revision, revision.version.as_deref());
        revision.since = Some(Time(self.now));
        let message = format!("{what} is the first revision and serves");
        self.s.candidate = Some(revision.clone());
        self.conclude(ending(Outcome::Promoted, reason::FIRST_REVISION, message));
        revision.attempt = None;
        self.s.stable = Some(revision);
        self.next_epoch();
    }

    pub(super) fn stepping(&mut self, candidate: &RevisionStatus, judgement: &Judgement) {
        let at = usize::try_from(self.s.rollout.step).unwrap_or(usize::MAX);
        let Some(step) = self.s.rollout.steps.get(at).cloned() else {
            return self.give_all(candidate);
        };
        let weights = self.s.rollout.steps.iter().take(at + 1).rev();
        let weight = weights.filter_map(|s| s.set_weight).next().unwrap_or(0);
        let weight = weight.clamp(0, 100);
        let mirror = mirror_at(&self.s.rollout.steps, at);
        if self.s.rollout.weight < weight {
            if !self.can_carry(candidate) {
                // The copies of the step before end all the same: fewer need no pods.
                if self.s.rollout.mirror > mirror {
                    self.s.rollout.mirror = mirror;
                    self.next_epoch();
                }
                return;
            }
            if weight == 100 {
                self.keep_window();
            }
            self.set_weight(weight);
            // A pause begins when the gateways serve the weight; also the one in which the candidate lost its pods.
            self.s.rollout.since = None;
            let what = words(&candidate.revision, candidate.version.as_deref());
            let note = format!("{what} gets {weight} % of callers");
            self.event(false, reason::WEIGHT_RAISED, note);
        }
        if self.s.rollout.mirror != mirror {
            if mirror > 0 && !self.can_carry(candidate) {
                return;
            }
            self.s.rollout.mirror = mirror;
            self.next_epoch();
            self.s.rollout.since = None;
            let what = words(&candidate.revision, candidate.version.as_deref());
            let note = format!("{what} gets copies of {mirror} % of stable's requests");
            self.event(false, reason::MIRRORING, note);
        }
        let Step {
            set_weight: _,
            set_mirror: _,
            pause,
            evaluate,
            approval,
        } = &step;
        if pause.is_none() && evaluate.is_none() && approval.is_none() {
            if self.is_served() {
                self.advance();
            }
            return;
        }
        if self.s.rollout.since.is_none() {
            if !self.is_served() {
                return;
            }
            self.s.rollout.since = Some(Time(self.now));
        }
        if let Some(evaluate) = evaluate {
            self.evaluate(evaluate, judgement);
        } else if approval.is_some() {
            self.await_approval();
        } else if let Some(pause) = timed_pause(&step) {
            self.wait(pause, judgement);
        } else {
            self.pause("the step is a pause until promoted");
        }
    }

    /// The step's Evaluations measure the candidate; it goes on when all passed. One that failed has taken it back already.
    fn evaluate(&mut self, evaluate: &Evaluate, judgement: &Judgement) {
        self.keep_deadline(0);
        let mine = |e: &&EvaluationGate| evaluate.names.contains(&e.name);
        let open: Vec<String> = judgement
            .evaluations
            .iter()
            .filter(mine)
            .filter(|e| e.verdict != Verdict::Passed)
            .map(|e| format!("Evaluation {} is {:?}: {}", e.name, e.verdict, e.message))
            .collect();
        if open.is_empty() {
            return self.advance();
        }
        self.waiting.extend(open);
        self.look_again();
        if self.is_late() {
            self.too_late(false);
        }
    }

    /// Behind the last step: every caller, as soon as the candidate can carry them.
    fn give_all(&mut self, candidate: &RevisionStatus) {
        if self.s.rollout.weight < 100 {
            if !self.can_carry(candidate) {
                return;
            }
            self.keep_window();
            self.set_weight(100);
        }
        self.s.rollout.mirror = 0;
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Promoting, step);
        let what = words(&candidate.revision, candidate.version.as_deref());
        let note = format!("{what} gets all callers, to become stable");
        self.event(false, reason::PROMOTING, note);
    }

    /// Whether there are pods for the step's weight; else it waits for them, until the deadline.
    fn can_carry(&mut self, candidate: &RevisionStatus) -> bool {
        self.keep_deadline(0);
        let need = size::needed(&self.s, self.input.replicas).max(1);
        let available = self.available(&candidate.revision);
        if available >= need {
            return true;
        }
        let why = self.input.revisions.get(&candidate.revision);
        let why = why.and_then(|r| r.failure.as_deref());
        self.waiting.push(pods(available, need, why));
        self.look_again();
        if self.is_late() {
            self.too_late(true);
        }
        false
    }

    /// Whether every gateway serves the present routing; else it waits for them, until the deadline.
    fn is_served(&mut self) -> bool {
        self.keep_deadline(0);
        if self.s.rollout.epoch == 0 || self.is_applied() {
            return true;
        }
        self.wait_for_gateways();
        if self.is_late() {
            self.too_late(true);
        }
        false
    }

    /// A timed pause, at whose end the data must be there.
    pub(super) fn wait(&mut self, pause: u64, judgement: &Judgement) {
        let since = self.s.rollout.since.as_ref().map_or(self.now, |t| t.0);
        let end = plus(since, pause);
        self.look_again();
        if self.now < end {
            self.keep_deadline(pause);
            self.look_at(end);
            self.waiting.push(format!("the pause lasts until {end}"));
            return;
        }
        if !self.holds("the step", judgement) {
            self.advance();
        }
    }

    /// Whether data that isn't there keeps a timed pause or the bake from ending. Then `noData`, `onInconclusive` and the deadline decide
    /// how long, and what comes of it.
    pub(super) fn holds(&mut self, what: &str, judgement: &Judgement) -> bool {
        let baking = self.s.rollout.state == RolloutState::Baking;
        let stable = self.s.stable.as_ref();
        let goes_back = stable.is_some_and(|s| s.source == Some(CandidateSource::Rollback));
        if baking && (goes_back || self.policy.bake == 0) {
            return false;
        }
        // Nothing live is measured while neither callers nor copies are on the candidate, and Evaluations were asked before the bake.
        let live = baking || self.s.rollout.weight > 0 || self.compares_copies();
        let holding: Vec<String> = match (baking, live) {
            (true, _) => judgement.holding_bake().cloned().collect(),
            (false, true) => judgement.holding().cloned().collect(),
            (false, false) => judgement.unmeasured.clone(),
        };
        let warming = live && !baking && self.is_warming();
        if holding.is_empty() && !warming {
            return false;
        }
        if baking && self.is_scaled_to_zero() {
            self.s.rollout.deadline = None;
            let sentence = "replicas is 0: nothing can be measured until it is raised";
            self.waiting.push(sentence.into());
            return true;
        }
        let doubts = match baking {
            true => judgement.missing.len() + judgement.unproven.len() > 0,
            false => judgement.doubts().next().is_some(),
        };
        let no_data = live && !judgement.missing.is_empty();
        self.waiting.extend(holding.iter().cloned());
        match (self.policy.no_data, self.policy.on_inconclusive) {
            (NoData::Fail, _) if no_data && !warming => {
                let message = format!(
                    "{what} ended without enough data, and noData is Fail: {}",
                    judgement.missing.join("; ")
                );
                self.roll_back(ending(Outcome::RolledBack, reason::NO_DATA, message));
            }
            (NoData::Wait, _) if no_data => self.s.rollout.deadline = None,
            (_, OnInconclusive::Abort) if !warming && doubts => {
                let message = format!("onInconclusive is Abort: {}", holding.join("; "));
                self.roll_back(ending(Outcome::Aborted, reason::NOT_ENOUGH_DATA, message));
            }
            _ => {
                self.keep_deadline(0);
                if self.is_late() {
                    self.too_late(false);
                }
            }
        }
        true
    }

    /// Whether copies are made, and a gate looks at them.
    fn compares_copies(&self) -> bool {
        let mut gates = self.policy.gates.iter();
        self.s.rollout.mirror > 0
            && gates
                .any(|gate| Metric::named(&gate.metric).is_some_and(|metric| metric.is_of_copies()))
    }

    pub(super) fn paused(&mut self) {
        self.s.rollout.deadline = None;
        let sentence = format!("at {} %, it {}", self.s.rollout.weight, self.awaited());
        self.waiting.push(sentence);
        if self.s.rollout.weight > 0 || self.compares_copies() {
            self.look_again();
        }
    }

    /// Whether the present step waits for an approval.
    pub(super) fn is_at_approval(&self) -> bool {
        let at = usize::try_from(self.s.rollout.step).unwrap_or(usize::MAX);
        let step = self.s.rollout.steps.get(at);
        step.is_some_and(|s| s.approval.is_some())
    }

    /// Whom a paused rollout waits for, and what they can say.
    pub(super) fn awaited(&self) -> String {
        let name = &self.input.name;
        match self.is_at_approval() {
            true => format!(
                "waits for a person's approval in their own name: kubectl perennial approve {name}"
            ),
            false => format!("waits for a person: kubectl perennial promote {name}"),
        }
    }

    fn await_approval(&mut self) {
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Paused, step);
        self.s.rollout.deadline = None;
        let message = format!(
            "At {} %, the rollout {}",
            self.s.rollout.weight,
            self.awaited()
        );
        self.event(false, reason::WAITING_FOR_APPROVAL, message);
    }

    pub(super) fn pause(&mut self, why: &str) {
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Paused, step);
        self.s.rollout.deadline = None;
        let message = format!(
            "Waiting at {} % for kubectl perennial promote {}: {why}",
            self.s.rollout.weight, self.input.name
        );
        self.event(false, reason::WAITING_FOR_PROMOTION, message);
    }

    pub(super) fn promoting(&mut self, mut candidate: RevisionStatus) {
        if !self.is_served() {
            return;
        }
        let what = words(&candidate.revision, candidate.version.as_deref());
        candidate.since = Some(Time(self.now));
        self.s.rollout.previous = self.s.stable_revision().map(str::to_owned);
        self.s.stable = Some(candidate);
        self.s.candidate = None;
        self.s.rollout.weight = 0;
        self.s.rollout.mirror = 0;
        self.next_epoch();
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Baking, step);
        let bake = self.policy.bake;
        self.set_deadline(bake);
        self.event(
            false,
            reason::BAKING,
            format!(
                "{what} is stable; the pods before it stay for {} s",
                bake / 1000
            ),
        );
    }
}

fn pods(available: i32, need: i32, why: Option<&str>) -> String {
    let why = why.map_or(String::new(), |w| format!(": {w}"));
    format!("{available} of {need} pods are ready{why}")
}
