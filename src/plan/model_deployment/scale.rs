//! How many pods: what the spec says, or what autoscalers make of it.
//!
//! Each revision that runs has an autoscaler of its own, which decides by the load of its pods. What a rollout needs is its fewest pods:
//! a candidate has what its share of callers needs, and stable keeps what it had while it may have to take everything back. We write
//! a number of pods only to raise it to that; the rest is the autoscaler's.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler as Autoscaler,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Observed, Status, children, reason};
use crate::{
    api::{
        condition::{self, kind},
        revision::ModelRevision,
        rollout::RolloutState,
        serving::Autoscaling,
    },
    plan::revision::Named,
};

/// The Deployment of a revision.
fn server<'a>(observed: &'a Observed, hash: &str) -> Option<&'a Deployment> {
    let name = children::name(&observed.deployment.name_any(), hash);
    let found = observed.servers.iter().find(|d| d.name_any() == name);
    found.map(AsRef::as_ref)
}

fn scaled_to(server: &Deployment) -> i32 {
    server.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn autoscaling(observed: &Observed) -> Option<&Autoscaling> {
    observed.deployment.spec.autoscaling.as_ref()
}

fn state(status: &Status) -> RolloutState {
    let rollout = status.rollout.as_ref();
    rollout.map(|r| r.state).unwrap_or_default()
}

/// Pods of the revision that has all the traffic. While a rollout is under way it never falls, as stable may have to take everything back.
pub fn full(observed: &Observed, status: &Status) -> i32 {
    let Some(autoscaling) = autoscaling(observed) else {
        return observed.deployment.spec.replicas.unwrap_or(1);
    };
    let (least, most) = autoscaling.bounds();
    let stable = status.stable.as_ref();
    let now = stable.and_then(|s| server(observed, &s.revision));
    let under_way = state(status) != RolloutState::Idle;
    let held = stable.filter(|_| under_way).map(|s| s.replicas);
    let pods = now.map(scaled_to).max(held).unwrap_or(least);
    pods.clamp(least, most)
}

/// What is said of a Deployment's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many pods.
    Pods(i32),
    /// So many pods, if the Deployment is still as it was seen (its resourceVersion): an autoscaler's number isn't overwritten.
    Raised(i32, String),
    /// Whatever its autoscaler made of it.
    Left,
}

/// What to say of a Deployment's size, when a rollout needs so many pods of it.
pub fn size(observed: &Observed, hash: &str, needed: i32) -> Size {
    let seen = server(observed, hash);
    match (autoscaling(observed), seen) {
        (Some(_), Some(seen)) if needed > 0 => match scaled_to(seen) < needed {
            true => Size::Raised(needed, seen.resource_version().unwrap_or_default()),
            false => Size::Left,
        },
        _ => Size::Pods(needed),
    }
}

/// Whether a revision may have several pods.
pub fn may_be_several(observed: &Observed, needed: i32) -> bool {
    let most = autoscaling(observed).map_or(needed, |a| a.bounds().1);
    needed > 0 && needed.max(most) > 1
}

/// Whether a revision has an autoscaler.
pub fn has_autoscaler(observed: &Observed, needed: i32) -> bool {
    autoscaling(observed).is_some() && needed > 0
}

/// The autoscaler of a revision, of which a rollout needs so many pods.
pub fn autoscaler(
    observed: &Observed,
    status: &Status,
    revision: &Named<ModelRevision>,
    needed: i32,
) -> Option<Value> {
    let autoscaling = autoscaling(observed).filter(|_| needed > 0)?;
    let (least, most) = autoscaling.bounds();
    let is_stable = status.stable.as_ref().map(|s| &s.revision) == Some(&revision.hash);
    let free = matches!(state(status), RolloutState::Idle | RolloutState::Baking);
    let least = if is_stable && free { least } else { needed };
    let release = observed.deployment.name_any();
    let name = children::name(&release, &revision.hash);
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": least,
        "maxReplicas": most.max(least),
    });
    if !autoscaling.metrics.is_empty() {
        spec["metrics"] = json!(autoscaling.metrics);
    }
    if let Some(behavior) = &autoscaling.behavior {
        spec["behavior"] = json!(behavior);
    }
    Some(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": children::metadata(observed, &name, &children::revision_labels(&release, &revision.hash)),
        "spec": spec,
    }))
}

/// Says whether stable's autoscaler works, in its own words.
pub fn condition(observed: &Observed, status: &mut Status, now: Timestamp) {
    let release = observed.deployment.name_any();
    let name = status
        .stable
        .as_ref()
        .map(|s| children::name(&release, &s.revision));
    let seen = name.and_then(|name| observed.autoscalers.iter().find(|a| a.name_any() == name));
    let (is, reason, message) = match seen.and_then(|a| active(a)) {
        _ if autoscaling(observed).is_none() => {
            if condition::get(&status.conditions, kind::AUTOSCALED).is_none() {
                return;
            }
            let message = "spec.autoscaling is not set: spec.replicas says how many pods there are";
            (false, reason::serving::NOT_AUTOSCALED, message.to_owned())
        }
        Some((true, _, _)) => {
            let message = "stable's autoscaler can compute how many pods it needs";
            (true, reason::serving::AUTOSCALER_ACTIVE, message.to_owned())
        }
        Some((false, why, message)) => (
            false,
            reason::serving::AUTOSCALER_INACTIVE,
            format!(
                "stable's autoscaler can't compute how many pods it needs, which leaves as many as there are ({why}): {message}"
            ),
        ),
        None => (
            false,
            reason::serving::AUTOSCALER_STARTING,
            "stable's autoscaler has not looked at its pods yet".to_owned(),
        ),
    };
    condition::set(
        &mut status.conditions,
        kind::AUTOSCALED,
        is,
        reason,
        message,
        observed.deployment.metadata.generation,
        now,
    );
}

/// Whether an autoscaler computes: its condition `ScalingActive`, with reason and message, once it is there.
fn active(autoscaler: &Autoscaler) -> Option<(bool, &str, &str)> {
    let conditions = autoscaler.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == "ScalingActive")?;
    Some((
        found.status == "True",
        found.reason.as_deref().unwrap_or_default(),
        found.message.as_deref().unwrap_or_default(),
    ))
}
