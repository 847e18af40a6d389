//! The data plane around the operator: gateway pods that follow a release's routing some time after it was written, send callers by
//! it, count what became of them, and are asked by the operator.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use perennial::{
    cluster::{
        Key, Kind,
        measure::{Answer, GatewayPod, Source},
    },
    plan::gateway::NAME,
    stats::{
        bucket::{Bucket, Buckets, Epochs, ServedEpoch},
        random::Generator,
    },
};
use serde_json::{Value, json};

use crate::{
    api::{Who, number, text},
    cluster::{available, nature_of_revision},
    faults::Fault,
    inputs,
    world::{Event, NAMESPACE, Sim, World},
};

/// Callers of a release.
const CALLERS: usize = 120;
/// Requests that one look at a gateway has counted at most.
const MOST: usize = 60;

/// All gateway pods, and what callers do.
pub struct Gateways {
    pods: BTreeMap<String, Pod>,
    made: u64,
    random: Generator,
    /// Requests in a second at each pod.
    pub rate: f64,
    /// By how much every model has become worse.
    pub decay: f64,
    /// Whether inputs are looked at, and whether they are of the shifted kind.
    pub sees_inputs: bool,
    pub shifted: bool,
}

struct Pod {
    name: String,
    address: String,
    ready: bool,
    started: i64,
    counted: u64,
    routes: BTreeMap<String, Route>,
    buckets: BTreeMap<(i64, i64, String, String), Bucket>,
}

/// The routing of a release as one pod has it.
#[derive(Clone)]
pub struct Route {
    kind: Kind,
    key: Key,
    served: ServedEpoch,
    epoch: i64,
    pub stable: String,
    pub candidate: String,
    pub weight: i64,
}

impl Gateways {
    pub fn new(seed: u64) -> Self {
        Self {
            pods: BTreeMap::new(),
            made: 0,
            random: Generator::new(seed ^ 0x6a7e),
            rate: 4.0,
            decay: 0.0,
            sees_inputs: false,
            shifted: false,
        }
    }

    /// How ready pods route a release.
    pub fn routes<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Route> {
        self.pods
            .values()
            .filter(|p| p.ready)
            .filter_map(move |p| p.routes.get(uid))
    }

    /// Addresses of ready pods.
    pub fn ready(&self) -> impl Iterator<Item = &str> {
        self.pods
            .values()
            .filter(|p| p.ready)
            .map(|p| p.address.as_str())
    }

    pub fn names(&self) -> Vec<String> {
        self.pods.values().map(|p| p.name.clone()).collect()
    }
}

/// Makes and removes pods as the gateway's Deployment says.
pub fn sync(world: &mut World) {
    let deployment = world
        .api
        .get(Kind::Deployment, &Key::new(NAMESPACE, NAME))
        .cloned();
    let want = deployment.as_ref().map_or(0, |d| {
        usize::try_from(number(d, "/spec/replicas")).unwrap_or(0)
    });
    let gone: Vec<(String, String)> = world
        .gateways
        .pods
        .iter()
        .map(|(u, p)| (u.clone(), p.name.clone()))
        .collect();
    for (uid, name) in &gone {
        if world
            .api
            .get(Kind::Pod, &Key::new(NAMESPACE, name.clone()))
            .is_some()
        {
            continue;
        }
        world.say(|| format!("gateway  {name} is gone"));
        world.gateways.pods.remove(uid);
    }
    while world.gateways.pods.len() > want {
        let Some((_, pod)) = world.gateways.pods.pop_last() else {
            break;
        };
        world.with_api(|api| {
            api.delete(Who::Cluster, Kind::Pod, &Key::new(NAMESPACE, pod.name), "")
        });
    }
    let Some(deployment) = deployment else { return };
    while world.gateways.pods.len() < want {
        world.gateways.made += 1;
        let name = format!("{NAME}-{}", world.gateways.made);
        let address = format!("10.1.0.{}", world.gateways.made % 250 + 1);
        let pod = json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": deployment["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME, "uid": deployment["metadata"]["uid"], "controller": true}]},
            "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "False"}]},
        });
        let (_, made) = world.with_api(|api| api.create(Who::Cluster, Kind::Pod, pod));
        let uid = text(&made, "/metadata/uid").to_owned();
        let started = world.now().as_second().div_euclid(60);
        let counted = world.ms();
        let pod = Pod {
            name,
            address,
            ready: false,
            started,
            counted,
            routes: BTreeMap::new(),
            buckets: BTreeMap::new(),
        };
        world.gateways.pods.insert(uid.clone(), pod);
        let wait = 1_000 + world.random.below(2_000) as u64;
        world.after(wait, Event::GatewayPod(uid));
    }
}

