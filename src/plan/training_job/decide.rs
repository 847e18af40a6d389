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
        run::{Report, Summary},
        training_job::{Attempt, TrainingJobStatus, TrainingPhase},
    },
    plan::{Action, Event, Plan, Reference, claim, earlier, pod},
};

/// How often the supervisor is asked for progress.
const PROGRESS_PERIOD: SignedDuration = SignedDuration::from_secs(10);
/// How often progress in status is refreshed.
const REFRESH_PERIOD: SignedDuration = SignedDuration::from_secs(60);
/// Longest history of attempts.
const HISTORY: usize = 20;
/// Most metrics kept.
const METRICS: usize = 100;

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
    for (kind, value) in [
        (kind::READY, false),
        (kind::RECONCILING, false),
        (kind::STALLED, true),
    ] {
        condition::set(
            &mut status.conditions,
            kind,
            value,
            reason,
            message,
            generation,
            now,
        );
    }
}

struct Decider<'a> {
    observed: &'a Observed,
    now: Timestamp,
    status: TrainingJobStatus,
    plan: Plan<TrainingJobStatus>,
}

/// How an attempt ended badly.
struct Failure {
    reason: String,
    message: String,
    permanent: bool,
    counted: bool,
    exit_code: Option<i32>,
    pod: Option<String>,
    node: Option<String>,
}

