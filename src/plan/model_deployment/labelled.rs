//! What late labels say of stable: one value for each window, once that has its labels.
//!
//! Windows follow each other without overlap, from the unix epoch on, so that they are the same after a restart, and a window that was seen is never
//! computed again.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Observed, Status};
use crate::{
    api::{gate::MetricValue, rollout::LabelsMetric},
    plan::{earlier, rollout::computed},
    stats::labels::{Cohort, Late, Outcomes},
};

/// How long after a window has its labels gateways are read at the latest.
pub(super) const READ: i64 = 20;

/// The last window of stable that has its labels; the one in status, if nothing newer is known.
pub(super) fn value(
    observed: &Observed,
    status: &Status,
    name: &str,
    of: &LabelsMetric,
) -> Option<MetricValue> {
    let stable = status.stable.as_ref()?;
    let since = stable.since.as_ref().map_or(i64::MIN, |t| t.0.as_second());
    let shown = status.metrics.iter().find(|m| m.name == name);
    let shown = shown.filter(|m| {
        let time = m.time.as_ref().map(|t| t.0.as_second());
        time.is_some_and(|time| time - of.window_seconds() >= since)
    });
    let late = &observed.live.late;
    let newer = last(late, of).filter(|(from, to)| {
        let known = late.since.is_some_and(|known| known <= *from);
        let seen = shown.and_then(|m| m.time.as_ref());
        known && since <= *from && seen.is_none_or(|seen| seen.0.as_second() < *to)
    });
    match newer {
        Some(window) => Some(measured(late, &stable.revision, name, of, window)),
        None => shown.cloned(),
    }
}

/// The last window whose labels were all read, in seconds.
pub(super) fn last(late: &Late, of: &LabelsMetric) -> Option<(i64, i64)> {
    let length = of.window_seconds();
    let to = (late.read? - of.horizon_seconds()).div_euclid(length) * length;
    Some((to - length, to))
}

fn measured(
    late: &Late,
    revision: &str,
    name: &str,
    of: &LabelsMetric,
    (from, to): (i64, i64),
) -> MetricValue {
    let metric = computed(of.metric);
    let cohorts = [late.cohort(revision, (from, to - 1), of.horizon_seconds())];
    let none = MetricValue {
        name: name.to_owned(),
        samples: Some(0),
        time: Timestamp::from_second(to).ok().map(Time),
        ..MetricValue::default()
    };
    let outcomes = match Outcomes::of([&cohorts], metric, of.positive.as_deref()) {
        Ok([mut all]) => all.pop().unwrap_or_default(),
        Err(why) => {
            return MetricValue {
                message: Some(why),
                ..none
            };
        }
    };
    let message = silent(&outcomes, &cohorts[0], of);
    let Some(coverage) = outcomes.coverage() else {
        return MetricValue { message, ..none };
    };
    MetricValue {
        value: outcomes.value(metric),
        samples: i64::try_from(outcomes.rows).ok(),
        coverage: Some((coverage * 1000.0).round() / 1000.0),
        inconclusive: message.is_some(),
        message,
        ..none
    }
}

/// Why no verdict follows from a window: nobody asked, or too few labels came that can be used.
pub(super) fn silent(
    outcomes: &Outcomes,
    cohort: &Cohort<'_>,
    of: &LabelsMetric,
) -> Option<String> {
    let Some(coverage) = outcomes.coverage() else {
        return Some(match outcomes.unread {
            0 => "no request was answered in this window".to_owned(),
            unread => format!("of {unread} answers none could be read"),
        });
    };
    let came = cohort.labelled() as u64 + cohort.misfits;
    let useless = match came.saturating_sub(outcomes.labelled) {
        0 => String::new(),
        labels => format!(" (the labels of {labels} more can't be used)"),
    };
    (coverage < of.coverage()).then(|| {
        format!(
            "{} of {} requests are labelled{useless}, and minCoverage is {}: those that come first may not be like the rest",
            outcomes.labelled,
            outcomes.requests,
            of.coverage()
        )
    })
}

/// Where a value comes from, for people.
pub(super) fn context(value: &MetricValue, of: &LabelsMetric) -> String {
    let end = value.time.as_ref().map(|t| t.0).unwrap_or_default();
    let start = end
        .checked_sub(SignedDuration::from_secs(of.window_seconds()))
        .unwrap_or(end);
    let percent = (value.coverage.unwrap_or_default() * 1000.0).round() / 10.0;
    format!(
        "over {} labelled rows from {start} to {end}, with labels of {percent} % of the requests",
        value.samples.unwrap_or_default()
    )
}

/// When a value is too old: two more should have come.
pub(super) fn stale_at(of: &LabelsMetric, time: Timestamp) -> Option<Timestamp> {
    let seconds = of.horizon_seconds() + 2 * of.window_seconds() + READ;
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// When the next window has its labels.
pub(super) fn check_at(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let metrics = observed.deployment.spec.metrics.iter();
    let labels = metrics.filter_map(|m| m.labels.as_ref());
    labels.fold(None, |at, of| {
        let (horizon, length) = (of.horizon_seconds(), of.window_seconds());
        let second = now.as_second() - READ;
        let end = ((second - horizon).div_euclid(length) + 1) * length;
        earlier(at, Timestamp::from_second(end + horizon + READ).ok())
    })
}
