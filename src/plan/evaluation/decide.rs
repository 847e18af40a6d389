//! The decisions about an Evaluation.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Observed, children, reason, schedule::Turn, target};
use crate::{
    api::{
        condition::bounded,
        evaluation::{EvaluationRun, EvaluationStatus, TargetRevision},
        gate::Verdict,
        rollout::RolloutSpec,
    },
    plan::{
        Action, Event, Plan, claim, earlier,
        rollout::{Input, is_in_steps, step_to_come},
        run,
    },
};

/// Runs for one key that may end in `Error` before somebody must help.
pub(super) const RETRIES: i32 = 3;
/// First wait before a run that ended in `Error` is tried again; doubles.
const RETRY_PERIOD: SignedDuration = SignedDuration::from_secs(30);

/// Decides what to do about an Evaluation.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan<EvaluationStatus> {
    let mut decider = Decider {
        observed,
        now,
        status: observed.evaluation.status.clone().unwrap_or_default(),
        plan: Plan::default(),
        wrong_schedule: None,
    };
    decider.next_run();
    decider.status.observed_generation = observed.evaluation.metadata.generation;
    decider.decide();
    decider.plan
}

/// Enters a write that the API server refused: only somebody's help goes on from here.
pub fn refused(status: &mut EvaluationStatus, reason: &str, message: &str, now: Timestamp) {
    let generation = status.observed_generation;
    status.message = bounded(message.to_owned());
    run::conditions(
        &mut status.conditions,
        (false, false, true),
        reason,
        message,
        generation,
        now,
    );
}

pub(super) struct Decider<'a> {
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    pub(super) status: EvaluationStatus,
    pub(super) plan: Plan<EvaluationStatus>,
    /// Why the schedule can't be kept.
    pub(super) wrong_schedule: Option<String>,
}

/// What is to be measured now, or why nothing is.
pub(super) enum Wanted {
    Run(Box<EvaluationRun>),
    Nothing(String),
    Waiting(String),
}

