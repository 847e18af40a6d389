//! A world of objects by name, in which plans are carried out one write at a time.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment, DeploymentStatus},
        batch::v1::Job,
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::super::{
    Observed, Status,
    drift::{predictions, recorded},
    plan,
};
use crate::{
    api::{
        Evaluation, ModelDeployment, TrainingJob,
        revision::{ArtifactCache, ModelReference},
        training_job::{DatasetStatus, TrainingJobStatus, TrainingPhase},
    },
    plan::{Action, Reference, claim::Claim},
    stats::{
        asked::Asked,
        bucket::{Bucket, Gateway, LogReport, ReleaseMeasurements},
        labels::{Guess, Late},
        profile::{Profile, ProfileBuilder},
        sketch::{Cell, ColumnKind},
    },
};

pub const UID: &str = "abcdef12-0000-0000-0000-000000000000";

/// Everything there is.
pub struct World {
    pub now: Timestamp,
    pub release: ModelDeployment,
    pub jobs: BTreeMap<String, TrainingJob>,
    pub evaluations: BTreeMap<String, Arc<Evaluation>>,
    pub objects: BTreeMap<(String, String), Value>,
    pub pods: Vec<Pod>,
    pub profile: Option<Arc<Profile>>,
    pub cache: Option<ArtifactCache>,
    pub buckets: Vec<Arc<Bucket>>,
    /// The minute before which everybody has forgotten what came.
    pub since: i64,
    /// What Prometheus says.
    pub asked: Asked,
    /// Predictions and late labels.
    pub late: Late,
    /// How the gateway's payload log is doing.
    pub log: Option<LogReport>,
    pub healthy: bool,
    pub knows_routes: bool,
    pub claims: BTreeMap<String, Claim>,
    /// The user's ConfigMaps, by name.
    pub config_maps: BTreeMap<String, Value>,
    /// TrainingJobs ever created, by name.
    pub created: Vec<String>,
    pub deleted: Vec<String>,
    pub events: Vec<String>,
}

