//! The states of a rollout and what leads from one to the next.
//!
//! One decision walks transitions until nothing changes any more, so that a second one with the same input finds nothing to do.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Decision, Desired, Input, State, Target,
    gates::{self, Judgement, Sides},
    policy::{Policy, ladder, timed_pause, warm_up},
    reason, size,
};
use crate::{
    api::{
        condition::bounded,
        rollout::{
            CandidateSource, Ending, HistoryEntry, NoData, OnInconclusive, Outcome,
            RejectedRevision, RevisionStatus, RolloutState, RolloutStatus,
        },
    },
    plan::{Event, earlier},
};

/// Finished rollouts that status keeps.
const HISTORY: usize = 20;
/// Rejected revisions that status keeps; with 1 KiB of words each, they fit beside everything else.
const REJECTED: usize = 50;
/// More transitions than any input can cause in one decision.
const TRANSITIONS: usize = 16;
/// How long gateways may take to let go of a candidate before the rollout ends without their word.
const LET_GO: u64 = 300_000;

/// The engine at work on one decision.
pub(super) struct Engine<'a> {
    pub input: &'a Input,
    pub policy: Policy,
    /// To the whole second, as status keeps it.
    pub now: Timestamp,
    pub s: State,
    pub events: Vec<Event>,
    pub notes: Vec<String>,
    pub check_at: Option<Timestamp>,
    /// What the present state waits for, in its words.
    pub waiting: Vec<String>,
    /// The last judgement with what it was of, as walking several transitions asks for the same one.
    judged: Option<(Judged, Judgement)>,
}

/// What a judgement depends on beside the input: candidate, attempt, stable, first epoch, epoch, whether live.
type Judged = (String, i64, Option<String>, Option<i64>, i64, bool);

impl<'a> Engine<'a> {
    pub fn new(input: &'a Input, now: Timestamp) -> Self {
        Self {
            input,
            policy: Policy::of(&input.rollout),
            now: Timestamp::from_second(now.as_second()).unwrap_or(now),
            s: input.state.clone(),
            events: Vec::new(),
            notes: Vec::new(),
            check_at: None,
            waiting: Vec::new(),
            judged: None,
        }
    }

    pub fn decide(mut self) -> Decision {
        super::marks::restore(&mut self);
        self.observe();
        for _ in 0..TRANSITIONS {
            let before = self.s.clone();
            self.waiting.clear();
            self.check_at = None;
            super::commands::handle(&mut self);
            self.transition();
            self.observe();
            if self.s == before {
                break;
            }
        }
        self.notes.extend(self.waiting.iter().cloned());
        super::summary::finish(self)
    }

    // ---- what is seen ----

    /// Copies what is seen of pods and gateways into the state.
    fn observe(&mut self) {
        let input = self.input;
        let full = input.replicas;
        let sizes = size::pods(&self.s, full);
        for side in [&mut self.s.stable, &mut self.s.candidate]
            .into_iter()
            .flatten()
        {
            let seen = input.revisions.get(&side.revision);
            side.replicas = sizes.get(&side.revision).copied().unwrap_or(0);
            side.available_replicas = match full {
                Some(_) => seen.map_or(0, |r| r.available),
                None => 0,
            };
            side.message = seen.and_then(|r| r.failure.clone()).map(bounded);
        }
        let live = &input.live;
        let rollout = &mut self.s.rollout;
        // A gateway never goes back to an older epoch; one that can't be asked at the moment still serves what it did.
        let known = rollout.applied_time.is_some();
        let behind = live
            .gateways
            .iter()
            .filter(|g| g.ready && !g.epoch.map_or(known, |e| e >= rollout.epoch))
            .count();
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        self.s.gateway.total = count(live.ready());
        self.s.gateway.applied = count(live.ready() - behind);
        if rollout.applied_time.is_none() && rollout.epoch > 0 && live.ready() > 0 && behind == 0 {
            rollout.applied_time = Some(Time(self.now));
            if rollout.weight > 0 && rollout.warm_until.is_none() {
                let warm = warm_up(&rollout.steps, self.policy.bake);
                rollout.warm_until = Some(Time(plus(self.now, warm)));
            }
        }
    }

    /// Whether every ready gateway serves the present epoch, and there is one.
    pub fn is_applied(&self) -> bool {
        self.s.rollout.applied_time.is_some()
    }