/// A pod has read everything and is ready.
pub fn ready(world: &mut World, uid: &str) {
    let Some(name) = world.gateways.pods.get(uid).map(|p| p.name.clone()) else {
        return;
    };
    for kind in [Kind::ModelDeployment, Kind::PromptRelease] {
        let keys: Vec<Key> = world.api.all(kind).map(|(key, _)| key.clone()).collect();
        for key in keys {
            learn(world, uid, kind, &key);
        }
    }
    if let Some(pod) = world.gateways.pods.get_mut(uid) {
        pod.ready = true;
    }
    world.with_api(|api| {
        api.edit(Who::Cluster, Kind::Pod, &Key::new(NAMESPACE, name), |pod| {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        })
    });
}

/// Somebody's node is drained.
pub fn replace_one(world: &mut World) {
    let names = world.gateways.names();
    if let Some(name) = names.get(world.faults.below(names.len())).cloned() {
        world.with_api(|api| api.delete(Who::Cluster, Kind::Pod, &Key::new(NAMESPACE, name), ""));
        world.after(500, Event::Server(Key::new(NAMESPACE, NAME)));
    }
}

/// Every pod will read this release.
pub fn tell(world: &mut World, kind: Kind, key: &Key) {
    let pods: Vec<String> = world.gateways.pods.keys().cloned().collect();
    for pod in pods {
        let late = world.strikes(Fault::GatewayLate);
        let wait = 5
            + world.random.below(150) as u64
            + if late {
                world.faults.below(30_000) as u64
            } else {
                0
            };
        world.after(wait, Event::Learn(pod, kind, key.clone()));
    }
}

/// A pod reads a release.
pub fn learn(world: &mut World, pod: &str, kind: Kind, key: &Key) {
    count(world, pod);
    let object = world.api.get(kind, key).cloned();
    let fresh = object.map(|object| {
        (
            text(&object, "/metadata/uid").to_owned(),
            route(world, kind, key, &object),
        )
    });
    let Some(pod) = world.gateways.pods.get_mut(pod) else {
        return;
    };
    pod.routes.retain(|uid, route| {
        route.kind != kind || route.key != *key || fresh.as_ref().is_some_and(|(f, _)| f == uid)
    });
    let Some((uid, Some(mut route))) = fresh else {
        return;
    };
    let before = pod.routes.get(&uid);
    route.served = match (route.served.waiting.take(), before) {
        (Some(_), Some(old)) if old.served.epoch == route.epoch => old.served.clone(),
        (Some(why), old) => ServedEpoch {
            epoch: old.map_or(0, |old| old.served.epoch.min(route.epoch - 1)),
            waiting: Some(why),
            ..ServedEpoch::default()
        },
        (None, _) => ServedEpoch {
            epoch: route.epoch,
            ..ServedEpoch::default()
        },
    };
    pod.routes.insert(uid, route);
}

fn route(world: &World, kind: Kind, key: &Key, object: &Value) -> Option<Route> {
    let status = object.get("status")?;
    let rollout = status.get("rollout")?;
    let mut route = Route {
        kind,
        key: key.clone(),
        served: ServedEpoch::default(),
        epoch: number(rollout, "/epoch"),
        stable: text(status, "/stable/revision").to_owned(),
        candidate: text(status, "/candidate/revision").to_owned(),
        weight: number(rollout, "/weight"),
    };
    if kind == Kind::ModelDeployment {
        let deployment = |hash: &str| {
            world.api.get(
                Kind::Deployment,
                &Key::new(NAMESPACE, format!("{}-{hash}", key.name)),
            )
        };
        if route.weight < 100 && !route.stable.is_empty() && deployment(&route.stable).is_none() {
            route.served.waiting = Some("no EndpointSlice of stable was seen yet".into());
        }
        if route.weight > 0 && available(&world.api, &key.name, &route.candidate) < 1 {
            route.served.waiting = Some("no ready endpoint of the candidate was seen yet".into());
        }
    }
    Some(route)
}

