//! Concept drift by a detector on labelled rows.
//!
//! The stream is cut into the windows of its metric. Each goes to the detector once, in the order of answers, when it has its labels; what the detector knows
//! then is in the trigger's status, written together with the end of the window. So a restart neither repeats nor skips a row that is still known.

use jiff::{SignedDuration, Timestamp};

use super::{
    labelled,
    reason::retraining as reason,
    retraining::Input,
    trigger::{PENDING, Reading},
};
use crate::{
    api::{
        model_deployment::{ConceptDetector, ConceptTrigger, ModelDeploymentSpec, TriggerStatus},
        rollout::{LabelledMetric, LabelsMetric},
    },
    plan::rollout::computed,
    stats::{
        drift::online::{Concept, Kind},
        labels::{Cohort, Metric, Outcomes},
    },
};

/// What the detector says of the windows that came since it last looked, and its state after them.
pub(super) fn reading(
    input: &Input<'_>,
    trigger: &ConceptTrigger,
    before: Option<&TriggerStatus>,
) -> Option<(Reading, String)> {
    let (revision, _) = input.stable?;
    let of = labels(&input.deployment.spec.metrics, &trigger.metric)?;
    let (metric, length) = (computed(of.metric), of.window_seconds());
    let counted = before.and_then(|b| Some(b.counted_until.as_ref()?.0.as_second()));
    // Windows of which nothing is missing; none, as long as nothing is known.
    let known = labelled::last(input.late, of).zip(input.late.since);
    let (mut from, to) = known.map_or((0, 0), |((_, to), known)| {
        let since = input.since.map_or(known, |t| t.as_second().max(known));
        let whole = (since + length - 1).div_euclid(length) * length;
        (counted.map_or(whole, |counted| counted.max(whole)), to)
    });
    let kind = kind(trigger.detector.unwrap_or_default());
    // Another metric's losses are another stream.
    let title = format!("{} ", trigger.metric);
    let state = before.and_then(|b| b.detector.as_deref()?.strip_prefix(&title));
    let mut detector = state
        .and_then(|state| Concept::read(kind, state))
        .unwrap_or_else(|| Concept::new(kind));
    if from >= to {
        // Nothing new: what is pending stays so.
        let end = counted?;
        let pending = before.is_some_and(|b| b.state == PENDING);
        let mean = before.and_then(|b| b.value).unwrap_or_default();
        let reading = found(of, (end, pending), (mean, None, None), kind)?;
        return Some((reading, title + &detector.write()));
    }
    // What a detector has found stays until a run starts: it says so once.
    let mut drifted = before.is_some_and(|b| b.state == PENDING);
    let mut all = Vec::new();
    let mut left_out = None;
    while from < to {
        let window = (from, from + length - 1);
        from += length;
        let cohort = input.late.cohort(revision, window, of.horizon_seconds());
        match losses(cohort, metric, of) {
            Ok(losses) => {
                for loss in losses {
                    drifted |= detector.update(loss);
                    all.push(loss);
                }
            }
            Err(why) => {
                let end = Timestamp::from_second(from).ok()?;
                left_out = Some(format!("of the window until {end}, {why}"));
            }
        }
    }
    // Windows that say nothing leave the value as it was.
    let mean = match all.len() {
        0 => before.and_then(|b| b.value).unwrap_or_default(),
        rows => all.iter().sum::<f64>() / rows as f64,
    };
    let rows = i64::try_from(all.len()).ok();
    let reading = found(of, (to, drifted), (mean, rows, left_out), kind)?;
    Some((reading, title + &detector.write()))
}

/// The losses of a window's rows; why there are none.
fn losses(cohort: Cohort<'_>, metric: Metric, of: &LabelsMetric) -> Result<Vec<f64>, String> {
    let positive = of.positive.as_deref();
    let cohorts = [cohort];
    let [mut outcomes] = Outcomes::of([&cohorts], metric, positive)?;
    // Fast labels are biased labels: they may only look like a change.
    match labelled::silent(&outcomes.pop().unwrap_or_default(), &cohorts[0], of) {
        Some(why) => Err(why),
        None => Outcomes::losses(&cohorts[0], metric, positive),
    }
}

fn found(
    of: &LabelsMetric,
    (end, drifted): (i64, bool),
    (mean, rows, left_out): (f64, Option<i64>, Option<String>),
    kind: Kind,
) -> Option<Reading> {
    let time = Timestamp::from_second(end).ok()?;
    let (silent, left_out) = match (left_out, rows) {
        (Some(why), Some(0)) if !drifted => (Some(why), String::new()),
        (Some(why), _) => (None, format!("; left out: {why}")),
        (None, _) => (None, String::new()),
    };
    let over = rows.map(|rows| format!("over {rows} labelled rows "));
    let said = match drifted {
        true => "says that it has become worse",
        false => "sees no change to the worse",
    };
    Some(Reading {
        value: mean,
        time,
        context: format!(
            "{}until {time}; {} {said}{left_out}",
            over.unwrap_or_default(),
            kind.name()
        ),
        samples: rows,
        stale_at: time
            .checked_add(SignedDuration::from_secs(
                of.horizon_seconds() + 2 * of.window_seconds() + labelled::READ,
            ))
            .ok()
            .filter(|_| !drifted),
        drifted: Some(drifted),
        silent,
    })
}

fn labels<'a>(
    metrics: &'a [crate::api::rollout::MetricSource],
    name: &str,
) -> Option<&'a LabelsMetric> {
    let source = metrics.iter().find(|m| m.name == name)?;
    source.labels.as_ref()
}

fn kind(detector: ConceptDetector) -> Kind {
    match detector {
        ConceptDetector::Adwin => Kind::Adwin,
        ConceptDetector::PageHinkley => Kind::PageHinkley,
    }
}

/// What keeps such a trigger from ever firing.
pub(super) fn doubt(
    spec: &ModelDeploymentSpec,
    name: &str,
    trigger: &ConceptTrigger,
) -> Option<(&'static str, String)> {
    let metric = &trigger.metric;
    let Some(of) = labels(&spec.metrics, metric) else {
        let message = format!(
            "trigger {name} watches {metric} for concept drift, which is no metric by labels in spec.metrics: add it there, or correct the name"
        );
        return Some((reason::METRIC_UNKNOWN, message));
    };
    let what = match of.metric {
        LabelledMetric::Ece => "a calibration error",
        LabelledMetric::RocAuc => "an area under a curve",
        LabelledMetric::Accuracy
        | LabelledMetric::LogLoss
        | LabelledMetric::Brier
        | LabelledMetric::Mae
        | LabelledMetric::Rmse => return None,
    };
    let message = format!(
        "trigger {name} watches {metric} for concept drift, but {what} is of many rows and not of one: take logLoss or brier"
    );
    Some((reason::METRIC_UNKNOWN, message))
}
