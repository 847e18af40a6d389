//! The way in from outside: an HTTPRoute of the Gateway API to the release's Service, where the cluster knows that kind.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Observed, Status, children, reason};
use crate::{
    api::{
        condition::{self, kind},
        serving::{HTTPRoute, ParentReference, RouteParent},
    },
    plan::gateway,
};

/// When to look again whether the kind is there by now, in seconds.
const LOOK_AGAIN: i64 = 15;
const GROUP: &str = "gateway.networking.k8s.io";

/// The route that the spec asks for, if the cluster knows routes.
pub fn route(observed: &Observed) -> Option<Value> {
    let route = observed.deployment.spec.route.as_ref();
    let route = route.filter(|_| observed.knows_routes)?;
    let release = observed.deployment.name_any();
    let (_, port) = gateway::scheme(children::tls(observed));
    let mut spec = json!({
        // With the defaults that the API server would put in, so that they are no difference.
        "parentRefs": route.parent_refs.iter().map(|parent| {
            let mut parent = json!(parent);
            for (key, value) in [("group", GROUP), ("kind", "Gateway")] {
                if parent[key].is_null() {
                    parent[key] = json!(value);
                }
            }
            parent
        }).collect::<Vec<_>>(),
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"group": "", "kind": "Service", "name": release, "port": port, "weight": 1}],
        }],
    });
    if !route.hostnames.is_empty() {
        spec["hostnames"] = json!(route.hostnames);
    }
    Some(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": children::metadata(observed, &release, &children::labels(&release, "release")),
        "spec": spec,
    }))
}

/// Says whether callers from outside are led here, in the words of whoever leads them. Returns when to look again.
pub fn condition(observed: &Observed, status: &mut Status, now: Timestamp) -> Option<Timestamp> {
    let generation = observed.deployment.metadata.generation;
    let (is, reason, message) = match (&observed.deployment.spec.route, &observed.route) {
        (None, _) => {
            condition::get(&status.conditions, kind::ROUTED)?;
            let message = "spec.route is not set".to_owned();
            (false, reason::serving::NO_ROUTE, message)
        }
        (Some(_), _) if !observed.knows_routes => (
            false,
            reason::serving::GATEWAY_API_MISSING,
            "spec.route needs the Gateway API, and this cluster doesn't know HTTPRoutes (gateway.networking.k8s.io/v1): install its CRDs (standard-install.yaml of sigs.k8s.io/gateway-api) and an implementation, or leave out spec.route".to_owned(),
        ),
        (Some(route), seen) => {
            let namespace = observed.deployment.namespace().unwrap_or_default();
            accepted(seen.as_deref(), &route.parent_refs, &namespace)
        }
    };
    condition::set(
        &mut status.conditions,
        kind::ROUTED,
        is,
        reason,
        message,
        generation,
        now,
    );
    let missing = reason == reason::serving::GATEWAY_API_MISSING;
    missing.then(|| now + SignedDuration::from_secs(LOOK_AGAIN))
}

/// What those that are asked for say of the route as it is now: words about another parent, or about an earlier spec, are old.
fn accepted(
    route: Option<&HTTPRoute>,
    wanted: &[ParentReference],
    namespace: &str,
) -> (bool, &'static str, String) {
    let generation = route.and_then(|r| r.metadata.generation);
    let status = route.and_then(|r| r.status.as_ref());
    let parents = status.map_or(&[] as &[RouteParent], |s| &s.parents);
    let about = |wanted: &ParentReference| {
        let wanted = full(wanted, namespace);
        let mut parents = parents.iter();
        parents.find(|p| full(&p.parent_ref, namespace) == wanted)
    };
    let says = |parent: &RouteParent, kinds: &[&str], status: &str| {
        let mut conditions = parent.conditions.iter();
        let found = conditions.find(|c| {
            let current = c.observed_generation.is_none_or(|g| Some(g) >= generation);
            current && kinds.contains(&c.kind.as_str()) && c.status == status
        });
        found.cloned()
    };
    let answers: Vec<&RouteParent> = wanted.iter().filter_map(about).collect();
    let refusal = answers.iter().find_map(|parent| {
        let condition = says(parent, &["Accepted", "ResolvedRefs"], "False")?;
        let mut words = format!(
            "{} says of {}: {} is False ({})",
            parent.controller_name, parent.parent_ref.name, condition.kind, condition.reason
        );
        // Some give the reason alone.
        if !condition.message.is_empty() {
            words += &format!(": {}", condition.message);
        }
        Some(words)
    });
    if let Some(refusal) = refusal {
        return (false, reason::serving::ROUTE_REFUSED, refusal);
    }
    let accepting = answers
        .iter()
        .filter(|p| says(p, &["Accepted"], "True").is_some());
    let who: Vec<&str> = accepting.map(|p| p.controller_name.as_str()).collect();
    let (count, wanted) = (who.len(), wanted.len());
    if count >= wanted {
        let who: Vec<&str> = BTreeSet::from_iter(who).into_iter().collect();
        let message = format!("its HTTPRoute is accepted by {}", who.join(", "));
        return (true, reason::serving::ROUTE_ACCEPTED, message);
    }
    let message = format!(
        "{count} of {wanted} parents have accepted its HTTPRoute: a parent that says nothing is not there, or no implementation looks after it"
    );
    (false, reason::serving::ROUTE_PENDING, message)
}

/// A reference with the defaults that some write out and some don't.
fn full(parent: &ParentReference, namespace: &str) -> ParentReference {
    let or = |field: &Option<String>, default: &str| {
        let default = || default.to_owned();
        Some(field.clone().unwrap_or_else(default))
    };
    ParentReference {
        group: or(&parent.group, GROUP),
        kind: or(&parent.kind, "Gateway"),
        namespace: or(&parent.namespace, namespace),
        ..parent.clone()
    }
}
