//! What is known of one kind: objects by key, by namespace, by controller and by our labels. Only its watch writes to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;

use super::{
    cache::Kind,
    kind::{Change, Key, controller_of},
};

/// Labels that are indexed begin with this.
const INDEXED: &str = "perennial.dev/";

/// A watch that fails says so more often than this.
const PROBLEM: Duration = Duration::from_secs(10);

/// Objects of one kind; clones share them.
pub struct Store<K> {
    kind: Kind,
    inner: Arc<RwLock<Inner<K>>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            inner: self.inner.clone(),
        }
    }
}

struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    invalid: BTreeMap<Key, String>,
    owned: HashMap<String, BTreeSet<Key>>,
    labelled: HashMap<(String, String, String), BTreeSet<Key>>,
    scopes: BTreeMap<String, Scope>,
}

/// One watch: of the cluster (empty name) or of a namespace.
#[derive(Default)]
struct Scope {
    ready: bool,
    /// We may not list it: it was not given to us, or is gone.
    refused: bool,
    /// The cluster doesn't know the kind.
    absent: bool,
    seen: u64,
    listing: Option<Listing>,
    /// What went wrong last, and when.
    problem: Option<(String, Instant)>,
}

#[derive(Default)]
struct Listing {
    keys: BTreeSet<Key>,
}

/// What a watch puts into a store.
pub enum Entry<K> {
    /// An object.
    Valid(Box<K>),
    /// An object of the right kind that doesn't decode: its metadata, and why.
    Invalid(Box<ObjectMeta>, String),
}

impl<K: Resource> Entry<K> {
    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Valid(object) => object.meta(),
            Self::Invalid(meta, _) => meta,
        }
    }
}

impl<K: Resource<DynamicType = ()>> Store<K> {
    /// An empty store whose watches are these scopes (namespaces, or the empty name for the whole cluster).
    pub fn new(kind: Kind, scopes: &[String]) -> Self {
        Self {
            kind,
            inner: Arc::new(RwLock::new(Inner {
                objects: BTreeMap::new(),
                invalid: BTreeMap::new(),
                owned: HashMap::new(),
                labelled: HashMap::new(),
                scopes: scopes
                    .iter()
                    .map(|s| (s.clone(), Scope::default()))
                    .collect(),
            })),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of this key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// Every object of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read()
            .objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Every object whose controller reference has this uid, by name.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner
            .owned
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|key| inner.objects.get(key).cloned())
            .collect()
    }

    /// Every object of a namespace with this value of a `perennial.dev/…` label, by name. Other labels aren't indexed and find nothing.
    pub fn labelled(&self, namespace: &str, label: &str, value: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        inner
            .labelled
            .get(&(namespace.to_owned(), label.to_owned(), value.to_owned()))
            .into_iter()
            .flatten()
            .filter_map(|key| inner.objects.get(key).cloned())
            .collect()
    }

    /// Every object.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Every key.
    pub fn keys(&self) -> Vec<Key> {
        self.read().objects.keys().cloned().collect()
    }

    /// Why the object of this key doesn't decode, if that is so. Such an object is there, but can't be planned for.
    pub fn invalid(&self, key: &Key) -> Option<String> {
        self.read().invalid.get(key).cloned()
    }

    /// Objects of a namespace that are there and don't decode.
    pub fn invalid_in(&self, namespace: &str) -> usize {
        let inner = self.read();
        inner
            .invalid
            .keys()
            .filter(|key| key.namespace == namespace)
            .count()
    }

    /// A listing begins: what is there stays until it is complete.
    pub fn begin(&self, scope: &str) {
        self.write()
            .scopes
            .entry(scope.to_owned())
            .or_default()
            .listing = Some(Listing::default());
    }

