//! What the gateway needs of the cluster's objects: taken out of them leniently, kept on disk.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{
    model_deployment::{Protocol, ServerSpec},
    revision::{PromptRevision, Signature},
};

/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Kinds of objects that the gateway reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// ModelDeployments.
    Models,
    /// PromptReleases.
    Prompts,
    /// ControllerRevisions of both.
    Revisions,
    /// EndpointSlices of the revisions' Services.
    Endpoints,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 4] = [
        Source::Models,
        Source::Prompts,
        Source::Revisions,
        Source::Endpoints,
    ];
}

/// Kinds of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// ModelDeployment.
    Model,
    /// PromptRelease.
    Prompt,
}

impl Kind {
    /// As in paths: `models` or `prompts`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Prompt => "prompts",
        }
    }

    /// Reads [`Kind::plural`].
    pub fn of_plural(text: &str) -> Option<Self> {
        match text {
            "models" => Some(Kind::Model),
            "prompts" => Some(Kind::Prompt),
            _ => None,
        }
    }
}

/// Something that changed in the cluster.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is there, new or changed.
    Put(Source, Box<DynamicObject>),
    /// An object is gone, by name.
    Gone(Source, String),
    /// All objects of a kind.
    All(Source, Vec<DynamicObject>),
}

/// All that routing depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    /// Releases by kind and name.
    #[serde(with = "pairs")]
    pub releases: BTreeMap<(Kind, String), ReleaseObject>,
    /// Revisions by kind, release and hash.
    #[serde(with = "pairs")]
    pub revisions: BTreeMap<(Kind, String, String), RevisionObject>,
    /// Endpoint slices by their own names.
    pub slices: BTreeMap<String, Slice>,
}

/// The routing of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseObject {
    /// UID.
    pub uid: String,
    /// The gateway port that is its own.
    pub port: Option<u16>,
    /// Hash and version of stable.
    pub stable: Option<Side>,
    /// Hash and version of the candidate.
    pub candidate: Option<Side>,
    /// Percentage of callers that go to the candidate.
    pub weight: i32,
    /// Grows with every change of the routing.
    pub epoch: i64,
}

/// A side of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Hash of the revision.
    pub revision: String,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
}

/// What a ControllerRevision holds for the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RevisionObject {
    /// Of a ModelDeployment.
    Model(ModelRevisionObject),
    /// Of a PromptRelease.
    Prompt(Box<PromptRevision>),
}

/// The gateway's part of a model revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRevisionObject {
    /// Name of the model.
    pub model: Option<String>,
    /// Model version.
    pub version: Option<String>,
    /// Port that the server listens on.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// What the model takes.
    pub signature: Option<Signature>,
}

/// Ready endpoints of a Service, as one slice lists them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Name of the Service: `<release>-<hash>`.
    pub service: String,
    /// Addresses that are ready.
    pub ready: Vec<IpAddr>,
    /// Addresses that are not, but aren't going away either: a busy server may miss a probe.
    #[serde(default)]
    pub sick: Vec<IpAddr>,
    /// Port, where the slice names one.
    pub port: Option<u16>,
}

impl Objects {
    /// Takes in a change. `Ok` says whether anything is different now; an object that can't be understood leaves what was
    /// known of it as it was, and is an error with a sentence for each.
    pub fn apply(&mut self, change: Change) -> (bool, Vec<String>) {
        let mut errors = Vec::new();
        let changed = match change {
            Change::Put(source, object) => self.put(source, &object, &mut errors),
            Change::Gone(source, name) => self.remove(source, |known| known == name),
            Change::All(source, objects) => {
                let names: std::collections::BTreeSet<&str> = objects
                    .iter()
                    .filter_map(|o| o.metadata.name.as_deref())
                    .collect();
                let mut changed = self.remove(source, |known| !names.contains(known));
                for object in &objects {
                    changed |= self.put(source, object, &mut errors);
                }
                changed
            }
        };
        (changed, errors)
    }

    fn put(&mut self, source: Source, object: &DynamicObject, errors: &mut Vec<String>) -> bool {
        let name = object.metadata.name.clone().unwrap_or_default();
        let refused = |what: &str, error: &dyn std::fmt::Display| {
            format!(
                "{what} {name} can't be understood ({error}); what was known of it stays in effect"
            )
        };
        match source {
            Source::Models | Source::Prompts => {
                let kind = if source == Source::Models {
                    Kind::Model
                } else {
                    Kind::Prompt
                };
                match release(object) {
                    Ok(release) => insert(&mut self.releases, (kind, name), release),
                    Err(error) => {
                        errors.push(refused("the status of release", &error));
                        false
                    }
                }
            }
            Source::Revisions => match revision(object) {
                Ok(Some((key, revision))) => insert(&mut self.revisions, key, revision),
                Ok(None) => false,
                Err(error) => {
                    errors.push(refused("ControllerRevision", &error));
                    false
                }
            },
            Source::Endpoints => match slice(object) {
                Ok(Some(slice)) => insert(&mut self.slices, name, slice),
                Ok(None) => false,
                Err(error) => {
                    errors.push(refused("EndpointSlice", &error));
                    false
                }
            },
        }
    }

