//! Runs that the schedule asks for. They measure stable, unless the target names a revision; candidates are measured when they come,
//! and go first: a scheduled run that is under way then ends, and comes again afterwards.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{Decider, Wanted, same_key};
use crate::{
    api::{
        evaluation::{EvaluationRun, TargetRevision},
        gate::Verdict,
    },
    plan::schedule,
};

/// What becomes of a scheduled run that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    GoesOn,
    /// Somebody waits for another one.
    Later,
    /// What it measures is not there any more.
    Gone,
}

impl Decider<'_> {
    /// Reads the schedule: when the next run begins. A time in the past stays until that run has begun, so that what was missed is made up
    /// for, once. An edited spec counts from now.
    pub(super) fn next_run(&mut self) {
        let evaluation = &self.observed.evaluation;
        let spec = &evaluation.spec;
        let edited = self.status.observed_generation != evaluation.metadata.generation;
        let text = spec
            .schedule
            .as_ref()
            .filter(|_| spec.suspend != Some(true));
        let Some(text) = text else {
            self.status.next_run_time = None;
            return;
        };
        match schedule::next(text, spec.time_zone.as_deref(), self.now) {
            Ok(next) => {
                let kept = self.status.next_run_time.as_ref().map(|t| t.0);
                let kept = kept.filter(|kept| !edited && *kept <= next);
                self.status.next_run_time = Some(Time(kept.unwrap_or(next)));
            }
            Err(message) => {
                self.status.next_run_time = None;
                self.wrong_schedule = Some(message);
            }
        }
        if let Some(next) = self
            .status
            .next_run_time
            .as_ref()
            .map(|t| t.0)
            .filter(|t| *t > self.now)
        {
            self.check_at(next);
        }
    }

    /// When the run that is due was to begin.
    fn due(&self) -> Option<Timestamp> {
        let next = self.status.next_run_time.as_ref().map(|t| t.0);
        next.filter(|next| *next <= self.now)
    }

    /// What the schedule measures.
    fn wanted_by_schedule(&self) -> Wanted {
        let target = &self.observed.evaluation.spec.target;
        let revision = target.release().and_then(|t| t.revision);
        self.wanted(revision.or(Some(TargetRevision::Stable)))
    }

    /// Begins the run that is due, if there is one and it can be measured now.
    pub(super) fn begin_scheduled(&mut self) -> bool {
        let (Some(due), Wanted::Run(key)) = (self.due(), self.wanted_by_schedule()) else {
            return false;
        };
        let key = EvaluationRun {
            scheduled_time: Some(Time(due)),
            ..*key
        };
        self.begin(key, 0);
        true
    }

    /// A first run of what the schedule would measure now counts for it.
    pub(super) fn with_schedule(&self, key: EvaluationRun) -> EvaluationRun {
        match (self.due(), self.wanted_by_schedule()) {
            (Some(due), Wanted::Run(wanted)) if same_key(&wanted, &key) => EvaluationRun {
                scheduled_time: Some(Time(due)),
                ..key
            },
            _ => key,
        }
    }

    /// A scheduled run has begun: the next one is the first after now.
    pub(super) fn advance(&mut self) {
        let spec = &self.observed.evaluation.spec;
        let next = spec
            .schedule
            .as_ref()
            .and_then(|text| schedule::next(text, spec.time_zone.as_deref(), self.now).ok());
        self.status.next_run_time = next.map(Time);
        if let Some(next) = next {
            self.check_at(next);
        }
    }

    pub(super) fn turn_of_scheduled(&self, run: &EvaluationRun, wanted: &Wanted) -> Turn {
        if let Wanted::Run(key) = wanted
            && !same_key(key, run)
            && self.before(key).is_none_or(|before| {
                before.verdict == Verdict::Error && before.failures < super::decide::RETRIES
            })
        {
            return if key.generation == run.generation {
                Turn::Later
            } else {
                Turn::Gone
            };
        }
        match self.wanted_by_schedule() {
            Wanted::Run(key) if same_key(&key, run) => Turn::GoesOn,
            Wanted::Waiting(_) => Turn::GoesOn,
            _ => Turn::Gone,
        }
    }
}
