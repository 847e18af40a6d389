//! An attempt that failed: why, whether it counts, and whether another follows.

use jiff::SignedDuration;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{children, decide::Decider, reason};
use crate::{
    api::{
        condition::bounded,
        run::Summary,
        training_job::{Attempt, TrainingPhase},
    },
    plan::{pod, run},
};

/// Longest history of attempts.
const HISTORY: usize = 20;

/// How an attempt ended badly.
pub(super) struct Failure {
    reason: String,
    message: String,
    permanent: bool,
    counted: bool,
    exit_code: Option<i32>,
    pod: Option<String>,
    node: Option<String>,
}

impl Decider<'_> {
    pub(super) fn attempt_failed(&mut self, failure: Failure) {
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

    pub(super) fn failure_of(&self, summary: &Summary, pod: Option<&Pod>) -> Failure {
        let pod = pod.or_else(|| {
            let job = children::job_name(&self.observed.job.name_any(), self.status.attempts);
            run::newest_pod(&self.observed.pods, &job)
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

    pub(super) fn failure_without_words(&self, job: &Job, pod: Option<&Pod>) -> Failure {
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
}
