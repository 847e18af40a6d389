//! What Evaluations say of a candidate, under the key {release UID, revision, attempt, generation}.

use super::{
    Input,
    gates::Sides,
    status::{finite, rounded},
};
use crate::{
    api::{
        evaluation::EvaluationRun,
        gate::{Gate, GateStatus, Verdict},
        rollout::{BrokenBound, EvaluationGate, RolloutSpec, RolloutState, RolloutStatus, Step},
    },
    stats::sequential::{self, Bound},
};

/// The number (from 1) of the first step that names this Evaluation, if the rollout hasn't come to it yet.
pub fn step_to_come(rollout: &RolloutStatus, name: &str) -> Option<usize> {
    let names = |step: &Step| {
        let evaluate = step.evaluate.as_ref();
        evaluate.is_some_and(|e| e.names.iter().any(|n| n == name))
    };
    let at = rollout.steps.iter().position(names)?;
    (at >= reached(rollout)).then_some(at + 1)
}

/// How many steps the rollout has begun.
fn reached(rollout: &RolloutStatus) -> usize {
    let step = usize::try_from(rollout.step).unwrap_or(0);
    match rollout.state {
        RolloutState::Preparing => step,
        _ => step.saturating_add(1),
    }
}

/// The Evaluations that the candidate must have passed by now: those of the spec, and those of the steps that it came to.
pub(super) fn demanded(spec: &RolloutSpec, rollout: &RolloutStatus) -> Vec<String> {
    let begun = rollout.steps.iter().take(reached(rollout));
    let of_steps = begun.filter_map(|s| s.evaluate.as_ref());
    let mut names: Vec<String> = Vec::new();
    for name in spec
        .evaluations
        .iter()
        .chain(of_steps.flat_map(|e| &e.names))
    {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The run of this Evaluation on the candidate, if it began.
pub(super) fn run<'a>(input: &'a Input, sides: Sides, name: &str) -> Option<&'a EvaluationRun> {
    let view = input.evaluations.get(name)?;
    view.runs.iter().rev().find(|run| {
        run.release.as_deref() == Some(input.uid.as_str())
            && run.revision.as_deref() == Some(sides.candidate)
            && run.attempt == sides.attempt
            && run.generation == view.generation
    })
}

/// The verdict of an Evaluation that the candidate must pass.
pub(super) fn evaluation(input: &Input, sides: Sides, name: &str) -> EvaluationGate {
    let (verdict, message) = match (run(input, sides, name), input.evaluations.get(name)) {
        (Some(run), _) => (run.verdict, run.message.clone()),
        (None, Some(_)) => (
            Verdict::Pending,
            "it has not begun to measure this candidate".to_owned(),
        ),
        (None, None) => (
            Verdict::Error,
            format!(
                "there is no Evaluation {name} in this namespace: create it, or take it out of spec.rollout"
            ),
        ),
    };
    EvaluationGate {
        name: name.to_owned(),
        verdict,
        message,
    }
}

/// The bound that a candidate broke in this Evaluation.
pub(super) fn broken(input: &Input, sides: Sides, name: &str) -> Option<BrokenBound> {
    let mut gates = run(input, sides, name)?.gates.iter();
    let failed = gates.find(|gate| gate.verdict == Verdict::Failed)?;
    Some(BrokenBound::of(failed))
}

/// Where to find a metric: the Evaluations that may have it, and its name there.
pub(super) fn sources<'a>(input: &'a Input, metric: &'a str) -> Vec<(&'a str, &'a str)> {
    match input.metrics.iter().find(|m| m.name == metric) {
        Some(source) => {
            let evaluation = source.evaluation.iter();
            evaluation
                .map(|e| (e.name.as_str(), e.metric.as_str()))
                .collect()
        }
        None => {
            let names = input.rollout.evaluations.iter();
            names.map(|name| (name.as_str(), metric)).collect()
        }
    }
}

