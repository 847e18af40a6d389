//! The one decision: the version that the spec asks for, what the rollout engine makes of it, and the writes that follow.
//!
//! Order of the writes: the revision, the status that records what was decided (the gateways route by it), the Service that leads
//! callers to the recorded port, marks, and last what is to go.

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::{Observed, Status, reason, template, template::Fault};
use crate::{
    api::{
        annotation,
        condition::{self, kind},
        label,
        prompt_release::PromptReleaseSpec,
        revision::PromptRevision,
        rollout::CandidateSource,
        traffic::Tls,
    },
    plan::{
        Action, Plan, gateway, release,
        revision::{self, Named},
        rollout::{self, Commands, Desired, Input, Revision, State, Target},
    },
};

/// The revision that a spec asks for.
///
/// # Errors
/// What keeps it from being rendered or sent.
pub fn wanted(spec: &PromptReleaseSpec) -> Result<PromptRevision, Fault> {
    template::variables(&spec.prompt)?;
    let url = &spec.backend.url;
    if let Err(error) = url::Url::parse(url) {
        return Err(Fault {
            reason: reason::BACKEND_INVALID,
            message: format!("spec.backend.url `{url}` is no URL: {error}"),
        });
    }
    let canonical = serde_json::to_value(&spec.prompt).unwrap_or_default();
    Ok(PromptRevision {
        version: revision::sha256(&canonical),
        prompt: spec.prompt.clone(),
        backend: spec.backend.clone(),
    })
}

/// What to do about a PromptRelease.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan<Status> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let release = &observed.release;
    let generation = release.metadata.generation;
    let mut status = release.status.clone().unwrap_or_default();
    let kept = release::Kept::new(
        &*observed.release,
        labels(&release.name_any(), "revision"),
        &observed.revisions,
    );
    let mut known: Vec<Named<PromptRevision>> = kept.known();
    let wanted = wanted(&release.spec).map(|content| Named {
        hash: revision::name(&content, &known),
        revision: content,
    });
    let mut plan = Plan::default();
    if let Ok(named) = &wanted
        && known.iter().all(|k| k.hash != named.hash)
    {
        plan.actions.push(Action::Apply(kept.keep(named, None)));
        known.push(named.clone());
    }
    let input = input(observed, &status, &kept, &known, &wanted);
    let decision = rollout::decide(&input, now);
    plan.events.clone_from(&decision.events);
    plan.notes.clone_from(&decision.notes);
    plan.check_at = decision.check_at;

    decision.state.clone().into_prompt(&mut status);
    status.observed_generation = generation;
    let conditions = &mut status.conditions;
    rollout::conditions(
        &decision.summary,
        conditions,
        generation.unwrap_or_default(),
        now,
    );
    let (renders, why, message) = match &wanted {
        Ok(_) => (
            true,
            reason::RENDERS,
            "every message renders with the declared variables".to_owned(),
        ),
        Err(fault) => (false, fault.reason, fault.message.clone()),
    };
    condition::set(
        conditions,
        kind::RENDERED,
        renders,
        why,
        message,
        generation,
        now,
    );
    let name = release.name_any();
    let namespace = release.namespace().unwrap_or_default();
    let (scheme, _) = gateway::scheme(tls(observed));
    status.url = Some(format!("{scheme}://{name}.{namespace}.svc"));
    troubles(observed, &mut status, now);
    let port = status.gateway.as_ref().map_or(0, |g| g.port);
    plan.actions.push(Action::Status(Box::new(status)));
    if port > 0 {
        plan.actions.push(Action::Apply(service(observed, port)));
    }
    plan.actions.extend(kept.marks(&known, &decision.marks));
    if observed.complete {
        let needed: Vec<&str> = decision.keep.iter().map(String::as_str).collect();
        let old = kept.old(&needed);
        plan.actions.extend(old.into_iter().map(Action::Delete));
    }
    plan
}

