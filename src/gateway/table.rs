//! The routing table: built purely from objects, swapped as a whole, read without locks on the request path.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::HeaderValue;

use super::{
    objects::{Kind, ModelRevisionObject, Objects, ReleaseObject, RevisionObject, Side},
    prompt::template::CompiledPrompt,
    telemetry::Meters,
};
use crate::{
    api::{model_deployment::Protocol, revision::Signature},
    stats::bucket::{Epochs, ServedEpoch},
};

/// What is served, and to whom.
#[derive(Default)]
pub struct Table {
    releases: BTreeMap<(Kind, String), Arc<Release>>,
    ports: HashMap<u16, Arc<Release>>,
    models: HashMap<String, Option<Arc<Release>>>,
    revisions: HashMap<(Kind, String, String), Arc<Revision>>,
}

/// A release as it is routed now.
pub struct Release {
    /// Which kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: Arc<str>,
    /// Its own port.
    pub port: Option<u16>,
    /// Percentage of callers that go to the candidate.
    pub weight: i32,
    /// Epoch of this routing.
    pub epoch: i64,
    /// What the gateway reports about it.
    pub served: ServedEpoch,
    /// The revision that serves.
    pub stable: Option<Arc<Revision>>,
    /// The revision that is tried.
    pub candidate: Option<Arc<Revision>>,
    /// Handles of its metrics, made on first use.
    pub meters: OnceLock<Meters>,
}

/// A revision that can be called.
pub struct Revision {
    /// Its hash.
    pub hash: Arc<str>,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Hash and version as headers of answers.
    pub headers: (HeaderValue, Option<HeaderValue>),
    /// What answers.
    pub backend: Backend,
    source: Option<RevisionObject>,
}

/// What answers for a revision.
pub enum Backend {
    /// Pods.
    Model {
        /// What they speak.
        protocol: Protocol,
        /// What the model takes, where it is known.
        signature: Option<Arc<Signature>>,
        /// Name of the model.
        model: Option<String>,
        /// The pods that are ready.
        endpoints: Endpoints,
        /// Whether any slice of its Service was seen.
        known: bool,
    },
    /// An LLM behind a prompt.
    Prompt(Arc<CompiledPrompt>),
    /// Nothing: why, as a sentence.
    Nothing(String),
}

/// Ready endpoints with the requests that are open to each.
#[derive(Default)]
pub struct Endpoints {
    list: Vec<Arc<Endpoint>>,
    next: AtomicUsize,
    /// None is ready: these are those that aren't, which is better than answering nobody.
    sick: bool,
}

/// A ready pod of a revision.
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests that are open to it.
    pub open: AtomicUsize,
}

impl Endpoints {
    /// An endpoint: of two that follow each other in turn, the one with fewer open requests; never `but`, unless there is no other.
    pub fn pick(&self, but: Option<SocketAddr>) -> Option<Arc<Endpoint>> {
        let n = self.list.len();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let usable = |i: usize| {
            let endpoint = &self.list[i % n];
            (Some(endpoint.address) != but).then_some(endpoint)
        };
        match n {
            0 => None,
            1 => Some(self.list[0].clone()),
            _ => {
                let (a, b) = (usable(turn), usable(turn.wrapping_add(1)));
                let open = |e: &Arc<Endpoint>| e.open.load(Ordering::Relaxed);
                match (a, b) {
                    (Some(a), Some(b)) if open(b) < open(a) => Some(b.clone()),
                    (Some(one), _) | (None, Some(one)) => Some(one.clone()),
                    (None, None) => self.list.first().cloned(),
                }
            }
        }
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.sick || self.list.is_empty()
    }
}

impl Revision {
    /// Whether it could answer now, as far as the gateway can know.
    pub fn is_available(&self) -> bool {
        match &self.backend {
            Backend::Model { endpoints, .. } => !endpoints.is_empty(),
            Backend::Prompt(_) => true,
            Backend::Nothing(_) => false,
        }
    }

    /// Whether a caller that sent this back means this revision: its version, or its hash.
    pub fn is_version(&self, text: &str) -> bool {
        *self.hash == *text || self.version.as_deref() == Some(text)
    }

    fn endpoints(&self) -> &[Arc<Endpoint>] {
        match &self.backend {
            Backend::Model { endpoints, .. } => &endpoints.list,
            _ => &[],
        }
    }
}

