//! PersistentVolumeClaims: what is seen of them, and whether a pod waits for one that it can't share.
//!
//! A claim that one node may use serves any number of pods there, so nothing is said before a pod really can't start.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

/// A pod of which nothing runs so long after it was given a node, while its volume is in use on another, waits for that volume. Before,
/// it may still be pulling images.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// State of a PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It exists, and pods on any node may use it.
    Found,
    /// It exists, and pods on one node may use it (`ReadWriteOnce`): those of ours that run with it are on these nodes.
    OneNode(BTreeSet<String>),
    /// It exists, and one pod may use it (`ReadWriteOncePod`).
    OnePod,
    /// It doesn't exist.
    Missing,
}

impl Claim {
    /// What is to be known of a claim; `pods` are those of ours in its namespace.
    pub fn of<'a>(claim: &PersistentVolumeClaim, pods: impl Iterator<Item = &'a Pod>) -> Self {
        let given = claim.status.as_ref().and_then(|s| s.access_modes.as_ref());
        let asked = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
        let modes = given.filter(|m| !m.is_empty()).or(asked);
        let has = |mode: &str| modes.is_some_and(|m| m.iter().any(|m| m == mode));
        if has("ReadWriteMany") || has("ReadOnlyMany") {
            return Self::Found;
        }
        if has("ReadWriteOncePod") {
            return Self::OnePod;
        }
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let runs =
            |pod: &&Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        let on = pods
            .filter(runs)
            .filter(|pod| used_by(pod).any(|c| c == name))
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
        Self::OneNode(on.collect())
    }
}

/// Names of the claims that a pod's volumes are.
pub fn used_by(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// The sentence about the first claim that doesn't exist.
pub fn missing(claims: &BTreeMap<String, Claim>) -> Option<String> {
    let (name, _) = claims.iter().find(|(_, state)| **state == Claim::Missing)?;
    Some(format!(
        "PersistentVolumeClaim {name} doesn't exist in this namespace: create it, or correct the pvc:// URI that names it"
    ))
}

/// Why a pod can't start for the sake of a claim that it would have to share, and what to do; or when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// A sentence, if it can't.
    pub message: Option<String>,
    /// When it will be known, if it isn't yet.
    pub check_at: Option<Timestamp>,
}

