//! The one decision: what the spec asks for, what the rollout engine makes of it, and the writes that follow.
//!
//! Order of the writes: the revision (its copies of ConfigMaps first), the status that records what was decided, what leads callers to
//! stable, the retraining, what is to go, and last the candidate's pods, so that a template which the API server refuses holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    Observed, Status, children, frozen, health, labelled, log, look, lost, model, model::Wanted,
    monitor, reason, resolve, route, scale, signature,
};
use crate::{
    api::{
        annotation,
        condition::{self, kind},
        revision::ModelRevision,
    },
    plan::{
        Action, Event, Plan, Reference, earlier, gateway, release,
        revision::Named,
        rollout::{self, Commands, Desired, Input, Revision, State, Target},
    },
};

/// What to do about a ModelDeployment.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan<Status> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let deployment = &observed.deployment;
    let generation = deployment.metadata.generation;
    let mut status = deployment.status.clone().unwrap_or_default();
    let kept = release::Kept::new(
        &*observed.deployment,
        children::labels(&deployment.name_any(), "revision"),
        &observed.revisions,
    );
    let mut known: Vec<Named<ModelRevision>> = kept.known();
    let rebuilt = lost::rebuild(
        observed,
        &mut status,
        |status| input(observed, status, &kept, &known, Desired::default()),
        now,
    );
    let followed = monitor::follow_runs(observed, &known, &mut status);
    let wanted = model::wanted(observed, &status, &known);
    let input = input(observed, &status, &kept, &known, desired(&wanted));
    let decision = rollout::decide(&input, now);
    let mut plan = Plan {
        events: rebuilt
            .into_iter()
            .chain(followed)
            .chain(decision.events.clone())
            .collect(),
        notes: decision.notes.clone(),
        check_at: decision.check_at,
        ..Plan::default()
    };
    let adopted = if let Wanted::Revision { named, .. } = &wanted
        && known.iter().all(|k| k.hash != named.hash)
    {
        plan.actions.extend(frozen::copies(observed, named));
        plan.actions.push(Action::Apply(kept.keep(named, None)));
        known.push((**named).clone());
        true
    } else {
        false
    };

    decision.state.clone().into_model(&mut status);
    status.observed_generation = generation;
    rollout::conditions(
        &decision.summary,
        &mut status.conditions,
        generation.unwrap_or_default(),
        now,
    );
    serving(observed, &mut status);
    scale::condition(observed, &mut status, now);
    plan.check_at = earlier(plan.check_at, route::condition(observed, &mut status, now));
    unmeasurable(observed, &mut status, now);
    log::condition(observed, &mut status, now);
    let mut running: Vec<_> = decision
        .pods
        .iter()
        .filter_map(|(hash, replicas)| Some((known.iter().find(|k| k.hash == *hash)?, *replicas)))
        .collect();
    let shared = health::not_shareable(observed, &running, now);
    plan.check_at = earlier(plan.check_at, shared.check_at);
    if let Some(message) = shared.message {
        status.message = release::needs_help(
            &mut status.conditions,
            reason::VOLUME_NOT_SHAREABLE,
            &message,
            generation,
            now,
        );
    }
    plan.events.extend(found_out(observed, &status));
    status.metrics = monitor::metrics(observed, &status);
    plan.check_at = earlier(plan.check_at, labelled::check_at(observed, now));
    let watched = monitor::watch_drift(observed, &known, &mut status, now).unwrap_or_default();
    plan.check_at = earlier(plan.check_at, watched.check_at);
    let retrained = monitor::retrain(observed, &known, &mut status, now);
    plan.check_at = earlier(plan.check_at, retrained.check_at);
    plan.events.extend(retrained.events.iter().cloned());
    monitor::condition_of_retraining(&mut status, &retrained, generation, now);

    let port = status.gateway.as_ref().map_or(0, |g| g.port);
    let stable = status.stable.as_ref().map(|s| s.revision.clone());
    let autoscalers: Vec<_> = running
        .iter()
        .filter_map(|(revision, needed)| scale::autoscaler(observed, &status, revision, *needed))
        .collect();
    let record = monitor::record(observed, &status);
    plan.actions.push(Action::Status(Box::new(status)));
    if port > 0 {
        plan.actions
            .push(Action::Apply(children::service(observed, port)));
    }
    let (first, last): (Vec<_>, Vec<_>) = running
        .drain(..)
        .partition(|(revision, _)| Some(&revision.hash) == stable.as_ref());
    plan.actions
        .extend(first.into_iter().flat_map(|(r, n)| run(observed, r, n)));
    plan.actions.extend(retrained.create.map(Action::Create));
    plan.actions.extend(kept.marks(&known, &decision.marks));
    plan.actions.extend(unused(observed, &decision.pods));
    if observed.complete {
        let needed = decision.keep.iter().map(String::as_str);
        let new = known.last().filter(|_| adopted).map(|k| k.hash.as_str());
        let old = kept.old(&needed.chain(new).collect::<Vec<_>>());
        let gone = |name: &String| old.iter().any(|r| r.name == *name);
        let stay: BTreeSet<String> = known
            .iter()
            .map(|k| children::name(&deployment.name_any(), &k.hash))
            .chain(observed.revisions.iter().map(|r| r.name_any()))
            .filter(|name| !gone(name))
            .collect();
        plan.actions.extend(old.into_iter().map(Action::Delete));
        plan.actions.extend(frozen::unused(observed, &stay));
    }
    let job = match &wanted {
        Wanted::Resolve { model, .. } => Some(resolve::name(&deployment.name_any(), model)),
        _ => None,
    };
    let (gone, again) = resolve::clean(observed, job.as_deref(), now);
    plan.actions.extend(gone);
    plan.check_at = earlier(plan.check_at, again);
    plan.actions.extend(look::clean(observed, &retrained.looks));
    if let Wanted::Resolve { model, .. } = &wanted {
        plan.actions
            .push(Action::Create(resolve::job(observed, model)));
    }
    plan.actions
        .extend(last.into_iter().flat_map(|(r, n)| run(observed, r, n)));
    // A mistake in these keeps nobody from being served.
    plan.actions
        .extend(autoscalers.into_iter().map(Action::Apply));
    if port > 0 {
        plan.actions
            .extend(route::route(observed).map(Action::Apply));
    }
    plan.actions.extend(record);
    plan.actions.extend(watched.keep);
    let looks = retrained.looks.iter().map(|l| look::job(observed, l));
    plan.actions.extend(looks.map(Action::Create));
    plan
}