/// Callers come and are counted, since the last time.
fn count(world: &mut World, pod: &str) {
    let (now, minute) = (world.ms(), world.now().as_second().div_euclid(60));
    let Some(mut known) = world.gateways.pods.remove(pod) else {
        return;
    };
    let passed = (now - known.counted) as f64 / 1000.0;
    known.counted = now;
    let requests =
        ((passed * world.gateways.rate + world.gateways.random.unit()) as usize).min(MOST);
    for (uid, route) in known
        .routes
        .iter()
        .filter(|(_, r)| known.ready && !r.stable.is_empty())
    {
        let [stable, candidate] = [&route.stable, &route.candidate]
            .map(|hash| nature_of_revision(world, &route.key.name, hash));
        // A candidate without pods falls back to stable; stable without pods answers nobody, which is not counted here.
        let up = route.kind != Kind::ModelDeployment
            || available(&world.api, &route.key.name, &route.candidate) > 0;
        for _ in 0..requests {
            let caller = world.gateways.random.below(CALLERS);
            // Where a caller stands is the same for every weight.
            let place = caller * 37 % CALLERS * 100 / CALLERS;
            let tried = (place as i64) < route.weight && !route.candidate.is_empty() && up;
            let (hash, nature) = if tried {
                (&route.candidate, candidate)
            } else {
                (&route.stable, stable)
            };
            let failed = world.gateways.random.unit() < nature.errors;
            let place = (minute, route.epoch, uid.clone(), hash.clone());
            let bucket = known.buckets.entry(place).or_insert_with(|| Bucket {
                release: uid.clone(),
                revision: hash.clone(),
                epoch: route.epoch,
                weight: i32::try_from(route.weight).unwrap_or(0),
                minute,
                ..Bucket::default()
            });
            if world.gateways.sees_inputs {
                let n = world.gateways.random.below(10_000);
                inputs::add(&mut bucket.features, n, world.gateways.shifted);
            }
            let traffic = &mut bucket.traffic;
            traffic.requests += 1;
            traffic.errors += u64::from(failed);
            traffic.callers.add(CALLER_NAMES[caller], failed);
            let micros = 20_000 + 1_000 * (world.gateways.random.below(8) as u64);
            traffic.latency.add(micros);
            traffic.first_byte.add(micros / 2);
        }
    }
    known.buckets.retain(|(m, ..), _| *m + 10 > minute);
    world.gateways.pods.insert(pod.to_owned(), known);
}

/// Names without making one each time.
static CALLER_NAMES: std::sync::LazyLock<Vec<&'static str>> = std::sync::LazyLock::new(|| {
    (0..CALLERS)
        .map(|n| &*Box::leak(format!("caller-{n}").into_boxed_str()))
        .collect()
});

/// What the operator asks gateways through.
pub struct Asked(pub Sim);

impl Source for Asked {
    fn ask<'a>(
        &'a self,
        pod: &'a GatewayPod,
        measure: bool,
        since: i64,
    ) -> BoxFuture<'a, Option<Answer>> {
        async move {
            let mut world = self.0.lock();
            let unreachable = world.strikes(Fault::GatewayUnreachable);
            let minute = world.now().as_second().div_euclid(60);
            if measure {
                count(&mut world, &pod.uid);
            }
            let known =
                world.gateways.pods.get(&pod.uid).filter(|p| {
                    !unreachable && pod.ip.is_some_and(|ip| ip.to_string() == p.address)
                });
            let Some(known) = known else {
                return Some(Answer {
                    pod: pod.uid.clone(),
                    epochs: Err(format!("gateway pod {} can't be read", pod.name)),
                    buckets: None,
                });
            };
            let releases = known
                .routes
                .iter()
                .map(|(uid, route)| (uid.clone(), route.served.clone()))
                .collect();
            let buckets = measure.then(|| Buckets {
                process: pod.uid.clone(),
                started: known.started,
                minute,
                buckets: known
                    .buckets
                    .values()
                    .filter(|b| b.minute >= since)
                    .cloned()
                    .collect(),
                ..Buckets::default()
            });
            Some(Answer {
                pod: pod.uid.clone(),
                epochs: Ok(Epochs {
                    process: pod.uid.clone(),
                    releases,
                }),
                buckets,
            })
        }
        .boxed()
    }
}

/// For the operator process of this life.
pub fn source(sim: &Sim) -> Arc<dyn Source> {
    Arc::new(Asked(sim.clone()))
}
