//! An API server in memory: objects with uid, resourceVersion and generation, what may be done to them, and a log for watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use perennial::cluster::{Key, Kind, MANAGED_BY, MANAGED_BY_US};
use serde_json::{Value, json};

use crate::merge;

/// Kinds of which the operator watches all, not only what has its label; of ConfigMaps, the names.
const UNLABELLED: [Kind; 6] = [
    Kind::ConfigMap,
    Kind::TrainingJob,
    Kind::ModelDeployment,
    Kind::Evaluation,
    Kind::PromptRelease,
    Kind::PersistentVolumeClaim,
];
/// Kinds whose spec has a generation.
const GENERATION: [Kind; 8] = [
    Kind::TrainingJob,
    Kind::ModelDeployment,
    Kind::Evaluation,
    Kind::PromptRelease,
    Kind::Deployment,
    Kind::Job,
    Kind::NetworkPolicy,
    Kind::PodDisruptionBudget,
];
/// Kinds with a status that only its subresource writes.
const STATUS: [Kind; 9] = [
    Kind::TrainingJob,
    Kind::ModelDeployment,
    Kind::Evaluation,
    Kind::PromptRelease,
    Kind::Deployment,
    Kind::Job,
    Kind::Pod,
    Kind::PodDisruptionBudget,
    Kind::PersistentVolumeClaim,
];

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The operator under test.
    Operator,
    /// Kubernetes itself: its controllers, kubelets, garbage collector.
    Cluster,
    /// People and what they automate.
    User,
}

/// An object as it is stored.
#[derive(Clone)]
pub struct Object {
    /// All of it.
    pub value: Arc<Value>,
    /// What the operator applied last.
    applied: Option<Arc<Value>>,
}

/// What a watch would bring.
#[derive(Clone)]
pub struct Entry {
    /// The object, as it is now or as it was last.
    pub value: Arc<Value>,
    /// Whether it is gone.
    pub deleted: bool,
}

/// One committed write.
#[derive(Clone)]
pub struct Commit {
    pub who: Who,
    pub kind: Kind,
    pub key: Key,
    /// `create`, `apply`, `status`, `update` or `delete`.
    pub verb: &'static str,
    pub old: Option<Arc<Value>>,
    pub new: Option<Arc<Value>>,
}

/// An answer: HTTP status and body.
pub type Answer = (u16, Arc<Value>);

/// The API server.
pub struct Api {
    objects: BTreeMap<Kind, BTreeMap<Key, Object>>,
    log: BTreeMap<Kind, Vec<Entry>>,
    version: u64,
    uids: u64,
    salt: u64,
    /// Events by name.
    pub events: BTreeSet<String>,
    /// Commits that nobody has looked at yet.
    pub commits: Vec<Commit>,
    /// The server's own clock.
    pub now: Timestamp,
}

/// Path prefix, plural and kind of everything that is served.
fn resources() -> &'static Vec<(String, String, Kind)> {
    static RESOURCES: OnceLock<Vec<(String, String, Kind)>> = OnceLock::new();
    RESOURCES.get_or_init(|| {
        Kind::ALL
            .iter()
            .map(|kind| {
                let resource = kind.resource();
                let prefix = if resource.group.is_empty() {
                    format!("/api/{}", resource.version)
                } else {
                    format!("/apis/{}/{}", resource.group, resource.version)
                };
                (prefix, resource.plural, *kind)
            })
            .collect()
    })
}

/// `apiVersion` of a kind.
pub fn api_version(kind: Kind) -> &'static str {
    static VERSIONS: OnceLock<BTreeMap<Kind, String>> = OnceLock::new();
    VERSIONS.get_or_init(|| {
        Kind::ALL
            .iter()
            .map(|k| (*k, k.resource().api_version))
            .collect()
    })[&kind]
        .as_str()
}

/// A text member; empty if there is none.
pub fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A whole number; 0 if there is none.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The controller reference's kind, name and uid.
pub fn owner(value: &Value) -> Option<(&str, &str, &str)> {
    let references = value.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = references.iter().find(|o| o["controller"] == json!(true))?;
    Some((
        text(owner, "/kind"),
        text(owner, "/name"),
        text(owner, "/uid"),
    ))
}

fn key_of(value: &Value) -> Key {
    Key::new(
        text(value, "/metadata/namespace"),
        text(value, "/metadata/name"),
    )
}

fn failure(code: u16, reason: &str, message: String) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code});
    (code, Arc::new(body))
}

