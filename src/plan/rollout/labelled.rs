//! Gates on what late labels say of live predictions.
//!
//! Both sides count the same way: requests of the same epochs that are as old as the horizon, with the labels that came in that time. Where too few of
//! them are labelled, or one side's more than the other's, those that are may not be like those that aren't, and nothing is said.

use jiff::Timestamp;

use super::{
    Input,
    gates::Sides,
    measure,
    policy::{self, Policy},
    status,
};
use crate::{
    api::{
        gate::{Gate, GateStatus, Verdict},
        rollout::{LabelledMetric, LabelsMetric, MetricSource, NoData, RolloutSpec, Step},
    },
    stats::{
        labels::{self, Cohort, Metric, Outcomes},
        sequential::{self, Bound},
    },
};

/// What a sample is.
pub(super) const UNIT: &str = "callers";

/// The metric of late labels of this name, if there is one.
pub(super) fn metric<'a>(input: &'a Input, name: &str) -> Option<&'a LabelsMetric> {
    let source = input.metrics.iter().find(|m| m.name == name)?;
    source.labels.as_ref()
}

/// What is computed for a metric of the spec.
pub fn computed(metric: LabelledMetric) -> Metric {
    match metric {
        LabelledMetric::Accuracy => Metric::Accuracy,
        LabelledMetric::LogLoss => Metric::LogLoss,
        LabelledMetric::Brier => Metric::Brier,
        LabelledMetric::Ece => Metric::Ece,
        LabelledMetric::RocAuc => Metric::RocAuc,
        LabelledMetric::Mae => Metric::Mae,
        LabelledMetric::Rmse => Metric::Rmse,
    }
}

/// What keeps metrics of late labels, or gates on them, from ever saying anything, as a sentence.
pub fn refused(rollout: &RolloutSpec, metrics: &[MetricSource]) -> Option<String> {
    let policy = Policy::of(rollout);
    let longest = until_missed(rollout, &policy);
    let labelled = metrics.iter().filter_map(|m| Some((m, m.labels.as_ref()?)));
    for (source, of) in labelled {
        if let Err(problem) = of.check(&source.name) {
            return Some(problem);
        }
        let gates = policy.gates.iter().filter(|g| g.metric == source.name);
        for gate in gates {
            let no_test = status::bounds(gate)
                .find_map(|bound| labels::judge(computed(of.metric), &[], &[], bound, 0.01).err());
            if let Some(why) = no_test {
                return Some(format!("the gate on {}: {why}", source.name));
            }
            if longest.is_some_and(|longest| of.horizon.millis() >= longest) {
                return Some(format!(
                    "the gate on {} waits {} for labels, and the first pause of the rollout (or its bake) and rollout.progressDeadline are over before: make one of them longer, or take the gate out",
                    source.name, of.horizon
                ));
            }
        }
    }
    None
}

/// How long after its first callers a candidate is taken back for want of data, in milliseconds; `None`: a person, or the data, is waited for.
fn until_missed(rollout: &RolloutSpec, policy: &Policy) -> Option<u64> {
    if policy.no_data == NoData::Wait {
        return None;
    }
    let steps = policy::ladder(rollout);
    let live = |step: &Step| step.set_weight.is_some_and(|weight| weight > 0);
    let mut after = steps.iter().skip_while(|step| !live(step));
    let wait = match after.find(|step| step.pause.is_some() || step.approval.is_some()) {
        Some(step) => policy::timed_pause(step)?,
        None => policy.bake,
    };
    Some(wait.saturating_add(policy.progress_deadline))
}