    fn remove(&mut self, source: Source, gone: impl Fn(&str) -> bool) -> bool {
        match source {
            Source::Models => retain(&mut self.releases, |(kind, name), _| {
                *kind != Kind::Model || !gone(name)
            }),
            Source::Prompts => retain(&mut self.releases, |(kind, name), _| {
                *kind != Kind::Prompt || !gone(name)
            }),
            Source::Revisions => retain(&mut self.revisions, |(_, release, hash), _| {
                !gone(&format!("{release}-{hash}"))
            }),
            Source::Endpoints => retain(&mut self.slices, |name, _| !gone(name)),
        }
    }
}

fn insert<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    map.insert(key, value);
    true
}

fn retain<K: Ord, V>(map: &mut BTreeMap<K, V>, keep: impl Fn(&K, &V) -> bool) -> bool {
    let before = map.len();
    map.retain(|k, v| keep(k, v));
    map.len() != before
}

/// Only what routing needs, so that neither an older nor a newer operator's status is refused for something else.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    stable: Option<Side>,
    candidate: Option<Side>,
    rollout: Rollout,
    gateway: GatewayPort,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rollout {
    weight: i32,
    epoch: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GatewayPort {
    port: Option<u16>,
}

fn release(object: &DynamicObject) -> Result<ReleaseObject, String> {
    let status: Status = match object.data.get("status") {
        Some(status) if !status.is_null() => {
            serde_json::from_value(status.clone()).map_err(|e| e.to_string())?
        }
        _ => Status::default(),
    };
    let uid = object.metadata.uid.clone().ok_or("it has no uid")?;
    if !(0..=100).contains(&status.rollout.weight) {
        return Err(format!("weight {} is not 0 to 100", status.rollout.weight));
    }
    Ok(ReleaseObject {
        uid,
        port: status.gateway.port.filter(|port| *port > 0),
        stable: status.stable,
        candidate: status.candidate,
        weight: status.rollout.weight,
        epoch: status.rollout.epoch,
    })
}

/// The gateway's part of the data, leniently.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelData {
    #[serde(default)]
    model: ModelPart,
    server: ServerSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ModelPart {
    name: Option<String>,
    version: Option<String>,
    signature: Option<Signature>,
}

type RevisionKey = (Kind, String, String);

fn revision(object: &DynamicObject) -> Result<Option<(RevisionKey, RevisionObject)>, String> {
    let Some(owner) = object
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true) || owner.kind.ends_with("Release"))
        .or_else(|| object.metadata.owner_references.as_ref()?.first())
    else {
        return Ok(None);
    };
    let kind = match owner.kind.as_str() {
        "ModelDeployment" => Kind::Model,
        "PromptRelease" => Kind::Prompt,
        _ => return Ok(None),
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let hash = name
        .strip_prefix(&owner.name)
        .and_then(|rest| rest.strip_prefix('-'))
        .ok_or_else(|| {
            format!(
                "its name doesn't begin with that of its owner, {}",
                owner.name
            )
        })?;
    let data = object.data.get("data").cloned().unwrap_or(Value::Null);
    let revision = match kind {
        Kind::Model => {
            let data: ModelData = serde_json::from_value(data).map_err(|e| e.to_string())?;
            RevisionObject::Model(ModelRevisionObject {
                model: data.model.name,
                version: data.model.version,
                port: data.server.port(),
                protocol: data.server.protocol(),
                signature: data.model.signature,
            })
        }
        Kind::Prompt => {
            RevisionObject::Prompt(serde_json::from_value(data).map_err(|e| e.to_string())?)
        }
    };
    Ok(Some((
        (kind, owner.name.clone(), hash.to_owned()),
        revision,
    )))
}