impl Decider<'_> {
    fn decide(&mut self) {
        self.drop_reports();
        let target = &self.observed.evaluation.spec.target;
        let revision = target.release().and_then(|t| t.revision);
        // What is copied goes to a candidate.
        let mirrored = self.observed.evaluation.spec.mirrored.is_some();
        let revision = revision.or(mirrored.then_some(TargetRevision::Candidate));
        let wanted = self.wanted(revision);
        let running = self
            .status
            .last_run
            .clone()
            .filter(|r| !r.verdict.is_final());
        if let Some(run) = running {
            if run.scheduled_time.is_some() {
                match self.turn_of_scheduled(&run, &wanted) {
                    Turn::GoesOn => return self.follow(run),
                    Turn::Later => self.status.next_run_time = run.scheduled_time.clone(),
                    Turn::Gone => {}
                }
                self.abandon(&run);
                return self.unless_running(wanted);
            }
            match &wanted {
                Wanted::Run(key) if same_key(key, &run) => return self.follow(run),
                // A candidate that starts again, or briefly has no pod, is still the one that is measured.
                Wanted::Waiting(_) => return self.follow(run),
                _ => self.abandon(&run),
            }
        }
        self.unless_running(wanted);
    }

    /// Nothing is being measured now.
    fn unless_running(&mut self, wanted: Wanted) {
        match wanted {
            Wanted::Nothing(why) | Wanted::Waiting(why) => {
                if !self.begin_scheduled() {
                    self.settled(true, reason::IDLE, why);
                }
            }
            Wanted::Run(key) => match self.before(&key) {
                Some(run) if run.verdict == Verdict::Error => self.after_error(*key, &run),
                Some(run) => {
                    if !self.begin_scheduled() {
                        self.measured(&run);
                    }
                }
                None => {
                    let key = self.with_schedule(*key);
                    self.begin(key, 0);
                }
            },
        }
    }

    /// The last run of this key, or the one that measured stable when it was the candidate.
    pub(super) fn before(&self, key: &EvaluationRun) -> Option<EvaluationRun> {
        let runs = self.status.runs.iter().rev();
        let mut those = runs.filter(|r| same_key(key, r) || measured_as_candidate(key, r));
        those.next().cloned()
    }

    /// The run that the target asks for, without number and results.
    pub(super) fn wanted(&self, revision: Option<TargetRevision>) -> Wanted {
        let spec = &self.observed.evaluation.spec;
        let generation = self
            .observed
            .evaluation
            .metadata
            .generation
            .unwrap_or_default();
        if let Some(predictions) = &spec.target.predictions {
            return Wanted::Run(Box::new(EvaluationRun {
                target: predictions.source.uri.clone(),
                generation,
                ..EvaluationRun::default()
            }));
        }
        if let Some(endpoint) = &spec.target.endpoint {
            let model = endpoint.model.as_deref().unwrap_or_default();
            return Wanted::Run(Box::new(EvaluationRun {
                target: format!("{model} {}", endpoint.url).trim_start().to_owned(),
                generation,
                ..EvaluationRun::default()
            }));
        }
        if let Some(target) = &spec.target.training_job {
            return self.of_training(&target.name);
        }
        let Some(target) = spec.target.release() else {
            return Wanted::Nothing("there is no target".to_owned());
        };
        let kind = match spec.target.model_deployment {
            Some(_) => "ModelDeployment",
            None => "PromptRelease",
        };
        let Some(release) = &self.observed.release else {
            return Wanted::Nothing(format!("{kind} {} doesn't exist (yet)", target.name));
        };
        let status = release.sides();
        let stable = status.stable.clone();
        let side = match revision {
            None => status
                .candidate
                .clone()
                .map(|c| (c, true))
                .or_else(|| stable.clone().map(|s| (s, false))),
            Some(TargetRevision::Candidate) => status.candidate.clone().map(|c| (c, true)),
            Some(TargetRevision::Stable) => stable.clone().map(|s| (s, false)),
        };
        let Some((side, candidate)) = side else {
            return Wanted::Nothing(format!(
                "{kind} {} has no {} yet",
                target.name,
                if revision == Some(TargetRevision::Candidate) {
                    "candidate"
                } else {
                    "revision"
                }
            ));
        };
        let which = if candidate { "candidate" } else { "stable" };
        let version = target::version(&side);
        if !release.answers(&side) {
            return Wanted::Waiting(format!(
                "{which} {version} of {} has no pod that answers yet",
                target.name
            ));
        }
        let own = self.observed.evaluation.name_any();
        let rollout = status.rollout.as_ref().filter(|_| candidate);
        let asked = Input::evaluation_names(
            &RolloutSpec {
                steps: None,
                ..release.rollout()
            },
            release.metrics(),
            None,
        );
        let later = rollout.and_then(|rollout| step_to_come(rollout, &own));
        if let Some(step) = later.filter(|_| !asked.contains(&own)) {
            return Wanted::Waiting(format!(
                "{which} {version} of {} is measured when its rollout comes to step {step}",
                target.name
            ));
        }
        // Callers' requests are shown to nobody whom the release doesn't name.
        let named = asked.contains(&own) || rollout.is_some_and(|r| is_in_steps(r, &own));
        if spec.mirrored.is_some() && !named {
            return Wanted::Waiting(format!(
                "{kind} {} doesn't name this Evaluation, which gets none of its callers' requests therefore: name it in a step evaluate behind setMirror",
                target.name
            ));
        }
        if status.gateway.as_ref().is_none_or(|g| g.total < 1) {
            return Wanted::Waiting(format!(
                "the gateway in front of {} isn't ready yet",
                target.name
            ));
        }
        let baseline = stable
            .map(|s| s.revision)
            .filter(|s| candidate && *s != side.revision && spec.baseline.is_none());
        let needed = std::iter::once(&side.revision).chain(&baseline);
        for revision in needed {
            if !self.observed.revisions.contains_key(revision) {
                return Wanted::Waiting(format!(
                    "ControllerRevision {}-{revision} isn't there yet",
                    target.name
                ));
            }
        }
        let copies = rollout.is_some_and(|rollout| rollout.mirror > 0);
        let key = EvaluationRun {
            target: format!("{} {which} {version}", target.name),
            release: release.uid(),
            attempt: if candidate {
                side.attempt.unwrap_or_default()
            } else {
                0
            },
            baseline,
            revision: Some(side.revision),
            generation,
            ..EvaluationRun::default()
        };
        let measured = |key: &EvaluationRun| {
            let before = self.before(key);
            before.is_some_and(|run| run.verdict != Verdict::Error)
        };
        if spec.mirrored.is_some() && !copies && !measured(&key) {
            return Wanted::Waiting(format!(
                "{which} {version} of {} is measured while its rollout copies requests to it, and now it doesn't: the step evaluate that names this Evaluation belongs behind a step setMirror",
                target.name
            ));
        }
        Wanted::Run(Box::new(key))
    }

    /// Writes the run's number, then makes its Job.
    pub(super) fn begin(&mut self, key: EvaluationRun, failures: i32) {
        if let Some(message) = claim::missing(&self.observed.claims) {
            return self.settled(false, reason::CLAIM_NOT_FOUND, message);
        }
        if key.scheduled_time.is_some() {
            self.advance();
        }
        self.status.count += 1;
        let run = EvaluationRun {
            number: self.status.count,
            verdict: Verdict::Running,
            failures,
            start_time: Some(Time(self.now)),
            ..key
        };
        self.event(
            false,
            reason::RUNNING,
            format!("run {} measures {}", run.number, run.target),
        );
        if let Some(run) = self.judge_training(run) {
            self.make(run);
        }
    }

    pub(super) fn make(&mut self, run: EvaluationRun) {
        let start = run.start_time.as_ref().map_or(self.now, |t| t.0);
        let message = format!("run {} measures {}", run.number, run.target);
        let job = children::run_job(self.observed, &run, start);
        self.running(run, message);
        if let Some(job) = job {
            self.plan.actions.push(Action::Create(job));
        }
    }

    fn after_error(&mut self, key: EvaluationRun, run: &EvaluationRun) {
        if run.failures >= RETRIES {
            if !self.begin_scheduled() {
                self.measured(run);
            }
            return;
        }
        let doublings = u32::try_from(run.failures.max(1) - 1).unwrap_or(0).min(8);
        let retry = run.completion_time.as_ref().map_or(self.now, |t| t.0)
            + RETRY_PERIOD * (1 << doublings);
        if self.now >= retry {
            return self.begin(key, run.failures);
        }
        self.check_at(retry);
        self.measured(run);
    }

    /// The target is gone, or another one has come: the run isn't needed any more.
    fn abandon(&mut self, run: &EvaluationRun) {
        self.delete_job(run);
        self.note(format!(
            "run {} of {} is not needed any more",
            run.number, run.target
        ));
        self.status.last_run = self.status.runs.last().cloned();
    }

    pub(super) fn end(
        &mut self,
        mut run: EvaluationRun,
        verdict: Verdict,
        reason: &'static str,
        message: String,
    ) {
        run.verdict = verdict;
        run.failures += i32::from(verdict == Verdict::Error);
        run.completion_time = Some(Time(self.now));
        run.message = bounded(message.clone());
        self.keep(&run);
        self.event(verdict != Verdict::Passed, reason, message);
        if let Some(retry) = run
            .completion_time
            .as_ref()
            .filter(|_| verdict == Verdict::Error && run.failures < RETRIES)
        {
            self.check_at(retry.0 + RETRY_PERIOD);
        }
        self.measured(&run);
    }

    fn measured(&mut self, run: &EvaluationRun) {
        self.status.last_run = Some(run.clone());
        self.status.verdict = run.verdict;
        let ill = run.verdict == Verdict::Error;
        self.settled(
            !ill,
            if ill {
                reason::RUN_FAILED
            } else {
                reason::MEASURED
            },
            run.message.clone(),
        );
    }

    pub(super) fn running(&mut self, run: EvaluationRun, message: String) {
        self.waiting(run, reason::RUNNING, message);
    }

    pub(super) fn waiting(&mut self, run: EvaluationRun, reason: &'static str, message: String) {
        self.status.verdict = Verdict::Running;
        self.status.last_run = Some(run);
        self.conditions(false, true, false, reason, &message);
    }

    fn settled(&mut self, ready: bool, reason: &'static str, message: String) {
        if let Some(wrong) = self.wrong_schedule.take().filter(|_| ready) {
            return self.conditions(false, false, true, reason::INVALID_SCHEDULE, &wrong);
        }
        let stalled = !ready && reason != reason::CLAIM_NOT_FOUND;
        self.conditions(ready, false, stalled, reason, &message);
    }

    fn conditions(
        &mut self,
        ready: bool,
        reconciling: bool,
        stalled: bool,
        reason: &str,
        message: &str,
    ) {
        run::conditions(
            &mut self.status.conditions,
            (ready, reconciling, stalled),
            reason,
            message,
            self.status.observed_generation,
            self.now,
        );
        self.status.message = bounded(message.to_owned());
        self.plan
            .actions
            .push(Action::Status(Box::new(self.status.clone())));
        self.note(message.to_owned());
    }

    pub(super) fn delete_job(&mut self, run: &EvaluationRun) {
        let name = children::job_name(&self.observed.evaluation.name_any(), run.number);
        if let Some(job) = self
            .observed
            .jobs
            .get(&name)
            .filter(|j| j.metadata.deletion_timestamp.is_none())
        {
            self.plan.actions.push(Action::Delete(run::reference(job)));
        }
    }

    pub(super) fn check_at(&mut self, time: Timestamp) {
        self.plan.check_at = earlier(self.plan.check_at, Some(time));
    }

    fn note(&mut self, note: String) {
        self.plan.notes.push(note);
    }

    fn event(&mut self, warning: bool, reason: &'static str, note: String) {
        self.plan.events.push(Event {
            warning,
            reason,
            action: "Evaluation",
            note: bounded(note),
        });
    }
}

/// Whether two runs are for the same key.
pub(super) fn same_key(a: &EvaluationRun, b: &EvaluationRun) -> bool {
    a.release == b.release
        && a.revision == b.revision
        && a.attempt == b.attempt
        && a.generation == b.generation
        && (a.revision.is_some() || a.target == b.target)
}

/// Stable needs no run of its own when it was measured as a candidate.
fn measured_as_candidate(key: &EvaluationRun, run: &EvaluationRun) -> bool {
    key.revision.is_some()
        && key.attempt == 0
        && key.release == run.release
        && key.revision == run.revision
        && key.generation == run.generation
        && run.verdict != Verdict::Error
}
