//! The gateway of a namespace: one planner is the only writer of what runs it, and removes it with the last release.

mod children;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Action, Plan, Reference};
use crate::api::{GATEWAY_RELEASE_PORTS, label, prompt_release::KeyReference, traffic::Tls};

/// Name of all of the gateway's objects.
pub const NAME: &str = "perennial-gateway";
/// Where the credentials of prompt backends are mounted: `<directory>/<secret>/<key>`.
pub const CREDENTIALS_DIR: &str = "/perennial/credentials";
/// Where the gateway keeps its routing table, to serve without the API server: an emptyDir.
pub const STATE_DIR: &str = "/perennial/state";
/// Value of [`label::ROLE`] on gateway pods.
pub const ROLE: &str = "gateway";

/// What is seen of a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The namespace.
    pub namespace: String,
    /// Whether every store behind this was filled: nothing is removed before.
    pub complete: bool,
    /// ModelDeployments and PromptReleases in it.
    pub releases: usize,
    /// Keys of Secrets that prompt backends need.
    pub credentials: Vec<KeyReference>,
    /// The gateway's objects that exist and are ours.
    pub children: Vec<Reference>,
    /// How to run it.
    pub settings: Settings,
}

/// How gateways run: from the operator's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Image of the operator.
    pub image: String,
    /// Pods of a gateway.
    pub replicas: i32,
    /// Namespace that the operator runs in: the only one that may ask a gateway for what it measured.
    pub operator_namespace: Option<String>,
}

/// Applies what runs the gateway while there is a release, and removes it after the last one.
pub fn plan(observed: &Observed, _now: Timestamp) -> Plan<()> {
    let mut plan = Plan::default();
    if observed.releases > 0 {
        plan.actions = children::all(observed)
            .into_iter()
            .map(Action::Apply)
            .collect();
        plan.notes.push(format!(
            "the gateway of {} serves {} releases",
            observed.namespace, observed.releases
        ));
    } else if observed.complete && !observed.children.is_empty() {
        plan.actions = observed
            .children
            .iter()
            .cloned()
            .map(Action::Delete)
            .collect();
        plan.notes.push(format!(
            "the last release of {} is gone, and the gateway with it",
            observed.namespace
        ));
    }
    plan
}

/// Labels that select the gateway's pods.
pub fn selector() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), NAME.to_owned()),
        (label::ROLE.to_owned(), ROLE.to_owned()),
    ])
}

/// What callers of a release speak, and to which port of its Service.
pub fn scheme(tls: Option<&Tls>) -> (&'static str, u16) {
    match tls {
        Some(_) => ("https", 443),
        None => ("http", 80),
    }
}

/// The gateway port that is a release's own: the one it has, unless another release of the namespace with a smaller UID has it
/// too; else the first free one from where its UID points.
///
/// `others` are the UIDs and ports of the namespace's other releases of both kinds. `None` when all are taken.
pub fn port(uid: &str, own: Option<u16>, others: &[(String, u16)]) -> Option<u16> {
    let taken: BTreeSet<u16> = others.iter().map(|(_, port)| *port).collect();
    let lost = |port: u16| {
        others
            .iter()
            .any(|(other, p)| *p == port && other.as_str() < uid)
    };
    if let Some(own) = own.filter(|p| GATEWAY_RELEASE_PORTS.contains(p) && !lost(*p)) {
        return Some(own);
    }
    let size = GATEWAY_RELEASE_PORTS.len();
    let start = uid
        .bytes()
        .fold(0usize, |sum, b| (sum * 31 + usize::from(b)) % size);
    (0..size)
        .filter_map(|i| GATEWAY_RELEASE_PORTS.clone().nth((start + i) % size))
        .find(|port| !taken.contains(port))
}
