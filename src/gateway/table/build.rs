//! From objects to the table.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock, atomic::AtomicUsize},
};

use http::HeaderValue;

use super::{Backend, Endpoint, Endpoints, Release, Revision, Table};
use crate::{
    gateway::{
        breaker::Breaker,
        objects::{Kind, ModelRevisionObject, Objects, ReleaseObject, RevisionObject, Side},
        policy::Policy,
        prompt::template::CompiledPrompt,
    },
    stats::bucket::ServedEpoch,
};

impl Table {
    /// Builds the table from what is known of the cluster. What has not changed since `before` is taken over, with its counters.
    /// Releases whose port is in `closed` aren't served by it yet.
    pub fn build(objects: &Objects, before: &Table, closed: &BTreeSet<u16>) -> Self {
        let mut table = Table::default();
        let mut endpoints: BTreeMap<&str, Seen> = BTreeMap::new();
        for slice in objects.slices.values() {
            let all = endpoints.entry(&slice.service).or_default();
            all.ready
                .extend(slice.ready.iter().map(|ip| (*ip, slice.port)));
            all.sick
                .extend(slice.sick.iter().map(|ip| (*ip, slice.port)));
        }
        for (key, object) in &objects.revisions {
            let (_, release, hash) = key;
            let known = endpoints.get(format!("{release}-{hash}").as_str());
            let old = before.revisions.get(key);
            let revision = build_revision(hash, object, known, old);
            table.revisions.insert(key.clone(), revision);
        }
        // Of two releases that claim one port, that with the smaller UID has it, as the planner decides.
        let mut owners: HashMap<u16, &str> = HashMap::new();
        for release in objects.releases.values() {
            if let Some(port) = release.port {
                let owner = owners.entry(port).or_insert(&release.uid);
                if release.uid.as_str() < *owner {
                    *owner = &release.uid;
                }
            }
        }
        for ((kind, name), object) in &objects.releases {
            let port = object
                .port
                .filter(|port| owners.get(port) == Some(&object.uid.as_str()));
            let release = Arc::new(build_release(
                *kind, name, object, port, &table, before, closed,
            ));
            if let Some(port) = port {
                table.ports.insert(port, release.clone());
            }
            if *kind == Kind::Model
                && let Some(model) = release.model()
            {
                let entry = table.models.entry(model.to_owned());
                entry
                    .and_modify(|several| *several = None)
                    .or_insert_with(|| Some(release.clone()));
            }
            table.releases.insert((*kind, name.clone()), release);
        }
        table
    }
}

fn build_release(
    kind: Kind,
    name: &str,
    object: &ReleaseObject,
    port: Option<u16>,
    table: &Table,
    before: &Table,
    closed: &BTreeSet<u16>,
) -> Release {
    let side = |side: &Option<Side>| {
        let side = side.as_ref()?;
        let known = table.revision(kind, name, &side.revision).cloned();
        Some(known.unwrap_or_else(|| {
            let why = format!(
                "revision {} of {name} isn't known here: its ControllerRevision {name}-{} is missing or can't be understood",
                side.revision, side.revision
            );
            Arc::new(nothing(&side.revision, side.version.clone(), why))
        }))
    };
    let mut release = Release {
        kind,
        name: name.to_owned(),
        uid: object.uid.as_str().into(),
        port,
        weight: object.weight,
        mirror: object.mirror,
        epoch: object.epoch,
        served: ServedEpoch::default(),
        stable: side(&object.stable),
        candidate: side(&object.candidate),
        policy: Policy::of(&object.traffic),
        breakers: HashMap::new(),
        labels: object.labels,
        log: object.log.clone().map(Arc::new),
        turns: Arc::default(),
        meters: OnceLock::new(),
    };
    let earlier = before
        .releases
        .get(&(kind, name.to_owned()))
        .filter(|old| old.uid == release.uid);
    release.breakers = breakers(&release, earlier);
    // Any stretch of turns is even, so they go on through changes of the weight.
    release.turns = earlier.map_or_else(Arc::default, |old| old.turns.clone());
    let waiting = waiting(&release, object, closed);
    release.served = match (waiting, earlier) {
        // Once served, an epoch stays served: pods that come and go are the Deployment's health, not the routing's.
        (Some(_), Some(old)) if old.served.epoch == object.epoch => old.served.clone(),
        (Some(why), old) => ServedEpoch {
            epoch: old.map_or(0, |old| old.served.epoch.min(object.epoch - 1)),
            waiting: Some(why),
            ..ServedEpoch::default()
        },
        (None, _) => ServedEpoch {
            epoch: object.epoch,
            ..ServedEpoch::default()
        },
    };
    release
}

