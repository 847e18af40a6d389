//! TrainingJob: what wakes it and what it is planned from.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{
    claim,
    driver::{Controller, Outcome},
};
use crate::{
    api::{TrainingJob, label, training_job::TrainingJobStatus},
    cluster::{Caches, Change, Error, Key, Kind, Refusal, Shell, supervisor::Supervisors},
    plan::{
        Plan,
        training_job::{self, Answers, Observed},
    },
};

/// The controller of TrainingJobs.
#[derive(Default)]
pub struct TrainingJobs {
    supervisors: Supervisors,
}

impl Controller for TrainingJobs {
    type Object = TrainingJob;
    type Status = TrainingJobStatus;
    type Observed = Observed;

    const NAME: &'static str = "training_job";

    fn keys(&self, caches: &Caches) -> Vec<Key> {
        caches.training_jobs.keys()
    }

    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<TrainingJob>> {
        caches.training_jobs.get(key)
    }

    fn wakes(&self, caches: &Caches, change: &Change) -> Vec<Key> {
        match change.kind {
            Kind::TrainingJob => vec![change.key.clone()],
            Kind::Job | Kind::Pod => change
                .belongs_to("TrainingJob", label::TRAINING_JOB)
                .into_iter()
                .collect(),
            Kind::PersistentVolumeClaim => caches
                .training_jobs
                .in_namespace(&change.key.namespace)
                .iter()
                .filter(|job| claim::names(uris(job)).any(|c| c == change.key.name))
                .map(|job| Key::of(&job.metadata))
                .collect(),
            _ => Vec::new(),
        }
    }

    async fn observe(
        &self,
        shell: &Shell,
        object: &Arc<TrainingJob>,
    ) -> Result<Outcome<Observed>, Error> {
        let caches = &shell.caches;
        let namespace = object.namespace().unwrap_or_default();
        let jobs: BTreeMap<_, _> = caches
            .jobs
            .owned_by(&object.uid().unwrap_or_default())
            .into_iter()
            .map(|job| (job.name_any(), Arc::unwrap_or_clone(job)))
            .collect();
        let pods: Vec<Pod> = pods_of(
            caches,
            &namespace,
            label::TRAINING_JOB,
            &object.name_any(),
            jobs.values().filter_map(ResourceExt::uid),
        );
        let finished = object
            .status
            .as_ref()
            .is_some_and(|s| s.completion_time.is_some());
        let answers = ask(&self.supervisors, &pods, finished).await;
        let claims = claim::seen(caches, &namespace, uris(object), pods.iter());
        Ok(Outcome::Ready(Observed {
            job: (**object).clone(),
            jobs,
            pods,
            claims,
            answers,
            image: shell.settings.image.clone(),
        }))
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan<TrainingJobStatus> {
        training_job::plan(observed, now)
    }

    fn refused(
        &self,
        object: &TrainingJob,
        status: Option<TrainingJobStatus>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<TrainingJobStatus> {
        let mut status = status.or_else(|| object.status.clone()).unwrap_or_default();
        status.observed_generation = object.metadata.generation;
        training_job::refused(&mut status, refusal.reason.as_str(), &refusal.message, now);
        Some(status)
    }
}

/// What the spec reads and writes.
fn uris(job: &TrainingJob) -> impl Iterator<Item = &str> {
    let inputs = job.spec.datasets.iter().map(|d| d.uri.as_str());
    inputs.chain([job.spec.model.output.as_str()])
}

/// Pods with this label that belong to one of these Jobs.
pub(super) fn pods_of(
    caches: &Caches,
    namespace: &str,
    label: &str,
    value: &str,
    jobs: impl Iterator<Item = String>,
) -> Vec<Pod> {
    let jobs: Vec<String> = jobs.collect();
    let ours = |pod: &Pod| {
        pod.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|o| jobs.contains(&o.uid))
    };
    caches
        .pods
        .labelled(namespace, label, value)
        .into_iter()
        .filter(|p| ours(p))
        .map(Arc::unwrap_or_clone)
        .collect()
}

/// Asks the pod that runs; with `recorded`, only tells it that its report is.
pub(super) async fn ask(supervisors: &Supervisors, pods: &[Pod], recorded: bool) -> Answers {
    let running = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod
                .status
                .as_ref()
                .is_some_and(|s| s.phase.as_deref() == Some("Running"))
    };
    let mut answers = Answers::default();
    for pod in pods.iter().filter(running) {
        if recorded {
            supervisors.acknowledge(pod).await;
        } else {
            answers = supervisors.ask(pod).await;
        }
    }
    answers
}