impl World {
    pub fn new(spec: Value) -> Self {
        let release = json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "churn", "namespace": "ml", "uid": UID, "generation": 1}, "spec": spec,
        });
        Self {
            now: "2013-07-01T00:00:00Z".parse().unwrap(),
            release: serde_json::from_value(release).unwrap(),
            jobs: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            objects: BTreeMap::new(),
            pods: Vec::new(),
            profile: None,
            cache: None,
            buckets: Vec::new(),
            healthy: true,
            knows_routes: true,
            since: 0,
            asked: Asked::default(),
            late: Late::default(),
            log: None,
            claims: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            created: Vec::new(),
            deleted: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut ModelDeployment)) {
        change(&mut self.release);
        *self.release.metadata.generation.as_mut().unwrap() += 1;
    }

    pub fn annotate(&mut self, key: &str, value: String) {
        self.release.annotations_mut().insert(key.to_owned(), value);
    }

    pub fn status(&self) -> &Status {
        self.release.status.as_ref().unwrap()
    }

    pub fn condition(&self, kind: &str) -> (String, String, String) {
        let c = crate::api::condition::get(&self.status().conditions, kind)
            .unwrap_or_else(|| panic!("no {kind}"));
        (c.status.clone(), c.reason.clone(), c.message.clone())
    }

    pub fn object(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), name.to_owned()))
    }

    pub fn names(&self, kind: &str) -> Vec<&str> {
        self.objects
            .keys()
            .filter(|(k, _)| k == kind)
            .map(|(_, n)| n.as_str())
            .collect()
    }

    /// A TrainingJob that ended well, on data with this digest.
    pub fn train(&mut self, name: &str, version: &str, digest: &str) {
        let job: TrainingJob = serde_json::from_value(json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": "ml", "uid": format!("uid-of-{name}")},
            "spec": {
                "model": {"name": "churn", "output": "pvc://models/churn"},
                "datasets": [{"name": "train", "uri": "pvc://flights/q1.parquet", "label": "late"}],
                "template": {"spec": {"containers": [{"name": "trainer", "image": "t:1", "command": ["train"]}]}},
            },
        }))
        .unwrap();
        self.jobs.insert(name.to_owned(), job);
        self.finish(name, version, digest);
    }

    /// Ends a TrainingJob well.
    pub fn finish(&mut self, name: &str, version: &str, digest: &str) {
        let now = self.now;
        let job = self.jobs.get_mut(name).unwrap();
        job.status = Some(TrainingJobStatus {
            phase: TrainingPhase::Succeeded,
            datasets: vec![DatasetStatus {
                name: "train".to_owned(),
                digest: digest.to_owned(),
                ..DatasetStatus::default()
            }],
            model: Some(ModelReference {
                name: Some("churn".to_owned()),
                version: Some(version.to_owned()),
                uri: format!("pvc://models/churn/{version}"),
                digest: Some(format!("sha256:{version}")),
                profile: Some(format!("{name}-profile")),
                training_job: Some(name.to_owned()),
                trained_time: Some(Time(now)),
                ..ModelReference::default()
            }),
            ..TrainingJobStatus::default()
        });
    }

    /// Rows of inputs of stable in the next minutes, shifted by `shift`.
    pub fn traffic(&mut self, minutes: i64, shift: f64) {
        self.answers(minutes, shift, None);
    }

    /// As [`World::traffic`], with answers that are all of this class.
    pub fn answers(&mut self, minutes: i64, shift: f64, said: Option<&str>) {
        let revision = self.status().stable.as_ref().unwrap().revision.clone();
        for _ in 0..minutes {
            self.now += SignedDuration::from_mins(1);
            let mut rows = profile().sketch();
            for i in 0..100 {
                rows.add([("temp", Cell::Number(f64::from(i % 20) + shift))]);
            }
            self.buckets.push(Arc::new(Bucket {
                revision: revision.clone(),
                minute: self.now.as_second() / 60 - 1,
                features: Some(rows),
                predictions: said.map(|said| {
                    let mut rows = crate::stats::predictions::empty();
                    let guess = Guess {
                        said: Some(said.to_owned()),
                        ..Guess::default()
                    };
                    (0..100).for_each(|_| crate::stats::predictions::add(&mut rows, &guess, false));
                    rows
                }),
                ..Bucket::default()
            }));
            self.settle();
        }
    }

    /// Operator and gateways begin anew: of what came, these last minutes are remembered.
    pub fn forget_all_but(&mut self, minutes: i64) {
        self.since = self.now.as_second() / 60 - minutes;
        let since = self.since;
        self.buckets.retain(|b| b.minute >= since);
    }

    pub fn observed(&self) -> Observed {
        let parse = |kind: &str| -> Vec<Value> {
            let of_kind = self.objects.iter().filter(|((k, _), _)| k == kind);
            of_kind.map(|(_, v)| v.clone()).collect()
        };
        let servers = parse("Deployment").into_iter().map(|value| {
            let mut server: Deployment = serde_json::from_value(value).unwrap();
            let replicas = server.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            server.status = Some(DeploymentStatus {
                replicas: Some(replicas),
                available_replicas: Some(if self.healthy { replicas } else { 0 }),
                ..DeploymentStatus::default()
            });
            Arc::new(server)
        });
        let kinds = [
            "Service",
            "PodDisruptionBudget",
            "HorizontalPodAutoscaler",
            "HTTPRoute",
        ];
        let others = kinds.into_iter().flat_map(parse).map(|v| reference(&v));
        let epoch = self
            .release
            .status
            .as_ref()
            .and_then(|s| s.rollout.as_ref())
            .map(|r| r.epoch);
        Observed {
            deployment: Arc::new(self.release.clone()),
            complete: true,
            cache: self.cache.clone(),
            training_jobs: self.jobs.values().cloned().map(Arc::new).collect(),
            evaluations: self.evaluations.clone(),
            revisions: parse("ControllerRevision")
                .into_iter()
                .map(|v| Arc::new(serde_json::from_value::<ControllerRevision>(v).unwrap()))
                .collect(),
            servers: servers.collect(),
            autoscalers: parse("HorizontalPodAutoscaler")
                .into_iter()
                .map(|v| Arc::new(serde_json::from_value(v).unwrap()))
                .collect(),
            route: parse("HTTPRoute")
                .into_iter()
                .map(|v| Arc::new(serde_json::from_value(v).unwrap()))
                .next(),
            knows_routes: self.knows_routes,
            others: others.collect(),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            resolves: parse("Job")
                .into_iter()
                .map(|v| Arc::new(serde_json::from_value::<Job>(v).unwrap()))
                .collect(),
            config_maps: self
                .config_maps
                .iter()
                .map(|(name, data)| {
                    let object = json!({"metadata": {"name": name}, "data": data});
                    (
                        name.clone(),
                        Arc::new(serde_json::from_value(object).unwrap()),
                    )
                })
                .collect(),
            claims: self.claims.clone(),
            recorded: self
                .object("ConfigMap", "churn-drift-window")
                .map(|v| serde_json::from_value(v.clone()).unwrap())
                .map(|object| Arc::new(recorded::read(&object).unwrap())),
            references: self
                .object("ConfigMap", "churn-predictions")
                .map(|v| serde_json::from_value(v.clone()).unwrap())
                .map(|object| Arc::new(predictions::read(&object)))
                .unwrap_or_default(),
            copies: parse("ConfigMap")
                .into_iter()
                .filter(|v| v["metadata"]["labels"]["perennial.dev/role"] == "config")
                .map(|v| Arc::new(serde_json::from_value(v).unwrap()))
                .collect(),
            profile: self.profile.clone().and_then(|profile| {
                let hash = &self.release.status.as_ref()?.stable.as_ref()?.revision;
                let revision = self.object("ControllerRevision", &format!("churn-{hash}"))?;
                Some((
                    revision["data"]["model"]["profile"].as_str()?.to_owned(),
                    profile,
                ))
            }),
            live: ReleaseMeasurements {
                gateways: vec![Gateway {
                    pod: "g".to_owned(),
                    ready: true,
                    epoch,
                    log: self.log.clone(),
                    ..Gateway::default()
                }],
                buckets: self.buckets.clone(),
                final_before: Some(self.now.as_second() / 60),
                since: Some(self.since),
                asked: self.asked.clone(),
                late: self.late.clone(),
                ..ReleaseMeasurements::default()
            },
            ports: Vec::new(),
            refused: Vec::new(),
            image: "perennial:1".to_owned(),
        }
    }

    /// Carries a plan out, but not more than so many of its actions. Returns the writes that changed something.
    pub fn step(&mut self, most: usize) -> usize {
        let plan = plan(&self.observed(), self.now);
        let mut writes = 0;
        let whole = plan.actions.len() <= most;
        for action in plan.actions.into_iter().take(most) {
            writes += usize::from(self.act(action));
        }
        if whole {
            self.events
                .extend(plan.events.iter().map(|e| e.reason.to_owned()));
        }
        writes
    }

    fn act(&mut self, action: Action<Status>) -> bool {
        match action {
            Action::Apply(mut value) => {
                let key = key(&value);
                value["metadata"]["uid"] = json!(format!("uid-{}-{}", key.0, key.1));
                if let Some(metadata) = value["metadata"].as_object_mut() {
                    metadata.remove("resourceVersion");
                }
                // What isn't said stays as an autoscaler made it.
                if let Some(before) = self.objects.get(&key)
                    && key.0 == "Deployment"
                    && value["spec"]["replicas"].is_null()
                {
                    value["spec"]["replicas"] = before["spec"]["replicas"].clone();
                }
                let changed = self.objects.get(&key) != Some(&value);
                self.objects.insert(key, value);
                changed
            }
            Action::Create(mut value) => {
                let key = key(&value);
                if key.0 == "TrainingJob" {
                    if self.jobs.contains_key(&key.1) {
                        return false;
                    }
                    self.created.push(key.1.clone());
                    value["metadata"]["uid"] = json!(format!("uid-of-{}", key.1));
                    self.jobs
                        .insert(key.1, serde_json::from_value(value).unwrap());
                    return true;
                }
                value["metadata"]["uid"] = json!(format!("uid-{}-{}", key.0, key.1));
                self.objects.insert(key, value).is_none()
            }
            Action::Delete(reference) => {
                self.deleted.push(reference.name.clone());
                self.objects
                    .remove(&(reference.kind, reference.name))
                    .is_some()
            }
            Action::Status(status) => {
                // As the API server keeps it.
                let status: Status =
                    serde_json::from_value(serde_json::to_value(*status).unwrap()).unwrap();
                let changed = self.release.status.as_ref() != Some(&status);
                self.release.status = Some(status);
                changed
            }
            Action::DeleteSelf => unreachable!("a release never deletes itself"),
        }
    }

    /// Plans until there is nothing more to write. Panics if that never comes.
    pub fn settle(&mut self) {
        for _ in 0..50 {
            if self.step(usize::MAX) == 0 {
                return;
            }
        }
        panic!("it never settles");
    }

    /// Lets time pass, looking every so often.
    pub fn pass(&mut self, minutes: i64) {
        let step = if minutes > 60 { 300 } else { 15 };
        for _ in 0..minutes * 60 / step {
            self.now += SignedDuration::from_secs(step);
            self.settle();
        }
    }
}