impl<'a> Decider<'a> {
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
        let pod = self.newest_pod(&job_name);
        let ended = job_ended(job);
        if !ended {
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

    fn succeed(&mut self, report: &Report) {
        let Some(version) = self.version() else {
            return;
        };
        let mut model = report.model.clone().unwrap_or_default();
        let fixed = self.status.model.clone().unwrap_or_default();
        model.name = fixed.name;
        model.version = fixed.version;
        model.uri = fixed.uri;
        model.credentials = fixed.credentials;
        model.training_job = fixed.training_job;
        model.digest = model.digest.or_else(|| report.summary.digest.clone());
        model.trained_time = model.trained_time.or(Some(Time(self.now)));
        model.datasets = report
            .datasets
            .iter()
            .map(|d| (d.name.clone(), d.digest.clone()))
            .collect();
        if let Some(profile) = &report.profile {
            model.profile = Some(children::profile_name(
                &self.observed.job.spec.model.name,
                &version,
            ));
            self.plan
                .actions
                .push(Action::Create(children::profile_config_map(
                    &self.observed.job,
                    &version,
                    profile,
                )));
        }
        let digest = model.digest.clone().unwrap_or_default();
        self.status.model = Some(model);
        self.status.metrics = report.metrics.iter().take(METRICS).cloned().collect();
        self.status.datasets = report.datasets.clone();
        self.complete(
            reason::SUCCEEDED,
            format!("version {version} is published ({digest})"),
        );
    }

    /// The version is there, but neither the attempt's pod nor the one that read again could be asked.
    fn succeed_unread(&mut self, summary: &Summary) {
        let Some(version) = self.version() else {
            return;
        };
        if let Some(model) = &mut self.status.model {
            model.digest = summary.digest.clone().or(model.digest.take());
            model.trained_time = Some(Time(self.now));
            if model.digest.is_none() {
                return self.fail(reason::REPORT_MISSED, format!("version {version} may have been written to its output, but its report could not be read; look whether a NetworkPolicy blocks the operator from port 9465 of the pods"));
            }
        }
        self.complete(
            reason::REPORT_MISSED,
            format!("version {version} is published, but its report could not be read (no metrics, no profile); look whether a NetworkPolicy blocks the operator from port 9465 of the pods"),
        );
    }

    /// The pod ended well before the report was read: a small Job reads it again from the output.
    fn read_again(&mut self) {
        let (Some(start), Some(version)) =
            (self.status.start_time.as_ref().map(|t| t.0), self.version())
        else {
            return;
        };
        let name = children::report_job_name(&self.observed.job.name_any());
        let job =
            children::attempt_job(self.observed, &name, self.status.attempts, &version, start);
        self.wait(
            TrainingPhase::Publishing,
            reason::RUNNING,
            format!("version {version} is written; its report is read again from the output"),
        );
        self.plan.actions.push(Action::Create(job));
    }

    fn complete(&mut self, reason: &'static str, message: String) {
        self.status.phase = TrainingPhase::Succeeded;
        self.status.completion_time = Some(Time(self.now));
        self.conditions(true, false, false, reason, &message);
        self.condition(kind::COMPLETE, true, reason, &message);
        self.condition(kind::FAILED, false, reason, "it ended well");
        self.status.message = bounded(message.clone());
        self.write_status();
        self.event(false, reason, message);
    }

    fn attempt_failed(&mut self, failure: Failure) {
        let number = self.status.attempts;
        self.status.failures += i32::from(failure.counted);
        self.status.attempt_history.push(Attempt {
            number,
            reason: failure.reason.clone(),
            message: bounded(failure.message.clone()),
            pod: failure.pod,
            node: failure.node,
            exit_code: failure.exit_code,
            counted: failure.counted,
            time: Time(self.now),
        });
        let surplus = self.status.attempt_history.len().saturating_sub(HISTORY);
        self.status.attempt_history.drain(..surplus);
        if failure.permanent {
            return self.fail(
                reason::PERMANENT_FAILURE,
                format!("{}: {}", failure.reason, failure.message),
            );
        }
        let policy = self
            .observed
            .job
            .spec
            .failure_policy
            .clone()
            .unwrap_or_default();
        let restarts = policy.max_restarts.unwrap_or(2);
        if self.status.failures > restarts {
            return self.fail(
                reason::RESTARTS_EXHAUSTED,
                format!("attempt {number} failed ({}: {}) and maxRestarts: {restarts} allows no further one", failure.reason, failure.message),
            );
        }
        let backoff = policy.backoff.unwrap_or_default();
        let initial = backoff.initial.map_or(10_000, |d| d.millis());
        let longest = backoff.max.map_or(300_000, |d| d.millis());
        let doublings = u32::try_from(self.status.failures.max(1) - 1)
            .unwrap_or(0)
            .min(20);
        let wait = initial.saturating_mul(1 << doublings).min(longest);
        let retry = self.now + SignedDuration::from_millis(i64::try_from(wait).unwrap_or(i64::MAX));
        self.status.retry_time = Some(Time(retry));
        self.check_at(retry);
        let message = format!(
            "attempt {number} failed ({}: {}); attempt {} starts in {} s",
            failure.reason,
            failure.message,
            number + 1,
            wait / 1000
        );
        self.wait(
            TrainingPhase::Restarting,
            reason::RESTARTING,
            message.clone(),
        );
        self.event(true, reason::RESTARTING, message);
    }

    fn failure_of(&self, summary: &Summary, pod: Option<&Pod>) -> Failure {
        let pod = pod.or_else(|| {
            self.newest_pod(&children::job_name(
                &self.observed.job.name_any(),
                self.status.attempts,
            ))
        });
        let disruption = pod.and_then(pod::disrupted);
        let last = summary
            .last_line
            .as_ref()
            .filter(|l| !l.is_empty())
            .map(|l| format!("; last line: {l}"))
            .unwrap_or_default();
        Failure {
            reason: disruption
                .clone()
                .or_else(|| summary.reason.clone())
                .unwrap_or_else(|| "Failed".to_owned()),
            message: format!("{}{last}", summary.message),
            permanent: summary.permanent && disruption.is_none(),
            counted: disruption.is_none(),
            exit_code: summary.exit_code,
            pod: pod.map(ResourceExt::name_any),
            node: pod
                .and_then(|p| p.spec.as_ref())
                .and_then(|s| s.node_name.clone()),
        }
    }

    fn failure_without_words(&self, job: &Job, pod: Option<&Pod>) -> Failure {
        let disruption = pod.and_then(pod::disrupted);
        let containers = || {
            pod.and_then(|p| p.status.as_ref())
                .into_iter()
                .flat_map(|s| {
                    s.init_container_statuses
                        .iter()
                        .flatten()
                        .chain(s.container_statuses.iter().flatten())
                })
        };
        let ended = containers()
            .filter_map(|c| {
                c.state
                    .as_ref()
                    .and_then(|s| s.terminated.as_ref())
                    .map(|t| (c, t))
            })
            .find(|(_, t)| t.exit_code != 0);
        let job_words = || {
            let condition = job
                .status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten())
                .find(|c| c.type_ == "Failed" && c.status == "True");
            condition
                .and_then(|c| c.message.clone())
                .unwrap_or_else(|| "its pod is gone".to_owned())
        };
        Failure {
            reason: disruption
                .clone()
                .or_else(|| ended.and_then(|(_, t)| t.reason.clone()))
                .unwrap_or_else(|| "Failed".to_owned()),
            message: match ended {
                Some((container, _)) => format!(
                    "container {}: {}",
                    container.name,
                    pod::last_words(container).unwrap_or_default()
                ),
                None => job_words(),
            },
            permanent: false,
            // A pod that vanished without a word was taken away, not failed.
            counted: disruption.is_none() && pod.is_some(),
            exit_code: ended.map(|(_, t)| t.exit_code),
            pod: pod.map(ResourceExt::name_any),
            node: pod
                .and_then(|p| p.spec.as_ref())
                .and_then(|s| s.node_name.clone()),
        }
    }

