//! The one decision: what the spec asks for, what the rollout engine makes of it, and the writes that follow.
//!
//! Order of the writes: the revision (its copies of ConfigMaps first), the status that records what was decided, what leads callers to stable, the retraining,
//! what is to go, and last the candidate's pods, so that a template which the API server refuses holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::ControllerRevision, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{
    Observed, Status, children, drift, frozen, health, model, model::Wanted, reason, resolve,
    retraining,
};
use crate::{
    api::{
        annotation,
        condition::{self, kind},
        gate::MetricValue,
        label,
        model_deployment::Promotion,
        revision::ModelRevision,
    },
    plan::{
        Action, Event, Plan, Reference, earlier, gateway,
        revision::{self, Named},
        rollout::{self, Commands, Desired, EvaluationView, Input, Mark, Revision, State, Target},
    },
};

/// ControllerRevisions kept beside those in use.
const REVISION_HISTORY: usize = 10;

/// What to do about a ModelDeployment.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan<Status> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let deployment = &observed.deployment;
    let generation = deployment.metadata.generation;
    let mut status = deployment.status.clone().unwrap_or_default();
    let mut known = known(observed);
    let followed = follow_runs(observed, &known, &mut status);
    let wanted = model::wanted(observed, &status, &known);
    let input = input(observed, &status, &known, &wanted);
    let decision = rollout::decide(&input, now);
    let mut plan = Plan {
        events: followed
            .into_iter()
            .chain(decision.events.clone())
            .collect(),
        notes: decision.notes.clone(),
        check_at: decision.check_at,
        ..Plan::default()
    };
    let adopted = if let Wanted::Revision { named, .. } = &wanted
        && known.iter().all(|k| k.hash != named.hash)
    {
        let number = observed
            .revisions
            .iter()
            .map(|r| r.revision)
            .max()
            .unwrap_or(0)
            + 1;
        plan.actions.extend(frozen::copies(observed, named));
        plan.actions
            .push(Action::Apply(keep(observed, named, number, None)));
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
    unknown_evaluations(observed, &mut status, now);
    let mut running: Vec<_> = decision
        .pods
        .iter()
        .filter_map(|(hash, replicas)| Some((known.iter().find(|k| k.hash == *hash)?, *replicas)))
        .collect();
    let shared = health::not_shareable(observed, &running, now);
    plan.check_at = earlier(plan.check_at, shared.check_at);
    if let Some(message) = shared.message {
        needs_help(
            observed,
            &mut status,
            reason::VOLUME_NOT_SHAREABLE,
            message,
            now,
        );
    }
    plan.events.extend(found_out(observed, &status));
    status.metrics = metrics(observed, &status);
    plan.check_at = earlier(
        plan.check_at,
        watch_drift(observed, &known, &mut status, now),
    );
    let retrained = retrain(observed, &known, &mut status, now);
    plan.check_at = earlier(plan.check_at, retrained.check_at);
    plan.events.extend(retrained.events.iter().cloned());
    condition_of_retraining(&mut status, &retrained, generation, now);

    let port = status.gateway.as_ref().map_or(0, |g| g.port);
    let stable = status.stable.as_ref().map(|s| s.revision.clone());
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
    plan.actions
        .extend(marks(observed, &known, &decision.marks));
    plan.actions.extend(unused(observed, &decision.pods));
    let kept = decision.keep.iter().map(String::as_str).chain(
        adopted
            .then(|| known.last().map(|k| k.hash.as_str()))
            .flatten(),
    );
    let old = old_revisions(observed, &kept.collect::<Vec<_>>());
    let gone = |name: &String| old.iter().any(|r| r.name == *name);
    let kept: BTreeSet<String> = known
        .iter()
        .map(|k| children::name(&deployment.name_any(), &k.hash))
        .chain(observed.revisions.iter().map(|r| r.name_any()))
        .filter(|name| !gone(name))
        .collect();
    plan.actions.extend(old.into_iter().map(Action::Delete));
    plan.actions.extend(frozen::unused(observed, &kept));
    let job = match &wanted {
        Wanted::Resolve { model, .. } => Some(resolve::name(&deployment.name_any(), model)),
        _ => None,
    };
    let (gone, again) = resolve::clean(observed, job.as_deref(), now);
    plan.actions.extend(gone);
    plan.check_at = earlier(plan.check_at, again);
    if let Wanted::Resolve { model, .. } = &wanted {
        plan.actions
            .push(Action::Create(resolve::job(observed, model)));
    }
    plan.actions
        .extend(last.into_iter().flat_map(|(r, n)| run(observed, r, n)));
    plan
}

