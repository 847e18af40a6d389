//! The routing table: built purely from objects, swapped as a whole, read without locks on the request path.

mod build;
mod endpoints;
#[cfg(test)]
pub mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use http::HeaderValue;

pub use self::endpoints::{Endpoint, Endpoints};
use super::{
    breaker::Breaker,
    objects::{Kind, LabelTerms, RevisionObject},
    policy::Policy,
    prompt::template::CompiledPrompt,
    telemetry::{Meters, RevisionMeters},
};
use crate::{
    api::{
        model_deployment::{Protocol, ServerTls},
        payload_log::PayloadLog,
        revision::Signature,
    },
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
    /// Percentage of stable's requests of which the candidate gets a copy.
    pub mirror: i32,
    /// Epoch of this routing.
    pub epoch: i64,
    /// What the gateway reports about it.
    pub served: ServedEpoch,
    /// The revision that serves.
    pub stable: Option<Arc<Revision>>,
    /// The revision that is tried.
    pub candidate: Option<Arc<Revision>>,
    /// How its callers and pods are treated.
    pub policy: Policy,
    /// How much each revision is given at once, by hash.
    pub breakers: HashMap<Arc<str>, Arc<Breaker>>,
    /// What late labels are wanted for, if any.
    pub labels: Option<LabelTerms>,
    /// How its requests are logged, if they are.
    pub log: Option<Arc<PayloadLog>>,
    /// Callers without a key so far.
    pub turns: Arc<AtomicU64>,
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
    /// Its counters.
    pub meters: OnceLock<RevisionMeters>,
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
        /// Port for gRPC, where that is another one.
        grpc_port: Option<u16>,
        /// TLS to it.
        tls: Option<ServerTls>,
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

impl Release {
    /// Secrets with the authorities that the servers of both sides are believed by.
    pub fn authorities(&self) -> impl Iterator<Item = &str> {
        let sides = self.stable.iter().chain(&self.candidate);
        sides.filter_map(|r| match &r.backend {
            Backend::Model { tls, .. } => tls.as_ref().map(|t| t.ca_secret_name.as_str()),
            _ => None,
        })
    }
}

impl Table {
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
