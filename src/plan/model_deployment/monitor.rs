//! What is watched while stable serves: its metrics, drift of its inputs, and retraining.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Observed, Status, drift, labelled, look, model, reason, retraining, trigger};
use crate::{
    api::{
        condition::{self, kind},
        gate::MetricValue,
        revision::ModelRevision,
        rollout::PrometheusMetric,
    },
    plan::{Action, Event, revision::Named, rollout::side, schedule},
    stats::asked::Answer,
};

/// Metrics of stable that Evaluations, Prometheus and late labels gave, and the share of drifted columns.
pub(super) fn metrics(observed: &Observed, status: &Status) -> Vec<MetricValue> {
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

/// How long a value that was asked for stands in status, in milliseconds: numbers that live are written at most once a minute.
const STANDS: i64 = 60_000;

/// Triggers' metrics are asked of Prometheus once a minute, and shown within another: beyond twice that it doesn't answer.
const STALE: SignedDuration = SignedDuration::from_mins(4);

/// `spec.metrics` by their names, from the last run of their Evaluation on stable, as Prometheus answered last, or of the last window that has its labels; with their source, for people.
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
            if let Some(metric) = &source.prometheus {
                let value = asked(observed, status, &source.name, metric)?;
                let context = format!("by Prometheus source {}", metric.source);
                return Some((value, context));
            }
            if let Some(of) = &source.labels {
                let value = labelled::value(observed, status, &source.name, of)?;
                let context = labelled::context(&value, of);
                return Some((value, context));
            }
            let asked = source.evaluation.as_ref()?;
            let evaluation = observed.evaluations.get(&asked.name)?;
            let run = evaluation.status.as_ref()?.runs.iter().rfind(|run| {
                run.release.as_ref() == Some(&uid)
                    && run.revision.as_ref() == Some(&stable.revision)
                    && run.completion_time.is_some()
            })?;
            let value = run.metrics.iter().find(|m| m.name == asked.metric)?;
            let value = MetricValue {
                name: source.name.clone(),
                time: run.completion_time.clone(),
                ..value.clone()
            };
            Some((value, format!("measured by Evaluation {}", asked.name)))
        })
        .collect()
}

/// The last answer about stable; the one in status while that is fresh.
fn asked(
    observed: &Observed,
    status: &Status,
    name: &str,
    metric: &PrometheusMetric,
) -> Option<MetricValue> {
    let stable = status.stable.as_ref()?;
    let since = stable.since.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let shown = status.metrics.iter().find(|m| m.name == name);
    let shown = shown.filter(|m| m.time.as_ref().is_some_and(|t| t.0 >= since));
    let answered = observed
        .live
        .asked
        .get(name, side(metric, &stable.revision));
    let newer = answered.filter(|a| a.time >= since).and_then(|a| {
        let Answer::Value(value) = a.answer else {
            return None;
        };
        let age = |t: Timestamp| a.time.duration_since(t).as_millis();
        let fresh = shown.and_then(|m| m.time.as_ref()).map(|t| age(t.0));
        // Status keeps whole seconds.
        let time = Timestamp::from_second(a.time.as_second()).ok()?;
        fresh
            .is_none_or(|age| age >= i128::from(STANDS))
            .then(|| MetricValue {
                name: name.to_owned(),
                value: Some(value),
                time: Some(Time(time)),
                ..MetricValue::default()
            })
    });
    newer.or_else(|| shown.cloned())
}

/// What comes of watching drift, beside the status.
#[derive(Default)]
pub(super) struct Watched {
    /// When the filling window may be full.
    pub check_at: Option<Timestamp>,
    /// Keeps what later predictions are compared with.
    pub keep: Option<Action<Status>>,
}

