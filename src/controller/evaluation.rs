//! Evaluation: what wakes it and what it is planned from.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    claim,
    driver::{Controller, Outcome},
    training_job::{ask, pods_of},
};
use crate::{
    api::{Evaluation, evaluation::EvaluationStatus, label},
    cluster::{Caches, Change, Error, Key, Kind, Refusal, Shell, supervisor::Supervisors},
    plan::{
        Plan, Reference,
        ended::{self, Ended},
        evaluation::{self, Observed, Release},
    },
};

/// The controller of Evaluations.
#[derive(Default)]
pub struct Evaluations {
    supervisors: Supervisors,
}

impl Evaluations {
    /// With this way to ask pods.
    pub fn new(supervisors: Supervisors) -> Self {
        Self { supervisors }
    }
}

impl Controller for Evaluations {
    type Object = Evaluation;
    type Status = EvaluationStatus;
    type Observed = Observed;

    const NAME: &'static str = "evaluation";

    fn keys(&self, caches: &Caches) -> Vec<Key> {
        caches.evaluations.keys()
    }

    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<Evaluation>> {
        caches.evaluations.get(key)
    }

    fn wakes(&self, caches: &Caches, change: &Change) -> Vec<Key> {
        let those = |wanted: &dyn Fn(&Evaluation) -> bool| -> Vec<Key> {
            caches
                .evaluations
                .in_namespace(&change.key.namespace)
                .iter()
                .filter(|e| wanted(e))
                .map(|e| Key::of(&e.metadata))
                .collect()
        };
        match change.kind {
            Kind::Evaluation => vec![change.key.clone()],
            Kind::Job | Kind::Pod | Kind::ConfigMap => change
                .belongs_to("Evaluation", label::EVALUATION)
                .into_iter()
                .collect(),
            Kind::TrainingJob => those(&|e| training(e) == Some(change.key.name.as_str())),
            Kind::ModelDeployment => those(&|e| model(e) == Some(change.key.name.as_str())),
            Kind::PromptRelease => those(&|e| prompt(e) == Some(change.key.name.as_str())),
            Kind::ControllerRevision => {
                let of = |label: &str| change.label(label);
                match (of(label::MODEL_DEPLOYMENT), of(label::PROMPT_RELEASE)) {
                    (Some(release), _) => those(&|e| model(e) == Some(release)),
                    (None, Some(release)) => those(&|e| prompt(e) == Some(release)),
                    (None, None) => Vec::new(),
                }
            }
            Kind::PersistentVolumeClaim => {
                those(&|e| claim::names(uris(e)).any(|c| c == change.key.name))
            }
            _ => Vec::new(),
        }
    }

    async fn observe(
        &self,
        shell: &Shell,
        object: &Arc<Evaluation>,
    ) -> Result<Outcome<Observed>, Error> {
        let caches = &shell.caches;
        let namespace = object.namespace().unwrap_or_default();
        let release = release(caches, &namespace, object);
        let mut revisions = BTreeMap::new();
        if let Some(release) = &release {
            for revision in release.revisions() {
                let key = Key::new(&namespace, format!("{}-{revision}", release.name()));
                let data = caches.controller_revisions.get(&key);
                let data = data.and_then(|r| r.data.clone());
                if let Some(content) = data.and_then(|data| release.content(data.0)) {
                    revisions.insert(revision, content);
                }
            }
        }
        let jobs: BTreeMap<_, _> = caches
            .jobs
            .owned_by(&object.uid().unwrap_or_default())
            .into_iter()
            .map(|job| (job.name_any(), Arc::unwrap_or_clone(job)))
            .collect();
        let pods = pods_of(
            caches,
            &namespace,
            label::EVALUATION,
            &object.name_any(),
            jobs.values().filter_map(ResourceExt::uid),
        );
        let reports = caches
            .config_maps
            .owned_by(&object.uid().unwrap_or_default())
            .into_iter()
            .filter(|c| c.metadata.deletion_timestamp.is_none())
            .map(|c| Reference {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                namespace: c.namespace().unwrap_or_default(),
                name: c.name_any(),
                uid: c.uid().unwrap_or_default(),
            })
            .collect();
        let last = object.status.as_ref().and_then(|s| s.last_run.as_ref());
        let current: Vec<String> = last
            .map(|run| evaluation::job_name(&object.name_any(), run.number))
            .into_iter()
            .collect();
        let recorded = last.is_some_and(|r| r.verdict.is_final());
        let answers = ask(&self.supervisors, &pods, &current, recorded).await;
        let claims = claim::seen(caches, &namespace, uris(object), pods.iter());
        Ok(Outcome::Ready(Observed {
            evaluation: (**object).clone(),
            training_job: training(object).and_then(|name| {
                let found = caches.training_jobs.get(&Key::new(&namespace, name))?;
                Some(Arc::unwrap_or_clone(found))
            }),
            release,
            revisions,
            jobs,
            reports,
            pods,
            claims,
            answers,
            image: shell.settings.image.clone(),
        }))
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan<EvaluationStatus> {
        evaluation::plan(observed, now)
    }

    fn ended(&self, object: &Evaluation, status: &EvaluationStatus) -> Vec<Ended> {
        ended::of_evaluation(object.status.as_ref(), status)
    }

    fn refused(
        &self,
        object: &Evaluation,
        status: Option<EvaluationStatus>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<EvaluationStatus> {
        let mut status = status.or_else(|| object.status.clone()).unwrap_or_default();
        status.observed_generation = object.metadata.generation;
        evaluation::refused(&mut status, refusal.reason.as_str(), &refusal.message, now);
        Some(status)
    }
}

/// The ModelDeployment that it measures.
fn model(evaluation: &Evaluation) -> Option<&str> {
    let target = evaluation.spec.target.model_deployment.as_ref();
    target.map(|t| t.name.as_str())
}

/// The TrainingJob that it judges.
fn training(evaluation: &Evaluation) -> Option<&str> {
    let target = evaluation.spec.target.training_job.as_ref();
    target.map(|t| t.name.as_str())
}

/// The PromptRelease that it measures.
fn prompt(evaluation: &Evaluation) -> Option<&str> {
    let target = evaluation.spec.target.prompt_release.as_ref();
    target.map(|t| t.name.as_str())
}

fn release(caches: &Caches, namespace: &str, evaluation: &Evaluation) -> Option<Release> {
    if let Some(name) = model(evaluation) {
        let found = caches.model_deployments.get(&Key::new(namespace, name))?;
        return Some(Release::Model(Box::new(Arc::unwrap_or_clone(found))));
    }
    let name = prompt(evaluation)?;
    let found = caches.prompt_releases.get(&Key::new(namespace, name))?;
    Some(Release::Prompt(Box::new(Arc::unwrap_or_clone(found))))
}

/// What the spec reads.
fn uris(evaluation: &Evaluation) -> impl Iterator<Item = &str> {
    let sources = evaluation::sources(evaluation).into_iter();
    let read = sources.filter_map(|(_, _, source)| match source {
        Cow::Borrowed(source) => Some(source.uri.as_str()),
        // What a run wrote: it lies at the output.
        Cow::Owned(_) => None,
    });
    read.chain(evaluation.spec.output.as_deref())
}