/// The revisions that are kept, oldest first.
fn known(observed: &Observed) -> Vec<Named<ModelRevision>> {
    let release = observed.deployment.name_any();
    let mut objects: Vec<&ControllerRevision> =
        observed.revisions.iter().map(AsRef::as_ref).collect();
    objects.sort_by_key(|r| (r.revision, r.name_any()));
    objects
        .into_iter()
        .filter_map(|object| revision::read(&release, object))
        .collect()
}

fn input(
    observed: &Observed,
    status: &Status,
    known: &[Named<ModelRevision>],
    wanted: &Wanted,
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
        .map(|k| (k.hash.clone(), seen(observed, &release, k)))
        .collect();
    let evaluations = observed
        .evaluations
        .iter()
        .map(|(name, evaluation)| {
            let view = EvaluationView {
                generation: evaluation.metadata.generation.unwrap_or_default(),
                runs: evaluation
                    .status
                    .as_ref()
                    .map(|s| s.runs.clone())
                    .unwrap_or_default(),
            };
            (name.clone(), view)
        })
        .collect();
    let promotion = spec
        .retraining
        .as_ref()
        .and_then(|r| r.promotion)
        .unwrap_or_default();
    Input {
        name: release,
        uid,
        generation: deployment.metadata.generation.unwrap_or_default(),
        desired: desired(wanted),
        rollout: spec.rollout.clone().unwrap_or_default(),
        metrics: spec.metrics.clone(),
        replicas: Some(spec.replicas.unwrap_or(1)),
        manual_versions: promotion == Promotion::Manual,
        state,
        revisions,
        evaluations,
        live: observed.live.clone(),
        commands: Commands::of(deployment.annotations()),
    }
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

fn seen(observed: &Observed, release: &str, known: &Named<ModelRevision>) -> Revision {
    let name = children::name(release, &known.hash);
    let object = observed.revisions.iter().find(|r| r.name_any() == name);
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
        "http://{release}.{}.svc",
        deployment.namespace().unwrap_or_default()
    ));
    let shown = status
        .stable
        .as_ref()
        .or(status.candidate.as_ref())
        .map(|r| r.revision.clone());
    status.selector = shown
        .as_ref()
        .map(|hash| children::selector_text(&release, hash));
    let server = shown.and_then(|hash| {
        let name = children::name(&release, &hash);
        observed.servers.iter().find(|d| d.name_any() == name)
    });
    status.replicas = server
        .and_then(|d| d.status.as_ref()?.replicas)
        .unwrap_or(0);
}

/// An Evaluation that is named and isn't there keeps the spec from coming into effect: who is to blame is said at once.
fn unknown_evaluations(observed: &Observed, status: &mut Status, now: Timestamp) {
    let spec = &observed.deployment.spec;
    let named = Input::evaluation_names(&spec.rollout.clone().unwrap_or_default(), &spec.metrics);
    let missing: Vec<&str> = named
        .iter()
        .filter(|n| !observed.evaluations.contains_key(*n))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return;
    }
    let message = format!(
        "there is no Evaluation {} in this namespace: create it, or take it out of spec.rollout.evaluations and spec.metrics",
        missing.join(", ")
    );
    needs_help(observed, status, reason::UNKNOWN_EVALUATION, message, now);
}

