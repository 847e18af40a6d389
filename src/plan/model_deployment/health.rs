//! How a revision's pods are, from their statuses.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Pod},
};
use kube::ResourceExt;

use super::{Observed, children};
use crate::{
    api::{label, revision::ModelRevision},
    plan::{
        claim::{self, Claim},
        earlier,
        pod::{ClaimPath, last_words, trouble},
        revision::Named,
    },
};

/// Pods that can answer: as the Deployment's controller counts them, unless it speaks of an older spec.
pub fn available(server: Option<&Deployment>) -> i32 {
    let Some(status) = server.and_then(|d| d.status.as_ref()) else {
        return 0;
    };
    status
        .available_replicas
        .or(status.ready_replicas)
        .unwrap_or(0)
}

/// The revision's pods that are there to stay.
fn pods<'a>(observed: &'a Observed, hash: &'a str) -> impl Iterator<Item = &'a Pod> {
    let pods = observed.pods.iter().map(AsRef::as_ref);
    pods.filter(move |p: &&Pod| p.labels().get(label::REVISION).map(String::as_str) == Some(hash))
        .filter(|p| p.metadata.deletion_timestamp.is_none())
}

/// Whether pods of these revisions (with their number) can't start because their claim can't be shared.
pub fn not_shareable(
    observed: &Observed,
    revisions: &[(&Named<ModelRevision>, i32)],
    now: Timestamp,
) -> claim::Verdict {
    let mut users: BTreeMap<String, i32> = BTreeMap::new();
    for (revision, replicas) in revisions {
        if let Some(path) = ClaimPath::parse(&revision.revision.model.uri) {
            *users.entry(path.claim).or_default() += replicas;
        }
    }
    for (name, users) in users {
        if users > 1 && observed.claims.get(&name) == Some(&Claim::OnePod) {
            return claim::Verdict {
                message: Some(format!(
                    "PersistentVolumeClaim {name} is ReadWriteOncePod and {users} pods have to read the model from it (a rollout runs both revisions); use a claim with ReadWriteMany or ReadOnlyMany"
                )),
                check_at: None,
            };
        }
    }
    let mut verdict = claim::Verdict::default();
    for pod in revisions.iter().flat_map(|(r, _)| pods(observed, &r.hash)) {
        let of_pod = claim::not_shareable(pod, &observed.claims, now);
        verdict.check_at = earlier(verdict.check_at, of_pod.check_at);
        verdict.message = verdict.message.or(of_pod.message);
    }
    verdict
}

/// What keeps a revision's pods from being ready, in the container's own words.
pub fn failure(observed: &Observed, hash: &str) -> Option<String> {
    let release = observed.deployment.name_any();
    let name = children::name(&release, hash);
    if let Some(refused) = observed.refused.iter().find(|r| r.name == name) {
        return Some(refused.message.clone());
    }
    pods(observed, hash)
        .find_map(of_pod)
        .or_else(|| not_created(observed, &name))
}

fn of_pod(pod: &Pod) -> Option<String> {
    if let Some(trouble) = trouble(pod) {
        return Some(if trouble.message.contains(&trouble.reason) {
            trouble.message
        } else {
            format!("{}: {}", trouble.reason, trouble.message)
        });
    }
    let status = pod.status.as_ref()?;
    let failed = |c: &&ContainerStatus| {
        let ended = c.state.as_ref().and_then(|s| s.terminated.as_ref());
        ended.is_some_and(|t| t.exit_code != 0)
    };
    let container = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .find(failed)?;
    Some(format!(
        "container {} of pod {} ended: {}",
        container.name,
        pod.name_any(),
        last_words(container).unwrap_or_default()
    ))
}

/// Pods that the Deployment's controller can't create: quota, admission policy.
fn not_created(observed: &Observed, name: &str) -> Option<String> {
    let server = observed.servers.iter().find(|d| d.name_any() == name)?;
    let conditions = server.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(format!(
        "its pods can't be created: {}",
        failure.message.clone().unwrap_or_default()
    ))
}