fn input(
    observed: &Observed,
    status: &Status,
    kept: &release::Kept<'_>,
    known: &[Named<ModelRevision>],
    desired: Desired,
) -> Input {
    let deployment = &observed.deployment;
    let spec = &deployment.spec;
    let release = deployment.name_any();
    let uid = deployment.uid().unwrap_or_default();
    let mut state = State::of_model(Some(status));
    let own = u16::try_from(state.gateway.port).ok().filter(|p| *p > 0);
    state.gateway.port = gateway::port(&uid, own, &observed.ports).map_or(0, i32::from);
    let revisions = known
        .iter()
        .map(|k| (k.hash.clone(), seen(observed, kept, k)))
        .collect();
    Input {
        name: release,
        uid,
        generation: deployment.metadata.generation.unwrap_or_default(),
        desired,
        rollout: spec.rollout.clone().unwrap_or_default(),
        metrics: spec.metrics.clone(),
        replicas: Some(scale::full(observed, status)),
        manual_versions: model::is_manual(deployment),
        by_hand: model::by_hand(observed, status),
        improvement: improvement(spec.retraining.as_ref(), status),
        signature_change: signature::change(status, known),
        state,
        revisions,
        evaluations: release::evaluations(&observed.evaluations),
        live: observed.live.clone(),
        commands: Commands::of(deployment.annotations()),
    }
}

