//! Gates of an Evaluation, judged on a run's metrics: pure, and the same for planner, report and command line.

use super::gate::{Gate, GateStatus, MetricValue, Verdict};

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
    let mut checks: Vec<(&str, f64, f64, bool)> = Vec::new();
    let mut add = |name, got: f64, bound: Option<f64>, at_least: bool| {
        if let Some(bound) = bound {
            checks.push((
                name,
                got,
                bound,
                if at_least { got >= bound } else { got <= bound },
            ));
        }
    };
    add("min", value, gate.min, true);
    add("max", value, gate.max, false);
    let compares = gate
        .min_difference
        .or(gate.max_difference)
        .or(gate.min_ratio)
        .or(gate.max_ratio)
        .is_some();
    if let Some(stable) = stable {
        add("minDifference", value - stable, gate.min_difference, true);
        add("maxDifference", value - stable, gate.max_difference, false);
        // A ratio to zero: equal is 1, more is beyond any bound.
        let ratio = if stable == 0.0 && value == 0.0 {
            1.0
        } else {
            value / stable
        };
        add("minRatio", ratio, gate.min_ratio, true);
        add("maxRatio", ratio, gate.max_ratio, false);
    }
    let failed = checks
        .iter()
        .find(|(_, got, _, within)| !within || got.is_nan());
    status.verdict = if failed.is_some() {
        Verdict::Failed
    } else {
        Verdict::Passed
    };
    status.message = match failed {
        Some((name, got, bound, _)) => format!(
            "{} = {} (stable {}): {name} asks for {}, got {}",
            gate.metric,
            short(value),
            stable.map_or_else(|| "none".to_owned(), short),
            short(*bound),
            short(*got)
        ),
        None if compares && stable.is_none() => format!(
            "{} = {}; nothing to compare with yet: there is no stable revision",
            gate.metric,
            short(value)
        ),
        None => match stable {
            Some(stable) => format!(
                "{} = {} (stable {})",
                gate.metric,
                short(value),
                short(stable)
            ),
            None => format!("{} = {}", gate.metric, short(value)),
        },
    };
    status
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
