//! The decisions about a TrainingJob.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{Observed, children, reason};
use crate::{
    api::{
        condition::{self, bounded, kind},
        revision::ModelReference,
        run::Summary,
        training_job::{TrainingJobStatus, TrainingPhase},
    },
    plan::{Action, Event, Plan, claim, earlier, pod, run},
};

/// How often the supervisor is asked for progress.
const PROGRESS_PERIOD: SignedDuration = SignedDuration::from_secs(10);
/// How often progress in status is refreshed.
const REFRESH_PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// Decides what to do about a TrainingJob.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan<TrainingJobStatus> {
    let mut decider = Decider {
        observed,
        now,
        status: observed.job.status.clone().unwrap_or_default(),
        plan: Plan::default(),
    };
    decider.status.observed_generation = observed.job.metadata.generation;
    if decider.status.completion_time.is_some() {
        decider.finished();
    } else {
        decider.unfinished();
    }
    decider.plan
}

/// Enters a write that the API server refused: only somebody's help goes on from here.
pub fn refused(status: &mut TrainingJobStatus, reason: &str, message: &str, now: Timestamp) {
    let generation = status.observed_generation;
    status.phase = TrainingPhase::Pending;
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
    pub(super) status: TrainingJobStatus,
    pub(super) plan: Plan<TrainingJobStatus>,
}