impl Release {
    /// The compiled prompts of both sides, for what only they know.
    pub fn prompts(&self) -> impl Iterator<Item = &Arc<CompiledPrompt>> {
        let sides = [
            self.stable.as_ref().filter(|_| self.weight < 100),
            self.candidate.as_ref().filter(|_| self.weight > 0),
        ];
        sides
            .into_iter()
            .flatten()
            .filter_map(|r| match &r.backend {
                Backend::Prompt(prompt) => Some(prompt),
                _ => None,
            })
    }
}

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

    /// The release that has this port.
    pub fn by_port(&self, port: u16) -> Option<&Arc<Release>> {
        self.ports.get(&port)
    }

    /// A release by kind and name.
    pub fn by_name(&self, kind: Kind, name: &str) -> Option<&Arc<Release>> {
        self.releases.get(&(kind, name.to_owned()))
    }

    /// A ModelDeployment by its name, else the only one that serves the model of this name.
    pub fn by_model(&self, name: &str) -> Option<&Arc<Release>> {
        self.by_name(Kind::Model, name)
            .or_else(|| self.models.get(name)?.as_ref())
    }

    /// A revision of a release, whether it has traffic or not.
    pub fn revision(&self, kind: Kind, release: &str, hash: &str) -> Option<&Arc<Revision>> {
        self.revisions
            .get(&(kind, release.to_owned(), hash.to_owned()))
    }

    /// All releases.
    pub fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.releases.values()
    }

    /// The ports to listen on.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// What is served, for the operator.
    pub fn epochs(&self, process: &str) -> Epochs {
        Epochs {
            process: process.to_owned(),
            releases: self
                .releases
                .values()
                .map(|r| (r.uid.to_string(), r.served.clone()))
                .collect(),
        }
    }
}