fn input(
    observed: &Observed,
    status: &Status,
    kept: &release::Kept<'_>,
    known: &[Named<PromptRevision>],
    wanted: &Result<Named<PromptRevision>, Fault>,
) -> Input {
    let release = &observed.release;
    let name = release.name_any();
    let uid = release.uid().unwrap_or_default();
    let mut state = State::of_prompt(Some(status));
    let own = u16::try_from(state.gateway.port).ok().filter(|p| *p > 0);
    state.gateway.port = gateway::port(&uid, own, &observed.ports).map_or(0, i32::from);
    let revisions = known.iter().map(|k| {
        let object = kept.find(&k.hash);
        let mark = |key: &str| object.and_then(|o| o.annotations().get(key).cloned());
        let seen = Revision {
            version: Some(k.revision.version.clone()),
            digest: Some(format!("sha256:{}", k.revision.version)),
            stable_since: mark(annotation::STABLE_SINCE).and_then(|t| t.parse().ok()),
            rejected: mark(annotation::REJECTED),
            number: object.map_or(0, |o| o.revision),
            ..Revision::default()
        };
        (k.hash.clone(), seen)
    });
    Input {
        name,
        uid,
        generation: release.metadata.generation.unwrap_or_default(),
        desired: match wanted {
            Ok(named) => Desired::Revision(Target {
                revision: named.hash.clone(),
                version: Some(named.revision.version.clone()),
                digest: Some(format!("sha256:{}", named.revision.version)),
                uri: None,
                source: CandidateSource::Spec,
            }),
            Err(fault) => Desired::Nothing {
                reason: fault.reason.to_owned(),
                message: fault.message.clone(),
                stalled: true,
            },
        },
        rollout: release.spec.rollout.clone().unwrap_or_default(),
        metrics: release.spec.metrics.clone(),
        replicas: None,
        manual_versions: false,
        by_hand: Vec::new(),
        improvement: None,
        signature_change: None,
        state,
        revisions: revisions.collect(),
        evaluations: release::evaluations(&observed.evaluations),
        live: observed.live.clone(),
        commands: Commands::of(release.annotations()),
    }
}

/// What keeps the spec from coming into effect beside the rollout itself, said at once and not at a deadline.
fn troubles(observed: &Observed, status: &mut Status, now: Timestamp) {
    let spec = &observed.release.spec;
    let rollout = spec.rollout.clone().unwrap_or_default();
    let named = Input::evaluation_names(&rollout, &spec.metrics, None);
    let mut missing = named.iter().map(String::as_str);
    let missing = missing.by_ref();
    let missing: Vec<&str> = missing
        .filter(|n| !observed.evaluations.contains_key(*n))
        .collect();
    let trouble = if status.gateway.as_ref().is_none_or(|g| g.port == 0) {
        let message = "every port of the namespace's gateway is taken by a release: remove one, or use another namespace";
        (reason::NO_PORT_LEFT, message.to_owned())
    } else if !missing.is_empty() {
        let message = format!(
            "there is no Evaluation {} in this namespace: create it, or take it out of spec.rollout.evaluations and spec.metrics",
            missing.join(", ")
        );
        (reason::UNKNOWN_EVALUATION, message)
    } else if let Some(message) = release::elsewhere(
        &observed.release.name_any(),
        &rollout,
        &observed.evaluations,
        |e| e.spec.target.prompt_release.as_ref(),
    ) {
        (reason::EVALUATION_ELSEWHERE, message)
    } else if let Some(refused) = &observed.live.asked.refused {
        (reason::METRIC_REFUSED, refused.clone())
    } else {
        return;
    };
    let (why, message) = trouble;
    status.message = release::needs_help(
        &mut status.conditions,
        why,
        &message,
        observed.release.metadata.generation,
        now,
    );
}

/// Enters a refused write into the status: what the API server said, word for word.
pub fn refused(
    status: &mut Status,
    why: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    status.observed_generation = generation;
    status.message = release::needs_help(&mut status.conditions, why, message, generation, now);
}

fn labels(release: &str, role: &str) -> Map<String, Value> {
    let pairs = [
        ("app.kubernetes.io/name", release),
        ("app.kubernetes.io/component", role),
        ("app.kubernetes.io/part-of", "perennial"),
        ("app.kubernetes.io/managed-by", "perennial"),
        (label::PROMPT_RELEASE, release),
        (label::ROLE, role),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}

/// The release's Service: the gateway's pods, at this release's own port.
fn service(observed: &Observed, port: i32) -> Value {
    let release = &observed.release;
    let name = release.name_any();
    let (scheme, service_port) = gateway::scheme(tls(observed));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": release.namespace(),
            "labels": labels(&name, "release"),
            "ownerReferences": [release.controller_owner_ref(&())],
        },
        "spec": {
            "selector": gateway::selector(),
            "ports": [{"name": scheme, "port": service_port, "targetPort": port, "protocol": "TCP"}],
        },
    })
}

fn tls(observed: &Observed) -> Option<&Tls> {
    let traffic = observed.release.spec.traffic.as_ref();
    traffic.and_then(|t| t.tls.as_ref())
}
