//! What the gateway needs of the cluster's objects: taken out of them leniently, kept on disk.

mod parse;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};

use self::parse::{release, revision, slice};
use crate::api::{
    model_deployment::{Protocol, ServerTls},
    payload_log::PayloadLog,
    revision::{PromptRevision, Signature},
    traffic::Traffic,
};

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
    /// Percentage of stable's requests of which the candidate gets a copy.
    #[serde(default)]
    pub mirror: i32,
    /// Grows with every change of the routing.
    pub epoch: i64,
    /// `spec.traffic`.
    #[serde(default)]
    pub traffic: Traffic,
    /// What late labels are wanted for, if any.
    #[serde(default)]
    pub labels: Option<LabelTerms>,
    /// `spec.monitoring.payloadLog`.
    #[serde(default)]
    pub log: Option<PayloadLog>,
}

/// How long late labels are taken, and how long they are of use: the longest of all metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelTerms {
    /// Seconds after an answer in which a label is taken.
    pub horizon: i64,
    /// Seconds that predictions and labels are remembered.
    pub kept: i64,
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
    /// Port for gRPC, where that is another one.
    #[serde(default)]
    pub grpc_port: Option<u16>,
    /// TLS to the server.
    #[serde(default)]
    pub tls: Option<ServerTls>,
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
