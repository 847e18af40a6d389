//! The Job that looks whether a recipe's datasets are what they were: one for each look, as neither the operator reads data nor the Secrets that
//! lead to it.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{Observed, children, resolve};
use crate::{
    api::{
        PodTemplate, label,
        run::{LookRun, LookSource, RUN_ENV, Summary},
        training_job::Dataset,
    },
    plan::{
        Action, Reference,
        pod::{self, credentials_env, input_mount, literal, restricted},
        revision::hash,
    },
};

/// Name of its only container.
pub const CONTAINER: &str = "look";
/// Value of [`label::ROLE`].
pub const ROLE: &str = "look";
/// A pod that hasn't looked by then never will.
const DEADLINE_SECONDS: i64 = 600;
/// For an operator that is away: a Job that nobody reads goes by itself.
const KEPT_SECONDS: i64 = 3600;

/// What there is of looks: Jobs of the release, and its pods.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Jobs.
    pub jobs: &'a [Arc<Job>],
    /// Pods.
    pub pods: &'a [Arc<Pod>],
}

/// A look that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Name of its Job: a function of trigger, datasets and time, so that making it twice makes one.
    pub name: String,
    /// What is looked at.
    pub datasets: Vec<Dataset>,
    /// The trainer's pod, which can read them.
    pub template: PodTemplate,
}

/// What has come of a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Come {
    /// Nothing yet: what its pod says is wrong, if it does.
    Waits(Option<String>),
    /// It has seen all.
    Seen(Box<Summary>),
    /// It could not see: why.
    Failed(String),
}

/// Name of the Job of a trigger's look at this second.
pub fn name(release: &str, trigger: &str, datasets: &[Dataset], second: i64) -> String {
    let sources = datasets.iter().map(|d| (&d.name, &d.uri, &d.credentials));
    let what = json!([trigger, second, sources.collect::<Vec<_>>()]);
    format!("{release}-look-{}", &hash(&what, 0)[..8])
}

/// Whether it is the Job of a look.
pub fn is_look(job: &Job) -> bool {
    job.labels().get(label::ROLE).map(String::as_str) == Some(ROLE)
}

/// The Job.
pub fn job(observed: &Observed, wanted: &Wanted) -> Value {
    let deployment = &observed.deployment;
    let run = LookRun {
        datasets: wanted
            .datasets
            .iter()
            .map(|d| LookSource {
                name: d.name.clone(),
                uri: d.uri.clone(),
            })
            .collect(),
    };
    let run = serde_json::to_string(&run).unwrap_or_default();
    let mounts = wanted.datasets.iter();
    let (volumes, mounts): (Vec<Value>, Vec<Value>) =
        mounts.filter_map(|d| input_mount(&d.name, &d.uri)).unzip();
    let credentials = wanted.datasets.iter().enumerate();
    let credentials: Vec<Value> = credentials
        .filter_map(|(index, d)| {
            let prefix = format!("PERENNIAL_CRED_{index}_");
            Some(credentials_env(&prefix, d.credentials.as_ref()?))
        })
        .collect();
    let mut spec = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": CONTAINER,
            "image": observed.image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["look"],
            "env": [{"name": RUN_ENV, "value": literal(&run)}],
            "envFrom": credentials,
            "volumeMounts": mounts,
            "securityContext": restricted(),
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        }],
        "volumes": volumes,
    });
    resolve::place(&mut spec, &wanted.template);
    let labels = children::labels(&deployment.name_any(), ROLE);
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": wanted.name,
            "namespace": deployment.namespace(),
            "labels": labels,
            "ownerReferences": [deployment.controller_owner_ref(&())],
        },
        "spec": {
            // One look, one pod: the next comes in its time.
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

impl Seen<'_> {
    /// What has come of the look of this name.
    pub fn come(&self, name: &str) -> Come {
        let pods = || self.pods.iter().filter(|p| resolve::is_of(p, name));
        let summary = pods().find_map(|p| pod::summary(p, CONTAINER));
        match summary {
            Some(summary) if summary.succeeded => return Come::Seen(Box::new(summary)),
            Some(summary) => return Come::Failed(summary.message),
            None => {}
        }
        let trouble = pods().find_map(|p| pod::trouble(p)).map(|t| t.message);
        let job = self.jobs.iter().find(|j| j.name_any() == name);
        let ended = job.and_then(|job| {
            let conditions = job.status.as_ref()?.conditions.as_ref()?;
            let mut ended = conditions.iter().filter(|c| c.status == "True");
            ended.find(|c| matches!(c.type_.as_str(), "Failed" | "Complete"))
        });
        match ended {
            Some(ended) => {
                let why = ended.message.clone().filter(|m| !m.is_empty());
                let why = why.unwrap_or_else(|| "the pod that looks left no word".to_owned());
                Come::Failed(trouble.unwrap_or(why))
            }
            None => Come::Waits(trouble),
        }
    }
}

/// Deletes Jobs of looks that nobody waits for any more.
pub fn clean(observed: &Observed, wanted: &[Wanted]) -> Vec<Action<super::Status>> {
    let jobs = observed.resolves.iter().filter(|_| observed.complete);
    jobs.filter(|job| is_look(job) && wanted.iter().all(|w| w.name != job.name_any()))
        .map(|job| {
            Action::Delete(Reference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                namespace: job.namespace().unwrap_or_default(),
                name: job.name_any(),
                uid: job.uid().unwrap_or_default(),
            })
        })
        .collect()
}