impl Api {
    /// An empty one; uids depend on `salt`.
    pub fn new(now: Timestamp, salt: u64) -> Self {
        Self {
            objects: Kind::ALL.iter().map(|k| (*k, BTreeMap::new())).collect(),
            log: Kind::ALL.iter().map(|k| (*k, Vec::new())).collect(),
            version: 1000,
            uids: 0,
            salt,
            events: BTreeSet::new(),
            commits: Vec::new(),
            now,
        }
    }

    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Value>> {
        self.object(kind, key).map(|o| &o.value)
    }

    fn object(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.objects.get(&kind)?.get(key)
    }

    /// Every object of a kind, by name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let objects = self.objects.get(&kind).into_iter().flatten();
        objects.map(|(key, object)| (key, &object.value))
    }

    /// What happened to a kind, oldest first.
    pub fn log(&self, kind: Kind) -> &[Entry] {
        &self.log[&kind]
    }

    /// The object with this uid, of any kind.
    pub fn lives(&self, uid: &str) -> bool {
        self.objects
            .values()
            .flat_map(BTreeMap::values)
            .any(|o| text(&o.value, "/metadata/uid") == uid)
    }

    /// Whether the operator's watch shows this object.
    pub fn is_watched(kind: Kind, value: &Value) -> bool {
        UNLABELLED.contains(&kind) || Self::is_ours(value)
    }

    /// Whether an object has the operator's label.
    pub fn is_ours(value: &Value) -> bool {
        let labels = value.pointer("/metadata/labels");
        labels.and_then(|l| l.get(MANAGED_BY)?.as_str()) == Some(MANAGED_BY_US)
    }

    fn uid(&mut self) -> String {
        self.uids += 1;
        let mixed = (self.uids ^ self.salt.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{:08x}-{:04x}-4000-8000-{:012x}",
            mixed >> 32,
            (mixed >> 16) & 0xffff,
            self.uids
        )
    }

    fn commit(
        &mut self,
        who: Who,
        kind: Kind,
        verb: &'static str,
        mut value: Value,
        applied: Option<Arc<Value>>,
    ) -> Arc<Value> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let value = Arc::new(value);
        let key = key_of(&value);
        let object = Object {
            value: value.clone(),
            applied,
        };
        let objects = self.objects.entry(kind).or_default();
        let old = objects.insert(key.clone(), object);
        if Self::is_watched(kind, &value) {
            self.log.entry(kind).or_default().push(Entry {
                value: value.clone(),
                deleted: false,
            });
        }
        self.commits.push(Commit {
            who,
            kind,
            key,
            verb,
            old: old.map(|o| o.value),
            new: Some(value.clone()),
        });
        value
    }

    fn remove(&mut self, who: Who, kind: Kind, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.get_mut(&kind)?.remove(key)?;
        self.version += 1;
        if Self::is_watched(kind, &old.value) {
            let mut last = (*old.value).clone();
            last["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.log.entry(kind).or_default().push(Entry {
                value: Arc::new(last),
                deleted: true,
            });
        }
        self.commits.push(Commit {
            who,
            kind,
            key: key.clone(),
            verb: "delete",
            old: Some(old.value.clone()),
            new: None,
        });
        Some(old.value)
    }

    /// Creates an object.
    pub fn create(&mut self, who: Who, kind: Kind, mut value: Value) -> Answer {
        let key = key_of(&value);
        if self.get(kind, &key).is_some() {
            let plural = kind.resource().plural;
            return failure(
                409,
                "AlreadyExists",
                format!("{plural} \"{}\" already exists", key.name),
            );
        }
        if let Some(refused) = self.refuses(kind, &value) {
            return refused;
        }
        let applied = (who == Who::Operator).then(|| Arc::new(value.clone()));
        self.dress(kind, &mut value);
        let value = self.commit(who, kind, "create", value, applied);
        (201, value)
    }

    /// What a new object gets.
    fn dress(&mut self, kind: Kind, value: &mut Value) {
        value["apiVersion"] = json!(api_version(kind));
        value["kind"] = json!(kind.as_str());
        let uid = self.uid();
        value["metadata"]["uid"] = json!(uid);
        value["metadata"]["creationTimestamp"] = json!(
            Timestamp::from_second(self.now.as_second())
                .unwrap_or(self.now)
                .to_string()
        );
        if GENERATION.contains(&kind) {
            value["metadata"]["generation"] = json!(1);
        }
        if STATUS.contains(&kind)
            && kind != Kind::Pod
            && let Some(members) = value.as_object_mut()
        {
            members.remove("status");
        }
        defaults(kind, value);
    }

    /// What validation and admission say against an object.
    fn refuses(&self, kind: Kind, value: &Value) -> Option<Answer> {
        let image = text(value, "/spec/template/spec/containers/0/image");
        if kind == Kind::Deployment && image.contains("refused") {
            let message = format!(
                "Deployment.apps \"{}\" is invalid: spec.template: the policy of this cluster has no {image}",
                text(value, "/metadata/name")
            );
            return Some(failure(422, "Invalid", message));
        }
        None
    }

    /// Server-side apply by the operator's manager, with force.
    pub fn apply(&mut self, who: Who, kind: Kind, key: &Key, desired: &Value) -> Answer {
        let mut desired = desired.clone();
        desired["metadata"]["name"] = json!(key.name);
        desired["metadata"]["namespace"] = json!(key.namespace);
        let wanted = text(&desired, "/metadata/uid").to_owned();
        let conflict = |is: &str| {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": Precondition failed: UID in precondition: {wanted}, UID in object meta: {is}",
                kind.resource().plural,
                key.name
            );
            failure(409, "Conflict", message)
        };
        let Some(object) = self.object(kind, key).cloned() else {
            if !wanted.is_empty() {
                return conflict("");
            }
            if let Some(refused) = self.refuses(kind, &desired) {
                return refused;
            }
            let applied = Arc::new(desired.clone());
            self.dress(kind, &mut desired);
            let value = self.commit(who, kind, "apply", desired, Some(applied));
            return (201, value);
        };
        let is = text(&object.value, "/metadata/uid");
        if !wanted.is_empty() && wanted != is {
            let message = format!(
                "{} \"{}\" is invalid: metadata.uid: field is immutable",
                kind.as_str(),
                key.name
            );
            let (code, answer) = failure(422, "Invalid", message);
            let mut answer = Arc::unwrap_or_clone(answer);
            answer["details"] = json!({"causes": [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}]});
            return (code, Arc::new(answer));
        }
        if let Some(refused) = self.refuses(kind, &desired) {
            return refused;
        }
        let mut after = merge::apply(&object.value, object.applied.as_deref(), &desired);
        after["metadata"]["uid"] = json!(is);
        if STATUS.contains(&kind) {
            after["status"] = object.value.get("status").cloned().unwrap_or(Value::Null);
            if after["status"].is_null()
                && let Some(members) = after.as_object_mut()
            {
                members.remove("status");
            }
        }
        if let Some(refused) = immutable(kind, &object.value, &after) {
            return refused;
        }
        if after == *object.value {
            return (200, object.value);
        }
        self.count(kind, &object.value, &mut after);
        let value = self.commit(who, kind, "apply", after, Some(Arc::new(desired)));
        (200, value)
    }

    /// A new spec is a new generation.
    fn count(&self, kind: Kind, old: &Value, new: &mut Value) {
        if GENERATION.contains(&kind) && old.get("spec") != new.get("spec") {
            new["metadata"]["generation"] = json!(number(old, "/metadata/generation") + 1);
        }
    }

    /// `PUT …/status`.
    pub fn put_status(&mut self, who: Who, kind: Kind, key: &Key, sent: &Value) -> Answer {
        let Some(object) = self.object(kind, key).cloned() else {
            return failure(
                404,
                "NotFound",
                format!("{} \"{}\" not found", kind.resource().plural, key.name),
            );
        };
        let (version, uid) = (
            text(sent, "/metadata/resourceVersion"),
            text(sent, "/metadata/uid"),
        );
        let conflict = || {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
                kind.resource().plural,
                key.name
            );
            failure(409, "Conflict", message)
        };
        if !uid.is_empty() && uid != text(&object.value, "/metadata/uid") {
            return conflict();
        }
        if !version.is_empty() && version != text(&object.value, "/metadata/resourceVersion") {
            return conflict();
        }
        let mut after = (*object.value).clone();
        after["status"] = sent.get("status").cloned().unwrap_or(Value::Null);
        if after == *object.value {
            return (200, object.value);
        }
        let value = self.commit(who, kind, "status", after, object.applied);
        (200, value)
    }

    /// `DELETE`, with or without a uid.
    pub fn delete(&mut self, who: Who, kind: Kind, key: &Key, uid: &str) -> Answer {
        let Some(value) = self.get(kind, key) else {
            return failure(
                404,
                "NotFound",
                format!("{} \"{}\" not found", kind.resource().plural, key.name),
            );
        };
        let is = text(value, "/metadata/uid");
        if !uid.is_empty() && uid != is {
            let message = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {is}"
            );
            return failure(409, "Conflict", message);
        }
        let gone = self.remove(who, kind, key);
        (200, gone.unwrap_or_default())
    }

    /// A read-modify-write that can't conflict: of users and of the cluster's own controllers. True if something changed.
    pub fn edit(
        &mut self,
        who: Who,
        kind: Kind,
        key: &Key,
        change: impl FnOnce(&mut Value),
    ) -> bool {
        let Some(object) = self.object(kind, key).cloned() else {
            return false;
        };
        let mut after = (*object.value).clone();
        change(&mut after);
        if after == *object.value {
            return false;
        }
        self.count(kind, &object.value, &mut after);
        self.commit(who, kind, "update", after, object.applied);
        true
    }

    /// Any request that the operator sends.
    pub fn serve(&mut self, method: &str, path: &str, query: &str, body: &Value) -> Answer {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let base = if parts.first() == Some(&"api") { 2 } else { 3 };
        let (Some("namespaces"), Some(namespace), Some(plural)) = (
            parts.get(base).copied(),
            parts.get(base + 1),
            parts.get(base + 2),
        ) else {
            return failure(404, "NotFound", format!("there is nothing at {path}"));
        };
        let prefix = format!("/{}", parts[..base].join("/"));
        let name = parts.get(base + 3).copied();
        if *plural == "events" {
            return self.event(method, name, body);
        }
        let Some((_, _, kind)) = resources()
            .iter()
            .find(|(p, n, _)| *p == prefix && n == plural)
        else {
            return failure(404, "NotFound", format!("there is nothing at {path}"));
        };
        let kind = *kind;
        let key = Key::new(*namespace, name.unwrap_or_default());
        match (method, name, parts.get(base + 4).copied()) {
            ("GET", Some(_), None) => match self.get(kind, &key) {
                Some(value) => (200, value.clone()),
                None => failure(
                    404,
                    "NotFound",
                    format!("{plural} \"{}\" not found", key.name),
                ),
            },
            ("POST", None, None) => {
                let mut value = body.clone();
                value["metadata"]["namespace"] = json!(namespace);
                self.create(Who::Operator, kind, value)
            }
            ("PATCH", Some(_), None) if query.contains("fieldManager=") => {
                self.apply(Who::Operator, kind, &key, body)
            }
            ("PUT", Some(_), Some("status")) => self.put_status(Who::Operator, kind, &key, body),
            ("DELETE", Some(_), None) => {
                self.delete(Who::Operator, kind, &key, text(body, "/preconditions/uid"))
            }
            _ => failure(405, "MethodNotAllowed", format!("{method} {path}")),
        }
    }

    fn event(&mut self, method: &str, name: Option<&str>, body: &Value) -> Answer {
        match (method, name) {
            ("POST", None) => {
                let name = text(body, "/metadata/name").to_owned();
                if !self.events.insert(name.clone()) {
                    return failure(
                        409,
                        "AlreadyExists",
                        format!("events \"{name}\" already exists"),
                    );
                }
                (201, Arc::new(body.clone()))
            }
            (_, Some(name)) if self.events.contains(name) => (
                200,
                Arc::new(json!({"metadata": {"name": name}, "eventTime": self.now.to_string()})),
            ),
            _ => failure(404, "NotFound", "there is no such Event".to_owned()),
        }
    }
}