    fn fail(&mut self, reason: &'static str, message: String) {
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
    fn wait(&mut self, phase: TrainingPhase, reason: &'static str, message: String) {
        self.status.phase = phase;
        self.conditions(false, true, false, reason, &message);
        self.status.message = bounded(message);
        self.write_status();
    }

    fn conditions(
        &mut self,
        ready: bool,
        reconciling: bool,
        stalled: bool,
        reason: &str,
        message: &str,
    ) {
        self.condition(kind::READY, ready, reason, message);
        self.condition(kind::RECONCILING, reconciling, reason, message);
        self.condition(kind::STALLED, stalled, reason, message);
    }

    fn condition(&mut self, kind: &str, status: bool, reason: &str, message: &str) {
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

    fn write_status(&mut self) {
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
            .filter(|j| j.metadata.deletion_timestamp.is_none() && !job_ended(j))
        {
            self.plan.actions.push(Action::Delete(Reference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                namespace: job.namespace().unwrap_or_default(),
                name: job.name_any(),
                uid: job.uid().unwrap_or_default(),
            }));
        }
    }

    fn newest_pod(&self, job: &str) -> Option<&'a Pod> {
        let observed = self.observed;
        observed
            .pods
            .iter()
            .filter(|p| {
                p.metadata
                    .owner_references
                    .iter()
                    .flatten()
                    .any(|o| o.kind == "Job" && o.name == job)
            })
            .max_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0))
    }

    fn version(&self) -> Option<String> {
        self.status.model.as_ref().and_then(|m| m.version.clone())
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.observed.job.spec.active_deadline_seconds?;
        Some(self.status.start_time.as_ref()?.0 + SignedDuration::from_secs(seconds))
    }

    fn check_at(&mut self, time: Timestamp) {
        self.plan.check_at = earlier(self.plan.check_at, Some(time));
    }

    fn note(&mut self, note: String) {
        self.plan.notes.push(note);
    }

    fn event(&mut self, warning: bool, reason: &'static str, note: String) {
        self.plan.events.push(Event {
            warning,
            reason,
            action: "Training",
            note: bounded(note),
        });
    }
}

fn job_ended(job: &Job) -> bool {
    job.status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| (c.type_ == "Complete" || c.type_ == "Failed") && c.status == "True")
}