/// A gate on a metric of Evaluations: the candidate's value, against stable's in the same run where the bound compares.
pub(super) fn judge(
    input: &Input,
    sides: Sides,
    gate: &Gate,
    bound: Bound,
    sources: &[(&str, &str)],
) -> GateStatus {
    let mut waiting = Vec::new();
    for (name, metric) in sources {
        let Some(run) = run(input, sides, name) else {
            let why = match input.evaluations.contains_key(*name) {
                true => "has not begun to measure this candidate",
                false => "does not exist",
            };
            waiting.push((Verdict::Pending, format!("Evaluation {name} {why}")));
            continue;
        };
        if !run.verdict.is_final() {
            waiting.push((Verdict::Running, format!("Evaluation {name} is measuring")));
            continue;
        }
        let value = |metric: &str| run.metrics.iter().find(|m| m.name == metric);
        let Some(own) = value(metric) else {
            waiting.push(if run.verdict == Verdict::Inconclusive {
                let why = format!("Evaluation {name} is inconclusive: {}", run.message);
                (Verdict::Inconclusive, why)
            } else {
                let why = format!("Evaluation {name} has no metric `{metric}`");
                (Verdict::Error, why)
            });
            continue;
        };
        let stable = value(&format!("stable.{metric}")).and_then(|m| m.value);
        let same = run.baseline.as_deref() == sides.stable;
        let samples = own.samples.unwrap_or_default();
        return match (own.value, stable.filter(|_| same)) {
            (None, _) => status(
                gate,
                bound,
                Verdict::Inconclusive,
                samples,
                format!(
                    "Evaluation {name} could not compute {metric}{}",
                    own.message
                        .as_ref()
                        .map_or(String::new(), |m| format!(": {m}"))
                ),
            ),
            (Some(value), _) if own.inconclusive => GateStatus {
                value: finite(Some(value)),
                ..status(
                    gate,
                    bound,
                    Verdict::Inconclusive,
                    samples,
                    format!(
                        "{metric} of Evaluation {name} is inconclusive: {}",
                        own.message.as_deref().unwrap_or_default()
                    ),
                )
            },
            (Some(_), None) if bound.compares() => status(
                gate,
                bound,
                Verdict::Inconclusive,
                samples,
                format!(
                    "Evaluation {name} has no {metric} of stable in the same run to compare with"
                ),
            ),
            (Some(value), stable) => compare(gate, bound, value, stable, samples),
        };
    }
    // An error only counts when no other Evaluation can still have the metric.
    waiting.sort_by_key(|(verdict, _)| *verdict == Verdict::Error);
    let (verdict, message) = waiting.into_iter().next().unwrap_or((
        Verdict::Error,
        format!("no Evaluation measures {}", gate.metric),
    ));
    status(gate, bound, verdict, 0, message)
}

fn compare(gate: &Gate, bound: Bound, value: f64, stable: Option<f64>, samples: i64) -> GateStatus {
    let bounded = match (bound, stable) {
        (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => value - stable,
        (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => value / stable,
        _ => value,
    };
    let verdict = if gate.min_samples.is_some_and(|min| samples < min) || !bounded.is_finite() {
        Verdict::Inconclusive
    } else {
        match sequential::judge(bound, Some(bounded), Some(bounded)) {
            sequential::Verdict::Passed => Verdict::Passed,
            sequential::Verdict::Failed => Verdict::Failed,
            sequential::Verdict::Inconclusive => Verdict::Inconclusive,
        }
    };
    let words = super::status::bound(bound);
    let against = match (bound.compares(), stable) {
        (true, Some(stable)) => format!(" against stable's {}", rounded(stable)),
        _ => String::new(),
    };
    let said = match verdict {
        Verdict::Passed => "is within",
        Verdict::Failed => "is beyond",
        _ => "can't be judged by",
    };
    let message = format!(
        "{} {}{against} {said} {words} ({samples} rows)",
        gate.metric,
        rounded(value)
    );
    GateStatus {
        value: finite(Some(value)),
        stable: finite(stable),
        ..status(gate, bound, verdict, samples, message)
    }
}

fn status(
    gate: &Gate,
    bound: Bound,
    verdict: Verdict,
    samples: i64,
    message: String,
) -> GateStatus {
    GateStatus {
        samples,
        ..super::status::gate(gate, bound, verdict, message)
    }
}