/// A few of the defaults that the API server fills in, so that what is read is more than what was written.
fn defaults(kind: Kind, value: &mut Value) {
    match kind {
        Kind::Deployment => {
            value["spec"]["progressDeadlineSeconds"] = json!(600);
            value["spec"]["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
            value["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
            value["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        }
        Kind::Service => {
            value["spec"]["type"] = json!("ClusterIP");
            value["spec"]["sessionAffinity"] = json!("None");
            if value["spec"]["clusterIP"].is_null() {
                value["spec"]["clusterIP"] = json!("10.96.0.1");
            }
        }
        _ => {}
    }
}

/// What can't be changed once it is there.
fn immutable(kind: Kind, old: &Value, new: &Value) -> Option<Answer> {
    let fields: &[&str] = match kind {
        Kind::ControllerRevision => &["/data"],
        Kind::Deployment => &["/spec/selector"],
        Kind::Job => &["/spec/template", "/spec/selector"],
        Kind::ConfigMap if old["immutable"] == json!(true) => &["/data"],
        _ => &[],
    };
    let changed = fields.iter().find(|f| old.pointer(f) != new.pointer(f))?;
    let message = format!(
        "{} \"{}\" is invalid: {changed}: field is immutable",
        kind.as_str(),
        text(old, "/metadata/name")
    );
    Some(failure(422, "Invalid", message))
}