/// The limits of both sides; those that stay as they were go on with what is open.
fn breakers(release: &Release, earlier: Option<&Arc<Release>>) -> HashMap<Arc<str>, Arc<Breaker>> {
    let Some(limit) = release.policy.concurrency else {
        return HashMap::new();
    };
    let sides = release.stable.iter().chain(&release.candidate);
    sides
        .map(|side| {
            let known = earlier
                .and_then(|old| old.breakers.get(&side.hash))
                .filter(|b| (b.concurrent, b.pending) == limit);
            let breaker = known
                .cloned()
                .unwrap_or_else(|| Arc::new(Breaker::new(limit)));
            (side.hash.clone(), breaker)
        })
        .collect()
}

/// Why a release's epoch can't be called served yet: somebody's traffic would have nowhere to go.
fn waiting(release: &Release, object: &ReleaseObject, closed: &BTreeSet<u16>) -> Option<String> {
    if let Some(port) = release.port.filter(|port| closed.contains(port)) {
        return Some(format!(
            "port {port} of {} could not be opened yet",
            release.name
        ));
    }
    if object.port.is_some() && release.port.is_none() {
        return Some(format!(
            "port {} of {} is another release's",
            object.port.unwrap_or_default(),
            release.name
        ));
    }
    if let Some(stable) = release.stable.as_ref().filter(|_| release.weight < 100) {
        match &stable.backend {
            Backend::Nothing(why) => return Some(why.clone()),
            Backend::Model { known: false, .. } => {
                return Some(format!(
                    "no EndpointSlice of {}-{} was seen yet",
                    release.name, stable.hash
                ));
            }
            _ => {}
        }
    }
    let candidate = release.candidate.as_ref().filter(|_| release.weight > 0)?;
    match &candidate.backend {
        Backend::Nothing(why) => Some(why.clone()),
        Backend::Model { endpoints, .. } if endpoints.is_empty() => Some(format!(
            "no ready endpoint of {}-{} was seen yet",
            release.name, candidate.hash
        )),
        _ => None,
    }
}

fn build_revision(
    hash: &str,
    object: &RevisionObject,
    endpoints: Option<&Seen>,
    before: Option<&Arc<Revision>>,
) -> Arc<Revision> {
    let same = before.filter(|old| old.source.as_ref() == Some(object));
    match object {
        RevisionObject::Prompt(prompt) => {
            if let Some(same) = same {
                return same.clone();
            }
            let mut revision = match CompiledPrompt::new(prompt) {
                Ok(compiled) => Revision {
                    backend: Backend::Prompt(Arc::new(compiled)),
                    ..nothing(hash, Some(prompt.version.clone()), String::new())
                },
                Err(why) => nothing(hash, Some(prompt.version.clone()), why),
            };
            revision.source = Some(object.clone());
            Arc::new(revision)
        }
        RevisionObject::Model(model) => {
            let ready = addresses(model, endpoints.map(|e| &e.ready));
            let sick = ready.is_empty();
            let addresses = if sick {
                addresses(model, endpoints.map(|e| &e.sick))
            } else {
                ready
            };
            let known = endpoints.is_some();
            if let Some(same) = same
                && same
                    .endpoints()
                    .iter()
                    .map(|e| e.address)
                    .eq(addresses.iter().copied())
                && matches!(&same.backend, Backend::Model { known: k, endpoints: e, .. } if *k == known && e.sick == sick)
            {
                return same.clone();
            }
            let old = |address: &SocketAddr| {
                let list = before.map_or(&[] as &[_], |b| b.endpoints());
                list.iter().find(|e| e.address == *address).cloned()
            };
            let list = addresses
                .into_iter()
                .map(|address| old(&address).unwrap_or_else(|| Arc::new(Endpoint::new(address))))
                .collect();
            Arc::new(Revision {
                backend: Backend::Model {
                    protocol: model.protocol,
                    grpc_port: model.grpc_port,
                    tls: model.tls.clone(),
                    signature: model.signature.clone().map(Arc::new),
                    model: model.model.clone(),
                    endpoints: Endpoints {
                        list,
                        next: AtomicUsize::new(0),
                        sick,
                    },
                    known,
                },
                source: Some(object.clone()),
                ..nothing(hash, model.version.clone(), String::new())
            })
        }
    }
}

/// What the slices of a Service say: addresses and ports.
#[derive(Default)]
struct Seen {
    ready: Vec<(IpAddr, Option<u16>)>,
    sick: Vec<(IpAddr, Option<u16>)>,
}

fn addresses(
    model: &ModelRevisionObject,
    endpoints: Option<&Vec<(IpAddr, Option<u16>)>>,
) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = endpoints
        .into_iter()
        .flatten()
        .map(|(ip, port)| SocketAddr::new(*ip, port.unwrap_or(model.port)))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn nothing(hash: &str, version: Option<String>, why: String) -> Revision {
    let value = |text: &str| HeaderValue::from_str(text);
    Revision {
        hash: hash.into(),
        headers: (
            value(hash).unwrap_or(HeaderValue::from_static("unknown")),
            version.as_deref().and_then(|v| value(v).ok()),
        ),
        version,
        backend: Backend::Nothing(why),
        meters: OnceLock::new(),
        source: None,
    }
}
