//! Gates of an Evaluation, judged on a run's metrics: pure, and the same for planner, report and command line.

use super::gate::{Gate, GateStatus, MetricValue, Proof, Verdict};

/// Why a metric of two sides has no value where there is only one; its gates pass, as comparisons do then.
pub const NO_STABLE: &str = "there is no stable revision to compare with";

/// Judges one gate. Comparisons look at `stable.<metric>` of the same run, measured on the same rows.
pub fn judge(gate: &Gate, metrics: &[MetricValue]) -> GateStatus {
    let find = |name: &str| metrics.iter().find(|m| m.name == name);
    let mut status = GateStatus {
        metric: gate.metric.clone(),
        bound: bound_words(gate),
        ..GateStatus::default()
    };
    let Some(metric) = find(&gate.metric) else {
        let mut known: Vec<&str> = metrics
            .iter()
            .map(|m| m.name.as_str())
            .filter(|n| !n.contains('.'))
            .collect();
        known.sort_unstable();
        status.verdict = Verdict::Error;
        status.message = format!(
            "metric {} isn't among the results ({}): correct the gate, or add the evaluator that computes it",
            gate.metric,
            known.join(", ")
        );
        return status;
    };
    status.samples = metric.samples.unwrap_or_default();
    status.value = metric.value;
    status.lower = metric.lower;
    status.upper = metric.upper;
    if metric.inconclusive {
        status.verdict = Verdict::Inconclusive;
        let why = metric.message.as_deref().unwrap_or("it can't be told");
        status.message = format!("{} is inconclusive: {why}", gate.metric);
        return status;
    }
    if metric.value.is_none() && metric.message.as_deref() == Some(NO_STABLE) {
        status.verdict = Verdict::Passed;
        status.message = format!("{}: {NO_STABLE} yet", gate.metric);
        return status;
    }
    let Some(value) = metric.value.filter(|v| v.is_finite()) else {
        status.verdict = Verdict::Error;
        status.message = format!(
            "{} has no value: {}",
            gate.metric,
            metric
                .message
                .as_deref()
                .unwrap_or("it could not be computed on this data")
        );
        return status;
    };
    if let Some(least) = gate.min_samples.filter(|least| status.samples < *least) {
        status.verdict = Verdict::Inconclusive;
        status.message = format!(
            "{} samples of the {least} that minSamples asks for",
            status.samples
        );
        return status;
    }
    let stable = find(&format!("stable.{}", gate.metric))
        .and_then(|m| m.value)
        .filter(|v| v.is_finite());
    status.stable = stable;
    let difference = find(&format!("difference.{}", gate.metric));
    let ends = |metric: &MetricValue| metric.lower.zip(metric.upper);
    let own_ends = ends(metric);
    let difference_ends = difference.and_then(ends);
    let mut checks: Vec<Check> = Vec::new();
    let mut add = |name, got: f64, bound: Option<f64>, at_least: bool, ends| {
        checks.extend(bound.map(|bound| Check {
            name,
            got,
            bound,
            at_least,
            ends,
        }));
    };
    add("min", value, gate.min, true, own_ends);
    add("max", value, gate.max, false, own_ends);
    let compares = gate
        .min_difference
        .or(gate.max_difference)
        .or(gate.min_ratio)
        .or(gate.max_ratio)
        .is_some();
    if let Some(stable) = stable {
        let got = value - stable;
        let ends = difference_ends;
        add("minDifference", got, gate.min_difference, true, ends);
        add("maxDifference", got, gate.max_difference, false, ends);
        // A ratio to zero: equal is 1, more is beyond any bound.
        let ratio = if stable == 0.0 && value == 0.0 {
            1.0
        } else {
            value / stable
        };
        add("minRatio", ratio, gate.min_ratio, true, None);
        add("maxRatio", ratio, gate.max_ratio, false, None);
    }
    let of = |verdict: Verdict| checks.iter().find(|c| c.verdict(gate.proof) == verdict);
    let words = |value: f64| {
        let stable = match stable {
            Some(stable) => format!(" (stable {})", short(stable)),
            None if compares => " (stable none)".to_owned(),
            None => String::new(),
        };
        format!("{} = {}{stable}", gate.metric, short(value))
    };
    if let Some(failed) = of(Verdict::Failed) {
        status.verdict = Verdict::Failed;
        status.message = format!(
            "{}: {} asks for {}, got {}{}",
            words(value),
            failed.name,
            short(failed.bound),
            short(failed.got),
            failed.interval(gate.proof)
        );
        return status;
    }
    if let Some(open) = of(Verdict::Inconclusive) {
        status.verdict = Verdict::Inconclusive;
        let why = match open.ends {
            Some(_) => format!("the interval{} lies on both sides", open.interval(gate.proof)),
            None => "it has no interval, which proof needs: bound a value or a difference, of more rows or days".to_owned(),
        };
        status.message = format!(
            "{}: {} asks for {}, got {}, and {why}",
            words(value),
            open.name,
            short(open.bound),
            short(open.got)
        );
        return status;
    }
    status.verdict = Verdict::Passed;
    status.message = match stable {
        None if compares => format!(
            "{} = {}; nothing to compare with yet: there is no stable revision",
            gate.metric,
            short(value)
        ),
        Some(_) => words(value),
        None => format!("{} = {}", gate.metric, short(value)),
    };
    status
}