fn slice(object: &DynamicObject) -> Result<Option<Slice>, String> {
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|l| l.get(SERVICE_NAME)) else {
        return Ok(None);
    };
    let is_hash = |text: &str| text.len() == 10 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !service
        .rsplit_once('-')
        .is_some_and(|(_, hash)| is_hash(hash))
    {
        return Ok(None); // Some other Service of the namespace.
    }
    let value = serde_json::to_value(object).map_err(|e| e.to_string())?;
    let slice: EndpointSlice = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let (mut ready, mut sick) = (Vec::new(), Vec::new());
    for endpoint in &slice.endpoints {
        let says = endpoint.conditions.clone().unwrap_or_default();
        let addresses = endpoint
            .addresses
            .iter()
            .filter_map(|a| a.parse::<IpAddr>().ok());
        // Absent means ready, as the API says.
        if says.ready.unwrap_or(true) {
            ready.extend(addresses);
        } else if !says.terminating.unwrap_or(false) {
            sick.extend(addresses);
        }
    }
    let ports = slice.ports.unwrap_or_default();
    let port = ports
        .iter()
        .find(|p| p.name.as_deref() == Some("http"))
        .or(ports.first())
        .and_then(|p| p.port);
    Ok(Some(Slice {
        service: service.clone(),
        ready,
        sick,
        port: port.and_then(|p| u16::try_from(p).ok()),
    }))
}

/// Maps whose keys are no strings, as lists of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<
        'de,
        K: DeserializeOwned + Ord,
        V: DeserializeOwned,
        D: Deserializer<'de>,
    >(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Box<DynamicObject> {
        Box::new(serde_json::from_value(value).unwrap())
    }

    fn deployment(weight: i32) -> Value {
        json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "uid": "u"},
            "spec": {"server": {"somethingNew": 1}},
            "status": {
                "stable": {"revision": "aaaaaaaaaa", "version": "v1", "replicas": 1}, "candidate": {"revision": "bbbbbbbbbb"},
                "rollout": {"weight": weight, "epoch": 4, "state": "AStateOfTheFuture"},
                "gateway": {"port": 20001, "total": 1},
            },
        })
    }

    #[test]
    fn a_status_that_makes_no_sense_leaves_what_was_known_in_effect() {
        let mut objects = Objects::default();
        let (changed, errors) = objects.apply(Change::Put(Source::Models, object(deployment(10))));
        assert!(changed && errors.is_empty(), "{errors:?}");
        let before = objects.clone();
        for broken in [
            json!({"rollout": 7}),
            json!({"rollout": {"weight": 101}}),
            json!("x"),
        ] {
            let mut deployment = deployment(50);
            deployment["status"] = broken;
            let mut other = deployment.clone();
            other["metadata"]["name"] = json!("other");
            other["status"] = Value::Null;
            let all = vec![*object(deployment), *object(other)];
            let (_, errors) = objects.apply(Change::All(Source::Models, all));
            assert_eq!(errors.len(), 1, "{errors:?}");
            let key = (Kind::Model, "m".to_owned());
            assert_eq!(objects.releases.get(&key), before.releases.get(&key));
            assert!(
                objects
                    .releases
                    .contains_key(&(Kind::Model, "other".to_owned()))
            );
        }
    }

    #[test]
    fn revisions_and_slices_of_others_are_not_taken_up() {
        let mut objects = Objects::default();
        let revision = |owner: &str, name: &str, data: Value| {
            object(json!({"metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "x", "kind": owner, "name": "m", "uid": "u", "controller": true}]}, "data": data}))
        };
        let server = json!({"server": {"template": {"spec": {"containers": [{"name": "server"}]}}, "port": 9000},
            "model": {"version": "v1", "uri": "x"}, "helperImage": "h"});
        objects.apply(Change::Put(
            Source::Revisions,
            revision("StatefulSet", "m-1", json!({})),
        ));
        assert!(objects.revisions.is_empty());
        let (_, errors) = objects.apply(Change::Put(
            Source::Revisions,
            revision("ModelDeployment", "m-aaaaaaaaaa", server),
        ));
        assert!(errors.is_empty(), "{errors:?}");
        match &objects.revisions[&(Kind::Model, "m".into(), "aaaaaaaaaa".into())] {
            RevisionObject::Model(model) => {
                assert_eq!((model.port, model.version.as_deref()), (9000, Some("v1")))
            }
            RevisionObject::Prompt(_) => panic!("it is a model's"),
        }
        let slice = |service: &str| {
            object(
                json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{service}-x"), "labels": {(SERVICE_NAME): service}},
                "ports": [{"name": "http", "port": 9000}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]}),
            )
        };
        objects.apply(Change::Put(Source::Endpoints, slice("postgres")));
        objects.apply(Change::Put(Source::Endpoints, slice("m-aaaaaaaaaa")));
        let seen: Vec<_> = objects
            .slices
            .values()
            .map(|s| (s.ready.len(), s.port))
            .collect();
        assert_eq!(seen, [(1, Some(9000))]);
        let text = serde_json::to_string(&objects).unwrap();
        assert_eq!(serde_json::from_str::<Objects>(&text).unwrap(), objects);
        assert!(
            objects
                .apply(Change::Gone(Source::Revisions, "m-aaaaaaaaaa".into()))
                .0
        );
        assert!(objects.revisions.is_empty());
    }
}
