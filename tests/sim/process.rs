//! The operator: its real caches, controllers, planners and writes, with the API server in memory behind its client.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::Full;
use kube::{Client, client::Body};
use perennial::{
    cluster::{
        Caches, Change, Kind, Settings, Shell,
        lease::Leadership,
        store::{AnyStore, Entry, Store},
        supervisor::{Supervisors, Wire},
    },
    controller::{gateway::Gateways, model_deployment, operator},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use crate::{
    api::{self, Api, Who},
    faults::{Fault, Race},
    gateway,
    world::{Event, Sim, World, wall},
};

/// A running operator.
pub struct Process {
    number: u64,
    caches: Caches,
    /// How much of each kind's log its watch has brought.
    seen: BTreeMap<Kind, usize>,
    stop: CancellationToken,
    /// Aborted when dropped, as SIGKILL does.
    _tasks: JoinSet<()>,
}

impl Process {
    /// Starts it; its watches begin to list.
    pub fn start(sim: &Sim, resync: Duration) -> Self {
        let number = {
            let mut world = sim.lock();
            world.process += 1;
            world.running = true;
            world.delivering.clear();
            let number = world.process;
            world.say(|| format!("operator starts, process {number}"));
            for kind in Kind::ALL {
                let at = world.ms();
                world.delivering.insert(*kind, at);
                // No life has these: seeds stay the lives that they were.
                let never = matches!(kind, Kind::HorizontalPodAutoscaler | Kind::HTTPRoute);
                let wait = if never {
                    0
                } else {
                    world.random.below(300) as u64
                };
                world.after(wait, Event::Relist(number, *kind));
            }
            number
        };
        let client = Client::new(
            Front {
                sim: sim.clone(),
                process: number,
            },
            crate::world::NAMESPACE,
        );
        let settings = Settings {
            identity: "simulated".to_owned(),
            image: "perennial:1".to_owned(),
            concurrency: 2,
            resync,
            ..Settings::default()
        };
        let mut shell = Shell::new(client, Caches::new(&[]), settings, Leadership::always());
        shell.clock = wall;
        let caches = shell.caches.clone();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let measure = model_deployment::measure(&shell.caches);
        let (reading, source) = (measure.clone(), gateway::source(sim));
        tasks.spawn(async move { reading.run_with(source).await });
        let wire = || Supervisors::with(Arc::new(Pods { sim: sim.clone() }));
        let gateways = Gateways {
            replicas: 2,
            operator_namespace: None,
        };
        operator::controllers(
            &shell,
            gateways,
            measure,
            [wire(), wire()],
            &stop,
            &mut tasks,
        );
        Self {
            number,
            caches,
            seen: BTreeMap::new(),
            stop,
            _tasks: tasks,
        }
    }

    /// The watch of a kind brings what has happened.
    pub fn deliver(&mut self, sim: &Sim, process: u64, kind: Kind) {
        if process != self.number {
            return;
        }
        let entries = {
            let mut world = sim.lock();
            if world.delivering.remove(&kind).is_none() {
                return;
            }
            let from = self.seen.get(&kind).copied().unwrap_or(0);
            let entries = world.api.log(kind)[from..].to_vec();
            self.seen.insert(kind, from + entries.len());
            if !entries.is_empty() && world.strikes(Fault::Lost) {
                let now = world.ms();
                world.delivering.insert(kind, now);
                let wait = world.faults.below(60_000) as u64;
                world.after(wait, Event::Relist(process, kind));
                return;
            }
            entries
        };
        for entry in entries {
            let lost = {
                let mut world = sim.lock();
                world.events += 1;
                world.faults.loses == Some(world.events)
            };
            if lost {
                let mut world = sim.lock();
                world.say(|| {
                    let name = api::text(&entry.value, "/metadata/name");
                    format!(
                        "the event of {} {name} is lost, and its watch with it",
                        kind.as_str()
                    )
                });
                let now = world.ms();
                world.delivering.insert(kind, now);
                world.after(60_000, Event::Relist(process, kind));
                return;
            }
            let twice = sim.lock().strikes(Fault::Duplicate);
            for _ in 0..=usize::from(twice) {
                let changes = put(&self.caches, kind, &entry.value, entry.deleted);
                self.caches.tell(&changes);
            }
        }
    }

    /// The watch of a kind lists anew.
    pub fn relist(&mut self, sim: &Sim, process: u64, kind: Kind) {
        if process != self.number {
            return;
        }
        let objects: Vec<Arc<Value>> = {
            let mut world = sim.lock();
            world.delivering.remove(&kind);
            self.seen.insert(kind, world.api.log(kind).len());
            world
                .api
                .all(kind)
                .map(|(_, value)| value.clone())
                .filter(|v| Api::is_watched(kind, v))
                .collect()
        };
        list(&self.caches, kind, &objects, |changes| {
            self.caches.tell(&changes)
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn decode<K: DeserializeOwned>(value: &Value) -> Box<K> {
    match K::deserialize(value) {
        Ok(object) => Box::new(object),
        Err(error) => {
            panic!("the API server has an object that doesn't decode: {error}\n{value:#}")
        }
    }
}

/// One body for the stores of all kinds.
macro_rules! for_store {
    ($caches:expr, $kind:expr, $store:ident => $body:expr) => {
        match $kind {
            Kind::TrainingJob => {
                let $store = &$caches.training_jobs;
                $body
            }
            Kind::ModelDeployment => {
                let $store = &$caches.model_deployments;
                $body
            }
            Kind::Evaluation => {
                let $store = &$caches.evaluations;
                $body
            }
            Kind::PromptRelease => {
                let $store = &$caches.prompt_releases;
                $body
            }
            Kind::Job => {
                let $store = &$caches.jobs;
                $body
            }
            Kind::Pod => {
                let $store = &$caches.pods;
                $body
            }
            Kind::Deployment => {
                let $store = &$caches.deployments;
                $body
            }
            Kind::Service => {
                let $store = &$caches.services;
                $body
            }
            Kind::ConfigMap => {
                let $store = &$caches.config_maps;
                $body
            }
            Kind::ControllerRevision => {
                let $store = &$caches.controller_revisions;
                $body
            }
            Kind::EndpointSlice => {
                let $store = &$caches.endpoint_slices;
                $body
            }
            Kind::PersistentVolumeClaim => {
                let $store = &$caches.claims;
                $body
            }
            Kind::ServiceAccount => {
                let $store = &$caches.service_accounts;
                $body
            }
            Kind::Role => {
                let $store = &$caches.roles;
                $body
            }
            Kind::RoleBinding => {
                let $store = &$caches.role_bindings;
                $body
            }
            Kind::NetworkPolicy => {
                let $store = &$caches.network_policies;
                $body
            }
            Kind::PodDisruptionBudget => {
                let $store = &$caches.disruption_budgets;
                $body
            }
            Kind::HorizontalPodAutoscaler => {
                let $store = &$caches.autoscalers;
                $body
            }
            Kind::HTTPRoute => {
                let $store = &$caches.routes;
                $body
            }
        }
    };
}

fn put(caches: &Caches, kind: Kind, value: &Value, deleted: bool) -> Vec<Change> {
    fn one<K>(store: &Store<K>, value: &Value, deleted: bool) -> Vec<Change>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
    {
        let object = decode::<K>(value);
        if deleted {
            store.remove("", object.meta())
        } else {
            store.put("", Entry::Valid(object))
        }
    }
    if kind == Kind::ConfigMap {
        let mut changes = one(&caches.config_map_names, value, deleted);
        if Api::is_ours(value) {
            changes.extend(one(&caches.config_maps, value, deleted));
        }
        return changes;
    }
    for_store!(caches, kind, store => one(store, value, deleted))
}

fn list(caches: &Caches, kind: Kind, objects: &[Arc<Value>], tell: impl Fn(Vec<Change>)) {
    if kind == Kind::ConfigMap {
        let store = &caches.config_map_names;
        store.begin("");
        for object in objects {
            tell(store.put("", Entry::Valid(decode(object))));
        }
        tell(store.complete(""));
    }
    let ours = |object: &&Arc<Value>| kind != Kind::ConfigMap || Api::is_ours(object);
    let objects: Vec<_> = objects.iter().filter(ours).collect();
    for_store!(caches, kind, store => {
        store.begin("");
        for object in objects {
            tell(store.put("", Entry::Valid(decode(object))));
        }
        tell(store.complete(""));
        debug_assert!(store.ready());
    });
}

/// The operator's way to supervisors.
struct Pods {
    sim: Sim,
}

impl Wire for Pods {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Option<Bytes>> {
        async move {
            let answer = crate::cluster::ask(&mut self.sim.lock(), url)?;
            Some(Bytes::from(answer.to_string()))
        }
        .boxed()
    }
}

/// What the operator's client talks to: the API server, and what goes wrong on the way.
struct Front {
    sim: Sim,
    process: u64,
}

impl Service<Request<Body>> for Front {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (sim, process) = (self.sim.clone(), self.process);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body: Value = if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&body)?
            };
            let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
            let answer = answer(&sim, process, parts.method.as_str(), path, query, &body);
            let Some(((code, body), late)) = answer else {
                return std::future::pending().await;
            };
            if !late.is_zero() {
                tokio::time::sleep(late).await;
            }
            Ok(Response::builder()
                .status(code)
                .body(Full::from(serde_json::to_vec(&*body)?))?)
        })
    }
}