/// Whether a pod that doesn't start waits for a claim that others use.
pub fn not_shareable(pod: &Pod, claims: &BTreeMap<String, Claim>, now: Timestamp) -> Verdict {
    let Some(status) = &pod.status else {
        return Verdict::default();
    };
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let used = || used_by(pod).filter_map(|claim| Some((claim, claims.get(claim)?)));
    let one_pod = used().find(|(_, c)| **c == Claim::OnePod);
    let one_node = used().find_map(|(claim, state)| match state {
        Claim::OneNode(nodes) => Some((claim, nodes)),
        _ => None,
    });
    let say = |message: String| Verdict {
        message: Some(message),
        check_at: None,
    };
    let mut conditions = status.conditions.iter().flatten();
    let Some(scheduled) = conditions.find(|c| c.type_ == "PodScheduled") else {
        return Verdict::default();
    };
    if scheduled.status != "True" {
        // The scheduler's own words, as it has no reason for each.
        let words = scheduled.message.as_deref().unwrap_or_default();
        return match (one_pod, one_node) {
            (Some((claim, _)), _) if words.contains("ReadWriteOncePod") => say(format!(
                "pod {name} can't start: PersistentVolumeClaim {claim} is ReadWriteOncePod and another pod uses it; use a claim with ReadWriteMany, or one for each"
            )),
            (_, Some((claim, _))) if words.contains("volume node affinity conflict") => {
                say(format!(
                    "pod {name} can't start: PersistentVolumeClaim {claim} is ReadWriteOnce and its volume is on a node where the pod can't run ({words}); use a claim with ReadWriteMany, or make room on that node"
                ))
            }
            _ => Verdict::default(),
        };
    }
    let started = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten()
        .any(|c| {
            c.state
                .as_ref()
                .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        });
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_ref());
    let (Some((claim, nodes)), Some(node)) = (one_node, node) else {
        return Verdict::default();
    };
    let Some(elsewhere) = nodes.iter().find(|other| *other != node) else {
        return Verdict::default();
    };
    let since = scheduled.last_transition_time.as_ref().map_or(now, |t| t.0);
    if started || status.phase.as_deref() != Some("Pending") {
        Verdict::default()
    } else if now < since + PATIENCE {
        Verdict {
            message: None,
            check_at: Some(since + PATIENCE),
        }
    } else {
        say(format!(
            "pod {name} can't start on node {node}: PersistentVolumeClaim {claim} is ReadWriteOnce and pods on node {elsewhere} use it; use a claim with ReadWriteMany, or keep its pods on one node"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn pod(node: Value, status: Value) -> Pod {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]);
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes},
            "status": status,
        }))
        .unwrap()
    }

    fn unscheduled(words: &str) -> Pod {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words});
        pod(
            Value::Null,
            json!({"phase": "Pending", "conditions": [condition]}),
        )
    }

    fn waiting(since: &str) -> Pod {
        let condition =
            json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": since});
        let state = json!({"waiting": {"reason": "ContainerCreating"}});
        let container = json!({"name": "c", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        pod(
            json!("b"),
            json!({"phase": "Pending", "conditions": [condition], "containerStatuses": [container]}),
        )
    }

    fn claim(modes: &[&str]) -> PersistentVolumeClaim {
        serde_json::from_value(
            json!({"metadata": {"name": "data"}, "spec": {"accessModes": modes}}),
        )
        .unwrap()
    }

    fn on(nodes: &[&str]) -> Claim {
        Claim::OneNode(nodes.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn access_modes_say_who_may_share() {
        let running = pod(json!("a"), json!({"phase": "Running"}));
        let ended = pod(json!("c"), json!({"phase": "Succeeded"}));
        for (modes, expected) in [
            (&["ReadWriteMany"][..], Claim::Found),
            (&["ReadWriteOnce", "ReadOnlyMany"], Claim::Found),
            (&["ReadWriteOncePod"], Claim::OnePod),
            (&["ReadWriteOnce"], on(&["a"])),
        ] {
            let pods = [&running, &ended].into_iter();
            assert_eq!(Claim::of(&claim(modes), pods), expected, "{modes:?}");
        }
    }

    #[test]
    fn a_pod_that_can_not_share_its_claim_is_told_apart_from_others() {
        let affinity = "0/2 nodes are available: 2 node(s) had volume node affinity conflict.";
        let one_pod = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
        let long = "2026-01-01T00:08:00Z";
        for (what, pod, claim, words) in [
            (
                "a claim for one pod",
                unscheduled(one_pod),
                Claim::OnePod,
                "PersistentVolumeClaim data is ReadWriteOncePod and another pod uses it",
            ),
            (
                "a volume of another node",
                unscheduled(affinity),
                on(&["a"]),
                "PersistentVolumeClaim data is ReadWriteOnce and its volume is on a node where",
            ),
            (
                "a volume of another zone",
                unscheduled(affinity),
                Claim::Found,
                "",
            ),
            (
                "no room",
                unscheduled("0/1 nodes are available: Insufficient cpu."),
                on(&["a"]),
                "",
            ),
            (
                "in use elsewhere",
                waiting(long),
                on(&["a"]),
                "node b: PersistentVolumeClaim data is ReadWriteOnce and pods on node a use it",
            ),
            ("in use on the same node", waiting(long), on(&["b"]), ""),
            ("in use nowhere", waiting(long), on(&[]), ""),
            ("shareable", waiting(long), Claim::Found, ""),
        ] {
            let claims = BTreeMap::from([("data".to_owned(), claim)]);
            let message = not_shareable(&pod, &claims, now())
                .message
                .unwrap_or_default();
            assert!(message.contains(words), "{what}: {message}");
            assert_eq!(message.is_empty(), words.is_empty(), "{what}: {message}");
        }
    }

    #[test]
    fn a_pod_that_may_still_be_pulling_its_image_is_given_a_minute() {
        let claims = BTreeMap::from([("data".to_owned(), on(&["a"]))]);
        let verdict = not_shareable(&waiting("2026-01-01T00:09:30Z"), &claims, now());
        assert_eq!(verdict.message, None);
        assert_eq!(
            verdict.check_at,
            Some("2026-01-01T00:10:30Z".parse().unwrap())
        );
    }
}
