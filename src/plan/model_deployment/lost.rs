//! A lost status: what is rebuilt before anything is decided about versions, which depends on stable, ledger and retrainings.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Observed, Status, model, recipe, retraining::result};
use crate::{
    api::{
        TrainingJob, annotation,
        condition::bounded,
        model_deployment::{Promotion, RetrainingRun, RetrainingStatus},
    },
    plan::{
        Event,
        rollout::{self, Input},
    },
};

/// Whose trigger fired is not on the TrainingJob.
const UNKNOWN: &str = "unknown";

/// Stable and ledger from the marks on ControllerRevisions, retrainings from their TrainingJobs, if the status was lost.
pub(super) fn rebuild(
    observed: &Observed,
    status: &mut Status,
    input: impl FnOnce(&Status) -> Input,
    now: Timestamp,
) -> Option<Event> {
    if status.attempts > 0 || status.stable.is_some() {
        return None;
    }
    let (state, event) = rollout::rebuilt(&input(status), now)?;
    state.into_model(status);
    if observed.deployment.spec.retraining.is_some() && status.retraining.is_none() {
        status.retraining = retrainings(observed, now);
    }
    Some(event)
}

/// The firings whose TrainingJobs are there. Of one whose job was deleted nothing is known any more.
fn retrainings(observed: &Observed, now: Timestamp) -> Option<RetrainingStatus> {
    let uid = observed.deployment.uid()?;
    let run = |job: &TrainingJob| {
        let annotations = job.annotations();
        let (of, firing) = annotations.get(annotation::FIRING)?.split_once('/')?;
        let firing = firing.parse().ok().filter(|_| of == uid)?;
        let why = annotations.get(annotation::FIRED_BECAUSE).cloned();
        (job.name_any() == recipe::job_name(&observed.deployment, firing)).then(|| RetrainingRun {
            firing,
            job: job.name_any(),
            created: true,
            trigger: UNKNOWN.to_owned(),
            message: bounded(why.unwrap_or_default()),
            time: job.creation_timestamp().unwrap_or(Time(now)),
            version: None,
            result: result::RUNNING.to_owned(),
            inputs: None,
            promotion: model::is_manual(&observed.deployment).then_some(Promotion::Manual),
        })
    };
    let jobs = observed.training_jobs.iter();
    let mut runs: Vec<RetrainingRun> = jobs.filter_map(|job| run(job)).collect();
    runs.sort_by_key(|run| run.firing);
    Some(RetrainingStatus {
        firing: runs.last()?.firing,
        runs,
        ..RetrainingStatus::default()
    })
}
