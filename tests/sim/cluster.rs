//! Kubernetes around the operator: the controllers of Deployments and Jobs, kubelets, the garbage collector. Small, and only as good
//! as the operator can tell.

use std::collections::{BTreeMap, BTreeSet};

use perennial::{
    api::{
        gate::MetricValue,
        label,
        revision::ModelReference,
        run::{
            EvaluationRunSpec, EvaluationTarget, FetchRun, RUN_ENV, Report, Summary, TrainingRun,
        },
        training_job::DatasetStatus,
    },
    cluster::{Key, Kind},
};
use serde_json::{Value, json};

use crate::{
    api::{Api, Commit, Who, number, owner, text},
    faults::Fault,
    inputs,
    nature::{self, Nature},
    world::{Event, NAMESPACE, World},
};

/// How long a finished pod waits for its report to be read.
const ACKNOWLEDGE: u64 = 120_000;

/// What the cluster knows beside its objects.
#[derive(Default)]
pub struct Cluster {
    servers: BTreeMap<String, Server>,
    jobs: BTreeMap<String, Job>,
    /// What artifacts are like, by digest.
    artifacts: BTreeMap<String, Nature>,
    addresses: u64,
    digests: u64,
    /// Number of the training data that there is now: another one has another digest.
    pub data: u64,
    /// Words for what is trained from now on, where the TrainingJob doesn't say.
    pub trains: String,
    /// Whether the training data are of the shifted kind.
    pub shifted: bool,
}

/// Pods of a Deployment.
#[derive(Default)]
struct Server {
    ready: i64,
    /// How many will be ready, and when.
    starting: Option<(i64, u64)>,
    down_until: u64,
}

/// A Job and its pod.
struct Job {
    key: Key,
    uid: String,
    address: String,
    stage: Stage,
    report: Report,
    /// Whether its supervisor can't be asked.
    silent: bool,
    late: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Made,
    Running,
    Reported,
    Ended,
}

/// What follows from a write.
pub fn react(world: &mut World, commit: &Commit) {
    let soon = 50 + world.random.below(200) as u64;
    match commit.kind {
        Kind::Deployment => {
            if commit.who != Who::Cluster {
                world.after(soon, Event::Server(commit.key.clone()));
            } else if let Some(value) = &commit.new {
                let release = label_of(value, label::MODEL_DEPLOYMENT);
                if !release.is_empty() {
                    crate::gateway::tell(
                        world,
                        Kind::ModelDeployment,
                        &Key::new(NAMESPACE, release),
                    );
                }
            }
        }
        Kind::Job => match (&commit.old, &commit.new) {
            (None, Some(job)) => make_job(world, job, soon),
            (Some(job), None) => {
                let uid = text(job, "/metadata/uid");
                if let Some(job) = world.cluster.jobs.remove(uid) {
                    let pod = pod_key(&job.key);
                    world.api.delete(Who::Cluster, Kind::Pod, &pod, "");
                }
            }
            _ => {}
        },
        Kind::ModelDeployment | Kind::PromptRelease => {
            crate::gateway::tell(world, commit.kind, &commit.key)
        }
        // What waited for it starts.
        Kind::ConfigMap if commit.old.is_none() => {
            let servers = world.api.all(Kind::Deployment).map(|(key, _)| key.clone());
            for key in servers.collect::<Vec<_>>() {
                world.after(soon, Event::Server(key));
            }
        }
        _ => {}
    }
    let of_gateway =
        commit.kind == Kind::Pod && commit.key.name.starts_with(perennial::plan::gateway::NAME);
    if of_gateway || commit.kind == Kind::Service && commit.key.name == crate::life::NAME {
        world.after(10, Event::Endpoints);
    }
    if commit.new.is_none() {
        world.after(300 + soon, Event::Collect);
    }
}

fn label_of<'v>(value: &'v Value, name: &str) -> &'v str {
    value
        .pointer("/metadata/labels")
        .and_then(|l| l.get(name))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Endpoints of the release's Service: the gateway's ready pods.