/// Somebody has to do something before the spec is in effect.
fn needs_help(
    observed: &Observed,
    status: &mut Status,
    reason: &'static str,
    message: String,
    now: Timestamp,
) {
    let generation = observed.deployment.metadata.generation;
    for (kind, value) in [(kind::READY, false), (kind::STALLED, true)] {
        condition::set(
            &mut status.conditions,
            kind,
            value,
            reason,
            message.clone(),
            generation,
            now,
        );
    }
    status.message = condition::bounded(message);
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

/// Metrics of stable that Evaluations measured, and the share of drifted columns.
fn metrics(observed: &Observed, status: &Status) -> Vec<MetricValue> {
    let mut all: Vec<MetricValue> = measured(observed, status)
        .into_iter()
        .map(|(mut value, _)| {
            value.value = value.value.map(drift::round);
            value.lower = value.lower.map(drift::round);
            value.upper = value.upper.map(drift::round);
            value
        })
        .collect();
    let window = status.drift_window.as_ref();
    if let Some((window, share)) = window.and_then(|w| Some((w, w.share?))) {
        all.push(MetricValue {
            name: retraining::DRIFT_SHARE.to_owned(),
            value: Some(share),
            samples: Some(window.rows),
            time: window.end.clone(),
            ..MetricValue::default()
        });
    }
    all
}

/// `spec.metrics` by their names, from the last run of their Evaluation on stable; with the Evaluation's name.
fn measured(observed: &Observed, status: &Status) -> Vec<(MetricValue, String)> {
    let Some(stable) = &status.stable else {
        return Vec::new();
    };
    let uid = observed.deployment.uid().unwrap_or_default();
    observed
        .deployment
        .spec
        .metrics
        .iter()
        .filter_map(|source| {
            let evaluation = observed.evaluations.get(&source.evaluation.name)?;
            let run = evaluation.status.as_ref()?.runs.iter().rfind(|run| {
                run.release.as_ref() == Some(&uid)
                    && run.revision.as_ref() == Some(&stable.revision)
                    && run.completion_time.is_some()
            })?;
            let value = run
                .metrics
                .iter()
                .find(|m| m.name == source.evaluation.metric)?;
            let value = MetricValue {
                name: source.name.clone(),
                time: run.completion_time.clone(),
                ..value.clone()
            };
            Some((value, source.evaluation.name.clone()))
        })
        .collect()
}

fn watch_drift(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &mut Status,
    now: Timestamp,
) -> Option<Timestamp> {
    let spec = &observed.deployment.spec;
    let asked = spec.monitoring.as_ref().and_then(|m| m.drift.as_ref());
    let stable = status.stable.clone()?;
    let frozen = known.iter().find(|k| k.hash == stable.revision)?;
    let profile = frozen.revision.model.profile.as_ref();
    if asked.is_none() && profile.is_none() {
        return None;
    }
    if let (Some((known, _)), Some(wanted)) = (&observed.profile, profile)
        && known != wanted
    {
        return None; // Another revision has just become stable: its profile comes with the next look.
    }
    let mut monitoring = asked.cloned().unwrap_or_default();
    // The profile has the label too, which no request carries.
    if monitoring.columns.is_none() {
        let signature = frozen.revision.model.signature.as_ref();
        monitoring.columns = signature.map(|s| s.features.iter().map(|f| f.name.clone()).collect());
    }
    let no_profile = match profile {
        Some(name) => format!("ConfigMap {name} with the profile of stable's training data is not there: drift can't be measured until it is back"),
        None => "stable came without a profile of its training data: versions of TrainingJobs whose dataset names its features have one".to_owned(),
    };
    let input = drift::Input {
        monitoring: &monitoring,
        revision: &stable.revision,
        since: stable.since.as_ref().map(|t| t.0),
        profile: observed
            .profile
            .as_ref()
            .map(|(_, profile)| profile.as_ref()),
        no_profile: &no_profile,
        measurements: &observed.live,
    };
    let condition = condition::get(&status.conditions, kind::DRIFT_DETECTED);
    let before = drift::Output {
        window: status.drift_window.take(),
        columns: std::mem::take(&mut status.drift),
        summary: status.drift_summary.take(),
        condition: condition.map_or_else(Default::default, |c| {
            (
                c.status == "True",
                reason::known(&c.reason),
                c.message.clone(),
            )
        }),
        check_at: None,
    };
    let after = drift::judge(&input, &before, now);
    status.drift_window = after.window;
    status.drift = after.columns;
    status.drift_summary = after.summary;
    let (value, reason, message) = after.condition;
    condition::set(
        &mut status.conditions,
        kind::DRIFT_DETECTED,
        value,
        reason,
        message,
        observed.deployment.metadata.generation,
        now,
    );
    after.check_at
}

fn follow_runs(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &mut Status,
) -> Vec<Event> {
    let Some(mut before) = status.retraining.take() else {
        return Vec::new();
    };
    let events = with_retraining(observed, known, status, |input| {
        retraining::follow_runs(input, &mut before)
    });
    status.retraining = Some(before);
    events
}

fn retrain(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &mut Status,
    now: Timestamp,
) -> retraining::Output {
    let before = status.retraining.take();
    let output = with_retraining(observed, known, status, |input| {
        retraining::decide(input, before.as_ref(), now)
    });
    status.retraining.clone_from(&output.status);
    if let Some(handled) = &output.handled {
        status
            .last_handled_commands
            .retain(|h| h.name != handled.name);
        status.last_handled_commands.push(handled.clone());
    }
    output
}

/// Gathers what a retraining is decided on.
fn with_retraining<T>(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &Status,
    then: impl FnOnce(&retraining::Input<'_>) -> T,
) -> T {
    let stable = status.stable.as_ref();
    let frozen = stable.and_then(|s| known.iter().find(|k| k.hash == s.revision));
    let drifted: Vec<&str> = status
        .drift
        .iter()
        .filter(|d| d.drifted)
        .map(|d| d.column.as_str())
        .collect();
    let drifted = drifted.join(", ");
    let metrics: Vec<retraining::Measured> = measured(observed, status)
        .into_iter()
        .filter_map(|(value, evaluation)| {
            Some(retraining::Measured {
                name: value.name,
                value: value.value?,
                time: value.time?.0,
                context: format!("measured by Evaluation {evaluation}"),
            })
        })
        .collect();
    then(&retraining::Input {
        deployment: &observed.deployment,
        stable: frozen.map(|k| (k.hash.as_str(), &k.revision.model)),
        window: status.drift_window.as_ref(),
        drifted: &drifted,
        metrics: &metrics,
        jobs: &observed.training_jobs,
        rollout: status.rollout.as_ref().map(|r| r.state).unwrap_or_default(),
        rejected: &status.rejected_revisions,
        history: &status.history,
        handled: &status.last_handled_commands,
    })
}

fn condition_of_retraining(
    status: &mut Status,
    output: &retraining::Output,
    generation: Option<i64>,
    now: Timestamp,
) {
    if let Some((value, reason, message)) = &output.condition {
        condition::set(
            &mut status.conditions,
            kind::RETRAINING,
            *value,
            reason,
            message.clone(),
            generation,
            now,
        );
    }
}

/// The writes that run a revision; nobody sees its pods before the Service that lists them is there.
fn run(observed: &Observed, revision: &Named<ModelRevision>, replicas: i32) -> Vec<Action<Status>> {
    let mut actions = frozen::copies(observed, revision);
    actions.push(Action::Apply(children::endpoints(observed, revision)));
    if replicas > 1 {
        actions.push(Action::Apply(children::disruption_budget(
            observed, revision,
        )));
    }
    actions.push(Action::Apply(children::server(
        observed, revision, replicas,
    )));
    actions
}

/// The ControllerRevision that keeps a revision, with its marks.
fn keep(
    observed: &Observed,
    named: &Named<ModelRevision>,
    number: i64,
    mark: Option<&Mark>,
) -> Value {
    let deployment = &observed.deployment;
    let release = deployment.name_any();
    let marks: BTreeMap<String, String> = [
        (
            annotation::STABLE_SINCE,
            mark.and_then(|m| m.stable_since.clone()),
        ),
        (annotation::REJECTED, mark.and_then(|m| m.rejected.clone())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect();
    let mut labels = children::labels(&release, "revision");
    labels.insert(label::REVISION.to_owned(), json!(named.hash));
    let metadata = ObjectMeta {
        namespace: deployment.namespace(),
        labels: serde_json::from_value(Value::Object(labels)).ok(),
        annotations: (!marks.is_empty()).then_some(marks),
        ..ObjectMeta::default()
    };
    let owner = deployment.controller_owner_ref(&()).unwrap_or_default();
    let object = revision::object(named, number, metadata, &release, owner);
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = json!("apps/v1");
    value["kind"] = json!("ControllerRevision");
    value
}

fn marks(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    marks: &[Mark],
) -> Vec<Action<Status>> {
    let release = observed.deployment.name_any();
    let number = |hash: &str| {
        let name = children::name(&release, hash);
        let object = observed.revisions.iter().find(|r| r.name_any() == name);
        let newest = observed
            .revisions
            .iter()
            .map(|r| r.revision)
            .max()
            .unwrap_or(0);
        object.map_or(newest + 1, |o| o.revision)
    };
    marks
        .iter()
        .filter_map(|mark| {
            let named = known.iter().find(|k| k.hash == mark.revision)?;
            Some(Action::Apply(keep(
                observed,
                named,
                number(&mark.revision),
                Some(mark),
            )))
        })
        .collect()
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
            pods.get(&hash).is_some_and(|n| *n > 1)
        }
        Some(hash) => pods.contains_key(&hash),
        None => true, // The release's own Service.
    };
    servers
        .chain(observed.others.iter().cloned())
        .filter(|r| !stays(r))
        .map(Action::Delete)
        .collect()
}

/// Deletes the oldest revisions that nobody needs.
fn old_revisions(observed: &Observed, keep: &[&str]) -> Vec<Reference> {
    if !observed.complete {
        return Vec::new();
    }
    let release = observed.deployment.name_any();
    let mut spare: Vec<&ControllerRevision> = observed
        .revisions
        .iter()
        .map(AsRef::as_ref)
        .filter(|r| {
            keep.iter()
                .all(|hash| children::name(&release, hash) != r.name_any())
        })
        .collect();
    spare.sort_by_key(|r| std::cmp::Reverse(r.revision));
    spare
        .into_iter()
        .skip(REVISION_HISTORY)
        .map(|r| Reference {
            api_version: "apps/v1".to_owned(),
            kind: "ControllerRevision".to_owned(),
            namespace: r.namespace().unwrap_or_default(),
            name: r.name_any(),
            uid: r.uid().unwrap_or_default(),
        })
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
    for (kind, value) in [(kind::READY, false), (kind::STALLED, true)] {
        condition::set(
            &mut status.conditions,
            kind,
            value,
            reason,
            message,
            generation,
            now,
        );
    }
    status.message = condition::bounded(message.to_owned());
}
