//! What runs of both kinds (attempts of a TrainingJob, measurements of an Evaluation) have in common: a Job each, and its pods.

use jiff::Timestamp;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::ResourceExt;

use super::Reference;
use crate::api::condition::{self, kind};

/// The newest pod of this Job.
pub fn newest_pod<'a>(pods: &'a [Pod], job: &str) -> Option<&'a Pod> {
    let of_job = |pod: &&Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|o| o.kind == "Job" && o.name == job)
    };
    pods.iter()
        .filter(of_job)
        .max_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// The Job's own words, if it has ended.
pub fn job_ended(job: &Job) -> Option<String> {
    let mut conditions = job
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let ended = conditions
        .find(|c| (c.type_ == "Complete" || c.type_ == "Failed") && c.status == "True")?;
    let words = ended.message.clone();
    Some(words.unwrap_or_else(|| "its pod is gone".to_owned()))
}

/// The Job, to be deleted.
pub fn reference(job: &Job) -> Reference {
    Reference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        namespace: job.namespace().unwrap_or_default(),
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
    }
}

/// Sets the conditions of kstatus.
pub fn conditions(
    conditions: &mut Vec<Condition>,
    (ready, reconciling, stalled): (bool, bool, bool),
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    for (kind, value) in [
        (kind::READY, ready),
        (kind::RECONCILING, reconciling),
        (kind::STALLED, stalled),
    ] {
        condition::set(conditions, kind, value, reason, message, generation, now);
    }
}