    /// Pods of a revision that can answer; prompts always can.
    pub fn available(&self, revision: &str) -> i32 {
        match self.input.replicas {
            None => i32::MAX,
            Some(_) => self
                .input
                .revisions
                .get(revision)
                .map_or(0, |r| r.available),
        }
    }

    /// Whether the release is scaled to zero: nothing can be tried then.
    pub fn is_scaled_to_zero(&self) -> bool {
        self.input.replicas == Some(0)
    }

    fn judgement(&mut self) -> Judgement {
        let rollout = &self.s.rollout;
        let baking = rollout.state == RolloutState::Baking;
        let (tried, stable) = if baking {
            (self.s.stable.as_ref(), rollout.previous.as_deref())
        } else {
            (self.s.candidate.as_ref(), self.s.stable_revision())
        };
        let Some(tried) = tried else {
            return Judgement::default();
        };
        let sides = Sides {
            candidate: &tried.revision,
            attempt: tried.attempt.unwrap_or_default(),
            stable,
            from: rollout.measured_from,
            epoch: rollout.epoch,
            live: baking || rollout.weight > 0,
            // Going back is for when something is wrong: nobody waits for an evaluation then.
            evaluated: tried.source != Some(CandidateSource::Rollback),
        };
        let of: Judged = (
            tried.revision.clone(),
            sides.attempt,
            stable.map(str::to_owned),
            sides.from,
            sides.epoch,
            sides.live,
        );
        if let Some((_, judgement)) = self.judged.as_ref().filter(|(last, _)| *last == of) {
            return judgement.clone();
        }
        let judgement = gates::judge(self.input, &self.policy, sides);
        self.judged = Some((of, judgement.clone()));
        judgement
    }

    // ---- transitions ----

