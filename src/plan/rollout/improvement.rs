//! `retraining.requireImprovement`: the version of a retraining must be better than stable, on the same rows, by more than chance.
//!
//! The Evaluation's run has `difference.<metric>`: candidate minus stable with a 95 % interval, drawn from the same rows for both (paired
//! bootstrap). The lower end of the improvement must be above 0.

use super::{
    Input, evaluated,
    gates::Sides,
    status::{finite, rounded},
};
use crate::{
    api::gate::{GateStatus, Verdict},
    stats::performance::more_is_better,
};

/// What the gate's bound is called.
const BOUND: &str = "improvement above 0";

/// The gate, where the candidate is a version that a retraining made.
pub(super) fn judge(input: &Input, sides: Sides) -> Option<GateStatus> {
    let wanted = input.improvement.as_ref()?;
    let version = |revision: &str| input.revisions.get(revision)?.version.as_deref();
    let candidate = version(sides.candidate)?;
    let is_retrained = wanted.versions.iter().any(|v| v == candidate);
    // The same model under another template is no better than itself.
    let is_same = version(sides.stable?) == Some(candidate);
    if !is_retrained || is_same || !sides.evaluated {
        return None;
    }
    let metric = &wanted.metric;
    let sources = evaluated::sources(input, metric);
    let mut waiting = None;
    for (name, metric) in sources {
        match measured(input, sides, name, metric) {
            Ok(status) => return Some(status),
            Err((verdict, message)) => {
                waiting.get_or_insert((verdict, message));
            }
        }
    }
    let (verdict, message) = waiting.unwrap_or((
        Verdict::Error,
        format!(
            "no Evaluation in rollout.evaluations measures {metric} (retraining.requireImprovement)"
        ),
    ));
    Some(status(metric, verdict, message))
}

/// What one Evaluation says of it, or why it says nothing.
fn measured(
    input: &Input,
    sides: Sides,
    name: &str,
    metric: &str,
) -> Result<GateStatus, (Verdict, String)> {
    let Some(run) = evaluated::run(input, sides, name) else {
        let message = format!("Evaluation {name} has not begun to measure this candidate");
        return Err((Verdict::Pending, message));
    };
    if !run.verdict.is_final() {
        let message = format!("Evaluation {name} is measuring");
        return Err((Verdict::Running, message));
    }
    let value = |metric: &str| run.metrics.iter().find(|m| m.name == metric);
    let Some(own) = value(metric) else {
        let message = format!("Evaluation {name} has no metric `{metric}`");
        return Err((Verdict::Error, message));
    };
    let stable = value(&format!("stable.{metric}")).and_then(|m| m.value);
    let difference = value(&format!("difference.{metric}"));
    let interval = difference.and_then(|d| Some((d.lower?, d.upper?)));
    let Some((lower, upper)) = interval.filter(|_| run.baseline.as_deref() == sides.stable) else {
        let message = format!(
            "whether {metric} is better than stable's can't be said: Evaluation {name} has no interval of the difference on the same rows (too few rows or days, or stable wasn't measured beside it)"
        );
        return Ok(status(metric, Verdict::Inconclusive, message));
    };
    let Some(more) = more_is_better(metric) else {
        let message = format!("it isn't known whether more or less of {metric} is better");
        return Ok(status(metric, Verdict::Error, message));
    };
    let (lower, upper) = match more {
        true => (lower, upper),
        false => (-upper, -lower),
    };
    let verdict = if lower > 0.0 {
        Verdict::Passed
    } else {
        Verdict::Failed
    };
    let samples = own.samples.unwrap_or_default();
    let said = match verdict {
        Verdict::Passed => "better",
        _ => "not shown to be better",
    };
    let message = format!(
        "{metric} {} is {said} than stable's {} on the same {samples} rows: better by {} to {} (95 %)",
        rounded(own.value.unwrap_or(f64::NAN)),
        rounded(stable.unwrap_or(f64::NAN)),
        rounded(lower),
        rounded(upper),
    );
    Ok(GateStatus {
        value: finite(own.value),
        stable: finite(stable),
        lower: finite(Some(lower)),
        upper: finite(Some(upper)),
        samples,
        ..status(metric, verdict, message)
    })
}

