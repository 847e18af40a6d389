//! How a revision's pods are, from their statuses.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Pod},
};
use kube::ResourceExt;

use super::{Observed, children};
use crate::{
    api::label,
    plan::pod::{last_words, trouble},
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

/// What keeps a revision's pods from being ready, in the container's own words.
pub fn failure(observed: &Observed, hash: &str) -> Option<String> {
    let release = observed.deployment.name_any();
    let name = children::name(&release, hash);
    if let Some(refused) = observed.refused.iter().find(|r| r.name == name) {
        return Some(refused.message.clone());
    }
    let pods: Vec<&Pod> = observed
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|p| p.labels().get(label::REVISION).map(String::as_str) == Some(hash))
        .filter(|p| p.metadata.deletion_timestamp.is_none())
        .collect();
    pods.iter()
        .find_map(|pod| of_pod(pod))
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