pub(super) fn watch_drift(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &mut Status,
    now: Timestamp,
) -> Option<Watched> {
    let spec = &observed.deployment.spec;
    let asked = spec.monitoring.as_ref().and_then(|m| m.drift.as_ref());
    let stable = status.stable.clone()?;
    let frozen = known.iter().find(|k| k.hash == stable.revision)?;
    let profile = frozen.revision.model.profile.as_ref();
    let mut triggers = spec.retraining.iter().flat_map(|r| &r.triggers);
    let wanted = asked.is_some() || triggers.any(trigger::predictions);
    if !wanted && profile.is_none() {
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
        recorded: observed.recorded.as_deref(),
        reference: observed.references.get(&stable.revision),
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
        ..drift::Output::default()
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
    let reference = after.reference.as_ref();
    Some(Watched {
        check_at: after.check_at,
        keep: reference
            .and_then(|new| drift::predictions::config_map(observed, &stable.revision, new))
            .map(Action::Apply),
    })
}

/// Records what has come of the filling window, once an hour.
pub(super) fn record(observed: &Observed, status: &Status) -> Option<Action<Status>> {
    let window = status.drift_window.as_ref()?;
    let monitoring = observed.deployment.spec.monitoring.as_ref();
    let length = drift::length(monitoring.and_then(|m| m.drift.as_ref()));
    let before = observed.recorded.as_deref();
    let record = drift::recorded::update(before, window, length, &observed.live)?;
    drift::recorded::config_map(observed, &record).map(Action::Apply)
}

pub(super) fn follow_runs(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &mut Status,
) -> Vec<Event> {
    let next = model::next(observed, status, known);
    let Some(mut before) = status.retraining.take() else {
        return Vec::new();
    };
    let events = with_retraining(observed, known, status, next.as_deref(), |input| {
        retraining::follow_runs(input, &mut before)
    });
    status.retraining = Some(before);
    events
}

pub(super) fn retrain(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    status: &mut Status,
    now: Timestamp,
) -> retraining::Output {
    let next = model::next(observed, status, known);
    let before = status.retraining.take();
    let output = with_retraining(observed, known, status, next.as_deref(), |input| {
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
    next: Option<&str>,
    then: impl FnOnce(&retraining::Input<'_>) -> T,
) -> T {
    let stable = status.stable.as_ref();
    let frozen = stable.and_then(|s| known.iter().find(|k| k.hash == s.revision));
    let drifted: Vec<&str> = status
        .drift
        .iter()
        .filter(|d| d.drifted && !d.prediction)
        .map(|d| d.column.as_str())
        .collect();
    let drifted = drifted.join(", ");
    // One from which no verdict follows is no reading either.
    let (silent, measured): (Vec<_>, Vec<_>) = measured(observed, status)
        .into_iter()
        .partition(|(value, _)| value.inconclusive || value.value.is_none());
    let silent: Vec<(String, String)> = silent
        .into_iter()
        .filter_map(|(value, _)| Some((value.name, value.message?)))
        .collect();
    let metrics: Vec<retraining::Measured> = measured
        .into_iter()
        .filter_map(|(value, context)| {
            Some(retraining::Measured {
                samples: value.samples,
                stale_at: stale_at(observed, &value.name, value.time.as_ref()?.0),
                name: value.name,
                value: value.value?,
                time: value.time?.0,
                context,
            })
        })
        .collect();
    then(&retraining::Input {
        deployment: &observed.deployment,
        stable: frozen.map(|k| (k.hash.as_str(), &k.revision.model)),
        window: status.drift_window.as_ref(),
        monitoring: observed
            .deployment
            .spec
            .monitoring
            .as_ref()
            .and_then(|m| m.drift.as_ref()),
        columns: &status.drift,
        drifted: &drifted,
        evaluations: &observed.evaluations,
        metrics: &metrics,
        silent: &silent,
        late: &observed.live.late,
        since: stable.and_then(|s| Some(s.since.as_ref()?.0)),
        jobs: &observed.training_jobs,
        looks: look::Seen {
            jobs: &observed.resolves,
            pods: &observed.pods,
        },
        rollout: status.rollout.as_ref().map(|r| r.state).unwrap_or_default(),
        candidate: status.candidate.as_ref().and_then(|c| c.version.as_deref()),
        next,
        rejected: &status.rejected_revisions,
        history: &status.history,
        handled: &status.last_handled_commands,
    })
}

/// When a value says nothing of now any more: two measurements should have come since. `None`: nothing more is to come.
fn stale_at(observed: &Observed, name: &str, time: Timestamp) -> Option<Timestamp> {
    let metrics = &observed.deployment.spec.metrics;
    let source = metrics.iter().find(|m| m.name == name)?;
    if source.prometheus.is_some() {
        return time.checked_add(STALE).ok();
    }
    if let Some(of) = &source.labels {
        return labelled::stale_at(of, time);
    }
    let asked = source.evaluation.as_ref()?;
    let spec = &observed.evaluations.get(&asked.name)?.spec;
    let zone = spec.time_zone.as_deref();
    let next = |after| schedule::next(spec.schedule.as_deref()?, zone, after).ok();
    next(next(time)?)
}

pub(super) fn condition_of_retraining(
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