/// What versions of retrainings must be better in. Those that status remembers are asked: the last twenty.
fn improvement(
    retraining: Option<&crate::api::model_deployment::Retraining>,
    status: &Status,
) -> Option<rollout::Improvement> {
    let wanted = retraining?.require_improvement.as_ref()?;
    let runs = status.retraining.iter().flat_map(|r| &r.runs);
    Some(rollout::Improvement {
        metric: wanted.metric.clone(),
        versions: runs.filter_map(|r| r.version.clone()).collect(),
    })
}

fn desired(wanted: &Wanted) -> Desired {
    match wanted {
        Wanted::Revision { named, source } => Desired::Revision(Target {
            revision: named.hash.clone(),
            version: named.revision.model.version.clone(),
            digest: named.revision.model.digest.clone(),
            uri: Some(named.revision.model.uri.clone()),
            source: *source,
        }),
        Wanted::Resolve {
            reason, message, ..
        } => Desired::Nothing {
            reason: (*reason).to_owned(),
            message: message.clone(),
            stalled: *reason == reason::MODEL_UNREADABLE,
        },
        Wanted::Nothing { reason, message } => Desired::Nothing {
            reason: (*reason).to_owned(),
            message: message.clone(),
            stalled: *reason == reason::CONFIG_MAP_MISSING,
        },
    }
}

fn seen(observed: &Observed, kept: &release::Kept<'_>, known: &Named<ModelRevision>) -> Revision {
    let name = children::name(&observed.deployment.name_any(), &known.hash);
    let object = kept.find(&known.hash);
    let mark = |key: &str| object.and_then(|o| o.annotations().get(key).cloned());
    let server = observed.servers.iter().find(|d| d.name_any() == name);
    Revision {
        version: known.revision.model.version.clone(),
        digest: known.revision.model.digest.clone(),
        uri: Some(known.revision.model.uri.clone()),
        available: health::available(server.map(AsRef::as_ref)),
        failure: health::failure(observed, &known.hash).or_else(|| frozen::lost(observed, known)),
        stable_since: mark(annotation::STABLE_SINCE).and_then(|t| t.parse().ok()),
        rejected: mark(annotation::REJECTED),
        number: object.map_or(0, |o| o.revision),
    }
}

/// Where callers go, and what `kubectl scale` sees.
fn serving(observed: &Observed, status: &mut Status) {
    let deployment = &observed.deployment;
    let release = deployment.name_any();
    status.url = Some(format!(
        "{}://{release}.{}.svc",
        gateway::scheme(children::tls(observed)).0,
        deployment.namespace().unwrap_or_default()
    ));
    let shown = status
        .stable
        .as_ref()
        .or(status.candidate.as_ref())
        .map(|r| r.revision.clone());
    status.selector = shown.is_some().then(|| children::selector_text(&release));
    let server = shown.and_then(|hash| {
        let name = children::name(&release, &hash);
        observed.servers.iter().find(|d| d.name_any() == name)
    });
    status.replicas = server
        .and_then(|d| d.status.as_ref()?.replicas)
        .unwrap_or(0);
}

/// An Evaluation that is named and isn't there, or a metric that can't be asked for, keeps the spec from coming into effect: who is to
/// blame is said at once.
fn unmeasurable(observed: &Observed, status: &mut Status, now: Timestamp) {
    let spec = &observed.deployment.spec;
    let rollout = spec.rollout.clone().unwrap_or_default();
    let named = Input::evaluation_names(&rollout, &spec.metrics, None);
    let elsewhere = release::elsewhere(
        &observed.deployment.name_any(),
        &rollout,
        &observed.evaluations,
        |e| e.spec.target.model_deployment.as_ref(),
    );
    let missing: Vec<&str> = named
        .iter()
        .filter(|n| !observed.evaluations.contains_key(*n))
        .map(String::as_str)
        .collect();
    let refused = rollout::labels_refused(&rollout, &spec.metrics);
    let refused = refused.or_else(|| observed.live.asked.refused.clone());
    let (why, message) = match (elsewhere, refused) {
        _ if !missing.is_empty() => (
            reason::UNKNOWN_EVALUATION,
            format!(
                "there is no Evaluation {} in this namespace: create it, or take it out of spec.rollout.evaluations and spec.metrics",
                missing.join(", ")
            ),
        ),
        (Some(message), _) => (reason::EVALUATION_ELSEWHERE, message),
        (None, Some(refused)) => (reason::METRIC_REFUSED, refused),
        (None, None) => return,
    };
    status.message = release::needs_help(
        &mut status.conditions,
        why,
        &message,
        observed.deployment.metadata.generation,
        now,
    );
}