/// A gate on a metric of late labels.
pub(super) fn judge(
    input: &Input,
    sides: Sides,
    (gate, bound): (&Gate, Bound),
    of: &LabelsMetric,
    alpha: f64,
) -> GateStatus {
    let name = &gate.metric;
    let nothing = |verdict, message: String| status::gate(gate, bound, verdict, message);
    let late = &input.live.late;
    let (horizon, computed) = (of.horizon_seconds(), computed(of.metric));
    let of_side = |revision: &str| late.cohorts(revision, horizon, |epoch| sides.counts(epoch));
    let mut theirs = of_side(sides.stable.unwrap_or_default());
    let (candidate, stable): (Vec<Cohort<'_>>, Vec<Cohort<'_>>) = of_side(sides.candidate)
        .into_iter()
        .map(|(epoch, own)| (own, theirs.remove(&epoch).unwrap_or_default()))
        .unzip();
    let [candidate, stable] =
        match Outcomes::of([&candidate, &stable], computed, of.positive.as_deref()) {
            Ok(both) => both,
            Err(why) => return nothing(Verdict::Error, format!("{name} can't be measured: {why}")),
        };
    let (candidate, stable): (Vec<Outcomes>, Vec<Outcomes>) = candidate
        .into_iter()
        .zip(stable)
        .filter(|(_, stable)| !bound.compares() || stable.requests > 0)
        .unzip();
    let sum = |side: &[Outcomes]| {
        let mut all = Outcomes::default();
        side.iter().for_each(|one| all.merge(one));
        all
    };
    let (own, theirs) = (sum(&candidate), sum(&stable));
    if own.requests == 0 {
        let first = late.first(sides.candidate, horizon, |epoch| sides.counts(epoch));
        let first = first.and_then(|at| Timestamp::from_second(at).ok());
        let message = match first {
            _ if own.unread > 0 => format!(
                "{name} can't be measured: of {} answers of the candidate none could be read (JSON of the Open Inference Protocol, up to 256 KiB and 64 rows)",
                own.unread
            ),
            Some(at) => format!(
                "{name} is not measured yet: labels are waited for {}, so the first requests count at {at}",
                of.horizon
            ),
            None => format!(
                "{name} is not measured yet: no request of the candidate is {} old",
                of.horizon
            ),
        };
        return nothing(Verdict::Inconclusive, message);
    }
    let percent = |side: &Outcomes| {
        let share = side.coverage().unwrap_or_default();
        format!("{} %", status::rounded((share * 1000.0).round() / 10.0))
    };
    let covered = |side: &Outcomes| side.coverage().unwrap_or_default();
    let (coverage, labelled) = match bound.compares() {
        true => (
            covered(&own).min(covered(&theirs)),
            format!(
                "labels of {} of the candidate's {} and {} of stable's {} requests that are {} old",
                percent(&own),
                own.requests,
                percent(&theirs),
                theirs.requests,
                of.horizon
            ),
        ),
        false => (
            covered(&own),
            format!(
                "labels of {} of the candidate's {} requests that are {} old",
                percent(&own),
                own.requests,
                of.horizon
            ),
        ),
    };
    let shown = status::finite(Some(coverage));
    if coverage < of.coverage() {
        let message = format!(
            "{name} says nothing yet: there are {labelled}, and minCoverage is {}: those that come first may not be like the rest",
            of.coverage()
        );
        return GateStatus {
            coverage: shown,
            ..nothing(Verdict::Inconclusive, message)
        };
    }
    let finding = match labels::judge(computed, &candidate, &stable, bound, alpha) {
        Ok(finding) => finding,
        Err(why) => return nothing(Verdict::Error, format!("{name}: {why}")),
    };
    let mut status = super::gates::live(gate, bound, (UNIT, false), &finding, sides);
    status.coverage = shown;
    let responses: Vec<sequential::Stratum> = candidate
        .iter()
        .zip(&stable)
        .map(|(candidate, stable)| sequential::Stratum {
            candidate: candidate.responses(),
            stable: stable.responses(),
        })
        .collect();
    match measure::unlike(&responses) {
        Some((candidate, stable)) => {
            status.verdict = Verdict::Inconclusive;
            status.message = format!(
                "{name} says nothing: {candidate} of the requests of the candidate's callers are labelled and {stable} of those of stable's, so those that are, are not alike"
            );
        }
        None => status.message = format!("{}; {labelled}", status.message),
    }
    status
}
