//! A controller whose plan is a closure: what the driver does with plans is tested without any kind's decisions.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use jiff::Timestamp;
use perennial::{
    api::{PromptRelease, condition, prompt_release::PromptReleaseStatus},
    cluster::{Caches, Change, Error, Key, Kind, Refusal, Shell},
    controller::{Controller, Outcome},
    plan::Plan,
};
use serde_json::{Value, json};

type Script = dyn Fn(&PromptRelease, &Caches) -> Plan<PromptReleaseStatus> + Send + Sync;

/// Plans PromptReleases by a closure. Clones share the count.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
    plans: Arc<AtomicUsize>,
}

impl Scripted {
    /// A controller with this plan.
    pub fn new(
        script: impl Fn(&PromptRelease, &Caches) -> Plan<PromptReleaseStatus> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            plans: Arc::default(),
        }
    }

    /// Plans made so far.
    pub fn plans(&self) -> usize {
        self.plans.load(Ordering::SeqCst)
    }
}

impl Controller for Scripted {
    type Object = PromptRelease;
    type Status = PromptReleaseStatus;
    type Observed = Plan<PromptReleaseStatus>;

    const NAME: &'static str = "scripted";

    fn keys(&self, caches: &Caches) -> Vec<Key> {
        caches.prompt_releases.keys()
    }

    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<PromptRelease>> {
        caches.prompt_releases.get(key)
    }

    fn wakes(&self, _: &Caches, change: &Change) -> Vec<Key> {
        match change.kind {
            Kind::PromptRelease => vec![change.key.clone()],
            _ => change
                .belongs_to("PromptRelease", perennial::api::label::PROMPT_RELEASE)
                .into_iter()
                .collect(),
        }
    }

    async fn observe(
        &self,
        shell: &Shell,
        object: &Arc<PromptRelease>,
    ) -> Result<Outcome<Self::Observed>, Error> {
        Ok(Outcome::Ready((self.script)(object, &shell.caches)))
    }

    fn plan(&self, observed: &Self::Observed, _: Timestamp) -> Plan<PromptReleaseStatus> {
        self.plans.fetch_add(1, Ordering::SeqCst);
        observed.clone()
    }

    fn refused(
        &self,
        object: &PromptRelease,
        status: Option<PromptReleaseStatus>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<PromptReleaseStatus> {
        let mut status = status.or_else(|| object.status.clone()).unwrap_or_default();
        condition::set(
            &mut status.conditions,
            condition::kind::READY,
            false,
            refusal.reason.as_str(),
            refusal.message.clone(),
            object.metadata.generation,
            now,
        );
        Some(status)
    }
}

/// A status with `Ready=True` for this generation.
pub fn well(release: &PromptRelease) -> PromptReleaseStatus {
    let mut status = release.status.clone().unwrap_or_default();
    status.observed_generation = release.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::kind::READY,
        true,
        "Done",
        "all is well",
        release.metadata.generation,
        Timestamp::now(),
    );
    status
}

/// Metadata of a child.
pub fn child(release: &PromptRelease, name: &str) -> Value {
    let meta = &release.metadata;
    json!({
        "name": name,
        "namespace": meta.namespace,
        "labels": {"app.kubernetes.io/managed-by": "perennial", "perennial.dev/prompt-release": meta.name},
        "ownerReferences": [{
            "apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease", "name": meta.name, "uid": meta.uid,
            "controller": true, "blockOwnerDeletion": true,
        }],
    })
}

/// A ConfigMap as child.
pub fn config_map(release: &PromptRelease, name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": child(release, name), "data": data})
}

/// A Deployment as child, with a quantity that the API server normalises.
pub fn deployment(release: &PromptRelease, name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": child(release, name),
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main", "image": image,
                    "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}},
                    "env": [{"name": "A", "value": "1"}],
                }]},
            },
        },
    })
}
