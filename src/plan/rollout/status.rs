//! Gates in words and numbers, as status shows them.

use crate::{
    api::gate::{Gate, GateStatus, Verdict},
    stats::sequential::Bound,
};

/// Four significant digits, and nothing below a millionth: what a person can use, and what doesn't change with every look.
pub(super) fn rounded(value: f64) -> f64 {
    if value.abs() < 1e-6 || !value.is_finite() {
        return if value.is_finite() { 0.0 } else { value };
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    if scale.is_finite() && scale > 0.0 {
        (value * scale).round() / scale
    } else {
        value
    }
}

/// A finite number rounded: status is JSON, which has no others.
pub(super) fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite()).map(rounded)
}

/// The bounds of a gate, in the order of its fields.
pub(super) fn bounds(gate: &Gate) -> impl Iterator<Item = Bound> + use<> {
    [
        gate.min.map(Bound::Min),
        gate.max.map(Bound::Max),
        gate.min_difference.map(Bound::MinDifference),
        gate.max_difference.map(Bound::MaxDifference),
        gate.min_ratio.map(Bound::MinRatio),
        gate.max_ratio.map(Bound::MaxRatio),
    ]
    .into_iter()
    .flatten()
}

/// A bound as the spec writes it.
pub(super) fn bound(bound: Bound) -> String {
    format!("{} {}", name(bound), bound.value())
}

fn name(bound: Bound) -> &'static str {
    match bound {
        Bound::Min(_) => "min",
        Bound::Max(_) => "max",
        Bound::MinDifference(_) => "minDifference",
        Bound::MaxDifference(_) => "maxDifference",
        Bound::MinRatio(_) => "minRatio",
        Bound::MaxRatio(_) => "maxRatio",
    }
}

/// What a bound is on, whatever its number: one interval holds for all numbers.
pub(super) fn quantity(gate: &Gate, bound: Bound) -> String {
    format!("{} {}", gate.metric, name(bound))
}

/// A gate's status without numbers.
pub(super) fn gate(gate: &Gate, of: Bound, verdict: Verdict, message: String) -> GateStatus {
    GateStatus {
        metric: gate.metric.clone(),
        bound: bound(of),
        verdict,
        message,
        ..GateStatus::default()
    }
}