/// One bound on one number.
struct Check {
    name: &'static str,
    got: f64,
    bound: f64,
    at_least: bool,
    /// 95 % interval of what is bounded.
    ends: Option<(f64, f64)>,
}

impl Check {
    fn within(&self, x: f64) -> bool {
        match self.at_least {
            true => x >= self.bound,
            false => x <= self.bound,
        }
    }

    /// Without `proof` the value decides; with it the interval, where it lies on one side of the bound.
    fn verdict(&self, proof: Option<Proof>) -> Verdict {
        let Some(proof) = proof else {
            return match self.within(self.got) {
                true => Verdict::Passed,
                false => Verdict::Failed,
            };
        };
        let Some((lower, upper)) = self.ends else {
            return Verdict::Inconclusive;
        };
        match (self.within(lower), self.within(upper), proof) {
            (true, true, _) => Verdict::Passed,
            (false, false, _) => Verdict::Failed,
            (_, _, Proof::Harm) => Verdict::Passed,
            (_, _, Proof::Safety) => Verdict::Inconclusive,
        }
    }

    fn interval(&self, proof: Option<Proof>) -> String {
        match self.ends.filter(|_| proof.is_some()) {
            Some((lower, upper)) => format!(" [{}, {}]", short(lower), short(upper)),
            None => String::new(),
        }
    }
}

/// The verdict of a run: the worst of its gates; with none, it passes as a mere measurement.
pub fn verdict(gates: &[GateStatus]) -> Verdict {
    let any = |verdict| gates.iter().any(|g| g.verdict == verdict);
    [Verdict::Failed, Verdict::Error, Verdict::Inconclusive]
        .into_iter()
        .find(|v| any(*v))
        .unwrap_or(Verdict::Passed)
}

/// The bound in words: `min 0.58`, `maxDifference 0.01`.
pub fn bound_words(gate: &Gate) -> String {
    [
        ("min", gate.min),
        ("max", gate.max),
        ("minDifference", gate.min_difference),
        ("maxDifference", gate.max_difference),
        ("minRatio", gate.min_ratio),
        ("maxRatio", gate.max_ratio),
    ]
    .into_iter()
    .filter_map(|(name, bound)| bound.map(|b| format!("{name} {b}")))
    .collect::<Vec<_>>()
    .join(", ")
}

