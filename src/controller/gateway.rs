//! The gateway of a namespace: what wakes its planner and what it is planned from.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{Resource, ResourceExt};

use super::driver::{Controller, Outcome, Place};
use crate::{
    api::{
        label, mirrored, model_deployment::ServerTls, payload_log::KEYS,
        prompt_release::KeyReference, revision::PromptRevision, rollout::GatewayStatus,
    },
    cluster::{Caches, Change, Error, Key, Kind, Refusal, Shell},
    plan::{
        Plan, Reference,
        gateway::{self, NAME, Observed, ROLE, Settings},
    },
};

/// Kinds of the gateway's objects, in the order in which they are deleted.
const KINDS: [Kind; 7] = [
    Kind::Deployment,
    Kind::Service,
    Kind::PodDisruptionBudget,
    Kind::NetworkPolicy,
    Kind::RoleBinding,
    Kind::Role,
    Kind::ServiceAccount,
];

/// Their names.
const NAMES: [&str; 2] = [NAME, mirrored::SERVICE];

/// The controller of gateways: one key for each namespace.
pub struct Gateways {
    /// Pods of each gateway.
    pub replicas: i32,
    /// Namespace that the operator runs in.
    pub operator_namespace: Option<String>,
}

impl Controller for Gateways {
    type Object = Place;
    type Status = ();
    type Observed = Observed;

    const NAME: &'static str = "gateway";

    fn keys(&self, caches: &Caches) -> Vec<Key> {
        let releases = caches
            .model_deployments
            .keys()
            .into_iter()
            .chain(caches.prompt_releases.keys());
        let mut namespaces: BTreeSet<String> = releases.map(|k| k.namespace).collect();
        namespaces.extend(
            caches
                .deployments
                .keys()
                .into_iter()
                .filter(|k| k.name == NAME)
                .map(|k| k.namespace),
        );
        namespaces.iter().map(|n| Place::key_of(n)).collect()
    }

    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<Place>> {
        let needed =
            releases(caches, &key.namespace) > 0 || !children(caches, &key.namespace).is_empty();
        needed.then(|| {
            Arc::new(Place {
                namespace: key.namespace.clone(),
            })
        })
    }

    fn wakes(&self, _: &Caches, change: &Change) -> Vec<Key> {
        let release = matches!(change.kind, Kind::ModelDeployment | Kind::PromptRelease);
        let ours = KINDS.contains(&change.kind) && NAMES.contains(&change.key.name.as_str());
        if release || ours {
            vec![Place::key_of(&change.key.namespace)]
        } else {
            Vec::new()
        }
    }

    async fn observe(&self, shell: &Shell, place: &Arc<Place>) -> Result<Outcome<Observed>, Error> {
        let caches = &shell.caches;
        let namespace = &place.namespace;
        Ok(Outcome::Ready(Observed {
            namespace: namespace.clone(),
            complete: caches.ready_in(namespace),
            releases: releases(caches, namespace),
            credentials: credentials(caches, namespace),
            children: children(caches, namespace),
            settings: Settings {
                image: shell.settings.image.clone(),
                replicas: self.replicas,
                operator_namespace: self.operator_namespace.clone(),
            },
        }))
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan<()> {
        gateway::plan(observed, now)
    }

    fn refused(&self, _: &Place, _: Option<()>, _: &Refusal, _: Timestamp) -> Option<()> {
        None // A namespace has no status of ours; its releases say that there is no gateway.
    }
}

/// Releases that need the gateway. One that can't be read needs it too.
fn releases(caches: &Caches, namespace: &str) -> usize {
    let live = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.deletion_timestamp.is_none()
    };
    let models = caches.model_deployments.in_namespace(namespace);
    let prompts = caches.prompt_releases.in_namespace(namespace);
    let models = models.iter().filter(|r| live(r.meta())).count();
    let prompts = prompts.iter().filter(|r| live(r.meta())).count();
    let unreadable = caches.model_deployments.invalid_in(namespace)
        + caches.prompt_releases.invalid_in(namespace);
    models + prompts + unreadable
}

fn children(caches: &Caches, namespace: &str) -> Vec<Reference> {
    let all = NAMES
        .iter()
        .flat_map(|name| KINDS.iter().map(move |kind| (name, kind)));
    all.filter_map(|(name, kind)| {
        let meta = caches.store(*kind).meta(&Key::new(namespace, *name))?;
        let ours = meta.labels.as_ref()?.get(label::ROLE).map(String::as_str) == Some(ROLE);
        ours.then(|| Reference {
            api_version: kind.resource().api_version,
            kind: kind.as_str().to_owned(),
            namespace: namespace.to_owned(),
            name: (*name).to_owned(),
            uid: meta.uid.unwrap_or_default(),
        })
    })
    .collect()
}

