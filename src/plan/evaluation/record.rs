//! What is kept of finished runs: bounded, as status is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::decide::{Decider, same_key};
use crate::{
    api::{
        evaluation::{EvaluationRecord, EvaluationRun, HoldoutStatus, NamedValue},
        gate::{Gate, MetricValue},
    },
    plan::{Action, Reference},
};

/// Runs kept whole: the last for each key.
const RUNS: usize = 20;
/// Of the latest of them every metric is kept, of the others what gates and triggers look at.
const DETAILED: usize = 5;
/// Metrics of a run that are for people.
const ASIDE: [&str; 7] = [
    "baseline.",
    "difference.",
    "stable.",
    "drift.",
    "featureImportance.",
    "missingShare.",
    "unseenShare.",
];
/// Metrics kept of a run.
const METRICS: usize = 100;
/// Runs kept in short, where the spec doesn't say.
const HISTORY: i32 = 10;
/// Values of a run in short.
const VALUES: usize = 10;

/// The metrics that status keeps: those that gates look at, then the others in their order.
pub(super) fn kept(metrics: &[MetricValue], gates: &[Gate]) -> Vec<MetricValue> {
    let gated = |metric: &&MetricValue| {
        let name = metric.name.strip_prefix("stable.").unwrap_or(&metric.name);
        gates.iter().any(|g| g.metric == name)
    };
    let mut places: Vec<usize> = (0..metrics.len()).collect();
    places.sort_by_key(|&place| !gated(&&metrics[place]));
    places.truncate(METRICS);
    places.sort_unstable();
    places
        .into_iter()
        .map(|place| metrics[place].clone())
        .collect()
}

/// Revisions on one holdout from which on its verdicts are said to mean less: at 95 % one in twenty that is no better looks so.
pub const WORN: i64 = 20;

/// Reports kept in ConfigMaps: the latest. Those before are where `spec.output` says.
const REPORTS: usize = 2;

impl Decider<'_> {
    /// Deletes the ConfigMaps of reports that later ones have taken the place of.
    pub(super) fn drop_reports(&mut self) {
        let name = self.observed.evaluation.name_any();
        let number = |reference: &&Reference| {
            let number = reference.name.strip_prefix(&format!("{name}-"))?;
            number.strip_suffix("-report")?.parse::<i64>().ok()
        };
        let mut reports: Vec<&Reference> = self.observed.reports.iter().collect();
        reports.sort_by_key(number);
        let surplus = reports.len().saturating_sub(REPORTS);
        for report in &reports[..surplus] {
            self.plan.actions.push(Action::Delete((*report).clone()));
        }
        if surplus == 0 {
            return;
        }
        let gone: Vec<&str> = reports[..surplus].iter().map(|r| r.name.as_str()).collect();
        let status = &mut self.status;
        for run in status.runs.iter_mut().chain(&mut status.last_run) {
            if let Some(report) = &mut run.report
                && report
                    .config_map
                    .as_deref()
                    .is_some_and(|n| gone.contains(&n))
            {
                report.config_map = None;
            }
        }
    }

    /// Counts the revisions that were measured on a holdout; says so once there are many. Before the run is entered.
    pub(super) fn use_holdout(&mut self, run: &EvaluationRun) -> Option<String> {
        self.observed
            .evaluation
            .spec
            .dataset
            .as_ref()?
            .disjoint_from?;
        let digest = run.dataset_digest.as_ref()?;
        run.revision.as_ref()?;
        let same = |before: &EvaluationRun| {
            before.release == run.release
                && before.revision == run.revision
                && before.dataset_digest.as_ref() == Some(digest)
        };
        let known = self.status.runs.iter().any(same);
        let before = self.status.holdout.take();
        let mut holdout = before
            .filter(|h| h.digest == *digest)
            .unwrap_or_else(|| HoldoutStatus {
                digest: digest.clone(),
                revisions: 0,
                since: Some(Time(self.now)),
            });
        if !known || holdout.revisions == 0 {
            holdout.revisions += 1;
        }
        let count = holdout.revisions;
        self.status.holdout = Some(holdout);
        (count >= WORN).then(|| {
            format!("{count} revisions have been measured on this holdout, so that what passes may only fit it: take fresh rows")
        })
    }

    /// Enters a finished run.
    pub(super) fn keep(&mut self, run: &EvaluationRun) {
        let spec = &self.observed.evaluation.spec;
        let runs = &mut self.status.runs;
        runs.retain(|before| !same_key(before, run));
        runs.push(run.clone());
        let surplus = runs.len().saturating_sub(RUNS);
        runs.drain(..surplus);
        let old = runs.len().saturating_sub(DETAILED);
        for run in &mut runs[..old] {
            run.metrics.retain(|metric| {
                let aside = ASIDE.iter().any(|prefix| metric.name.starts_with(prefix));
                !aside || spec.gates.iter().any(|g| g.metric == metric.name)
            });
        }
        let value = |(name, value): (&String, Option<f64>)| {
            Some(NamedValue {
                name: name.clone(),
                value: value?,
            })
        };
        let mut values: Vec<NamedValue> = run
            .gates
            .iter()
            .filter_map(|gate| value((&gate.metric, gate.value)))
            .collect();
        if values.is_empty() {
            let metrics = run.metrics.iter();
            values = metrics.filter_map(|m| value((&m.name, m.value))).collect();
        }
        values.dedup_by(|a, b| a.name == b.name);
        values.truncate(VALUES);
        let history = &mut self.status.history;
        history.push(EvaluationRecord {
            number: run.number,
            target: run.target.clone(),
            verdict: run.verdict,
            message: run.message.clone(),
            scheduled_time: run.scheduled_time.clone(),
            completion_time: run.completion_time.clone(),
            values,
        });
        let limit = spec.history_limit.unwrap_or(HISTORY);
        let surplus = history
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or_default());
        history.drain(..surplus);
    }
}