fn status(metric: &str, verdict: Verdict, message: String) -> GateStatus {
    GateStatus {
        metric: metric.to_owned(),
        bound: BOUND.to_owned(),
        verdict,
        message,
        ..GateStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::plan::rollout::{EvaluationView, Improvement, Revision};

    fn sides(evaluated: bool) -> Sides<'static> {
        Sides {
            candidate: "new",
            attempt: 2,
            stable: Some("old"),
            from: None,
            skipped: &[],
            cold: None,
            mirrored: false,
            epoch: 1,
            live: false,
            evaluated,
            baking: false,
            seconds: None,
            window: None,
        }
    }

    fn input(metric: &str, metrics: Value, baseline: &str) -> Input {
        let revision = |version: &str| Revision {
            version: Some(version.to_owned()),
            ..Revision::default()
        };
        let run = json!({
            "number": 1, "target": "t", "release": "uid", "revision": "new", "attempt": 2, "generation": 1,
            "baseline": baseline, "verdict": "Passed", "metrics": metrics,
        });
        let mut input = Input {
            uid: "uid".to_owned(),
            improvement: Some(Improvement {
                metric: metric.to_owned(),
                versions: vec!["v2".to_owned()],
            }),
            revisions: BTreeMap::from([
                ("old".to_owned(), revision("v1")),
                ("new".to_owned(), revision("v2")),
            ]),
            evaluations: BTreeMap::from([(
                "quality".to_owned(),
                EvaluationView {
                    generation: 1,
                    runs: vec![serde_json::from_value(run).unwrap()],
                },
            )]),
            ..Input::default()
        };
        input.rollout.evaluations = vec!["quality".to_owned()];
        input
    }

    fn of(metric: &str, lower: Option<f64>, upper: Option<f64>, baseline: &str) -> Verdict {
        let metrics = json!([
            {"name": metric, "value": 0.7, "samples": 2000},
            {"name": format!("stable.{metric}"), "value": 0.69},
            {"name": format!("difference.{metric}"), "value": 0.01, "lower": lower, "upper": upper},
        ]);
        let input = input(metric, metrics, baseline);
        judge(&input, sides(true)).expect("a gate").verdict
    }

    #[test]
    fn only_what_is_better_by_more_than_chance_passes_and_the_direction_is_the_metrics() {
        for (metric, lower, upper, baseline, expected) in [
            ("rocAuc", Some(0.002), Some(0.02), "old", Verdict::Passed),
            ("rocAuc", Some(-0.002), Some(0.02), "old", Verdict::Failed),
            ("rocAuc", Some(0.0), Some(0.02), "old", Verdict::Failed),
            ("rocAuc", Some(-0.02), Some(-0.01), "old", Verdict::Failed),
            ("logLoss", Some(-0.02), Some(-0.002), "old", Verdict::Passed),
            ("logLoss", Some(-0.02), Some(0.002), "old", Verdict::Failed),
            ("logLoss", Some(0.002), Some(0.02), "old", Verdict::Failed),
            ("rocAuc", None, None, "old", Verdict::Inconclusive),
            (
                "rocAuc",
                Some(0.002),
                Some(0.02),
                "before",
                Verdict::Inconclusive,
            ),
            ("meanError", Some(0.002), Some(0.02), "old", Verdict::Error),
        ] {
            let verdict = of(metric, lower, upper, baseline);
            assert_eq!(verdict, expected, "{metric} {lower:?} {upper:?} {baseline}");
        }
    }

    #[test]
    fn nobody_else_is_asked_to_be_better() {
        let mut other = input("rocAuc", json!([]), "old");
        assert_eq!(judge(&other, sides(true)).unwrap().verdict, Verdict::Error);
        assert_eq!(judge(&other, sides(false)), None, "a way back");
        if let Some(improvement) = &mut other.improvement {
            improvement.versions = vec!["v0".to_owned()];
        }
        assert_eq!(
            judge(&other, sides(true)),
            None,
            "somebody trained it by hand"
        );
        let mut same = input("rocAuc", json!([]), "old");
        same.revisions.get_mut("old").unwrap().version = Some("v2".to_owned());
        assert_eq!(judge(&same, sides(true)), None, "the same model again");
    }
}