/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Why callers of a release's Service don't reach the gateway, as far as the Service's endpoints tell: what proxies on the nodes
/// know comes from them.
pub(super) fn unreachable(
    caches: &Caches,
    namespace: &str,
    of: &str,
    release: &str,
    status: Option<&GatewayStatus>,
) -> Option<String> {
    let port = status.map(|s| s.port).filter(|port| *port > 0)?;
    let slices = caches.endpoint_slices.labelled(namespace, of, release);
    let leads_there = |slice: &EndpointSlice| {
        let service = slice.labels().get(SERVICE_NAME).map(String::as_str);
        let ports = slice.ports.iter().flatten();
        let ready = |e: &Endpoint| {
            let conditions = e.conditions.as_ref();
            conditions.and_then(|c| c.ready).unwrap_or(true)
        };
        service == Some(release)
            && ports.filter_map(|p| p.port).any(|p| p == port)
            && slice.endpoints.iter().any(ready)
    };
    if slices.iter().any(|s| leads_there(s)) {
        return None;
    }
    Some(format!(
        "Service {release} has no ready endpoint at the gateway's port {port} yet, so callers reach nobody by it"
    ))
}

/// Certificates that callers are shown, and those that servers are believed by.
fn certificates(caches: &Caches, namespace: &str) -> Vec<KeyReference> {
    let key = |secret: &str, key: &str| KeyReference {
        secret_name: secret.to_owned(),
        key: key.to_owned(),
    };
    let mut all = Vec::new();
    let models = caches.model_deployments.in_namespace(namespace);
    let prompts = caches.prompt_releases.in_namespace(namespace);
    let of_models = models
        .iter()
        .filter_map(|r| r.spec.traffic.as_ref()?.tls.clone());
    let of_prompts = prompts
        .iter()
        .filter_map(|r| r.spec.traffic.as_ref()?.tls.clone());
    for tls in of_models.chain(of_prompts) {
        all.push(key(&tls.secret_name, "tls.crt"));
        all.push(key(&tls.secret_name, "tls.key"));
    }
    for release in models {
        let of_spec = release.spec.server.tls.clone();
        let uid = release.uid().unwrap_or_default();
        let kept = caches.controller_revisions.owned_by(&uid);
        let of_revisions = kept.iter().filter_map(|revision| {
            let server = revision.data.as_ref()?.0.get("server")?;
            serde_json::from_value::<ServerTls>(server.get("tls")?.clone()).ok()
        });
        let needed = of_spec.into_iter().chain(of_revisions);
        all.extend(needed.map(|tls| key(&tls.ca_secret_name, "ca.crt")));
    }
    all
}

/// What payload logs are written with.
fn logs(caches: &Caches, namespace: &str) -> Vec<KeyReference> {
    let models = caches.model_deployments.in_namespace(namespace);
    let secrets = models.iter().filter_map(|release| {
        let log = release.spec.monitoring.as_ref()?.payload_log.as_ref()?;
        Some(log.credentials.as_ref()?.secret_name.clone())
    });
    let keys = |secret: String| {
        KEYS.into_iter().map(move |key| KeyReference {
            secret_name: secret.clone(),
            key: key.to_owned(),
        })
    };
    secrets.flat_map(keys).collect()
}

/// Keys that the specs name, and those of revisions that still serve.
fn credentials(caches: &Caches, namespace: &str) -> Vec<KeyReference> {
    let mut all = certificates(caches, namespace);
    all.extend(logs(caches, namespace));
    for release in caches.prompt_releases.in_namespace(namespace) {
        all.extend(release.spec.backend.credentials.clone());
        let status = release.status.clone().unwrap_or_default();
        let serving = [status.stable, status.candidate]
            .into_iter()
            .flatten()
            .map(|r| r.revision)
            .chain(status.rollout.and_then(|r| r.previous));
        for hash in serving {
            let key = Key::new(namespace, format!("{}-{hash}", release.name_any()));
            let data = caches
                .controller_revisions
                .get(&key)
                .and_then(|r| r.data.clone());
            let revision = data.and_then(|d| serde_json::from_value::<PromptRevision>(d.0).ok());
            all.extend(revision.and_then(|r| r.backend.credentials));
        }
    }
    all
}
