//! The engine at work: what is seen, clocks, and the walk through transitions (`states`, `climb`, `end`).
//!
//! One decision walks transitions until nothing changes any more, so that a second one with the same input finds nothing to do.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Decision, Input, State, evaluated,
    gates::{self, Before, Judgement, Sides},
    measure,
    policy::{Policy, timed_pause, warm_up},
    size,
};
use crate::{
    api::{
        condition::bounded,
        rollout::{CandidateSource, Epochs, RolloutState},
    },
    plan::{Event, earlier},
};

/// More transitions than any input can cause in one decision.
const TRANSITIONS: usize = 16;
/// Warm-ups of a candidate that came back which are remembered; one more, and only what is measured from then on counts.
const SKIPPED: usize = 16;

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

/// What a judgement depends on beside the input: candidate, attempt, stable, first epoch, epoch, whether live, what is demanded.
type Judged = (
    String,
    i64,
    Option<String>,
    Option<i64>,
    i64,
    bool,
    Vec<String>,
);

impl<'a> Engine<'a> {
    pub(super) fn new(input: &'a Input, now: Timestamp) -> Self {
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

    pub(super) fn decide(mut self) -> Decision {
        if let Some((state, event)) = super::marks::rebuilt(self.input, self.now) {
            self.s = state;
            self.notes.push(event.note.clone());
            self.events.push(event);
        }
        self.forgive();
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

    /// Copies what is seen of pods and gateways into the state.
    pub(super) fn observe(&mut self) {
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
            // Copies warm it up like callers.
            if rollout.weight.max(rollout.mirror) > 0 && rollout.warm_until.is_none() {
                let warm = warm_up(&rollout.steps, self.policy.bake);
                rollout.warm_until = Some(Time(plus(self.now, warm)));
            }
        }
    }

    /// Whether every ready gateway serves the present epoch, and there is one.
    pub(super) fn is_applied(&self) -> bool {
        self.s.rollout.applied_time.is_some()
    }

    /// Pods of a revision that can answer; prompts always can.
    pub(super) fn available(&self, revision: &str) -> i32 {
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
    pub(super) fn is_scaled_to_zero(&self) -> bool {
        self.input.replicas == Some(0)
    }

    /// Who is judged against whom; `None` without a candidate.
    fn sides(&self) -> Option<Sides<'_>> {
        let rollout = &self.s.rollout;
        let baking = rollout.state == RolloutState::Baking;
        let (tried, stable) = if baking {
            (self.s.stable.as_ref(), rollout.previous.as_deref())
        } else {
            (self.s.candidate.as_ref(), self.s.stable_revision())
        };
        let tried = tried?;
        Some(Sides {
            candidate: &tried.revision,
            attempt: tried.attempt.unwrap_or_default(),
            stable,
            from: rollout.measured_from,
            skipped: &rollout.skipped,
            cold: rollout.cold_from,
            epoch: rollout.epoch,
            live: baking || rollout.weight > 0,
            mirrored: rollout.mirror > 0,
            // Going back is for when something is wrong: nobody waits for an evaluation then.
            evaluated: tried.source != Some(CandidateSource::Rollback),
            baking,
            seconds: rollout
                .applied_time
                .as_ref()
                .map(|t| self.now.duration_since(t.0).as_secs()),
            window: rollout.window.as_deref(),
        })
    }

    /// Before stable loses its last callers: what it did beside the candidate is kept in status, for the comparisons that follow.
    pub(super) fn keep_window(&mut self) {
        let window = self
            .sides()
            .and_then(|s| measure::window(self.input, s, self.now));
        if window.is_some() {
            self.s.rollout.window = window;
        }
    }

    pub(super) fn judgement(&mut self) -> Judgement {
        let rollout = &self.s.rollout;
        let Some(sides) = self.sides() else {
            return Judgement::default();
        };
        let demanded = evaluated::demanded(&self.input.rollout, rollout);
        let of: Judged = (
            sides.candidate.to_owned(),
            sides.attempt,
            sides.stable.map(str::to_owned),
            sides.from,
            sides.epoch,
            sides.live,
            demanded,
        );
        if let Some((_, judgement)) = self.judged.as_ref().filter(|(last, _)| *last == of) {
            return judgement.clone();
        }
        let before = Before {
            gates: &rollout.gates,
            judged: &rollout.judged,
            judged_first: rollout.judged_first.and_then(|n| usize::try_from(n).ok()),
            now: self.now,
        };
        let judgement = gates::judge(self.input, &self.policy, sides, &of.6, before);
        self.judged = Some((of, judgement.clone()));
        judgement
    }

    /// Keeps what gates say, at most once a minute unless a verdict changed.
    pub(super) fn record(&mut self, judgement: &Judgement) {
        let rollout = &mut self.s.rollout;
        rollout.evaluations.clone_from(&judgement.evaluations);
        if !judgement.judged.is_empty() {
            rollout.judged.clone_from(&judgement.judged);
            rollout.judged_first = judgement.judged_first;
        }
        let same = rollout.gates.len() == judgement.gates.len()
            && rollout.gates.iter().zip(&judgement.gates).all(|(a, b)| {
                a.metric == b.metric
                    && a.bound == b.bound
                    && a.verdict == b.verdict
                    && a.failures == b.failures
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

    /// On to the next step.
    pub(super) fn advance(&mut self) {
        let step = self.s.rollout.step.saturating_add(1);
        self.go_to(RolloutState::Stepping, step);
    }

    /// Into a state or step: its clock starts.
    pub(super) fn go_to(&mut self, state: RolloutState, step: i32) {
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

    pub(super) fn set_weight(&mut self, weight: i32) {
        self.s.rollout.weight = weight;
        self.s.rollout.mirror = 0;
        self.next_epoch();
        let rollout = &self.s.rollout;
        let warm = rollout.warm_until.as_ref().is_some_and(|t| self.now >= t.0);
        if warm && self.is_warming() && weight > 0 {
            self.measure();
        }
    }

    /// Whether what the candidate does now counts for nothing, as its pods are new.
    pub(super) fn is_warming(&self) -> bool {
        let rollout = &self.s.rollout;
        rollout.measured_from.is_none() || rollout.cold_from.is_some()
    }

    /// What is measured from this epoch on counts.
    pub(super) fn measure(&mut self) {
        let rollout = &mut self.s.rollout;
        let epoch = rollout.epoch;
        if let Some(from) = rollout.cold_from.take() {
            let to = epoch - 1;
            rollout.skipped.push(Epochs { from, to });
        }
        if rollout.measured_from.is_none() || rollout.skipped.len() > SKIPPED {
            rollout.measured_from = Some(epoch);
            rollout.skipped.clear();
        }
    }

    pub(super) fn next_epoch(&mut self) {
        self.s.rollout.epoch += 1;
        self.s.rollout.applied_time = None;
    }

    pub(super) fn set_deadline(&mut self, more: u64) {
        let within = self.policy.progress_deadline.saturating_add(more);
        self.s.rollout.deadline = Some(Time(plus(self.now, within)));
    }

    /// A clock that stood still starts anew.
    pub(super) fn keep_deadline(&mut self, more: u64) {
        match &self.s.rollout.deadline {
            None => self.set_deadline(more),
            Some(deadline) => {
                let deadline = deadline.0;
                self.look_at(deadline);
            }
        }
    }

    pub(super) fn is_late(&self) -> bool {
        let deadline = &self.s.rollout.deadline;
        deadline.as_ref().is_some_and(|t| self.now >= t.0)
    }

    pub(super) fn wait_for_gateways(&mut self) {
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

    pub(super) fn look_again(&mut self) {
        self.look_at(plus(self.now, self.policy.interval));
    }

    pub(super) fn look_at(&mut self, time: Timestamp) {
        self.check_at = earlier(self.check_at, Some(time));
    }

    pub(super) fn event(&mut self, warning: bool, reason: &'static str, note: String) {
        self.notes.push(note.clone());
        self.events.push(event(warning, reason, note));
    }
}

pub(super) fn event(warning: bool, reason: &'static str, note: String) -> Event {
    Event {
        warning,
        reason,
        action: "Rollout",
        note: bounded(note),
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

pub(super) fn plus(time: Timestamp, millis: u64) -> Timestamp {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    let sum = time.checked_add(SignedDuration::from_millis(millis));
    sum.unwrap_or(Timestamp::MAX)
}