/// The answer, if one comes, and after how long.
fn answer(
    sim: &Sim,
    process: u64,
    method: &str,
    path: &str,
    query: &str,
    body: &Value,
) -> Option<(api::Answer, Duration)> {
    let mut world = sim.lock();
    if process != world.process || !world.running {
        return None;
    }
    let writes = method != "GET";
    if writes {
        world.writes += 1;
        if world.strikes(Fault::CrashBefore) {
            crash(&mut world);
            return None;
        }
        if world.strikes(Fault::ServerError) {
            let code = [429, 500, 503][world.faults.below(3)];
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unavailable", "message": "the API server is in trouble", "code": code});
            return Some(((code, Arc::new(status)), Duration::ZERO));
        }
        let status = path.ends_with("/status");
        if status && world.strikes(Fault::Raced) {
            race(&mut world, path);
        }
        // Not again before the write was made.
        if status && world.faults.race == Some(Race::Before) && !world.refused.contains(path) {
            race(&mut world, path);
        }
    }
    let answer = world.with_api(|api| api.serve(method, path, query, body));
    if writes && world.written.len() < 20 {
        world.written.push(format!("{method} {path}: {}", answer.0));
    }
    if answer.0 >= 400 {
        world.say(|| {
            format!(
                "operator {method} {path}: {} {}",
                answer.0, answer.1["message"]
            )
        });
    }
    if writes && path.ends_with("/status") {
        contend(&mut world, path, answer.0);
    }
    if writes && answer.0 < 300 {
        if world.strikes(Fault::CrashLost) {
            crash(&mut world);
            return None;
        }
        if world.strikes(Fault::CrashAfter) {
            crash(&mut world);
        } else if world.strikes(Fault::AnswerLost) {
            return None;
        } else if world.strikes(Fault::AnswerLate) {
            let late = Duration::from_millis(world.faults.below(3_000) as u64);
            return Some((answer, late));
        }
    }
    Some((answer, Duration::ZERO))
}

