//! What every controller shares: client, caches, settings, the right to write, and what we remember of our own writes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::api::revision::ArtifactCache;

use super::{act::Memory, cache::Caches, event::Recorder, kind::Key, lease::Leadership};

/// What the operator was told when it was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of our own containers: gateway, supervisor, fetch, evaluate.
    pub image: String,
    /// Namespaces to work in; none means all.
    pub namespaces: Vec<String>,
    /// The claim in which pods of model servers share what they fetch, in the namespaces that have it.
    pub artifact_cache: Option<ArtifactCache>,
    /// Name of this process in Leases and Events.
    pub identity: String,
    /// Reconciles at once, for each controller.
    pub concurrency: usize,
    /// Longest time for one reconcile.
    pub reconcile_limit: std::time::Duration,
    /// Longest time for one write.
    pub write_limit: std::time::Duration,
    /// How long after a success everything is looked at again.
    pub resync: std::time::Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: "docker.io/perennial/perennial:latest".to_owned(),
            namespaces: Vec::new(),
            artifact_cache: None,
            identity: "perennial".to_owned(),
            concurrency: 4,
            reconcile_limit: std::time::Duration::from_secs(60),
            write_limit: std::time::Duration::from_secs(10),
            resync: std::time::Duration::from_secs(600),
        }
    }
}

/// What every controller shares. Clones share all of it.
#[derive(Clone)]
pub struct Shell {
    /// Client of the API server.
    pub client: Client,
    /// What is known of the cluster.
    pub caches: Caches,
    /// What the operator was told.
    pub settings: Arc<Settings>,
    /// Whether we may write.
    pub leadership: Leadership,
    /// Writes Events.
    pub events: Recorder,
    /// What we remember of our own writes.
    pub memory: Arc<Memory>,
    /// The time: `Timestamp::now`, but for simulations.
    pub clock: fn() -> Timestamp,
}

impl Shell {
    /// A shell around these.
    pub fn new(client: Client, caches: Caches, settings: Settings, leadership: Leadership) -> Self {
        Self {
            events: Recorder::new(client.clone(), &settings.identity),
            client,
            caches,
            settings: Arc::new(settings),
            leadership,
            memory: Arc::new(Memory::default()),
            clock: Timestamp::now,
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Reads an object that isn't watched (a user's ConfigMap that a template names); `None` when it isn't there.
    pub async fn fetch<K>(&self, key: &Key) -> Result<Option<K>, super::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let read = tokio::time::timeout(self.settings.write_limit, api.get_opt(&key.name)).await;
        match read {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(super::Error::Transient(format!(
                "{} {key} can't be read: {error}",
                K::kind(&())
            ))),
            Err(_) => Err(super::Error::Transient(format!(
                "{} {key} can't be read: no answer within {:?}",
                K::kind(&()),
                self.settings.write_limit
            ))),
        }
    }
}