    /// An object was made, changed or listed. Tells what changed: nothing when this resourceVersion is known already.
    pub fn put(&self, scope: &str, entry: Entry<K>) -> Vec<Change> {
        let mut inner = self.write();
        let meta = entry.meta().clone();
        let key = Key::of(&meta);
        let version = version_of(&meta);
        let state = inner.scopes.entry(scope.to_owned()).or_default();
        state.seen = state.seen.max(version);
        if let Some(listing) = &mut state.listing {
            listing.keys.insert(key.clone());
        }
        let mut changes = Vec::new();
        let old = inner.objects.get(&key).map(|o| o.meta().clone());
        if let Some(old) = old {
            if old.uid == meta.uid && old.resource_version == meta.resource_version {
                return changes;
            }
            if old.labels != meta.labels || controller_of(&old) != controller_of(&meta) {
                changes.push(Change::new(self.kind, &old, false));
            }
            if old.uid != meta.uid {
                changes.push(Change::new(self.kind, &old, true));
            }
            inner.unindex(&key, &old);
        }
        changes.push(Change::new(self.kind, &meta, false));
        match entry {
            Entry::Valid(object) => {
                inner.index(&key, &meta);
                inner.invalid.remove(&key);
                inner.objects.insert(key, Arc::new(*object));
            }
            Entry::Invalid(_, why) => {
                inner.objects.remove(&key);
                inner.invalid.insert(key, why);
            }
        }
        changes
    }

    /// An object is gone.
    pub fn remove(&self, scope: &str, meta: &ObjectMeta) -> Vec<Change> {
        let mut inner = self.write();
        let state = inner.scopes.entry(scope.to_owned()).or_default();
        state.seen = state.seen.max(version_of(meta));
        inner.take(self.kind, &Key::of(meta)).into_iter().collect()
    }

    /// A listing is complete: what it didn't have is gone.
    pub fn complete(&self, scope: &str) -> Vec<Change> {
        let mut inner = self.write();
        let state = inner.scopes.entry(scope.to_owned()).or_default();
        state.ready = true;
        state.refused = false;
        state.absent = false;
        state.problem = None;
        let Some(listing) = state.listing.take() else {
            return Vec::new();
        };
        let gone: Vec<Key> = inner
            .objects
            .keys()
            .chain(inner.invalid.keys())
            .filter(|key| scope.is_empty() || key.namespace == scope)
            .filter(|key| !listing.keys.contains(*key))
            .cloned()
            .collect();
        gone.iter()
            .filter_map(|key| inner.take(self.kind, key))
            .collect()
    }

    /// The watch failed. A watch that works again says nothing until something changes, so a problem counts as gone when it isn't said
    /// again for a while.
    pub fn set_problem(&self, scope: &str, problem: String) {
        self.write()
            .scopes
            .entry(scope.to_owned())
            .or_default()
            .problem = Some((problem, Instant::now()));
    }

    /// The cluster doesn't know the kind.
    pub fn set_absent(&self, scope: &str) {
        self.write()
            .scopes
            .entry(scope.to_owned())
            .or_default()
            .absent = true;
    }

    /// Whether the cluster doesn't know the kind, as far as the watch of this namespace has seen.
    pub fn is_absent_in(&self, namespace: &str) -> bool {
        self.read().scope(namespace).is_some_and(|s| s.absent)
    }

    /// The API server won't let us list this scope.
    pub fn set_refused(&self, scope: &str) {
        self.write()
            .scopes
            .entry(scope.to_owned())
            .or_default()
            .refused = true;
    }
}

impl<K: Resource<DynamicType = ()>> Inner<K> {
    fn index(&mut self, key: &Key, meta: &ObjectMeta) {
        if let Some(owner) = controller_of(meta) {
            self.owned.entry(owner.uid).or_default().insert(key.clone());
        }
        for (label, value) in meta.labels.iter().flatten() {
            if label.starts_with(INDEXED) {
                self.labelled
                    .entry((key.namespace.clone(), label.clone(), value.clone()))
                    .or_default()
                    .insert(key.clone());
            }
        }
    }