/// What an edit may cost: one refused write, and no more.
fn contend(world: &mut World, path: &str, code: u16) {
    let Some(race) = world.faults.race else {
        return;
    };
    if code == 409 {
        world.conflicts += 1;
        if !world.refused.insert(path.to_owned()) {
            world.violated(format!("{path} was refused twice for one edit"));
        }
    } else if code < 300 {
        world.refused.remove(path);
        if race == Race::After {
            self::race(world, path);
        }
    }
}

/// Somebody annotates the object just before.
fn race(world: &mut World, path: &str) {
    let parts: Vec<&str> = path.split('/').collect();
    let (Some(name), Some(plural)) = (parts.get(parts.len() - 2), parts.get(parts.len() - 3))
    else {
        return;
    };
    let Some(kind) = Kind::ALL
        .iter()
        .find(|k| k.is_own() && k.resource().plural == *plural)
    else {
        return;
    };
    let key = perennial::cluster::Key::new(crate::world::NAMESPACE, *name);
    let value = world.random.below(1000).to_string();
    world.edits += 1;
    world.with_api(|api| {
        api.edit(Who::User, *kind, &key, |object| {
            object["metadata"]["annotations"]["example.com/touched"] = json!(value)
        })
    });
}

/// The operator is gone until it is started again.
pub fn crash(world: &mut World) {
    world.running = false;
    world.say(|| "operator dies".to_owned());
    let wait = 200 + world.faults.below(8_000) as u64;
    world.after(wait, Event::Restart);
}