pub fn endpoints(world: &mut World) {
    let key = Key::new(NAMESPACE, format!("{}-slice", crate::life::NAME));
    let service = Key::new(NAMESPACE, crate::life::NAME);
    let Some(service) = world.api.get(Kind::Service, &service).cloned() else {
        world.with_api(|api| api.delete(Who::Cluster, Kind::EndpointSlice, &key, ""));
        return;
    };
    let mut labels = service["metadata"]["labels"].clone();
    labels["kubernetes.io/service-name"] = json!(crate::life::NAME);
    let endpoints: Vec<Value> = world
        .gateways
        .ready()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let ports = json!([{"name": "http", "port": service["spec"]["ports"][0]["targetPort"], "protocol": "TCP"}]);
    world.with_api(|api| {
        if api.get(Kind::EndpointSlice, &key).is_none() {
            let slice = json!({"metadata": {"name": key.name, "namespace": NAMESPACE, "labels": labels}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
            api.create(Who::Cluster, Kind::EndpointSlice, slice);
        } else {
            api.edit(Who::Cluster, Kind::EndpointSlice, &key, |slice| {
                slice["endpoints"] = json!(endpoints);
                slice["ports"] = ports;
            });
        }
    });
}

/// Objects whose controller is gone go too.
pub fn collect(world: &mut World) {
    let mut uids = BTreeSet::new();
    let mut owned = Vec::new();
    for kind in Kind::ALL {
        for (key, value) in world.api.all(*kind) {
            uids.insert(text(value, "/metadata/uid").to_owned());
            if let Some((.., uid)) = owner(value) {
                owned.push((*kind, key.clone(), uid.to_owned()));
            }
        }
    }
    for (kind, key, uid) in owned {
        if !uids.contains(&uid) {
            world.with_api(|api| api.delete(Who::Cluster, kind, &key, ""));
        }
    }
}

/// The environment variable with a run's spec, of a container.
fn run_of(container: &Value) -> Value {
    let env = container["env"].as_array().into_iter().flatten();
    let run = env
        .filter(|e| e["name"] == RUN_ENV)
        .find_map(|e| e["value"].as_str());
    run.and_then(|text| serde_json::from_str(&text.replace("$$", "$")).ok())
        .unwrap_or(Value::Null)
}

impl Cluster {
    /// What a model is like: its image and its artifact together.
    pub fn nature_of(&self, image: &str, digest: &str) -> Nature {
        let artifact = self.artifacts.get(digest).copied().unwrap_or_default();
        nature::of_image(image).with(artifact)
    }

    /// What the pods of a Deployment are like.
    fn nature_of_pods(&self, deployment: &Value) -> Nature {
        let template = &deployment["spec"]["template"]["spec"];
        let image = template["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["name"] == "server");
        let fetch: Option<FetchRun> =
            serde_json::from_value(run_of(&template["initContainers"][0])).ok();
        let digest = fetch.and_then(|f| f.digest).unwrap_or_default();
        self.nature_of(image.map_or("", |c| text(c, "/image")), &digest)
    }

    /// Whether a Job's pod has done its work, and only waits for its report to be read.
    pub fn has_reported(&self, uid: &str) -> bool {
        self.jobs
            .get(uid)
            .is_some_and(|job| job.stage == Stage::Reported)
    }

    fn address(&mut self) -> String {
        self.addresses += 1;
        format!("10.0.{}.{}", self.addresses / 250, self.addresses % 250 + 1)
    }

    /// An artifact with a digest that nothing else has.
    fn artifact(&mut self, nature: Nature) -> String {
        self.digests += 1;
        let digest = format!("sha256:{:064x}", self.digests);
        self.artifacts.insert(digest.clone(), nature);
        digest
    }
}

/// A release's nature at a revision, from its ControllerRevision.
pub fn nature_of_revision(world: &World, release: &str, hash: &str) -> Nature {
    let key = Key::new(NAMESPACE, format!("{release}-{hash}"));
    let Some(revision) = world.api.get(Kind::ControllerRevision, &key) else {
        return Nature::default();
    };
    if revision["data"]["prompt"].is_object() {
        return nature::of_image(text(revision, "/data/prompt/messages/0/content"));
    }
    let image = text(revision, "/data/server/template/spec/containers/0/image");
    world
        .cluster
        .nature_of(image, text(revision, "/data/model/digest"))
}

/// Pods of a Deployment that can answer now.
pub fn available(api: &Api, release: &str, hash: &str) -> i64 {
    api.get(
        Kind::Deployment,
        &Key::new(NAMESPACE, format!("{release}-{hash}")),
    )
    .map_or(0, |d| number(d, "/status/availableReplicas"))
}

/// A Deployment's controller, scheduler and kubelet at once.
pub fn sync(world: &mut World, key: &Key) {
    if key.name == perennial::plan::gateway::NAME {
        return crate::gateway::sync(world);
    }
    let sick = Key::new(NAMESPACE, format!("{}-pod", key.name));
    let Some(deployment) = world.api.get(Kind::Deployment, key).cloned() else {
        world.with_api(|api| api.delete(Who::Cluster, Kind::Pod, &sick, ""));
        return;
    };
    let nature = world.cluster.nature_of_pods(&deployment);
    let missing = missing_settings(&world.api, &deployment).is_some();
    let (now, want) = (world.ms(), number(&deployment, "/spec/replicas"));
    let server = world
        .cluster
        .servers
        .entry(text(&deployment, "/metadata/uid").to_owned())
        .or_default();
    let mut again = None;
    if missing && want > server.ready {
        // Its containers can't be made; those that run go on.
        server.starting = None;
    } else if nature.never || now < server.down_until {
        server.ready = 0;
        server.starting = None;
        if now < server.down_until {
            again = Some(server.down_until - now);
        }
    } else if want <= server.ready {
        server.ready = want;
        server.starting = None;
    } else {
        match server.starting {
            Some((wanted, at)) if wanted == want && now >= at => {
                server.ready = want;
                server.starting = None;
            }
            Some((wanted, at)) if wanted == want => again = Some(at - now),
            _ => {
                server.starting = Some((want, now + nature.start));
                again = Some(nature.start);
            }
        }
    }
    let ready = server.ready;
    if let Some(wait) = again {
        world.after(wait, Event::Server(key.clone()));
    }
    world.with_api(|api| {
        api.edit(Who::Cluster, Kind::Deployment, key, |d| {
            d["status"] = json!({
                "observedGeneration": d["metadata"]["generation"], "replicas": want, "updatedReplicas": want,
                "readyReplicas": ready, "availableReplicas": ready,
            });
        })
    });
    // One pod says why.
    if nature.never && want > 0 {
        let template = &deployment["spec"]["template"];
        let image = template["spec"]["containers"][0]["image"].clone();
        let pod = json!({
            "metadata": {"name": sick.name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": key.name, "uid": deployment["metadata"]["uid"], "controller": true}]},
            "status": {"phase": "Pending", "containerStatuses": [{"name": "server", "image": image, "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]},
        });
        world.with_api(|api| api.create(Who::Cluster, Kind::Pod, pod));
    } else {
        world.with_api(|api| api.delete(Who::Cluster, Kind::Pod, &sick, ""));
    }
}

/// A ConfigMap that a Deployment's pods read, and that isn't there.
pub fn missing_settings<'v>(api: &Api, deployment: &'v Value) -> Option<&'v str> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
    let sources = containers.into_iter().flatten();
    let sources = sources.flat_map(|c| c["envFrom"].as_array().into_iter().flatten());
    let mut names = sources.filter_map(|s| s["configMapRef"]["name"].as_str());
    names.find(|name| {
        api.get(Kind::ConfigMap, &Key::new(NAMESPACE, *name))
            .is_none()
    })
}

/// All pods of a server are gone for a while.
pub fn fail_pods(world: &mut World, key: &Key, milliseconds: u64) {
    let Some(uid) = world
        .api
        .get(Kind::Deployment, key)
        .map(|d| text(d, "/metadata/uid").to_owned())
    else {
        return;
    };
    let until = world.ms() + milliseconds;
    let server = world.cluster.servers.entry(uid).or_default();
    server.down_until = server.down_until.max(until);
    world.after(0, Event::Server(key.clone()));
}

/// Everything is well again.
pub fn mend(world: &mut World) {
    for server in world.cluster.servers.values_mut() {
        server.down_until = 0;
    }
    let servers: Vec<Key> = world
        .api
        .all(Kind::Deployment)
        .map(|(key, _)| key.clone())
        .collect();
    for key in servers {
        world.after(0, Event::Server(key));
    }
}

fn pod_key(job: &Key) -> Key {
    Key::new(NAMESPACE, format!("{}-0", job.name))
}

fn make_job(world: &mut World, job: &Value, soon: u64) {
    let uid = text(job, "/metadata/uid").to_owned();
    let address = world.cluster.address();
    let key = Key::new(NAMESPACE, text(job, "/metadata/name"));
    let made = Job {
        key,
        uid: uid.clone(),
        address,
        stage: Stage::Made,
        report: Report::default(),
        silent: false,
        late: false,
    };
    world.cluster.jobs.insert(uid.clone(), made);
    world.after(500 + soon, Event::Job(uid, Stage::Made as u8));
}

/// A Job's pod goes on from a stage, if it is still there.
pub fn advance(world: &mut World, uid: &str, from: u8) {
    let Some((stage, key, late)) = world
        .cluster
        .jobs
        .get(uid)
        .map(|j| (j.stage, j.key.clone(), j.late))
    else {
        return;
    };
    if stage as u8 != from {
        return;
    }
    let Some(object) = world.api.get(Kind::Job, &key).cloned() else {
        return;
    };
    let next = match stage {
        Stage::Made => {
            start_pod(world, uid, &key, &object);
            let late = world.strikes(Fault::JobLate);
            let evicted = world.strikes(Fault::Evicted);
            let silent = world.strikes(Fault::ReportLost);
            if let Some(job) = world.cluster.jobs.get_mut(uid) {
                job.silent = silent;
                job.late = late;
            }
            if evicted {
                end_pod(world, uid, &key, true);
                return;
            }
            set_stage(world, uid, Stage::Running);
            let usual = 3_000 + world.random.below(9_000) as u64;
            Some((if late { 600_000 } else { usual }, Stage::Running))
        }
        Stage::Running => {
            let report = report_of(world, &object);
            let resolves = label_of(&object, label::ROLE) == "resolve";
            if let Some(job) = world.cluster.jobs.get_mut(uid) {
                job.report = report;
                job.stage = Stage::Reported;
            }
            if resolves {
                end_pod(world, uid, &key, false);
                return;
            }
            world.with_api(|api| {
                api.edit(Who::Cluster, Kind::Pod, &pod_key(&key), |pod| {
                    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
                })
            });
            Some((ACKNOWLEDGE, Stage::Reported))
        }
        Stage::Reported => {
            let silent = world
                .cluster
                .jobs
                .get(uid)
                .is_some_and(|j| j.silent && late);
            end_pod(world, uid, &key, silent);
            None
        }
        Stage::Ended => {
            // Its time to live is over.
            world.with_api(|api| api.delete(Who::Cluster, Kind::Job, &key, uid));
            None
        }
    };
    if let Some((wait, stage)) = next {
        world.after(wait, Event::Job(uid.to_owned(), stage as u8));
    }
}

fn set_stage(world: &mut World, uid: &str, stage: Stage) {
    if let Some(job) = world.cluster.jobs.get_mut(uid) {
        job.stage = stage;
    }
}

fn start_pod(world: &mut World, uid: &str, key: &Key, job: &Value) {
    let template = &job["spec"]["template"];
    let address = world.cluster.jobs.get(uid).map(|j| j.address.clone());
    let pod = json!({
        "metadata": {"name": pod_key(key).name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": key.name, "uid": uid, "controller": true}]},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "False"}]},
    });
    world.with_api(|api| api.create(Who::Cluster, Kind::Pod, pod));
}

/// The pod and its Job end; `evicted` ones without a word.
fn end_pod(world: &mut World, uid: &str, key: &Key, evicted: bool) {
    let Some(job) = world.cluster.jobs.get_mut(uid) else {
        return;
    };
    job.stage = Stage::Ended;
    let summary = job.report.summary.clone();
    let well = summary.succeeded && !evicted;
    let now = jiff::Timestamp::from_second(world.now().as_second())
        .unwrap_or_default()
        .to_string();
    let object = world.api.get(Kind::Job, key).cloned();
    let container = object
        .as_ref()
        .map_or("", |o| text(o, "/spec/template/spec/containers/0/name"))
        .to_owned();
    let ttl = object
        .as_ref()
        .and_then(|o| o.pointer("/spec/ttlSecondsAfterFinished")?.as_u64());
    world.with_api(|api| {
        api.edit(Who::Cluster, Kind::Pod, &pod_key(key), |pod| {
            let status = &mut pod["status"];
            status["phase"] = json!(if well { "Succeeded" } else { "Failed" });
            status["conditions"] = json!([{"type": "Ready", "status": "False"}]);
            if evicted {
                status["reason"] = json!("Evicted");
            } else {
                let message = serde_json::to_string(&summary).unwrap_or_default();
                status["containerStatuses"] = json!([{"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": i32::from(!well), "message": message}}}]);
            }
        });
        api.edit(Who::Cluster, Kind::Job, key, |job| {
            let condition = if well { "Complete" } else { "Failed" };
            job["status"] = json!({"conditions": [{"type": condition, "status": "True", "lastTransitionTime": now}]});
        })
    });
    if let Some(ttl) = ttl {
        world.after(ttl * 1000, Event::Job(uid.to_owned(), Stage::Ended as u8));
    }
}

/// What the pod of a Job has to say at its end.
fn report_of(world: &mut World, job: &Value) -> Report {
    let containers = job["spec"]["template"]["spec"]["containers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let run = containers
        .iter()
        .map(run_of)
        .find(|r| !r.is_null())
        .unwrap_or(Value::Null);
    match label_of(job, label::ROLE) {
        "trainer" => serde_json::from_value(run)
            .map(|run| trained(world, &run))
            .unwrap_or_default(),
        "evaluator" => serde_json::from_value(run)
            .map(|run| evaluated(world, &run))
            .unwrap_or_default(),
        _ => {
            let nature = nature::of_image(text(&run, "/uri"));
            let digest = format!(
                "sha256:{:064x}",
                text(&run, "/uri")
                    .bytes()
                    .fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()))
            );
            world.cluster.artifacts.insert(digest.clone(), nature);
            Report {
                summary: Summary {
                    succeeded: true,
                    digest: Some(digest),
                    ..Summary::default()
                },
                ..Report::default()
            }
        }
    }
}

fn trained(world: &mut World, run: &TrainingRun) -> Report {
    let words = run
        .parameters
        .get("nature")
        .cloned()
        .unwrap_or_else(|| world.cluster.trains.clone());
    if words == "fails" {
        let summary = Summary {
            succeeded: false,
            reason: Some("TrainerFailed".into()),
            message: "exit code 1".into(),
            ..Summary::default()
        };
        return Report {
            summary,
            ..Report::default()
        };
    }
    let digest = world.cluster.artifact(nature::named(&words));
    let data = world.cluster.data;
    let datasets = run.datasets.iter().map(|d| DatasetStatus {
        name: d.name.clone(),
        uri: d.uri.clone(),
        digest: d
            .digest
            .clone()
            .unwrap_or_else(|| format!("sha256:{data:064x}")),
        rows: Some(1000),
        size_bytes: 1,
    });
    Report {
        summary: Summary {
            succeeded: true,
            message: "published".into(),
            digest: Some(digest.clone()),
            ..Summary::default()
        },
        model: Some(ModelReference {
            digest: Some(digest),
            ..ModelReference::default()
        }),
        datasets: datasets.collect(),
        profile: world
            .gateways
            .sees_inputs
            .then(|| inputs::PROFILES[usize::from(world.cluster.shifted)].clone()),
        ..Report::default()
    }
}

fn evaluated(world: &mut World, run: &EvaluationRunSpec) -> Report {
    let EvaluationTarget::Model {
        url, baseline_url, ..
    } = &run.target
    else {
        return Report::default();
    };
    let nature = |world: &World, url: &str| {
        let mut parts = url.rsplit('/');
        let (hash, release) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        nature_of_revision(world, release, hash)
    };
    let own = nature(world, url);
    if own.unmeasurable {
        let summary = Summary {
            succeeded: false,
            reason: Some("TargetUnreachable".into()),
            message: "the model does not answer".into(),
            ..Summary::default()
        };
        return Report {
            summary,
            ..Report::default()
        };
    }
    let metric = |name: &str, value: f64| MetricValue {
        name: name.into(),
        value: Some(value),
        samples: Some(1000),
        ..MetricValue::default()
    };
    let mut metrics = vec![metric("accuracy", own.accuracy - world.gateways.decay)];
    if let Some(baseline) = baseline_url {
        metrics.push(metric(
            "stable.accuracy",
            nature(world, baseline).accuracy - world.gateways.decay,
        ));
    }
    Report {
        summary: Summary {
            succeeded: true,
            message: "measured".into(),
            rows: Some(1000),
            ..Summary::default()
        },
        metrics,
        ..Report::default()
    }
}

/// What a supervisor answers.
pub fn ask(world: &mut World, url: &str) -> Option<Value> {
    let rest = url.strip_prefix("http://")?;
    let (address, path) = rest.split_once('/')?;
    let address = address.split(':').next()?;
    let job = world.cluster.jobs.values().find(|j| j.address == address)?;
    if job.silent || !matches!(job.stage, Stage::Running | Stage::Reported) {
        return None;
    }
    let (uid, stage) = (job.uid.clone(), job.stage);
    match (path, stage) {
        ("progress", Stage::Running) => Some(json!({"stage": "Running"})),
        ("progress", _) => Some(json!({"stage": "Done"})),
        ("report", Stage::Reported) => serde_json::to_value(&job.report).ok(),
        ("report?acknowledge=true", Stage::Reported) => {
            let report = serde_json::to_value(&job.report).ok();
            world.after(200, Event::Job(uid, Stage::Reported as u8));
            report
        }
        _ => None,
    }
}