impl Decider<'_> {
    /// Terminal is terminal: only the TTL is left.
    fn finished(&mut self) {
        let Some(end) = self.status.completion_time.as_ref().map(|t| t.0) else {
            return;
        };
        self.write_status();
        if let Some(ttl) = self.observed.job.spec.ttl_seconds_after_finished {
            let expiry = end + SignedDuration::from_secs(ttl);
            if self.now >= expiry {
                self.note(format!("its ttlSecondsAfterFinished of {ttl} s have passed: deleted; the model version stays"));
                self.plan.actions = vec![Action::DeleteSelf];
            } else {
                self.check_at(expiry);
            }
        }
    }

    fn unfinished(&mut self) {
        if let Some(deadline) = self.deadline() {
            if self.now >= deadline {
                let seconds = self
                    .observed
                    .job
                    .spec
                    .active_deadline_seconds
                    .unwrap_or_default();
                self.delete_jobs();
                return self.fail(reason::DEADLINE_EXCEEDED, format!("activeDeadlineSeconds: {seconds} have passed; give it more time, or make the run shorter"));
            }
            self.check_at(deadline);
        }
        let attempt = self.status.attempts;
        let name = self.observed.job.name_any();
        if attempt == 0 {
            return self.begin(1);
        }
        if let Some(retry) = self.status.retry_time.as_ref().map(|t| t.0) {
            if self.now >= retry {
                return self.begin(attempt + 1);
            }
            self.check_at(retry);
            return self.write_status();
        }
        let report_job = self.observed.jobs.get(&children::report_job_name(&name));
        match report_job.or_else(|| self.observed.jobs.get(&children::job_name(&name, attempt))) {
            Some(job) => self.follow(job, report_job.is_some()),
            // Written to status, then the operator died: the same Job is made again.
            None => self.make_attempt(attempt),
        }
    }

    /// Writes the attempt's number (and the version, the first time), then makes its Job.
    fn begin(&mut self, attempt: i32) {
        if let Some(message) = claim::missing(&self.observed.claims) {
            return self.wait(TrainingPhase::Pending, reason::CLAIM_NOT_FOUND, message);
        }
        let start = self.status.start_time.get_or_insert(Time(self.now)).0;
        if self.status.model.is_none() {
            let version = children::version(start, &self.observed.job.uid().unwrap_or_default());
            self.status.model = Some(ModelReference {
                name: Some(self.observed.job.spec.model.name.clone()),
                uri: children::output(&self.observed.job, &version),
                version: Some(version),
                credentials: self.observed.job.spec.model.credentials.clone(),
                training_job: Some(self.observed.job.name_any()),
                ..ModelReference::default()
            });
        }
        self.status.attempts = attempt;
        self.status.retry_time = None;
        self.status.progress = None;
        self.make_attempt(attempt);
    }

    fn make_attempt(&mut self, attempt: i32) {
        let (Some(start), Some(version)) =
            (self.status.start_time.as_ref().map(|t| t.0), self.version())
        else {
            return;
        };
        let name = children::job_name(&self.observed.job.name_any(), attempt);
        let job = children::attempt_job(self.observed, &name, attempt, &version, start);
        self.wait(
            TrainingPhase::Starting,
            reason::STARTED,
            format!("attempt {attempt} of version {version} is starting"),
        );
        self.plan.actions.push(Action::Create(job));
        self.event(
            false,
            reason::STARTED,
            format!("attempt {attempt} makes version {version}"),
        );
        if let Some(deadline) = self.deadline() {
            self.check_at(deadline);
        }
    }

    /// Looks at the Job that is there. `reading`: it only reads a missed report again.
    fn follow(&mut self, job: &Job, reading: bool) {
        if let Some(report) = self.observed.answers.report.clone() {
            return if report.summary.succeeded {
                self.succeed(&report)
            } else {
                self.attempt_failed(self.failure_of(&report.summary, None))
            };
        }
        let job_name = job.name_any();
        let pod = run::newest_pod(&self.observed.pods, &job_name);
        if run::job_ended(job).is_none() {
            return match pod {
                Some(pod) => self.follow_pod(pod),
                None => self.wait(
                    TrainingPhase::Starting,
                    reason::STARTED,
                    format!("Job {job_name} has no pod yet"),
                ),
            };
        }
        let summary =
            pod.and_then(|p| pod::summary(p, &children::trainer_name(&self.observed.job)));
        match summary {
            Some(summary) if summary.succeeded && reading => self.succeed_unread(&summary),
            Some(summary) if summary.succeeded => self.read_again(),
            Some(summary) => self.attempt_failed(self.failure_of(&summary, pod)),
            None if reading => {
                let summary = Summary {
                    succeeded: true,
                    ..Summary::default()
                };
                self.succeed_unread(&summary);
            }
            None => self.attempt_failed(self.failure_without_words(job, pod)),
        }
    }

    fn follow_pod(&mut self, pod: &Pod) {
        let name = pod.name_any();
        let shared = claim::not_shareable(pod, &self.observed.claims, self.now);
        self.plan.check_at = earlier(self.plan.check_at, shared.check_at);
        if let Some(message) = shared.message {
            return self.wait(
                TrainingPhase::Starting,
                reason::VOLUME_NOT_SHAREABLE,
                message,
            );
        }
        if let Some(trouble) = pod::trouble(pod) {
            return self.wait(
                TrainingPhase::Starting,
                reason::POD_NOT_STARTING,
                format!("{}: {}", trouble.reason, trouble.message),
            );
        }
        self.check_at(self.now + PROGRESS_PERIOD);
        let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        let Some(answer) = self.observed.answers.progress.clone().filter(|_| running) else {
            return self.wait(
                TrainingPhase::Starting,
                reason::STARTED,
                format!("pod {name} is starting"),
            );
        };
        let phase = match answer.stage.as_str() {
            "Inputs" => TrainingPhase::Starting,
            "Running" => TrainingPhase::Running,
            _ => TrainingPhase::Publishing,
        };
        let message = match phase {
            TrainingPhase::Starting => format!("pod {name} reads and checks its inputs"),
            TrainingPhase::Running => format!("pod {name} trains"),
            _ => format!("pod {name} publishes the version"),
        };
        if let Some(progress) = answer.progress {
            let stale = match &self.status.progress {
                Some(old) => old
                    .time
                    .as_ref()
                    .zip(progress.time.as_ref())
                    .is_none_or(|(old, new)| new.0.duration_since(old.0) >= REFRESH_PERIOD),
                None => true,
            };
            if stale {
                self.status.progress = Some(progress);
            }
        }
        self.wait(phase, reason::RUNNING, message);
    }

    pub(super) fn fail(&mut self, reason: &'static str, message: String) {
        self.status.phase = TrainingPhase::Failed;
        self.status.completion_time = Some(Time(self.now));
        self.status.retry_time = None;
        self.conditions(false, false, true, reason, &message);
        self.condition(kind::COMPLETE, false, reason, &message);
        self.condition(kind::FAILED, true, reason, &message);
        self.status.message = bounded(message.clone());
        self.write_status();
        self.event(true, reason, message);
    }

    /// Going on, or waiting for something that a watch or a clock will tell.
    pub(super) fn wait(&mut self, phase: TrainingPhase, reason: &'static str, message: String) {
        self.status.phase = phase;
        self.conditions(false, true, false, reason, &message);
        self.status.message = bounded(message);
        self.write_status();
    }

    pub(super) fn conditions(
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
    }

    pub(super) fn condition(&mut self, kind: &str, status: bool, reason: &str, message: &str) {
        let generation = self.status.observed_generation;
        condition::set(
            &mut self.status.conditions,
            kind,
            status,
            reason,
            message,
            generation,
            self.now,
        );
    }

    pub(super) fn write_status(&mut self) {
        self.plan
            .actions
            .push(Action::Status(Box::new(self.status.clone())));
        self.note(self.status.message.clone());
    }

    fn delete_jobs(&mut self) {
        for job in self
            .observed
            .jobs
            .values()
            .filter(|j| j.metadata.deletion_timestamp.is_none() && run::job_ended(j).is_none())
        {
            self.plan.actions.push(Action::Delete(run::reference(job)));
        }
    }

    pub(super) fn version(&self) -> Option<String> {
        self.status.model.as_ref().and_then(|m| m.version.clone())
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.observed.job.spec.active_deadline_seconds?;
        Some(self.status.start_time.as_ref()?.0 + SignedDuration::from_secs(seconds))
    }

    pub(super) fn check_at(&mut self, time: Timestamp) {
        self.plan.check_at = earlier(self.plan.check_at, Some(time));
    }

    pub(super) fn note(&mut self, note: String) {
        self.plan.notes.push(note);
    }

    pub(super) fn event(&mut self, warning: bool, reason: &'static str, note: String) {
        self.plan.events.push(Event {
            warning,
            reason,
            action: "Training",
            note: bounded(note),
        });
    }
}
