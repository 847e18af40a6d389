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
        ended::{self, Ended},
        training_job::{self, Answers, Observed},
    },
};

/// The controller of TrainingJobs.
#[derive(Default)]
pub struct TrainingJobs {
    supervisors: Supervisors,
}

impl TrainingJobs {
    /// With this way to ask pods.
    pub fn new(supervisors: Supervisors) -> Self {
        Self { supervisors }
    }
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
        let status = object.status.clone().unwrap_or_default();
        let name = object.name_any();
        let current = [
            training_job::job_name(&name, status.attempts),
            training_job::report_job_name(&name),
        ];
        let recorded = status.completion_time.is_some() || status.retry_time.is_some();
        let answers = ask(&self.supervisors, &pods, &current, recorded).await;
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

    fn ended(&self, object: &TrainingJob, status: &TrainingJobStatus) -> Vec<Ended> {
        ended::of_training_job(object.status.as_ref(), status)
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

/// Asks the pod that runs for one of the `current` Jobs; with `recorded`, only tells it that its report is. Pods of other Jobs
/// are told so too: what they say is of an attempt that is over.
pub(super) async fn ask(
    supervisors: &Supervisors,
    pods: &[Pod],
    current: &[String],
    recorded: bool,
) -> Answers {
    let running = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod
                .status
                .as_ref()
                .is_some_and(|s| s.phase.as_deref() == Some("Running"))
    };
    let mut answers = Answers::default();
    for pod in pods.iter().filter(running) {
        let is_current = (pod.owner_references().iter()).any(|o| current.contains(&o.name));
        if recorded || !is_current {
            supervisors.acknowledge(pod).await;
        } else {
            answers = supervisors.ask(pod).await;
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use futures::{FutureExt, future::BoxFuture};
    use serde_json::json;

    use super::*;
    use crate::cluster::supervisor::Wire;

    /// Every pod has a report, and what is asked for is written down.
    #[derive(Clone, Default)]
    struct Reports(Arc<Mutex<Vec<String>>>);

    impl Wire for Reports {
        fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Option<Bytes>> {
            self.0.lock().unwrap().push(url.to_owned());
            let report = json!({"summary": {"succeeded": false, "message": "it failed"}});
            async move { Some(Bytes::from(report.to_string())) }.boxed()
        }
    }

    fn pod(job: &str, address: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("{job}-x"), "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job}]},
            "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_report_of_an_earlier_attempt_is_acknowledged_and_never_taken_for_the_present_one() {
        let wire = Reports::default();
        let supervisors = Supervisors::with(Arc::new(wire.clone()));
        let pods = [pod("train-1", "10.0.0.1")];
        let answers = ask(&supervisors, &pods, &["train-2".to_owned()], false).await;
        assert_eq!(answers, Answers::default());
        let pods = [pod("train-1", "10.0.0.1"), pod("train-2", "10.0.0.2")];
        let answers = ask(&supervisors, &pods, &["train-2".to_owned()], false).await;
        assert!(answers.report.is_some());
        let asked = wire.0.lock().unwrap().join(" ");
        let first = "http://10.0.0.1:9465/report?acknowledge=true";
        assert_eq!(
            asked,
            format!("{first} {first} http://10.0.0.2:9465/report")
        );
    }
}