/// What no Event of the rollout tells: said when it is found out, not at every look.
fn found_out(observed: &Observed, status: &Status) -> Option<Event> {
    let ready = |status: &Status| {
        let ready = condition::get(&status.conditions, kind::READY);
        ready.map(|c| (c.reason.clone(), c.message.clone()))
    };
    let before = observed.deployment.status.as_ref().and_then(ready);
    let (reason, note) = ready(status)?;
    let told = [reason::CONFIG_MAP_MISSING, reason::VOLUME_NOT_SHAREABLE];
    let reason = told.into_iter().find(|r| *r == reason)?;
    let is_news = before.as_ref() != Some(&(reason.to_owned(), note.clone()));
    is_news.then_some(Event {
        warning: true,
        reason,
        action: "Rollout",
        note,
    })
}

/// The writes that run a revision; nobody sees its pods before the Service that lists them is there.
fn run(observed: &Observed, revision: &Named<ModelRevision>, replicas: i32) -> Vec<Action<Status>> {
    let mut actions = frozen::copies(observed, revision);
    actions.push(Action::Apply(children::endpoints(observed, revision)));
    if scale::may_be_several(observed, replicas) {
        actions.push(Action::Apply(children::disruption_budget(
            observed, revision,
        )));
    }
    let size = scale::size(observed, &revision.hash, replicas);
    actions.push(Action::Apply(children::server(observed, revision, &size)));
    actions
}

/// Deletes what runs revisions that are wanted no more.
fn unused(observed: &Observed, pods: &BTreeMap<String, i32>) -> Vec<Action<Status>> {
    if !observed.complete {
        return Vec::new();
    }
    let release = observed.deployment.name_any();
    let hash = |name: &str| {
        name.strip_prefix(release.as_str())?
            .strip_prefix('-')
            .map(str::to_owned)
    };
    let servers = observed.servers.iter().map(|d| Reference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: d.namespace().unwrap_or_default(),
        name: d.name_any(),
        uid: d.uid().unwrap_or_default(),
    });
    let stays = |reference: &Reference| match hash(&reference.name) {
        Some(hash) if reference.kind == "PodDisruptionBudget" => {
            let pods = pods.get(&hash);
            pods.is_some_and(|n| scale::may_be_several(observed, *n))
        }
        Some(hash) if reference.kind == "HorizontalPodAutoscaler" => {
            let pods = pods.get(&hash);
            pods.is_some_and(|n| scale::has_autoscaler(observed, *n))
        }
        Some(hash) => pods.contains_key(&hash),
        None if reference.kind == "HTTPRoute" => observed.deployment.spec.route.is_some(),
        None => true, // The release's own Service.
    };
    servers
        .chain(observed.others.iter().cloned())
        .filter(|r| !stays(r))
        .map(Action::Delete)
        .collect()
}

/// Enters a refused write into the status: what the API server said, word for word, and whom it concerns.
pub fn refused(
    status: &mut Status,
    release: &str,
    (kind_of, name): (&str, &str),
    (why, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) {
    let reason = match why {
        "Invalid" if kind_of == "Deployment" => reason::TEMPLATE_REFUSED,
        other => reason::known(other),
    };
    status.observed_generation = generation;
    let hash = name.strip_prefix(release).and_then(|n| n.strip_prefix('-'));
    for side in [&mut status.stable, &mut status.candidate]
        .into_iter()
        .flatten()
    {
        if Some(side.revision.as_str()) == hash {
            side.message = Some(condition::bounded(message.to_owned()));
        }
    }
    status.message = release::needs_help(&mut status.conditions, reason, message, generation, now);
}