impl Release {
    fn model(&self) -> Option<&str> {
        match &self.stable.as_ref().or(self.candidate.as_ref())?.backend {
            Backend::Model { model, .. } => model.as_deref(),
            _ => None,
        }
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
        epoch: object.epoch,
        served: ServedEpoch::default(),
        stable: side(&object.stable),
        candidate: side(&object.candidate),
        meters: OnceLock::new(),
    };
    let earlier = before
        .releases
        .get(&(kind, name.to_owned()))
        .filter(|old| old.uid == release.uid);
    let waiting = waiting(&release, object, closed);
    release.served = match (waiting, earlier) {
        // Once served, an epoch stays served: pods that come and go are the Deployment's health, not the routing's.
        (Some(_), Some(old)) if old.served.epoch == object.epoch => old.served.clone(),
        (Some(why), old) => ServedEpoch {
            epoch: old.map_or(0, |old| old.served.epoch.min(object.epoch - 1)),
            waiting: Some(why),
            problem: None,
        },
        (None, _) => ServedEpoch {
            epoch: object.epoch,
            ..ServedEpoch::default()
        },
    };
    release
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
                .map(|address| {
                    old(&address).unwrap_or_else(|| {
                        Arc::new(Endpoint {
                            address,
                            open: AtomicUsize::new(0),
                        })
                    })
                })
                .collect();
            Arc::new(Revision {
                backend: Backend::Model {
                    protocol: model.protocol,
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
    ready: Vec<(std::net::IpAddr, Option<u16>)>,
    sick: Vec<(std::net::IpAddr, Option<u16>)>,
}

fn addresses(
    model: &ModelRevisionObject,
    endpoints: Option<&Vec<(std::net::IpAddr, Option<u16>)>>,
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
        source: None,
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::gateway::{
        objects::Slice,
        route::{self, Why},
    };

    /// A release `m` with stable `aaaaaaaaaa` and candidate `bbbbbbbbbb`, each with one endpoint.
    pub fn objects(weight: i32, epoch: i64) -> Objects {
        let mut objects = Objects::default();
        let side = |hash: &str| {
            Some(Side {
                revision: hash.repeat(10),
                version: Some(format!("v-{hash}")),
            })
        };
        objects.releases.insert(
            (Kind::Model, "m".into()),
            ReleaseObject {
                uid: "9e0f5c5e-0000-4000-8000-000000000001".into(),
                port: Some(20001),
                stable: side("a"),
                candidate: side("b"),
                weight,
                epoch,
            },
        );
        for (hash, port) in [("a", 9001), ("b", 9002)] {
            let hash = hash.repeat(10);
            objects.revisions.insert(
                (Kind::Model, "m".into(), hash.clone()),
                RevisionObject::Model(ModelRevisionObject {
                    port,
                    model: Some("arrival".into()),
                    ..ModelRevisionObject::default()
                }),
            );
            let service = format!("m-{hash}");
            objects.slices.insert(
                format!("{service}-1"),
                Slice {
                    service,
                    sick: Vec::new(),
                    ready: vec![[127, 0, 0, 1].into()],
                    port: None,
                },
            );
        }
        objects
    }

    fn build(objects: &Objects, before: &Table) -> Table {
        Table::build(objects, before, &BTreeSet::new())
    }

    fn release(objects: &Objects) -> Arc<Release> {
        let table = build(objects, &Table::default());
        table.by_port(20001).unwrap().clone()
    }

    fn candidates(weight: i32, callers: usize) -> HashSet<usize> {
        let release = release(&objects(weight, 1));
        (0..callers)
            .filter(|i| {
                let key = format!("caller-{i}");
                route::choose(&release, Some(&key), None, 0).is_some_and(|c| c.candidate)
            })
            .collect()
    }

    #[test]
    fn the_split_is_within_half_a_percent_at_ten_thousand_callers() {
        for weight in [0, 1, 10, 50, 90, 100] {
            let share = candidates(weight, 10_000).len() as f64 / 10_000.0;
            assert!(
                (share - f64::from(weight) / 100.0).abs() <= 0.005,
                "{weight}: {share}"
            );
        }
    }

    #[test]
    fn raising_the_weight_only_moves_callers_from_stable_to_candidate() {
        let mut before = HashSet::new();
        for weight in [0, 1, 5, 10, 25, 50, 75, 100] {
            let now = candidates(weight, 3_000);
            assert!(before.is_subset(&now), "somebody went back at {weight}");
            before = now;
        }
    }

    #[test]
    fn each_candidate_is_tried_on_other_callers() {
        let first: HashSet<usize> = (0..2_000)
            .filter(|i| route::bucket("u", "aaaaaaaaaa", &format!("{i}")) < 0.1)
            .collect();
        let second: HashSet<usize> = (0..2_000)
            .filter(|i| route::bucket("u", "bbbbbbbbbb", &format!("{i}")) < 0.1)
            .collect();
        assert!(first.intersection(&second).count() < first.len() / 2);
        // Bits of SHA-256("uck"), computed apart.
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"uck"));
        let bits = u64::from_str_radix(&digest[..16], 16).unwrap() >> 11;
        assert!(
            (route::bucket("u", "c", "k") - bits as f64 / 9_007_199_254_740_992.0).abs()
                < f64::EPSILON
        );
    }

    #[test]
    fn a_candidate_without_ready_endpoints_gets_nobody_and_its_epoch_is_not_served() {
        let mut objects = objects(100, 7);
        objects.slices.retain(|_, s| s.service.ends_with('a'));
        let release = release(&objects);
        let chosen = route::choose(&release, Some("k"), None, 0).unwrap();
        assert_eq!((chosen.candidate, chosen.why), (false, Why::FellBack));
        assert!(release.served.epoch < 7 && release.served.waiting.is_some());
    }

    #[test]
    fn when_no_pod_is_ready_those_that_are_there_are_asked_rather_than_nobody() {
        let mut objects = objects(0, 7);
        for slice in objects.slices.values_mut() {
            slice.sick = std::mem::take(&mut slice.ready);
        }
        let release = release(&objects);
        let stable = release.stable.as_ref().unwrap();
        assert!(!stable.is_available());
        let Backend::Model { endpoints, .. } = &stable.backend else {
            panic!()
        };
        assert!(endpoints.pick(None).is_some());
    }

    #[test]
    fn an_epoch_that_was_served_stays_served_when_pods_come_and_go() {
        let first = build(&objects(10, 7), &Table::default());
        assert_eq!(first.by_port(20001).unwrap().served.epoch, 7);
        let mut gone = objects(10, 7);
        gone.slices.retain(|_, s| s.service.ends_with('a'));
        let second = build(&gone, &first);
        assert_eq!(second.by_port(20001).unwrap().served.epoch, 7);
        gone.releases.values_mut().for_each(|r| r.epoch = 8);
        let third = build(&gone, &second);
        assert_eq!(third.by_port(20001).unwrap().served.epoch, 7);
        // Back to stable: what the candidate lacks matters no more.
        gone.releases
            .values_mut()
            .for_each(|r| (r.epoch, r.weight) = (9, 0));
        assert_eq!(build(&gone, &third).by_port(20001).unwrap().served.epoch, 9);
    }

    #[test]
    fn a_caller_without_a_key_is_placed_by_chance_and_one_with_a_version_stays() {
        let release = release(&objects(50, 1));
        let side = |random| {
            route::choose(&release, None, None, random)
                .map(|c| (c.candidate, c.why))
                .unwrap()
        };
        assert_eq!(
            (side(0), side(u64::MAX)),
            ((true, Why::Random), (false, Why::Random))
        );
        let pinned = |version| {
            route::choose(&release, Some("k"), Some(version), 0)
                .map(|c| (c.candidate, c.why))
                .unwrap()
        };
        assert_eq!(pinned("aaaaaaaaaa"), (false, Why::Version));
        assert_eq!(pinned("bbbbbbbbbb"), (true, Why::Version));
        assert_eq!(pinned("v0").1, Why::Key);
        let stopped = self::release(&objects(0, 2));
        let chosen = route::choose(&stopped, Some("k"), Some("bbbbbbbbbb"), 0).unwrap();
        assert!(
            !chosen.candidate,
            "weight 0 is nobody, whatever they ask for"
        );
    }

    #[test]
    fn what_did_not_change_is_taken_over_with_its_counters() {
        let objects = objects(10, 1);
        let first = build(&objects, &Table::default());
        let a = first.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
        let second = build(&objects, &first);
        assert!(Arc::ptr_eq(
            a,
            second.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap()
        ));
        let mut more = objects.clone();
        more.slices.insert(
            "x".into(),
            Slice {
                service: "m-aaaaaaaaaa".into(),
                ready: vec![[127, 0, 0, 2].into()],
                sick: Vec::new(),
                port: None,
            },
        );
        let third = build(&more, &second);
        let b = third.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
        assert_eq!(b.endpoints().len(), 2);
        assert!(Arc::ptr_eq(&a.endpoints()[0], &b.endpoints()[0]));
    }

    #[test]
    fn of_two_releases_with_one_port_the_smaller_uid_has_it() {
        let mut objects = objects(0, 1);
        let mut other = objects.releases[&(Kind::Model, "m".to_owned())].clone();
        other.uid = "0".into();
        objects.releases.insert((Kind::Model, "n".into()), other);
        let table = build(&objects, &Table::default());
        assert_eq!(table.by_port(20001).unwrap().name, "n");
        assert!(
            table
                .by_name(Kind::Model, "m")
                .unwrap()
                .served
                .waiting
                .is_some()
        );
    }

    #[test]
    fn a_model_is_found_by_its_name_only_if_one_release_serves_it() {
        let mut objects = objects(0, 1);
        let table = build(&objects, &Table::default());
        assert_eq!(table.by_model("arrival").unwrap().name, "m");
        let mut other = objects.releases[&(Kind::Model, "m".to_owned())].clone();
        (other.uid, other.port) = ("2".into(), Some(20002));
        objects.releases.insert((Kind::Model, "n".into()), other);
        let model = objects.revisions.values().next().unwrap().clone();
        objects
            .revisions
            .insert((Kind::Model, "n".into(), "a".repeat(10)), model);
        let table = build(&objects, &Table::default());
        assert!(table.by_model("arrival").is_none() && table.by_model("n").is_some());
    }

    #[test]
    fn endpoints_take_turns_and_the_busy_one_waits() {
        let mut objects = objects(0, 1);
        objects
            .slices
            .values_mut()
            .for_each(|s| s.ready = (1..4).map(|i| [10, 0, 0, i].into()).collect());
        let table = build(&objects, &Table::default());
        let revision = table.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
        let Backend::Model { endpoints, .. } = &revision.backend else {
            panic!("a model")
        };
        let seen: HashSet<_> = (0..3)
            .map(|_| endpoints.pick(None).unwrap().address)
            .collect();
        assert_eq!(seen.len(), 3);
        endpoints.list[0].open.store(9, Ordering::Relaxed);
        assert!((0..9).all(|_| endpoints.pick(None).unwrap().address != endpoints.list[0].address));
        let failed = endpoints.list[1].address;
        assert!((0..9).all(|_| endpoints.pick(Some(failed)).unwrap().address != failed));
    }
}