/// Made once: its noise takes a second to measure.
pub fn profile() -> Profile {
    static PROFILE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(make_profile);
    PROFILE.clone()
}

fn make_profile() -> Profile {
    let mut builder = ProfileBuilder::new([("temp", ColumnKind::Numeric)]);
    for i in 0..2000 {
        builder.add(&[Cell::Number(f64::from(i % 20))]);
    }
    builder.finish()
}

fn key(value: &Value) -> (String, String) {
    (
        value["kind"].as_str().unwrap().to_owned(),
        value["metadata"]["name"].as_str().unwrap().to_owned(),
    )
}

fn reference(value: &Value) -> Reference {
    let (kind, name) = key(value);
    Reference {
        api_version: value["apiVersion"].as_str().unwrap().to_owned(),
        uid: format!("uid-{kind}-{name}"),
        namespace: "ml".to_owned(),
        kind,
        name,
    }
}

pub fn server(image: &str) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "server", "image": image}]}}})
}

/// A release that waits for half a minute, goes straight to weight 100 and bakes for a minute.
pub fn quick(extra: Value) -> Value {
    let mut spec = json!({
        "server": server("s:1"),
        "rollout": {"steps": [{"pause": {"duration": "30s"}}, {"setWeight": 100}], "bake": "1m", "analysis": {"minRequests": 0, "gates": []}},
    });
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}
