//! Reading gateways: which epoch each pod serves, and what it has measured; and what Prometheus says beside it.
//!
//! Controllers say which releases they care about with [`Measure::track`], and read with [`Measure::read`]; both are cheap.
//! [`Measure::run`] polls the gateway pods of the namespaces with tracked releases by their IP, every call bounded in time, and wakes a
//! release when something new has arrived for it: its epoch is served somewhere, a pod can't be reached any more, a minute is over.

mod late;
mod poll;
mod store;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::prometheus::{Prometheus, Sources};
use crate::{
    plan::rollout::Questions,
    stats::bucket::{Gateway, ReleaseMeasurements},
};
pub use store::Answer;
use store::Namespace;

/// A gateway pod that the operator owns, as its pod cache shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayPod {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its IP, once it has one.
    pub ip: Option<IpAddr>,
    /// Whether its `Ready` condition is true.
    pub ready: bool,
    /// Whether it has a deletion timestamp: it counts no more, but its last measurements are still read.
    pub terminating: bool,
}

/// A release by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReleaseKey {
    /// Which kind.
    pub kind: ReleaseKind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Kinds that roll out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReleaseKind {
    /// A ModelDeployment.
    Model,
    /// A PromptRelease.
    Prompt,
}

/// What a controller wants to know of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Who is woken.
    pub key: ReleaseKey,
    /// `status.rollout.epoch`: until every ready gateway serves it, they are asked several times a second.
    pub epoch: i64,
    /// How often measurements are read while a rollout is going on (`analysis.interval`); `None`: none is, every 15 seconds will do.
    pub interval: Option<Duration>,
    /// Longest time that input rows must be kept for (two drift windows), beyond the 180 minutes that are kept anyway.
    pub keep_features: Option<Duration>,
    /// How long predictions and their labels must be kept; while a rollout is going on, as long as it takes. `None`: nobody wants them.
    pub keep_late: Option<Duration>,
}

/// How gateway pods are asked: over the network, or what a simulation puts in its place.
pub trait Source: Send + Sync + 'static {
    /// The epochs of a pod and, with `measure`, its buckets of the minutes from `since`; `None` while it has no address.
    fn ask<'a>(
        &'a self,
        pod: &'a GatewayPod,
        measure: bool,
        since: i64,
    ) -> BoxFuture<'a, Option<Answer>>;
}

type Pods = dyn Fn(&str) -> Vec<GatewayPod> + Send + Sync;
type Wake = dyn Fn(&ReleaseKey) + Send + Sync;

/// Handle to what is known of gateways. Clones share it.
#[derive(Clone)]
pub struct Measure {
    inner: Arc<Inner>,
    prometheus: Prometheus,
}

struct Inner {
    pods: Box<Pods>,
    wake: Box<Wake>,
    port: u16,
    namespaces: Mutex<HashMap<String, Namespace>>,
    /// Somebody tracks something new: the loop looks again at what is due.
    changed: Notify,
}

impl Measure {
    /// `pods` lists the gateway pods of a namespace from the pod cache (labelled as the gateway and owned by a ReplicaSet of
    /// ours, terminating ones too); `wake` queues a reconcile. Both are called often and must not block.
    pub fn new(
        pods: impl Fn(&str) -> Vec<GatewayPod> + Send + Sync + 'static,
        wake: impl Fn(&ReleaseKey) + Send + Sync + 'static,
    ) -> Self {
        Self::with_port(pods, wake, crate::api::GATEWAY_ADMIN_PORT)
    }

    /// As [`Measure::new`], with gateways' admin port given.
    pub fn with_port(
        pods: impl Fn(&str) -> Vec<GatewayPod> + Send + Sync + 'static,
        wake: impl Fn(&ReleaseKey) + Send + Sync + 'static,
        port: u16,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                pods: Box::new(pods),
                wake: Box::new(wake),
                port,
                namespaces: Mutex::default(),
                changed: Notify::new(),
            }),
            prometheus: Prometheus::new(Sources::default(), |_| ()),
        }
    }

    /// Asks these sources of Prometheus, too.
    #[must_use]
    pub fn asking(mut self, sources: Sources) -> Self {
        let inner = self.inner.clone();
        self.prometheus = Prometheus::new(sources, move |key| (inner.wake)(key));
        self
    }

    /// Keeps a release's questions asked; call it as often as [`Measure::track`].
    pub fn ask(&self, uid: &str, key: &ReleaseKey, questions: Questions) {
        self.prometheus.track(uid, key, questions);
    }

    /// Keeps a release measured, by its UID: call it at every observation of a release that has a gateway.
    pub fn track(&self, uid: &str, interest: Interest) {
        let mut namespaces = self.namespaces();
        let namespace = namespaces
            .entry(interest.key.namespace.clone())
            .or_default();
        if namespace.track(uid, interest) {
            drop(namespaces);
            self.inner.changed.notify_one();
        }
    }

    /// Forgets a release that is gone.
    pub fn forget(&self, namespace: &str, uid: &str) {
        self.prometheus.forget(uid);
        let mut namespaces = self.namespaces();
        if let Some(known) = namespaces.get_mut(namespace) {
            known.forget(uid);
            if known.is_unused() {
                namespaces.remove(namespace);
            }
        }
    }

    /// What is known of a release now; never waits for the network.
    pub fn read(&self, namespace: &str, uid: &str) -> ReleaseMeasurements {
        ReleaseMeasurements {
            asked: self.prometheus.read(uid),
            ..self.gateways(namespace, uid)
        }
    }

    fn gateways(&self, namespace: &str, uid: &str) -> ReleaseMeasurements {
        let pods = (self.inner.pods)(namespace);
        let mut namespaces = self.namespaces();
        match namespaces.get_mut(namespace) {
            Some(known) => {
                if known.hurry(&pods) {
                    self.inner.changed.notify_one();
                }
                known.read(uid, &pods)
            }
            None => ReleaseMeasurements {
                gateways: pods
                    .into_iter()
                    .filter(|pod| !pod.terminating)
                    .map(|pod| Gateway {
                        pod: pod.name,
                        ready: pod.ready,
                        ..Gateway::default()
                    })
                    .collect(),
                ..ReleaseMeasurements::default()
            },
        }
    }

    /// Polls until it is dropped. One task for the whole operator; run it only while leading.
    pub async fn run(&self) {
        let gateways = self.run_with(Arc::new(poll::Network::new(self.inner.port)));
        tokio::join!(gateways, self.prometheus.run());
    }

    /// As [`Measure::run`], with another way to ask.
    pub async fn run_with(&self, source: Arc<dyn Source>) {
        poll::run(self.inner.clone(), source).await;
    }

    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, Namespace>> {
        self.inner.namespaces()
    }
}

impl Inner {
    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, Namespace>> {
        // Whole values are swapped in, so a panic elsewhere leaves nothing half done.
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