    fn unindex(&mut self, key: &Key, meta: &ObjectMeta) {
        if let Some(owner) = controller_of(meta) {
            forget(&mut self.owned, &owner.uid, key);
        }
        for (label, value) in meta.labels.iter().flatten() {
            if label.starts_with(INDEXED) {
                let place = (key.namespace.clone(), label.clone(), value.clone());
                forget(&mut self.labelled, &place, key);
            }
        }
    }

    /// The watch that a namespace's objects come from.
    fn scope(&self, namespace: &str) -> Option<&Scope> {
        self.scopes.get(namespace).or_else(|| self.scopes.get(""))
    }

    fn take(&mut self, kind: Kind, key: &Key) -> Option<Change> {
        self.invalid.remove(key);
        let object = self.objects.remove(key)?;
        self.unindex(key, object.meta());
        Some(Change::new(kind, object.meta(), true))
    }
}

fn forget<P: std::hash::Hash + Eq>(index: &mut HashMap<P, BTreeSet<Key>>, place: &P, key: &Key) {
    if let Some(keys) = index.get_mut(place) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(place);
        }
    }
}

/// The resourceVersion as a number: since Kubernetes 1.35 they may be compared, and etcd's always could be.
pub fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// A store without its type, for code that handles any kind.
pub trait AnyStore: Send + Sync {
    /// What kind it holds.
    fn kind(&self) -> Kind;
    /// Whether every watch has listed once.
    fn ready(&self) -> bool;
    /// Whether the watch of this namespace (empty: of the cluster) has listed once.
    fn ready_in(&self, namespace: &str) -> bool;
    /// Whether the API server won't let us list this namespace (empty: the cluster).
    fn refused_in(&self, namespace: &str) -> bool;
    /// What keeps it from being filled.
    fn problem(&self) -> Option<String>;
    /// The newest resourceVersion that the watch of this namespace has brought.
    fn seen(&self, namespace: &str) -> u64;
    /// The object as JSON.
    fn json(&self, key: &Key) -> Option<Value>;
    /// The object's resourceVersion.
    fn version(&self, key: &Key) -> Option<String>;
    /// The object's metadata.
    fn meta(&self, key: &Key) -> Option<ObjectMeta>;
    /// Number of objects.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> AnyStore for Store<K>
where
    K: Resource<DynamicType = ()> + Serialize + Send + Sync,
{
    fn kind(&self) -> Kind {
        self.kind
    }

    fn ready(&self) -> bool {
        self.read().scopes.values().all(|s| s.ready)
    }

    fn ready_in(&self, namespace: &str) -> bool {
        self.read().scope(namespace).is_some_and(|s| s.ready)
    }

    fn refused_in(&self, namespace: &str) -> bool {
        self.read().scope(namespace).is_some_and(|s| s.refused)
    }

    fn problem(&self) -> Option<String> {
        let inner = self.read();
        inner
            .scopes
            .values()
            .filter_map(|s| s.problem.as_ref())
            .find(|(_, since)| since.elapsed() < PROBLEM)
            .map(|(problem, _)| problem.clone())
    }

    fn seen(&self, namespace: &str) -> u64 {
        self.read().scope(namespace).map_or(0, |s| s.seen)
    }

    fn json(&self, key: &Key) -> Option<Value> {
        let object = self.get(key)?;
        let mut value = serde_json::to_value(&*object).ok()?;
        value["apiVersion"] = K::api_version(&()).into();
        value["kind"] = K::kind(&()).into();
        Some(value)
    }

    fn version(&self, key: &Key) -> Option<String> {
        let inner = self.read();
        let meta = inner.objects.get(key)?.meta();
        meta.resource_version.clone()
    }

    fn meta(&self, key: &Key) -> Option<ObjectMeta> {
        self.read().objects.get(key).map(|o| o.meta().clone())
    }

    fn len(&self) -> usize {
        self.read().objects.len()
    }
}

#[cfg(test)]
mod tests;