/// Four significant digits.
pub fn short(value: f64) -> String {
    let digits = if value == 0.0 || !value.is_finite() {
        4
    } else {
        (3 - value.abs().log10().floor() as i32).clamp(0, 8)
    };
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(4));
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Vec<MetricValue> {
        let metric = |name: &str, value: f64| MetricValue {
            name: name.to_owned(),
            value: Some(value),
            samples: Some(1000),
            ..MetricValue::default()
        };
        vec![
            metric("rocAuc", 0.7),
            metric("logLoss", 0.58),
            metric("stable.logLoss", 0.55),
            metric("nan", f64::NAN),
            MetricValue {
                inconclusive: true,
                message: Some("JudgeNotCalibrated".to_owned()),
                ..metric("groundedness", 0.9)
            },
            MetricValue {
                value: None,
                message: Some(NO_STABLE.to_owned()),
                ..metric("preference", 0.0)
            },
        ]
    }

    #[test]
    fn gates_are_judged_on_value_difference_and_ratio() {
        let gate = |metric: &str| Gate {
            metric: metric.to_owned(),
            ..Gate::default()
        };
        let table = [
            (
                "above min passes",
                Gate {
                    min: Some(0.58),
                    ..gate("rocAuc")
                },
                Verdict::Passed,
            ),
            (
                "below min fails",
                Gate {
                    min: Some(0.75),
                    ..gate("rocAuc")
                },
                Verdict::Failed,
            ),
            (
                "on the bound passes",
                Gate {
                    min: Some(0.7),
                    ..gate("rocAuc")
                },
                Verdict::Passed,
            ),
            (
                "above max fails",
                Gate {
                    max: Some(0.5),
                    ..gate("logLoss")
                },
                Verdict::Failed,
            ),
            (
                "worse than stable by more fails",
                Gate {
                    max_difference: Some(0.01),
                    ..gate("logLoss")
                },
                Verdict::Failed,
            ),
            (
                "worse than stable by less passes",
                Gate {
                    max_difference: Some(0.05),
                    ..gate("logLoss")
                },
                Verdict::Passed,
            ),
            (
                "a ratio counts",
                Gate {
                    max_ratio: Some(1.01),
                    ..gate("logLoss")
                },
                Verdict::Failed,
            ),
            (
                "with no stable a comparison passes",
                Gate {
                    min_difference: Some(0.0),
                    ..gate("rocAuc")
                },
                Verdict::Passed,
            ),
            (
                "too few samples say nothing",
                Gate {
                    min: Some(0.5),
                    min_samples: Some(1001),
                    ..gate("rocAuc")
                },
                Verdict::Inconclusive,
            ),
            (
                "what nobody can trust says nothing, whatever its value",
                Gate {
                    min: Some(0.5),
                    ..gate("groundedness")
                },
                Verdict::Inconclusive,
            ),
            (
                "with no stable there is nothing to prefer",
                Gate {
                    min: Some(0.5),
                    ..gate("preference")
                },
                Verdict::Passed,
            ),
            (
                "an unknown metric is an error",
                Gate {
                    min: Some(0.5),
                    ..gate("f2")
                },
                Verdict::Error,
            ),
            (
                "NaN is an error, never a pass",
                Gate {
                    max: Some(0.5),
                    ..gate("nan")
                },
                Verdict::Error,
            ),
        ];
        for (what, gate, expected) in table {
            let status = judge(&gate, &metrics());
            assert_eq!(status.verdict, expected, "{what}: {}", status.message);
            assert!(!status.message.is_empty());
        }
    }

    #[test]
    fn proof_is_by_the_interval_and_without_one_there_is_none() {
        let metric = |name: &str, value: f64, ends: Option<(f64, f64)>| MetricValue {
            name: name.to_owned(),
            value: Some(value),
            lower: ends.map(|e| e.0),
            upper: ends.map(|e| e.1),
            samples: Some(100),
            ..MetricValue::default()
        };
        let metrics = [
            metric("f1", 0.8, Some((0.7, 0.9))),
            metric("stable.f1", 0.82, Some((0.72, 0.92))),
            metric("difference.f1", -0.02, Some((-0.05, 0.01))),
            metric("bleu", 30.0, None),
        ];
        use Verdict::{Failed, Inconclusive, Passed};
        for (bound, by_value, by_harm, by_safety) in [
            ((Some(0.6), None), Passed, Passed, Passed),
            ((Some(0.75), None), Passed, Passed, Inconclusive),
            ((Some(0.85), None), Failed, Passed, Inconclusive),
            ((Some(0.95), None), Failed, Failed, Failed),
            ((None, Some(-0.06)), Passed, Passed, Passed),
            ((None, Some(-0.01)), Failed, Passed, Inconclusive),
            ((None, Some(0.02)), Failed, Failed, Failed),
        ] {
            for (proof, verdict) in [
                (None, by_value),
                (Some(Proof::Harm), by_harm),
                (Some(Proof::Safety), by_safety),
            ] {
                let gate = Gate {
                    metric: "f1".to_owned(),
                    min: bound.0,
                    min_difference: bound.1,
                    proof,
                    ..Gate::default()
                };
                let status = judge(&gate, &metrics);
                assert_eq!(
                    status.verdict, verdict,
                    "{bound:?} {proof:?}: {}",
                    status.message
                );
            }
        }
        for gate in [
            Gate {
                metric: "bleu".to_owned(),
                min: Some(20.0),
                proof: Some(Proof::Harm),
                ..Gate::default()
            },
            Gate {
                metric: "f1".to_owned(),
                max_ratio: Some(2.0),
                proof: Some(Proof::Harm),
                ..Gate::default()
            },
        ] {
            let status = judge(&gate, &metrics);
            assert_eq!(status.verdict, Inconclusive);
            assert!(status.message.contains("no interval"), "{}", status.message);
        }
    }

    #[test]
    fn the_worst_gate_is_the_verdict() {
        let gates = |verdicts: &[Verdict]| {
            verdicts
                .iter()
                .map(|v| GateStatus {
                    verdict: *v,
                    ..GateStatus::default()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(verdict(&gates(&[])), Verdict::Passed);
        assert_eq!(
            verdict(&gates(&[Verdict::Passed, Verdict::Inconclusive])),
            Verdict::Inconclusive
        );
        assert_eq!(
            verdict(&gates(&[Verdict::Error, Verdict::Failed])),
            Verdict::Failed
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.58, "0.58"),
            (0.123_456, "0.1235"),
            (1234.5, "1234"),
            (0.000_012, "0.000012"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
