//! What Evaluations say of a candidate, under the key {release UID, revision, attempt, generation}.

use super::{
    Input,
    gates::Sides,
    status::{finite, rounded},
};
use crate::{
    api::{
        evaluation::EvaluationRun,
        gate::{Gate, GateStatus, MetricValue, Proof, Verdict},
        rollout::{BrokenBound, EvaluationGate, RolloutSpec, RolloutState, RolloutStatus, Step},
    },
    stats::sequential::{self, Bound},
};

/// The number (from 1) of the first step that names this Evaluation, if the rollout hasn't come to it yet.
pub fn step_to_come(rollout: &RolloutStatus, name: &str) -> Option<usize> {
    let at = rollout.steps.iter().position(|step| names(step, name))?;
    (at >= reached(rollout)).then_some(at + 1)
}

/// Whether a step of the rollout names this Evaluation.
pub fn is_in_steps(rollout: &RolloutStatus, name: &str) -> bool {
    rollout.steps.iter().any(|step| names(step, name))
}

fn names(step: &Step, name: &str) -> bool {
    let evaluate = step.evaluate.as_ref();
    evaluate.is_some_and(|e| e.names.iter().any(|n| n == name))
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
            (Some(number), stable) => {
                // Stable's run is this one, so its difference is to stable.
                let difference = value(&format!("difference.{metric}"));
                let ends = match bound {
                    Bound::Min(_) | Bound::Max(_) => ends(own),
                    Bound::MinDifference(_) | Bound::MaxDifference(_) => difference.and_then(ends),
                    Bound::MinRatio(_) | Bound::MaxRatio(_) => None,
                };
                compare(gate, bound, (number, stable), samples, ends)
            }
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

/// Both ends of the interval of a metric, if it has one.
fn ends(metric: &MetricValue) -> Option<(f64, f64)> {
    let ends = metric.lower.zip(metric.upper)?;
    (ends.0.is_finite() && ends.1.is_finite()).then_some(ends)
}

/// Without `proof` the value decides; with it the interval, as in the Evaluation's own gates.
fn compare(
    gate: &Gate,
    bound: Bound,
    (value, stable): (f64, Option<f64>),
    samples: i64,
    ends: Option<(f64, f64)>,
) -> GateStatus {
    let bounded = match (bound, stable) {
        (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => value - stable,
        (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => value / stable,
        _ => value,
    };
    let few = gate.min_samples.is_some_and(|min| samples < min) || !bounded.is_finite();
    let ends = ends.filter(|_| gate.proof.is_some());
    let (low, high) = ends.map_or((None, None), |(low, high)| (Some(low), Some(high)));
    let (verdict, said) = match (gate.proof, ends) {
        _ if few => (Verdict::Inconclusive, "can't be judged by"),
        (None, _) => match sequential::judge(bound, Some(bounded), Some(bounded)) {
            sequential::Verdict::Passed => (Verdict::Passed, "is within"),
            sequential::Verdict::Failed => (Verdict::Failed, "is beyond"),
            sequential::Verdict::Inconclusive => (Verdict::Inconclusive, "can't be judged by"),
        },
        (Some(_), None) => (
            Verdict::Inconclusive,
            "has no interval, which proof needs, to be judged by",
        ),
        (Some(proof), Some(_)) => match (sequential::judge(bound, low, high), proof) {
            (sequential::Verdict::Passed, _) => (Verdict::Passed, "is proven to be within"),
            (sequential::Verdict::Failed, _) => (Verdict::Failed, "is proven to be beyond"),
            (_, Proof::Harm) => (Verdict::Passed, "isn't proven to be beyond"),
            (_, Proof::Safety) => (Verdict::Inconclusive, "isn't proven to be within"),
        },
    };
    let words = super::status::bound(bound);
    let against = match (bound.compares(), stable) {
        (true, Some(stable)) => format!(" against stable's {}", rounded(stable)),
        _ => String::new(),
    };
    let interval = match ends {
        Some((low, high)) => format!(": {} to {}", rounded(low), rounded(high)),
        None => String::new(),
    };
    let message = format!(
        "{} {}{against} {said} {words}{interval} ({samples} rows)",
        gate.metric,
        rounded(value)
    );
    GateStatus {
        value: finite(Some(value)),
        stable: finite(stable),
        lower: finite(low),
        upper: finite(high),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::plan::rollout::EvaluationView;

    /// What a gate says of a run that measured 0.80 for the candidate and 0.79 for stable, with these intervals.
    fn said(gate: serde_json::Value, own: (f64, f64), difference: (f64, f64)) -> Verdict {
        let gate: Gate = serde_json::from_value(gate).unwrap();
        let run: EvaluationRun = serde_json::from_value(json!({
            "number": 1, "target": "t", "release": "uid", "revision": "new", "attempt": 1, "generation": 1,
            "baseline": "old", "verdict": "Passed",
            "metrics": [
                {"name": "rocAuc", "value": 0.80, "samples": 100, "lower": own.0, "upper": own.1},
                {"name": "stable.rocAuc", "value": 0.79},
                {"name": "difference.rocAuc", "value": 0.01, "lower": difference.0, "upper": difference.1},
            ],
        }))
        .unwrap();
        let view = EvaluationView {
            generation: 1,
            runs: vec![run],
        };
        let input = Input {
            uid: "uid".into(),
            evaluations: BTreeMap::from([("quality".to_owned(), view)]),
            ..Input::default()
        };
        let sides = Sides {
            candidate: "new",
            attempt: 1,
            stable: Some("old"),
            from: None,
            skipped: &[],
            cold: None,
            epoch: 1,
            live: false,
            mirrored: false,
            evaluated: true,
            baking: false,
            seconds: None,
            window: None,
        };
        let bound = super::super::status::bounds(&gate).next().unwrap();
        let status = judge(&input, sides, &gate, bound, &[("quality", "rocAuc")]);
        let ends = match bound.compares() {
            true => difference,
            false => own,
        };
        let shown = (status.lower, status.upper);
        let ratio = matches!(bound, Bound::MinRatio(_));
        let expected = (Some(ends.0), Some(ends.1));
        assert_eq!(
            shown == expected,
            gate.proof.is_some() && !ratio,
            "{status:?}"
        );
        status.verdict
    }

    #[test]
    fn with_proof_the_interval_decides_and_without_it_the_value() {
        let narrow = ((0.78, 0.82), (0.002, 0.018));
        let wide = ((0.60, 0.95), (-0.15, 0.17));
        let (passed, failed, open) = (Verdict::Passed, Verdict::Failed, Verdict::Inconclusive);
        for (bound, value, none, of_narrow, of_wide) in [
            // Bound, without proof, then Harm and Safety by the narrow interval, and by the wide one.
            ("min", 0.75, passed, (passed, passed), (passed, open)),
            ("min", 0.81, failed, (passed, open), (passed, open)),
            ("min", 0.83, failed, (failed, failed), (passed, open)),
            ("max", 0.85, passed, (passed, passed), (passed, open)),
            (
                "minDifference",
                0.0,
                passed,
                (passed, passed),
                (passed, open),
            ),
            (
                "minDifference",
                0.015,
                failed,
                (passed, open),
                (passed, open),
            ),
            (
                "maxDifference",
                -0.01,
                failed,
                (failed, failed),
                (passed, open),
            ),
            // A ratio has no interval, so nothing is ever proven of it.
            ("minRatio", 0.9, passed, (open, open), (open, open)),
        ] {
            let with = |proof: Option<&str>, ends: ((f64, f64), (f64, f64))| {
                said(
                    json!({"metric": "rocAuc", bound: value, "proof": proof}),
                    ends.0,
                    ends.1,
                )
            };
            let both = |ends| (with(Some("Harm"), ends), with(Some("Safety"), ends));
            assert_eq!(with(None, narrow), none, "{bound} {value}");
            assert_eq!(both(narrow), of_narrow, "{bound} {value}, narrow");
            assert_eq!(both(wide), of_wide, "{bound} {value}, wide");
        }
    }
}