    fn transition(&mut self) {
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

    fn idle(&mut self) {
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

    /// The last try of this revision, if it ended for want of data and nothing was changed since.
    pub fn gave_up(&self, revision: &str) -> Option<&HistoryEntry> {
        let last = self
            .s
            .history
            .iter()
            .rev()
            .find(|h| h.revision == revision)?;
        let ended = last.outcome == Outcome::Aborted && last.reason == reason::NOT_ENOUGH_DATA;
        (ended && last.generation == Some(self.input.generation)).then_some(last)
    }

    /// A new rollout of this revision.
    pub fn start(&mut self, target: &Target) {
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
    fn trying(&mut self) {
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
    fn replaced(&self, candidate: &RevisionStatus) -> Option<Ending> {
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

    /// Keeps what gates say, at most once a minute unless a verdict changed.
    fn record(&mut self, judgement: &Judgement) {
        let rollout = &mut self.s.rollout;
        rollout.evaluations.clone_from(&judgement.evaluations);
        let same =
            rollout.gates.len() == judgement.gates.len()
                && rollout.gates.iter().zip(&judgement.gates).all(|(a, b)| {
                    a.metric == b.metric && a.bound == b.bound && a.verdict == b.verdict
                });
        let fresh = rollout
            .measured_time
            .as_ref()
            .is_some_and(|t| plus(t.0, 60_000) > self.now);
        if rollout.gates != judgement.gates && !(same && fresh) {
            rollout.gates.clone_from(&judgement.gates);
            rollout.measured_time = Some(Time(self.now));
        }
    }

    /// All pods of a candidate with traffic are gone: its callers go back to stable until it is back, within the step's deadline.
    fn regress(&mut self, candidate: &RevisionStatus) {
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
        if promoting {
            rollout.step = last(&rollout.steps);
        }
        self.event(true, reason::CANDIDATE_UNAVAILABLE, message);
    }

    /// The candidate's first minute is over: what follows is another epoch, so that it is measured apart.
    fn end_warm_up(&mut self) {
        let rollout = &self.s.rollout;
        let Some(until) = &rollout.warm_until else {
            return;
        };
        if rollout.measured_from.is_some() || rollout.weight == 0 && rollout.previous.is_none() {
            return;
        }
        if self.now < until.0 {
            self.look_at(until.0);
        } else if self.is_applied() {
            self.next_epoch();
            self.s.rollout.measured_from = Some(self.s.rollout.epoch);
        }
    }

    fn preparing(&mut self, candidate: &RevisionStatus, judgement: &Judgement) {
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
        let manual = self.input.manual_versions
            && candidate.source == Some(CandidateSource::Version)
            && self.s.rollout.step == 0
            && self.s.rollout.warm_until.is_none();
        if manual {
            return self.pause("retraining.promotion is Manual");
        }
        if self.s.rollout.warm_until.is_none() && self.s.rollout.step == 0 {
            let what = words(&candidate.revision, candidate.version.as_deref());
            let passed = match self.s.rollout.evaluations.len() {
                0 => "is ready".to_owned(),
                n => format!("is ready and passed {n} evaluations"),
            };
            self.event(false, reason::CANDIDATE_READY, format!("{what} {passed}"));
        }
        // Back after a loss: the step begins anew, but its deadline stays.
        let deadline = self.s.rollout.deadline.clone();
        let returned = self.s.rollout.warm_until.is_some();
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Stepping, step);
        if returned {
            self.rewind();
            self.s.rollout.deadline = deadline;
        }
    }

    /// The step to go on with after a loss: the one that gave the weight.
    fn rewind(&mut self) {
        let rollout = &mut self.s.rollout;
        let at = usize::try_from(rollout.step).unwrap_or(0);
        let weighing = rollout
            .steps
            .iter()
            .take(at + 1)
            .rposition(|s| s.set_weight.is_some());
        if let Some(step) = weighing.filter(|_| at < rollout.steps.len()) {
            rollout.step = i32::try_from(step).unwrap_or(0);
        }
    }

    fn first(&mut self) {
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

    fn stepping(&mut self, candidate: &RevisionStatus, judgement: &Judgement) {
        let at = usize::try_from(self.s.rollout.step).unwrap_or(usize::MAX);
        let step = self.s.rollout.steps.get(at).cloned();
        match step {
            None => self.weigh(candidate, 100),
            Some(step) => match (step.set_weight, &step.pause) {
                (Some(weight), _) => self.weigh(candidate, weight.clamp(0, 100)),
                (None, Some(pause)) if pause.duration.is_none() => {
                    self.pause("the step is a pause until promoted");
                }
                _ => self.wait(timed_pause(&step).unwrap_or(0), judgement),
            },
        }
    }

    /// Gives the candidate its share of callers as soon as it can carry it; the step ends when the gateways serve it.
    fn weigh(&mut self, candidate: &RevisionStatus, weight: i32) {
        self.keep_deadline(0);
        if self.s.rollout.weight < weight {
            let need = size::needed(&self.s, self.input.replicas);
            let available = self.available(&candidate.revision);
            if available < need.max(1) {
                let why = self.input.revisions.get(&candidate.revision);
                let why = why.and_then(|r| r.failure.as_deref());
                self.waiting.push(pods(available, need.max(1), why));
                self.look_again();
                if self.is_late() {
                    self.too_late(true);
                }
                return;
            }
            self.set_weight(weight);
            let what = words(&candidate.revision, candidate.version.as_deref());
            self.event(
                false,
                reason::WEIGHT_RAISED,
                format!("{what} gets {weight} % of callers"),
            );
        }
        if self.s.rollout.epoch > 0 && !self.is_applied() {
            self.wait_for_gateways();
            if self.is_late() {
                self.too_late(true);
            }
            return;
        }
        let step = self.s.rollout.step;
        if step >= last(&self.s.rollout.steps) {
            self.go_to(RolloutState::Promoting, step);
            let what = words(&candidate.revision, candidate.version.as_deref());
            self.event(
                false,
                reason::PROMOTING,
                format!("{what} has all callers: it becomes stable"),
            );
        } else {
            self.advance();
        }
    }

    /// A timed pause, at whose end the data must be there.
    fn wait(&mut self, pause: u64, judgement: &Judgement) {
        let since = self.s.rollout.since.as_ref().map_or(self.now, |t| t.0);
        let end = plus(since, pause);
        self.look_again();
        if self.now < end {
            self.keep_deadline(pause);
            self.look_at(end);
            self.waiting.push(format!("the pause lasts until {end}"));
            return;
        }
        // Nothing live is measured while nobody is on the candidate.
        let live = self.s.rollout.weight > 0;
        let holding: Vec<String> = match live {
            true => judgement.holding().cloned().collect(),
            false => judgement.unmeasured.clone(),
        };
        let warming = live && self.s.rollout.measured_from.is_none();
        if holding.is_empty() && !warming {
            return self.advance();
        }
        let no_data = live && !judgement.missing.is_empty();
        self.waiting.extend(holding.iter().cloned());
        match (self.policy.no_data, self.policy.on_inconclusive) {
            (NoData::Fail, _) if no_data && !warming => {
                let message = format!(
                    "the step ended without enough data, and noData is Fail: {}",
                    judgement.missing.join("; ")
                );
                self.roll_back(ending(Outcome::RolledBack, reason::NO_DATA, message));
            }
            (NoData::Wait, _) if no_data => self.s.rollout.deadline = None,
            (_, OnInconclusive::Abort) if !warming => {
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
    }

    fn paused(&mut self) {
        self.s.rollout.deadline = None;
        self.waiting.push(format!(
            "at {} %, it waits for a person: kubectl perennial promote {}",
            self.s.rollout.weight, self.input.name
        ));
        if self.s.rollout.weight > 0 {
            self.look_again();
        }
    }

    fn promoting(&mut self, mut candidate: RevisionStatus) {
        self.keep_deadline(0);
        if !self.is_applied() {
            self.wait_for_gateways();
            if self.is_late() {
                self.too_late(true);
            }
            return;
        }
        let what = words(&candidate.revision, candidate.version.as_deref());
        candidate.since = Some(Time(self.now));
        self.s.rollout.previous = self.s.stable_revision().map(str::to_owned);
        self.s.stable = Some(candidate);
        self.s.candidate = None;
        self.s.rollout.weight = 0;
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

    fn baking(&mut self) {
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
        } else {
            let message = format!("{what} is stable");
            self.conclude(ending(Outcome::Promoted, reason::PROMOTED, message));
        }
    }

    /// Whether the spec asks for something else already.
    fn cuts_short(&self, stable: &RevisionStatus, previous: &str) -> bool {
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

    fn rolling_back(&mut self) {
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

    // ---- pieces of transitions ----

    /// Takes the candidate's callers back at once. The rollout ends when the gateways say that they did.
    pub fn roll_back(&mut self, ending: Ending) {
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
        } else if self.s.rollout.weight > 0 {
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
    fn conclude(&mut self, ending: Ending) {
        let Ending {
            outcome,
            reason,
            message,
        } = ending;
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
                self.reject(&tried.revision, tried.version.as_deref(), &reason, &message);
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
    fn reject_left(&mut self, stable: &RevisionStatus) {
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
            self.reject(&left, version.as_deref(), reason::ROLLED_BACK_TO, &message);
        }
    }

    fn reject(&mut self, revision: &str, version: Option<&str>, reason: &str, message: &str) {
        self.s.rejected.retain(|r| r.revision != revision);
        self.s.rejected.push(RejectedRevision {
            revision: revision.to_owned(),
            version: version.map(str::to_owned),
            reason: reason.to_owned(),
            message: bounded(message.to_owned()),
            time: Time(self.now),
        });
        let over = self.s.rejected.len().saturating_sub(REJECTED);
        self.s.rejected.drain(..over);
    }

    fn too_late(&mut self, is_its_fault: bool) {
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

    fn pause(&mut self, why: &str) {
        let step = self.s.rollout.step;
        self.go_to(RolloutState::Paused, step);
        self.s.rollout.deadline = None;
        let message = format!(
            "Waiting at {} % for kubectl perennial promote {}: {why}",
            self.s.rollout.weight, self.input.name
        );
        self.event(false, reason::WAITING_FOR_PROMOTION, message);
    }

    /// On to the next step.
    pub fn advance(&mut self) {
        let step = self.s.rollout.step.saturating_add(1);
        self.go_to(RolloutState::Stepping, step);
    }

    /// Into a state or step: its clock starts.
    pub fn go_to(&mut self, state: RolloutState, step: i32) {
        self.s.rollout.state = state;
        self.s.rollout.step = step;
        self.s.rollout.since = Some(Time(self.now));
        let pause = usize::try_from(step)
            .ok()
            .and_then(|at| self.s.rollout.steps.get(at))
            .filter(|_| state == RolloutState::Stepping)
            .and_then(timed_pause);
        self.set_deadline(pause.unwrap_or(0));
    }

    fn set_weight(&mut self, weight: i32) {
        self.s.rollout.weight = weight;
        self.next_epoch();
        let rollout = &mut self.s.rollout;
        let warm = rollout.warm_until.as_ref().is_some_and(|t| self.now >= t.0);
        if warm && rollout.measured_from.is_none() && weight > 0 {
            rollout.measured_from = Some(rollout.epoch);
        }
    }

    fn next_epoch(&mut self) {
        self.s.rollout.epoch += 1;
        self.s.rollout.applied_time = None;
    }

    fn set_deadline(&mut self, more: u64) {
        let within = self.policy.progress_deadline.saturating_add(more);
        self.s.rollout.deadline = Some(Time(plus(self.now, within)));
    }

    /// A clock that stood still starts anew.
    fn keep_deadline(&mut self, more: u64) {
        match &self.s.rollout.deadline {
            None => self.set_deadline(more),
            Some(deadline) => {
                let deadline = deadline.0;
                self.look_at(deadline);
            }
        }
    }

    fn is_late(&self) -> bool {
        let deadline = &self.s.rollout.deadline;
        deadline.as_ref().is_some_and(|t| self.now >= t.0)
    }

    fn wait_for_gateways(&mut self) {
        let gateway = &self.s.gateway;
        let sentence = match gateway.total {
            0 => "there is no ready gateway pod".to_owned(),
            total => {
                let live = &self.input.live;
                let why = live.gateways.iter().filter(|g| g.ready);
                let mut why = why.filter_map(|g| g.waiting.as_ref().or(g.unreachable.as_ref()));
                let why = why.next().map_or(String::new(), |w| format!(": {w}"));
                format!(
                    "{} of {total} gateway pods serve the present routing{why}",
                    gateway.applied
                )
            }
        };
        self.waiting.push(sentence);
        // Gateways take a change within a second or so; one that isn't there is awaited more patiently.
        let soon = match self.s.gateway.total {
            0 => self.policy.interval,
            _ => self.policy.interval.min(2000),
        };
        self.look_at(plus(self.now, soon));
    }

    fn look_again(&mut self) {
        self.look_at(plus(self.now, self.policy.interval));
    }

    fn look_at(&mut self, time: Timestamp) {
        self.check_at = earlier(self.check_at, Some(time));
    }

    pub fn event(&mut self, warning: bool, reason: &'static str, note: String) {
        self.notes.push(note.clone());
        self.events.push(Event {
            warning,
            reason,
            action: "Rollout",
            note: bounded(note),
        });
    }
}

/// A failure that takes the candidate back, if there is one.
fn failed(judgement: &Judgement) -> Option<Ending> {
    let evaluation = judgement.failed_evaluation.as_ref();
    let gate = judgement.failed_gate.as_ref();
    let (reason, message) = match (evaluation, gate) {
        (Some(message), _) => (reason::EVALUATION_FAILED, message),
        (None, Some(message)) => (reason::GATE_FAILED, message),
        (None, None) => return None,
    };
    Some(ending(Outcome::RolledBack, reason, message.clone()))
}

pub(super) fn ending(outcome: Outcome, reason: &str, message: String) -> Ending {
    Ending {
        outcome,
        reason: reason.to_owned(),
        message: bounded(message),
    }
}

/// The step behind the last one: everything to the candidate.
pub(super) fn last(steps: &[crate::api::rollout::Step]) -> i32 {
    i32::try_from(steps.len()).unwrap_or(i32::MAX)
}

/// A revision for people: its version, when it has one, and its hash.
pub(super) fn words(revision: &str, version: Option<&str>) -> String {
    match version {
        // A prompt's version is a long hash: the first twelve digits tell it apart.
        Some(version) if version.len() == 64 => {
            format!("{} ({revision})", version.get(..12).unwrap_or(version))
        }
        Some(version) => format!("{version} ({revision})"),
        None => revision.to_owned(),
    }
}

fn pods(available: i32, need: i32, why: Option<&str>) -> String {
    let why = why.map_or(String::new(), |w| format!(": {w}"));
    format!("{available} of {need} pods are ready{why}")
}

pub(super) fn plus(time: Timestamp, millis: u64) -> Timestamp {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    let sum = time.checked_add(SignedDuration::from_millis(millis));
    sum.unwrap_or(Timestamp::MAX)
}
